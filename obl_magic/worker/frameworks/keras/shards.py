"""Cuts global batches into the ranks' shards: which rows are whose. Pure TensorFlow; no Keras, no collectives.

Of a global batch of ``n`` samples on ``size`` ranks with equal shares, rank ``r`` takes rows ``n*r//size`` to
``n*(r+1)//size``.
A rank whose share is empty gets the batch's first sample as a stand-in with ``local == 0``, so that no layer,
loss or metric ever sees an empty tensor (the mean of nothing is NaN); what it computes from it is discarded.

Rows are copied unless the caller knows that TensorFlow owns the memory. TensorFlow borrows NumPy arrays that lie on a
64-byte boundary and never writes into them; but a slice of such a tensor, once nothing else holds the tensor, counts as
TensorFlow's own, and an elementwise operation may put its result there: into the user's array.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
from keras import tree

_ROWS_DIFFER = "obl_magic: rows of the parts of one batch:"
_UNEQUAL = re.compile(re.escape(_ROWS_DIFFER) + r"[\]\['\s]*([\d,\s]+)")


Bounds = Callable[[Any], tuple[Any, Any]]


class Shard(NamedTuple):
    """One rank's part of one global batch.

    Attributes:
        first: int32 scalar, this rank's first sample (0 for a stand-in).
        local: int32 scalar, samples of this rank that count (0 for a stand-in).
        total: int32 scalar, samples of the global batch.
        data: the structure of the batch, with this rank's rows.
        mark: what :mod:`same_data` compares of the global batches so far; None where nobody compares.
    """

    first: Any
    local: Any
    total: Any
    data: Any
    mark: Any = None


def bounds(total: Any, rank: int, parts: Sequence[int]) -> tuple[Any, Any]:
    """First row and row after the last of a rank's share.

    Args:
        total: rows in all, an int or an integer tensor.
        rank: whose.
        parts: what each rank has, of their sum.
    """
    before, whole = sum(parts[:rank]), sum(parts)
    return total * before // whole, total * (before + parts[rank]) // whole


def cut(data: Any, rank: int, size: int, owned: bool = False, mine: Bounds | None = None) -> Shard:
    """This rank's shard of a global batch.

    Args:
        data: any structure of dense, ragged or sparse tensors whose axis 0 is the batch; scalars, None and
            empty optionals stay as they are.
        rank: this rank.
        size: ranks in the world.
        owned: no tensor of the batch borrows NumPy memory, so that slices need no copy.
        mine: gives first row and row after the last of this rank's share; without it shares are equal.

    Raises:
        tf.errors.InvalidArgumentError: when it runs, if the parts have different numbers of rows; see
            :func:`unequal_rows`.
    """
    counts = _counts(data)
    if not counts:  # each rank counts it as one of as many as there are ranks
        return Shard(tf.constant(rank, tf.int32), tf.constant(1, tf.int32), tf.constant(size, tf.int32), data)
    total = counts[0]
    with tf.control_dependencies(_checks(counts)):
        total = tf.identity(total)
    begin, end, local = held(*(mine(total) if mine else bounds(total, rank, (1,) * size)), total)

    def take(leaf: Any) -> Any:
        return rows_of(leaf, begin, end, owned) if _sliceable(leaf) else leaf

    first, local, total = (tf.cast(number, tf.int32) for number in (begin, local, total))
    return Shard(first, local, total, tree.map_structure(take, data))


def held(first: Any, last: Any, total: Any) -> tuple[Any, Any, Any]:
    """(first row, row after the last, rows that count) of what a rank holds: its share, or a stand-in for none."""
    local = last - first
    return tf.where(local > 0, first, 0), tf.where(local > 0, last, tf.minimum(total, 1)), local


def whole(data: Any) -> Shard:
    """The shard that is the whole batch: every row of it counts, on this rank as on any other."""
    counts = _counts(data)
    total = tf.cast(counts[0], tf.int32) if counts else tf.constant(1, tf.int32)
    return Shard(tf.constant(0, tf.int32), total, total, data)


def rows_of(leaf: Any, begin: Any, end: Any, owned: bool = False) -> Any:
    """Rows of a dense, ragged or sparse tensor, in memory of their own unless the tensor's is TensorFlow's.

    Args:
        leaf: the tensor.
        begin: int64 scalars.
        end: int64 scalars.
        owned: it borrows no NumPy memory.
    """
    if isinstance(leaf, tf.SparseTensor):
        return _rows_of_sparse(leaf, begin, end)
    rows = leaf[begin:end]
    return rows if owned else own(rows)


def own(leaf: Any) -> Any:
    """The same values in memory of TensorFlow's own."""
    if isinstance(leaf, tf.RaggedTensor):
        return leaf.with_flat_values(own(leaf.flat_values))
    if isinstance(leaf, tf.SparseTensor):
        return tf.SparseTensor(own(leaf.indices), own(leaf.values), leaf.dense_shape)
    if not tf.is_tensor(leaf) or leaf.dtype in (tf.string, tf.variant, tf.resource):
        return leaf  # NumPy has no such memory to lend
    copied = tf.raw_ops.DeepCopy(x=leaf)
    copied.set_shape(leaf.shape)
    return copied


def unequal_rows(error: BaseException) -> list[int]:
    """The numbers of rows of a batch's parts that :func:`cut` found to be different; [] for any other error."""
    found = _UNEQUAL.search(str(error))
    return [int(number) for number in re.findall(r"\d+", found[1])] if found else []


def _counts(data: Any) -> list[Any]:
    """The numbers of rows of all parts that have any, as int64 scalars."""
    return [tf.cast(_rows(leaf), tf.int64) for leaf in tree.flatten(data) if _sliceable(leaf)]


def _checks(counts: list[Any]) -> list[Any]:
    """An operation that fails where not all are equal; none where there is nothing to compare."""
    if len(counts) < 2:
        return []
    rows = tf.stack(counts)
    known = tf.get_static_value(rows, partial=True) if not tf.executing_eagerly() else None
    if known is not None and None not in list(known) and len(set(known)) == 1:
        return []
    equal = tf.reduce_all(tf.equal(rows, rows[0]))
    return [tf.debugging.Assert(equal, [_ROWS_DIFFER, rows], summarize=16)]


def _rows_of_sparse(leaf: Any, begin: Any, end: Any) -> Any:
    shape = leaf.dense_shape
    start = tf.concat([[begin], tf.zeros_like(shape[1:])], 0)
    rows = tf.sparse.slice(leaf, start, tf.concat([[end - begin], shape[1:]], 0))
    dims = leaf.shape[1:]
    rest = [shape[i + 1] if dim is None else tf.constant(dim, tf.int64) for i, dim in enumerate(dims)]
    return tf.SparseTensor(
        rows.indices, rows.values, tf.stack([rows.dense_shape[0], *rest])
    )  # known dims stay known


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
