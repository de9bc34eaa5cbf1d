"""Rows divided over ranks and gathered again, differentiably to any order. Knows no model.

Outside a shared call a tensor is the whole batch's and equal on all ranks, and so is its gradient. Inside, a rank
holds its own rows, and a gradient is ``size`` times this rank's part. ``own_rows`` and ``all_rows`` are each other's
backward up to that factor, and :func:`mean_over_ranks` turns the gradients of variables into those of one process:
what came through a call is ``size`` times a partial sum, what did not is equal on all ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from keras.src import backend

from obl_magic.worker.engines.collectives import Collectives
from obl_magic.worker.frameworks.keras.scope import RowScope
from obl_magic.worker.frameworks.keras.shards import bounds, rows_of

_GATHERED = "_obl_gathered"
MARK = "obl_rows"
"""Name of the operations by which rows enter a call: what does not depend on one does not depend on the batch."""


@dataclass(frozen=True, slots=True)
class Division:
    """How the rows of one batch are divided over the ranks.

    Attributes:
        total: rows in all.
        first: this rank's first row.
        local: its rows that count.
        end: after the row it holds last, which is a stand-in (row 0) where ``local`` is 0.
    """

    total: Any
    first: Any
    local: Any
    end: Any

    @classmethod
    def of(cls, leaf: Any, world: Collectives) -> Division:
        """The division of the rows of a tensor (dense, ragged, sparse) or array."""
        total = row_count(leaf)
        first, last = bounds(total, world.rank, world.parts)
        local = last - first
        if isinstance(total, int):
            return cls(total, first if local else 0, local, last if local else min(total, 1))
        return cls(
            total, tf.where(local > 0, first, 0), local, tf.where(local > 0, last, tf.minimum(total, 1))
        )

    def scope(self) -> RowScope:
        """The scope of a call that is given these rows."""
        return RowScope(
            self.first, self.local, self.total, self.end - self.first, in_call=True, training=True
        )


def row_count(leaf: Any) -> Any:
    """Rows of a tensor or array: an int where that is known beforehand, else an int32 scalar."""
    static = leaf.shape[0]
    if static is not None:
        return int(static)
    if isinstance(leaf, tf.RaggedTensor):
        return tf.cast(leaf.nrows(), tf.int32)
    if isinstance(leaf, tf.SparseTensor):
        return tf.cast(leaf.dense_shape[0], tf.int32)
    return tf.shape(leaf)[0]


def own_rows(leaf: Any, part: Division, world: Collectives) -> Any:
    """This rank's rows of a whole batch, as memory of their own; the gradient comes back for all rows."""
    if isinstance(leaf, (tf.RaggedTensor, tf.SparseTensor)):
        rows = rows_of(leaf, tf.cast(part.first, tf.int64), tf.cast(part.end, tf.int64))
        return tf.nest.map_structure(lambda x: tf.identity(x, name=MARK), rows, expand_composites=True)
    if isinstance(leaf, np.ndarray):
        return tf.constant(np.array(leaf[part.first : part.end], copy=True))
    own = _own(tf.convert_to_tensor(leaf), part, world)
    mask = backend.get_keras_mask(leaf)
    if mask is not None:
        backend.set_keras_mask(own, own_rows(mask, part, world))
    return own


def _own(leaf: Any, part: Division, world: Collectives) -> Any:
    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def take(x: Any) -> Any:
        mine = tf.gather(x, tf.range(part.first, part.end))  # copied: a slice may alias the user's array
        mine.set_shape([_static(part.end, part.first), *x.shape[1:]])

        def back(upstream: Any) -> Any:
            return all_rows(tf.convert_to_tensor(upstream), part, world) / _as(upstream, world.size)

        return tf.identity(mine, name=MARK), back

    return take(leaf)


def all_rows(own: Any, part: Division, world: Collectives) -> Any:
    """The whole batch from every rank's rows, in rank order; the gradient goes back to own rows."""

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def gather(x: Any) -> Any:
        whole = world.allgather(x[: part.local])
        whole.set_shape([part.total if isinstance(part.total, int) else None, *x.shape[1:]])

        def back(upstream: Any) -> Any:
            mine = own_rows(tf.convert_to_tensor(upstream), part, world)
            counts = tf.cast(
                tf.constant(part.local) > 0 if isinstance(part.local, int) else part.local > 0, mine.dtype
            )
            return tf.math.multiply_no_nan(mine, counts * _as(upstream, world.size))

        return whole, back

    own = tf.convert_to_tensor(own)
    whole = gather(own)
    setattr(whole, _GATHERED, (own, part))
    mask = backend.get_keras_mask(own)
    if mask is not None:
        backend.set_keras_mask(whole, all_rows(mask, part, world))
    return whole


def gathered_from(whole: Any) -> tuple[Any, Division] | None:
    """The own rows that :func:`all_rows` has gathered into a tensor, and their division; None for any other tensor."""
    return getattr(whole, _GATHERED, None)


def scalar_over_ranks(value: Any, share: Any, world: Collectives) -> Any:
    """The sum over ranks of ``value * share``, where value was computed from own rows inside a shared call."""

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def combine(x: Any) -> Any:
        factor = tf.cast(share, x.dtype)
        (total,) = world.allreduce([tf.math.multiply_no_nan(x, factor)])

        def back(upstream: Any) -> Any:
            return tf.math.multiply_no_nan(upstream, factor * _as(upstream, world.size))

        return total, back

    return combine(value)


def mean_over_ranks(values: Sequence[Any], world: Collectives) -> list[Any]:
    """Means over ranks, in one exchange. Differentiated again, what each rank has of them is passed through."""
    if not values:
        return []

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def mean(*tensors: Any) -> Any:
        summed = world.allreduce(list(tensors))
        means = [total / _as(total, world.size) for total in summed]
        return means, lambda *upstream: list(upstream)

    return list(mean(*[tf.convert_to_tensor(value) for value in values]))


def _as(tensor: Any, number: int) -> Any:
    return tf.cast(number, tensor.dtype)


def _static(end: Any, first: Any) -> int | None:
    return end - first if isinstance(end, int) and isinstance(first, int) else None
