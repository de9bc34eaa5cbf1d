"""Exact metrics in Keras' own steps: the ranks' metric *states* are summed before ``result()``, never the results."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf
from keras.src.metrics.reduction_metrics import Mean

from obl_magic.worker.engines.collectives import Collectives
from obl_magic.worker.frameworks.keras import scope as scopes
from obl_magic.worker.patching import Patches


def take_back(local: Any, pairs: Sequence[tuple[Any, Any]]) -> None:
    """Takes back what was counted of a stand-in sample.

    Args:
        local: samples of this rank that count.
        pairs: (variable, value before).
    """
    if not pairs:
        return

    def put_back() -> Any:
        for variable, value in pairs:
            variable.assign(value)
        return tf.constant(0)

    tf.cond(tf.convert_to_tensor(local) > 0, lambda: tf.constant(0), put_back)


def combine(world: Collectives, variables: Sequence[Any]) -> None:
    """Replaces the state of metric variables by that of the whole world, on every rank; eager.

    Args:
        world: the collectives.
        variables: Keras variables of metrics, the same on all ranks in the same order.
    """
    if not variables:
        return
    local = [tf.convert_to_tensor(variable.value) for variable in variables]
    for variable, value in zip(variables, world.allreduce(local), strict=True):
        variable.assign(value)


def install(patches: Patches) -> None:
    """Weights a scalar given to ``Mean`` in a sharded step with this rank's share of the batch.

    A scalar is a number about all rows that the rank has (the loss of one output, say); with the shares as weights the
    ranks' states sum to what one process would have counted.
    """

    def make(original: Any) -> Any:
        def update_state(metric: Any, values: Any, sample_weight: Any = None) -> Any:
            scope = scopes.current()
            if scope is not None and not scope.in_call and sample_weight is None and _is_scalar(values):
                sample_weight = scope.weight
            return original(metric, values, sample_weight=sample_weight)

        return update_state

    patches.replace(Mean, "update_state", make)


def _is_scalar(values: Any) -> bool:
    return len(values.shape if hasattr(values, "shape") else np.shape(values)) == 0


@contextmanager
def combined(world: Collectives, variables: Sequence[Any]) -> Iterator[None]:
    """Within it the metric variables hold the world's state; afterwards this rank's own again; eager."""
    local = [tf.identity(variable.value) for variable in variables]
    combine(world, variables)
    try:
        yield
    finally:
        for variable, value in zip(variables, local, strict=True):
            variable.assign(value)
