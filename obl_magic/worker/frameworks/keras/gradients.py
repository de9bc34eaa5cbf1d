"""Adds gradients up over ranks, once: as they leave a tape, or in Keras' own steps where an optimizer applies them.

*As they leave a tape.* Model calls are shared, so a gradient is the rank's part times the number of ranks, or the
same on all ranks: their mean is the single process's, whatever the formula. What the code does with it then (clipping
by hand, norms, an optimizer of its own) is the same on every rank.

*Where an optimizer applies them.* In Keras' own steps the data are shared and the mean is weighted with each rank's
share of the batch, so uneven shards are exact and a rank without samples contributes nothing; accumulated gradients
are added up once per applied step. It happens at the outermost ``Optimizer.apply``: before clipping, decay, EMA, loss
scaling.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf
from keras.src.optimizers.base_optimizer import BaseOptimizer
from keras.src.optimizers.loss_scale_optimizer import LossScaleOptimizer
from tensorflow.python.ops.parallel_for import control_flow_ops

from obl_magic.worker.engines.collectives import Collectives
from obl_magic.worker.frameworks.keras import rows, slices
from obl_magic.worker.frameworks.keras import scope as scopes
from obl_magic.worker.patching import Patches


class GradientReducer:
    """Replaces ``apply`` on Keras' optimizer classes, and what leaves a ``GradientTape``.

    Args:
        world: the collectives.
        before: called with (optimizer, variables) before gradients are applied, e.g. to broadcast state.
        calls_are_shared: whether any model call was shared, so that what leaves a tape may be a part.
    """

    def __init__(
        self,
        world: Collectives,
        before: Callable[[Any, Sequence[Any]], None],
        calls_are_shared: Callable[[], bool],
    ) -> None:
        self._world, self._before, self._calls_are_shared = world, before, calls_are_shared
        self._inside = False
        self._accumulates = False
        self.applied = 0

    def install(self, patches: Patches) -> None:
        """Replaces them."""
        for owner in (BaseOptimizer, LossScaleOptimizer):
            patches.replace(owner, "apply", self._make)
        patches.replace(BaseOptimizer, "_clip_gradients", self._when_accumulated)
        patches.replace(tf.GradientTape, "gradient", self._taped)
        patches.replace(tf.GradientTape, "jacobian", self._jacobian)
        patches.replace(tf.GradientTape, "batch_jacobian", self._jacobian)

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
            scope = scopes.current()
            accumulates = scope is not None and bool(optimizer.gradient_accumulation_steps)
            if scope is not None:
                grads = (
                    self._weighted(grads, scope) if accumulates else self._sum(self._weighted(grads, scope))
                )
            with self._outermost(accumulates):
                return original(optimizer, grads, None if trainable_variables is None else variables)

        return apply

    def _taped(self, original: Any) -> Any:
        @functools.wraps(original)
        def gradient(
            tape: Any, target: Any, sources: Any, output_gradients: Any = None,
            unconnected_gradients: Any = tf.UnconnectedGradients.NONE,
        ) -> Any:  # fmt: skip
            if not self._may_hold_parts():
                return original(tape, target, sources, output_gradients, unconnected_gradients)
            each = enumerate(map(rows.gathered_from, tf.nest.flatten(sources)))
            inner = {i: of for i, of in each if of is not None}
            if not inner:
                found = original(tape, target, sources, output_gradients, unconnected_gradients)
                return self._mean(found, sources)
            asked = [sources, [own for own, _ in inner.values()]]
            found, of_own = original(tape, target, asked, output_gradients)
            return self._mean(
                self._through_calls(found, sources, of_own, inner, unconnected_gradients), sources
            )

        return gradient

    def _through_calls(
        self, found: Any, sources: Any, of_own: Sequence[Any], inner: Any, unconnected: Any
    ) -> Any:
        """Gradients for outputs of a shared call that other outputs came from: inside the call they were own rows."""
        flat = tf.nest.flatten(found)
        for (i, (_, part)), gradient in zip(inner.items(), of_own, strict=True):
            if gradient is not None:
                whole = rows.all_rows(gradient, part, self._world)
                flat[i] = whole / tf.cast(self._world.size, whole.dtype)
        if tf.UnconnectedGradients(unconnected) == tf.UnconnectedGradients.ZERO:
            owners = tf.nest.flatten(sources)
            flat = [tf.zeros_like(s) if g is None else g for g, s in zip(flat, owners, strict=True)]
        return tf.nest.pack_sequence_as(sources, flat)

    def _jacobian(self, original: Any) -> Any:
        """Exchanges cannot be vectorised, so rows of a Jacobian are taken one after another."""

        def jacobian(tape: Any, target: Any, sources: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._may_hold_parts():
                return original(tape, target, sources, *args, **kwargs)
            with _one_after_another():
                return self._mean(original(tape, target, sources, *args, **kwargs), sources)

        return jacobian

    def _may_hold_parts(self) -> bool:
        return (
            scopes.may_share()
            and self._calls_are_shared()
            and threading.current_thread() is threading.main_thread()
        )

    def _mean(self, found: Any, sources: Any) -> Any:
        """The mean over ranks of the gradients of variables; those of tensors are whole and equal already."""
        flat = tf.nest.flatten(found)
        owners = tf.nest.flatten(sources)
        if len(flat) != len(owners):
            return found
        places = [i for i, s in enumerate(owners) if _is_variable(s) and flat[i] is not None]
        dense = [i for i in places if not isinstance(flat[i], tf.IndexedSlices)]
        means = rows.mean_over_ranks([flat[i] for i in dense], self._world)
        for i, mean in zip(dense, means, strict=True):
            flat[i] = mean
        for i in set(places) - set(dense):
            summed = slices.summed(flat[i], self._world, in_step=False)
            values = summed.values / tf.cast(self._world.size, summed.values.dtype)
            flat[i] = tf.IndexedSlices(values, summed.indices, summed.dense_shape)
        return tf.nest.pack_sequence_as(sources, flat)

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

    def _weighted(self, grads: Sequence[Any], scope: scopes.RowScope) -> list[Any]:
        """Each gradient times this rank's share of the batch; nothing is sent."""
        weight = scope.weight
        return [g if g is None else _times(g, weight) for g in grads]

    def _sum(self, grads: Sequence[Any]) -> list[Any]:
        dense = [i for i, g in enumerate(grads) if g is not None and not isinstance(g, tf.IndexedSlices)]
        out: list[Any] = [
            slices.summed(g, self._world, in_step=True) if isinstance(g, tf.IndexedSlices) else None
            for g in grads
        ]
        summed = self._world.allreduce([grads[i] for i in dense])
        for i, gradient in zip(dense, summed, strict=True):
            out[i] = gradient
        return out


