"""Which gradients of a verification were noise.

A variable without a true gradient (the bias of a convolution before batch normalization) is given what rounding leaves
of one, which differs between machines and numbers of ranks. Adam and its kin divide by its size, and so move the
variable at full speed: such elements say nothing about parity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from keras.src.optimizers.base_optimizer import BaseOptimizer

from obl_magic.worker.patching import Patches

ROUNDING = 256
"""A gradient is noise below so many times the precision of its type, of the largest gradient of the model."""


class Gradients:
    """The largest gradient that each element of each variable was ever given."""

    def __init__(self) -> None:
        self._largest: dict[int, tuple[Any, tf.Variable]] = {}

    def install(self, patches: Patches) -> None:
        """Looks where an optimizer applies gradients; must come before whoever adds them up over ranks."""
        patches.replace(BaseOptimizer, "apply", self._make)

    def _make(self, original: Any) -> Any:
        def apply(optimizer: Any, grads: Sequence[Any], trainable_variables: Any = None) -> Any:
            grads = list(grads)
            asked = optimizer._trainable_variables if trainable_variables is None else trainable_variables
            variables = list(asked)
            for gradient, variable in zip(grads, variables, strict=False):
                if gradient is not None:
                    self._seen(gradient, variable)
            return original(optimizer, grads, None if trainable_variables is None else variables)

        return apply

    def _seen(self, gradient: Any, variable: Any) -> None:
        with tf.init_scope():
            if id(variable) not in self._largest:
                self._largest[id(variable)] = variable, tf.Variable(tf.zeros(variable.shape), trainable=False)
        largest = self._largest[id(variable)][1]
        size = tf.cast(tf.abs(tf.convert_to_tensor(gradient)), tf.float32)
        largest.assign(tf.maximum(largest, size))

    def noise(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Which elements of these variables never had a gradient above rounding.

        Args:
            variables: by path.

        Returns:
            By path arrays of bool; a variable that has no such element, or was given no gradient, is left out.
        """
        kept = {key: largest.numpy() for key, (_, largest) in self._largest.items()}
        most = max((float(np.max(each, initial=0.0)) for each in kept.values()), default=0.0)
        found = {}
        for path, variable in variables.items():
            if id(variable) not in kept or not (dtype := tf.as_dtype(variable.dtype)).is_floating:
                continue
            rounded = kept[id(variable)] <= ROUNDING * np.finfo(dtype.as_numpy_dtype).eps * most
            if rounded.any():
                found[path] = rounded
        return found
