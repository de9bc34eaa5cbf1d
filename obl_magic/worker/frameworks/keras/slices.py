"""Sparse gradients of all ranks, with the slices that one process would have.

Optimizers square slices before duplicates are merged, so it matters which slices there are. Where indices come from
the batch, one process has the slices of all ranks. Where they don't (positions), it has each slice once, summed over
the batch.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from obl_magic.worker.engines.collectives import Collectives
from obl_magic.worker.frameworks.keras.rows import MARK


def summed(gradient: Any, world: Collectives, in_step: bool) -> Any:
    """The slices of all ranks together.

    Args:
        gradient: ``tf.IndexedSlices``, this rank's.
        world: the collectives.
        in_step: in one of Keras' own steps, where whatever a traced function is given comes from the batch.
    """
    if _of_the_batch(gradient.indices, world, in_step):
        values, indices = world.allgather(gradient.values), world.allgather(gradient.indices)
    else:
        (values,), indices = world.allreduce([gradient.values]), gradient.indices
    return tf.IndexedSlices(values, indices, gradient.dense_shape)


def _of_the_batch(indices: Any, world: Collectives, in_step: bool) -> bool:
    """Whether indices depend on the rows of the batch: by their graph, or, eagerly, by differing between ranks."""
    if tf.executing_eagerly():
        told = world.allgather_object(indices.numpy().tobytes())
        return any(other != told[0] for other in told)
    return _reaches_rows(indices.op, in_step)


def _reaches_rows(op: Any, in_step: bool) -> bool:
    captured = {id(inner.op) for _, inner in getattr(op.graph, "captures", ())}
    waiting, seen = [op], set()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        if MARK in one.name or (in_step and one.type == "Placeholder" and id(one) not in captured):
            return True
        waiting.extend(tensor.op for tensor in one.inputs)
    return False
