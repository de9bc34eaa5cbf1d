"""Exact metrics: the ranks' metric *states* are combined before ``result()``, never the results.

Keras' own metrics keep sums, which are summed. Users' own see the whole batch instead (``foreign.py``), so that every
rank holds their state already.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf
from keras.src.metrics.reduction_metrics import Mean, Sum

from obl_magic.worker.collectives import Collectives
from obl_magic.worker.keras import scope as scopes
from obl_magic.worker.keras.foreign import sees_all
from obl_magic.worker.keras.patching import Patches


def install(patches: Patches) -> None:
    """Weights a scalar given to ``Mean`` or ``Sum`` in a sharded step with this rank's share of the batch.

    A scalar is a number about the whole local batch (``tracker.update_state(loss)``); with the shares as
    weights the ranks' states sum to what one process would have counted.
    """

    def make(original: Any) -> Any:
        def update_state(metric: Any, values: Any, sample_weight: Any = None) -> Any:
            scope = scopes.current()
            if scope is not None and not scope.whole and sample_weight is None and _is_scalar(values):
                sample_weight = scope.weight
            return original(metric, values, sample_weight=sample_weight)

        return update_state

    patches.replace(Mean, "update_state", make)
    patches.replace(Sum, "update_state", make)


def _is_scalar(values: Any) -> bool:
    return len(np.shape(values) if not hasattr(values, "shape") else values.shape) == 0


def take_back(local: Any, pairs: Sequence[tuple[Any, Any]]) -> None:
    """Takes back what was counted of a stand-in sample.

    Args:
        local: samples of this rank that count. pairs: (variable, value before).
    """
    if not pairs:
        return

    def put_back() -> Any:
        for variable, value in pairs:
            variable.assign(value)
        return tf.constant(0)

    tf.cond(tf.convert_to_tensor(local) > 0, lambda: tf.constant(0), put_back)


_depth: list[bool] = []


@contextmanager
def holding_the_worlds_state() -> Iterator[None]:
    """Within it metric variables are known to hold the world's state already."""
    _depth.append(True)
    try:
        yield
    finally:
        _depth.pop()


def combining() -> bool:
    """Whether metric variables hold the world's state right now."""
    return bool(_depth)


def states_of(model: Any) -> list[Any]:
    """The metric variables of a model that hold this rank's part only."""
    return [
        variable for metric in _leaves(model.metrics) if not sees_all(metric) for variable in metric.variables
    ]


def updated(model: Any) -> set[str]:
    """Names of the model's metrics that have counted something since they were reset."""
    return {metric.name for metric in _leaves(model.metrics) if counted(metric)}


def counted(metric: Any) -> bool:
    """Whether a metric has counted something since it was reset; eager."""
    return any(np.any(variable.numpy() != 0) for variable in metric.variables)


def _leaves(found: Sequence[Any]) -> list[Any]:
    """The metrics inside Keras' containers of metrics."""
    leaves = []
    for metric in found:
        inner = getattr(metric, "metrics", None)
        leaves.extend(_leaves(inner) if isinstance(inner, list) else [metric])
    return leaves


def combine(world: Collectives, variables: Sequence[Any]) -> None:
    """Replaces the state of metric variables by that of the whole world, on every rank; eager.

    Args:
        world: the collectives. variables: Keras variables of metrics, the same on all ranks in the same order.
    """
    if not variables:
        return
    local = [tf.convert_to_tensor(variable.value) for variable in variables]
    for variable, value in zip(variables, world.allreduce(local), strict=True):
        variable.assign(value)


@contextmanager
def combined(world: Collectives, variables: Sequence[Any]) -> Iterator[None]:
    """Within it the metric variables hold the world's state; afterwards this rank's own again; eager."""
    local = [tf.identity(variable.value) for variable in variables]
    combine(world, variables)
    try:
        with holding_the_worlds_state():
            yield
    finally:
        for variable, value in zip(variables, local, strict=True):
            variable.assign(value)
