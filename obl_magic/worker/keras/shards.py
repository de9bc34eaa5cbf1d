"""Cuts global batches into the ranks' shards: which rows are whose. Pure TensorFlow; no Keras, no collectives.

A global batch of ``n`` samples on ``size`` ranks: rank ``r`` takes rows ``n*r//size`` to ``n*(r+1)//size``.
A rank whose share is empty gets the batch's first sample as a stand-in with ``local == 0``, so that no layer,
loss or metric ever sees an empty tensor (the mean of nothing is NaN); what it computes from it is discarded.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf
from keras import tree


class Shard(NamedTuple):
    """One rank's part of one global batch.

    Attributes:
        local: int32 scalar, samples of this rank that count (0 for a stand-in).
        total: int32 scalar, samples of the global batch.
        data: the structure of the batch, with this rank's rows.
    """

    local: Any
    total: Any
    data: Any


def bounds(total: Any, rank: int, size: int) -> tuple[Any, Any]:
    """First row and row after the last of ``rank``'s share of ``total`` rows (ints or integer tensors)."""
    return total * rank // size, total * (rank + 1) // size


def cut(data: Any, rank: int, size: int) -> Shard:
    """This rank's shard of a global batch.

    Args:
        data: any structure of dense, ragged or sparse tensors whose axis 0 is the batch; scalars, None and
            empty optionals stay as they are.
        rank: this rank. size: ranks in the world.
    """
    rows = next((_rows(leaf) for leaf in tree.flatten(data) if _sliceable(leaf)), None)
    if rows is None:
        one = tf.constant(1, tf.int32)
        return Shard(one, one * size, data)
    total = tf.cast(rows, tf.int64)
    first, last = bounds(total, rank, size)
    local = last - first
    begin = tf.where(local > 0, first, 0)
    end = tf.where(local > 0, last, tf.minimum(total, 1))
    sliced = tree.map_structure(lambda leaf: _rows_of(leaf, begin, end) if _sliceable(leaf) else leaf, data)
    return Shard(tf.cast(local, tf.int32), tf.cast(total, tf.int32), sliced)


def _sliceable(leaf: Any) -> bool:
    if isinstance(leaf, (tf.RaggedTensor, tf.SparseTensor)):
        return True
    return tf.is_tensor(leaf) and leaf.shape.rank != 0


def _rows(leaf: Any) -> Any:
    if isinstance(leaf, tf.RaggedTensor):
        return leaf.nrows()
    if isinstance(leaf, tf.SparseTensor):
        return leaf.dense_shape[0]
    return tf.shape(leaf)[0]


def _rows_of(leaf: Any, begin: Any, end: Any) -> Any:
    if isinstance(leaf, tf.SparseTensor):
        shape = leaf.dense_shape
        start = tf.concat([[begin], tf.zeros_like(shape[1:])], 0)
        return tf.sparse.slice(leaf, start, tf.concat([[end - begin], shape[1:]], 0))
    return leaf[begin:end]
