"""What a call of a layer may change: variables that are not trained, and random generators."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common import global_state
from tensorflow.python.eager import context as eager

from obl_magic.library_settings.generators import GLOBAL_SEED_GENERATOR
from obl_magic.worker.frameworks.keras.alike import alike


@dataclass(frozen=True, slots=True)
class State:
    """What a call may change: variables that are not trained, and random generators.

    Attributes:
        variables: (variable, value) of each.
        generator: Keras' global one, or None where there is none yet.
        python: states of their generators.
        numpy: states of their generators.
        tensorflow: states of their generators.
    """

    variables: list[tuple[Any, Any]]
    generator: Any
    python: Any
    numpy: Any
    tensorflow: Any

    @classmethod
    def of(cls, layer: Any) -> State:
        """As it is now."""
        generator = global_state.get_global_attribute(GLOBAL_SEED_GENERATOR)
        drawn = [] if generator is None else [generator.state]
        found = {id(v): v for v in [*_changeable(layer), *drawn]}
        return cls(
            [(v, tf.identity(v.value if hasattr(v, "path") else v)) for v in found.values()],
            generator,
            random.getstate(),
            np.random.get_state(),
            eager.context()._rng.getstate() if eager.context()._rng is not None else None,
        )

    def restore(self, layer: Any) -> None:
        """Puts everything back."""
        for variable, value in self.variables:
            variable.assign(value)
        global_state.set_global_attribute(GLOBAL_SEED_GENERATOR, self.generator)
        random.setstate(self.python)
        np.random.set_state(self.numpy)
        if self.tensorflow is not None:
            eager.context()._rng.setstate(self.tensorflow)

    def alike(self, other: State) -> bool:
        """Whether another state of the same variables is the same up to rounding."""
        if len(self.variables) != len(other.variables):
            return False
        pairs = zip(self.variables, other.variables, strict=True)
        return all((a is b or self.generator is None) and alike(x, y) for (a, y), (b, x) in pairs)


def _changeable(layer: Any) -> list[Any]:
    trained = {id(v) for v in layer.trainable_variables}
    raw = [v for one in layer._flatten_layers() for v in _variables_in(list(vars(one).values()))]
    held = [*layer.variables, *layer.metrics_variables]
    return [*(v for v in held if id(v) not in trained), *raw]


def _variables_in(value: Any) -> Iterator[Any]:
    """Variables that a layer holds and Keras need not track, such as the state of a recurrent layer."""
    if isinstance(value, (tf.Variable, keras.Variable)):
        yield value
    elif isinstance(value, (list, tuple, dict)):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _variables_in(inner)
