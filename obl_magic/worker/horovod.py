"""The ``horovod`` engine: Horovod's core operations only.

Its Keras binding is not used: under Keras 3 it is broken in part and silently without effect in part.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import horovod.tensorflow as hvd
import tensorflow as tf

_SENDABLE = {tf.uint32: tf.int64, tf.uint64: tf.int64, tf.bfloat16: tf.float32}
"""Types Horovod does not carry, and those that hold the same values."""

_SUMMABLE = {**_SENDABLE, tf.bool: tf.int32, tf.int16: tf.int32, tf.uint16: tf.int32}


class HorovodCollectives:
    """Collectives by Horovod; NCCL on GPUs where it was built with it (not run on a GPU by us)."""

    name = "horovod"

    def __init__(self) -> None:
        self.rank, self.size = hvd.rank(), hvd.size()
        self.local_rank, self.local_size = hvd.local_rank(), hvd.local_size()
        self._counts: WeakKeyDictionary[Any, Counter[str]] = WeakKeyDictionary()

    def allreduce(self, tensors: Sequence[Any]) -> list[Any]:
        tensors = [tf.convert_to_tensor(tensor) for tensor in tensors]
        if not tensors:
            return []
        wide = [tf.cast(t, _SUMMABLE.get(t.dtype, t.dtype)) for t in tensors]
        summed: list[Any] = [None] * len(wide)
        for dtype in dict.fromkeys(t.dtype for t in wide):  # a group has one type
            indices = [i for i, t in enumerate(wide) if t.dtype == dtype]
            group = [wide[i] for i in indices]
            sums = hvd.grouped_allreduce(group, op=hvd.Sum, name=self._name("allreduce", group))
            for i, total in zip(indices, sums, strict=True):
                summed[i] = total
        return [_shaped(tf.cast(s, t.dtype), t) for s, t in zip(summed, tensors, strict=True)]

    def broadcast(self, tensors: Sequence[Any], root: int = 0) -> list[Any]:
        tensors = [tf.convert_to_tensor(tensor) for tensor in tensors]
        name = self._name("broadcast", tensors)
        return [
            _shaped(
                tf.cast(
                    hvd.broadcast(tf.cast(t, _SENDABLE.get(t.dtype, t.dtype)), root, f"{name}.{i}"), t.dtype
                ),
                t,
            )
            for i, t in enumerate(tensors)
        ]

    def allgather(self, tensor: Any) -> Any:
        tensor = tf.convert_to_tensor(tensor)
        sent = tf.cast(tensor, _SENDABLE.get(tensor.dtype, tensor.dtype))
        gathered = tf.cast(hvd.allgather(sent, name=self._name("allgather", [tensor])), tensor.dtype)
        gathered.set_shape([None, *tensor.shape[1:]])
        return gathered

    def allgather_object(self, value: Any) -> list[Any]:
        everyone: list[Any] = hvd.allgather_object(value, name=self._name("object", []))
        return everyone

    def barrier(self) -> None:
        hvd.allreduce(tf.zeros([1]), op=hvd.Sum, name=self._name("barrier", []))

    def close(self) -> None:
        hvd.shutdown()

    def _name(self, what: str, tensors: Sequence[Any]) -> str:
        """A name that is the same on every rank, since every rank makes the same calls in the same order.

        Eager calls, which never overlap, are named by what they carry, so that Horovod caches their negotiation.
        Traced ones are named by their function and numbered within one trace of it: ranks that see other shapes
        (uneven shards) trace at other times, so a number over all traces would differ between them.
        """
        if tf.executing_eagerly():
            carried = repr(
                [(tuple(t.shape[1:] if what == "allgather" else t.shape), t.dtype.name) for t in tensors]
            )
            return f"obl.{what}.eager.{zlib.crc32(carried.encode()):08x}"
        graphs = _functions_being_traced()
        path = ".".join(re.sub(r"\W|(_\d+)+$", "", graph.name) for graph in reversed(graphs))
        count = self._counts.setdefault(graphs[-1], Counter())
        count[path] += 1
        types = zlib.crc32(repr([t.dtype.name for t in tensors]).encode())
        return f"obl.{what}.{path}.{count[path]}.{types:08x}"


def connect() -> HorovodCollectives:
    """Starts Horovod on this rank."""
    hvd.init()
    return HorovodCollectives()


def _shaped(result: Any, like: Any) -> Any:
    result.set_shape(like.shape)
    return result


def _functions_being_traced() -> list[Any]:
    """Graphs of functions and branches, from the innermost to the one that was called eagerly."""
    graph = tf.compat.v1.get_default_graph()
    graphs = [graph]
    while (graph := getattr(graph, "outer_graph", None)) is not None and getattr(graph, "name", None):
        graphs.append(graph)
    return graphs
