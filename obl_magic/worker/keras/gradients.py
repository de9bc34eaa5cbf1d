"""Averages gradients over ranks at the outermost ``Optimizer.apply``: before clipping, decay, EMA, loss scaling.

The average is weighted with each rank's share of the global batch, so uneven shards are exact and a rank
without samples contributes nothing. All dense gradients of a step travel in one call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf
from keras.src.optimizers.base_optimizer import BaseOptimizer
from keras.src.optimizers.loss_scale_optimizer import LossScaleOptimizer
from tensorflow.python import pywrap_tfe

from obl_magic.worker.collectives import Collectives
from obl_magic.worker.keras import scope as scopes
from obl_magic.worker.keras.patching import Patches
from obl_magic.worker.keras.waiting import WaitClock


class GradientReducer:
    """Replaces ``apply`` on Keras' optimizer classes.

    Args:
        world: the collectives.
        before: called with (optimizer, variables) before gradients are reduced, e.g. to broadcast state.
    """

    def __init__(self, world: Collectives, before: Callable[[Any, Sequence[Any]], None]) -> None:
        self._world, self._before = world, before
        self._inside = False
        self._accumulates = False
        self._reduced: set[int] = set()
        self.clock = WaitClock()
        self.applied = 0

    def install(self, patches: Patches) -> None:
        """Replaces ``apply`` of the base optimizer and of the loss-scaling wrapper."""
        for owner in (BaseOptimizer, LossScaleOptimizer):
            patches.replace(owner, "apply", self._make)
        patches.replace(BaseOptimizer, "_clip_gradients", self._when_accumulated)
        patches.replace(tf.GradientTape, "gradient", self._taped)

    def applying(self) -> bool:
        """Whether an optimizer is applying gradients right now."""
        return self._inside

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
            accumulates = bool(optimizer.gradient_accumulation_steps)
            if self._are_reduced(variables):
                ready, accumulates = grads, False
            else:
                ready = self._shares(grads) if accumulates else self.reduce(grads)
            with self._outermost(accumulates):
                return original(optimizer, ready, None if trainable_variables is None else variables)

        return apply

    def _taped(self, original: Any) -> Any:
        """In a user's own step, gradients of variables are reduced as they leave the tape.

        What the code does with them then (clipping by hand, norms, sums of several) is the same on every rank. Under
        an outer tape they are left alone, for they are to be differentiated again, and reduced when they are applied.
        """

        def gradient(tape: Any, target: Any, sources: Any, *args: Any, **kwargs: Any) -> Any:
            found = original(tape, target, sources, *args, **kwargs)
            scope = scopes.current()
            flat = tf.nest.flatten(sources)
            if scope is None or not scope.by_user or not pywrap_tfe.TFE_Py_TapeSetIsEmpty():
                return found
            if not flat or not all(_is_variable(source) for source in flat):
                return found
            self._before(None, flat)
            self._reduced.update(_identity(source) for source in flat)
            return tf.nest.pack_sequence_as(sources, self.reduce(tf.nest.flatten(found)))

        return gradient

    def _are_reduced(self, variables: Sequence[Any]) -> bool:
        """Whether the gradients of these variables were reduced as they left a tape; forgets it."""
        keys = {_identity(variable) for variable in variables}
        if not keys or not keys <= self._reduced:
            return False
        self._reduced -= keys
        return True

    def _when_accumulated(self, original: Any) -> Any:
        """An optimizer that accumulates gradients sums its ranks' shares once per applied step, before clipping."""

        def _clip_gradients(optimizer: Any, grads: Sequence[Any]) -> Any:
            return original(optimizer, self._sum(list(grads)) if self._accumulates else grads)

        return _clip_gradients

    @contextmanager
    def _outermost(self, accumulates: bool) -> Iterator[None]:
        self._inside, self._accumulates = True, accumulates
        try:
            yield
        finally:
            self._inside = self._accumulates = False

    def reduce(self, grads: Sequence[Any]) -> list[Any]:
        """The average over ranks, weighted with their shares of the batch; None stays None."""
        return self._sum(self._shares(grads))

    def _shares(self, grads: Sequence[Any]) -> list[Any]:
        """Each gradient times this rank's share of the batch; nothing is sent."""
        scope = scopes.current()
        weight = scope.weight if scope else tf.constant(1.0 / self._world.size)
        return [g if g is None else _weighted(g, weight) for g in grads]

    def _sum(self, grads: Sequence[Any]) -> list[Any]:
        dense = [i for i, g in enumerate(grads) if g is not None and not isinstance(g, tf.IndexedSlices)]
        out: list[Any] = [self._gathered(g) if isinstance(g, tf.IndexedSlices) else None for g in grads]
        summed = self.clock.timed(self._world.allreduce, [grads[i] for i in dense])
        for i, gradient in zip(dense, summed, strict=True):
            out[i] = gradient
        return out

    def _gathered(self, slices: Any) -> Any:
        return tf.IndexedSlices(
            values=self._world.allgather(slices.values),
            indices=self._world.allgather(slices.indices),
            dense_shape=slices.dense_shape,
        )


def _is_variable(source: Any) -> bool:
    return isinstance(source, (keras.Variable, tf.Variable))


def _identity(variable: Any) -> int:
    return id(variable._value if isinstance(variable, keras.Variable) else variable)


def _weighted(gradient: Any, weight: Any) -> Any:
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(_weighted(gradient.values, weight), gradient.indices, gradient.dense_shape)
    gradient = tf.convert_to_tensor(gradient)
    return tf.math.multiply_no_nan(gradient, tf.cast(weight, gradient.dtype))
