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
import numpy as np
import tensorflow as tf
from mpi4py import MPI

from obl_magic.worker.engines import carried
from obl_magic.worker.engines.agreement import Agreed, Exchange

_SENDABLE = {tf.uint32: tf.int64, tf.uint64: tf.int64, tf.bfloat16: tf.float32}
"""Types Horovod does not carry, and those that hold the same values."""

_SUMMABLE = {**_SENDABLE, tf.bool: tf.int32, tf.int16: tf.int32, tf.uint16: tf.int32}


class HorovodCollectives(Agreed):
    """Collectives by Horovod; NCCL on GPUs where it was built with it (not run on a GPU by us).

    Horovod waits for ever for a rank that does not bring what is expected of it, so the ranks agree by themselves,
    over MPI, before they hand it anything.
    """

    name = "horovod"

    def __init__(self) -> None:
        super().__init__(MPI.COMM_WORLD.Dup())
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
            name = self._name("allreduce", group)
            sums = hvd.grouped_allreduce(self._agreed("sum", name, group), op=hvd.Sum, name=name)
            for i, total in zip(indices, sums, strict=True):
                summed[i] = total
        return [_shaped(tf.cast(s, t.dtype), t) for s, t in zip(summed, tensors, strict=True)]

    def broadcast(self, tensors: Sequence[Any], root: int = 0) -> list[Any]:
        tensors = [tf.convert_to_tensor(tensor) for tensor in tensors]
        name = self._name("broadcast", tensors)
        sent = [tf.cast(t, _SENDABLE.get(t.dtype, t.dtype)) for t in tensors]
        ready = self._agreed(f"take from rank {root}", name, sent)
        got = [hvd.broadcast(t, root, f"{name}.{i}") for i, t in enumerate(ready)]
        return [_shaped(tf.cast(g, t.dtype), t) for g, t in zip(got, tensors, strict=True)]

    def allgather(self, tensor: Any) -> Any:
        tensor = tf.convert_to_tensor(tensor)
        name = self._name("allgather", [tensor])
        sent = tf.cast(tensor, _SENDABLE.get(tensor.dtype, tensor.dtype))
        (ready,) = self._agreed("gather the rows of", name, [sent], rows_differ=True)
        gathered = tf.cast(hvd.allgather(ready, name=name), tensor.dtype)
        gathered.set_shape([None, *tensor.shape[1:]])
        return gathered

    def close(self) -> None:
        hvd.shutdown()
        self._comm.Free()

    def _agreed(self, verb: str, name: str, tensors: Sequence[Any], rows_differ: bool = False) -> list[Any]:
        """The tensors, ready to be sent once all ranks are about to make the same exchange; eager or traced."""
        if not tensors:
            return []
        purpose = self._agreement.purpose
        name = (
            f"{name} {purpose[0]}" if tf.executing_eagerly() else name
        )  # ranks may trace at different times
        dtypes, shapes = carried.dtypes_of(tensors), carried.shapes_of(tensors, rows_differ)
        known = Exchange(verb, dtypes, shapes, name, *purpose) if isinstance(shapes, tuple) else None
        key = known.key() if known else None

        def agree(lengths: Any) -> np.int64:
            exchange = known or Exchange(verb, dtypes, tuple(lengths.tolist()), name, *purpose)
            self._agreement.meet(exchange, key=key)
            return np.int64(0)

        if known and tf.executing_eagerly():
            agree(())
            return list(tensors)
        # a branch of tf.cond begins before what is given to it is there
        with tf.control_dependencies(tensors):
            zero = tf.numpy_function(agree, [0 if known else shapes], tf.int64, stateful=True)
        zero.set_shape([])
        first, *others = tensors
        alone = verb != "sum"  # sums are one operation, which needs to wait for one of its tensors only
        return [_after(zero, first), *(_after(zero, other) if alone else other for other in others)]

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


def _after(zero: Any, tensor: Any) -> Any:
    """The tensor, once a zero is known; nothing is copied.

    Not by a control dependency: TensorFlow evaluates what only hangs on constants when it makes a function ready, also
    Horovod's operations, which then wait for ranks that do not.
    """
    return _shaped(tf.reshape(tensor, tf.shape(tensor, out_type=tf.int64) + zero), tensor)


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