@contextmanager
def _one_after_another() -> Iterator[None]:
    """Within it rows that TensorFlow would compute at once, vectorised, are computed in turn."""
    vectorised = control_flow_ops.pfor
    control_flow_ops.pfor = _in_turn
    try:
        yield
    finally:
        control_flow_ops.pfor = vectorised


def _in_turn(row: Callable[[Any], Any], count: Any, *_: Any, **__: Any) -> Any:
    """As ``pfor``: the function's results for 0, 1, … stacked. It is traced once: a tape may be asked but once."""
    before = tf.config.functions_run_eagerly()
    tf.config.run_functions_eagerly(False)
    try:
        return tf.function(_loop, autograph=False)(row, count)
    finally:
        tf.config.run_functions_eagerly(before)


def _loop(row: Callable[[Any], Any], count: Any) -> Any:
    traced = tf.function(row, autograph=False).get_concrete_function(tf.TensorSpec([], tf.int32))
    found = traced.structured_outputs
    flat = [leaf for leaf in tf.nest.flatten(found) if leaf is not None]
    stacked = tf.map_fn(
        lambda i: [leaf for leaf in tf.nest.flatten(traced(i)) if leaf is not None],
        tf.range(tf.cast(count, tf.int32)),
        parallel_iterations=1,
        fn_output_signature=[tf.TensorSpec(leaf.shape, leaf.dtype) for leaf in flat],
    )
    left = iter(stacked)
    return tf.nest.map_structure(lambda leaf: None if leaf is None else next(left), found)


def _is_variable(source: Any) -> bool:
    return isinstance(source, (keras.Variable, tf.Variable))


def _times(gradient: Any, weight: Any) -> Any:
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(_times(gradient.values, weight), gradient.indices, gradient.dense_shape)
    gradient = tf.convert_to_tensor(gradient)
    return tf.math.multiply_no_nan(gradient, tf.cast(weight, gradient.dtype))
