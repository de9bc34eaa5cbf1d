"""Averages gradients over ranks at the outermost ``Optimizer.apply``: before clipping, decay, EMA, loss scaling.

The average is weighted with each rank's share of the global batch, so uneven shards are exact and a rank
without samples contributes nothing. All dense gradients of a step travel in one call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import tensorflow as tf
from keras.src.optimizers.base_optimizer import BaseOptimizer
from keras.src.optimizers.loss_scale_optimizer import LossScaleOptimizer

from obl_magic.worker.collectives import Collectives
from obl_magic.worker.keras import scope as scopes
from obl_magic.worker.keras.patching import Patches


class GradientReducer:
    """Replaces ``apply`` on Keras' optimizer classes.

    Args:
        world: the collectives.
        before: called with (optimizer, variables) before gradients are reduced, e.g. to broadcast state.
    """

    def __init__(self, world: Collectives, before: Callable[[Any, Sequence[Any]], None]) -> None:
        self._world = world
        self._before = before
        self._inside = False
        self.applied = 0

    def install(self, patches: Patches) -> None:
        """Replaces ``apply`` of the base optimizer and of the loss-scaling wrapper."""
        for owner in (BaseOptimizer, LossScaleOptimizer):
            patches.replace(owner, "apply", self._make)

    def _make(self, original: Any) -> Any:
        def apply(optimizer: Any, grads: Sequence[Any], trainable_variables: Any = None) -> Any:
            grads = list(grads)
            if self._inside or not grads:
                return original(optimizer, grads, trainable_variables)
            variables = (
                optimizer._trainable_variables if trainable_variables is None else list(trainable_variables)
            )
            self._before(optimizer, variables)
            self.applied += 1
            with self._outermost():
                return original(
                    optimizer, self.reduce(grads), None if trainable_variables is None else variables
                )

        return apply

    @contextmanager
    def _outermost(self) -> Iterator[None]:
        self._inside = True
        try:
            yield
        finally:
            self._inside = False

    def reduce(self, grads: Sequence[Any]) -> list[Any]:
        """The weighted average over ranks of dense and sparse gradients; None stays None."""
        scope = scopes.current()
        weight = scope.weight if scope else tf.constant(1.0 / self._world.size)
        dense = [i for i, g in enumerate(grads) if g is not None and not isinstance(g, tf.IndexedSlices)]
        out: list[Any] = [self._sparse(g, weight) if isinstance(g, tf.IndexedSlices) else None for g in grads]
        summed = self._world.allreduce([_weighted(grads[i], weight) for i in dense])
        for i, gradient in zip(dense, summed, strict=True):
            out[i] = gradient
        return out

    def _sparse(self, slices: Any, weight: Any) -> Any:
        return tf.IndexedSlices(
            values=self._world.allgather(_weighted(slices.values, weight)),
            indices=self._world.allgather(slices.indices),
            dense_shape=slices.dense_shape,
        )


def _weighted(gradient: Any, weight: Any) -> Any:
    gradient = tf.convert_to_tensor(gradient)
    return tf.math.multiply_no_nan(gradient, tf.cast(weight, gradient.dtype))
