"""The ``mpi`` engine: mpi4py, one flat buffer per dtype and call. Needs no compiler, works on CPU memory.

Plain MPI does not negotiate an order, so every call is one stateful operation, which TensorFlow's automatic
control dependencies keep in program order on every rank.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from mpi4py import MPI

from obl_magic.worker.engines import carried
from obl_magic.worker.engines.agreement import Agreed, Exchange
from obl_magic.worker.ranks import identify

_Data = Callable[[np.ndarray, list[int]], np.ndarray]
"""Sends a buffer, given every rank's rows."""


class MpiCollectives(Agreed):
    """Collectives over a communicator of our own, so that a user's own MPI traffic cannot mix with it."""

    name = "mpi"

    def __init__(self, world: MPI.Comm) -> None:
        super().__init__(world.Dup())
        self.rank = self._comm.Get_rank()
        self.size = self._comm.Get_size()
        me = identify()
        self.local_rank, self.local_size = me.local_rank, me.local_size

    def allreduce(self, tensors: Sequence[Any]) -> list[Any]:
        return self._by_dtype("sum", tensors, self._sum)

    def broadcast(self, tensors: Sequence[Any], root: int = 0) -> list[Any]:
        def from_root(buffer: np.ndarray, rows: list[int]) -> np.ndarray:
            buffer = np.array(buffer, copy=True)
            self._comm.Bcast(_bytes(buffer), root=root)
            return buffer

        return self._by_dtype(f"take from rank {root}", tensors, from_root)

    def allgather(self, tensor: Any) -> Any:
        tensor = tf.convert_to_tensor(tensor)
        rest = tensor.shape[1:]

        def gather(mine: np.ndarray, counts: list[int]) -> np.ndarray:
            mine = np.ascontiguousarray(mine)
            row_bytes = int(np.prod(mine.shape[1:], dtype=np.int64)) * mine.itemsize
            everyone = np.empty((sum(counts), *mine.shape[1:]), mine.dtype)
            self._comm.Allgatherv(_bytes(mine), [_bytes(everyone), [c * row_bytes for c in counts], MPI.BYTE])
            return everyone

        gathered = self._send("gather the rows of", tensor, [tensor], gather, rows_differ=True)
        gathered.set_shape([None, *rest])
        return gathered

    def close(self) -> None:
        self._comm.Free()

    def _sum(self, buffer: np.ndarray, rows: list[int]) -> np.ndarray:
        buffer = np.array(buffer, copy=True)
        if buffer.dtype == np.float16 or buffer.dtype.name == "bfloat16":
            wide = buffer.astype(np.float32)
            self._comm.Allreduce(MPI.IN_PLACE, wide)
            return wide.astype(buffer.dtype)
        if buffer.dtype == np.bool_:
            wide_count = buffer.astype(np.int32)
            self._comm.Allreduce(MPI.IN_PLACE, wide_count)
            return wide_count > 0
        self._comm.Allreduce(MPI.IN_PLACE, buffer)
        return buffer

    def _send(
        self, verb: str, buffer: Any, tensors: Sequence[Any], data: _Data, rows_differ: bool = False
    ) -> Any:
        """Sends a buffer once all ranks are about to send the same.

        Args:
            verb: what is done.
            buffer: a tensor.
            tensors: what it holds.
            data: sends it.
            rows_differ: ranks may have different numbers of rows.
        """
        purpose = self._agreement.purpose
        name = purpose[0] if tf.executing_eagerly() else ""  # ranks may trace at different times
        dtypes, shapes = carried.dtypes_of(tensors), carried.shapes_of(tensors, rows_differ)
        known = Exchange(verb, dtypes, shapes, name, *purpose) if isinstance(shapes, tuple) else None
        key = known.key() if known else None

        def send(mine: np.ndarray, lengths: Any = None) -> np.ndarray:
            exchange = known or Exchange(verb, dtypes, tuple(lengths.tolist()), name, *purpose)
            return data(mine, self._agreement.meet(exchange, len(mine) if mine.ndim else 0, key))

        if tf.executing_eagerly():
            return tf.convert_to_tensor(send(buffer.numpy()))
        arguments = [buffer] if known else [buffer, shapes]
        return tf.numpy_function(send, arguments, buffer.dtype, stateful=True)

    def _by_dtype(self, verb: str, tensors: Sequence[Any], data: _Data) -> list[Any]:
        """Sends one flat buffer per dtype and takes it apart again."""
        tensors = [tf.convert_to_tensor(tensor) for tensor in tensors]
        out: list[Any] = [None] * len(tensors)
        groups: dict[Any, list[int]] = {}
        for index, tensor in enumerate(tensors):
            groups.setdefault(tensor.dtype, []).append(index)
        for indices in groups.values():
            group = [tensors[i] for i in indices]
            flat = tf.concat([tf.reshape(tensor, [-1]) for tensor in group], axis=0)
            sent = self._send(verb, flat, group, data)
            sent.set_shape(flat.shape)
            pieces = tf.split(sent, [tf.size(tensor) for tensor in group])
            for i, tensor, piece in zip(indices, group, pieces, strict=True):
                out[i] = tf.reshape(piece, tf.shape(tensor))
                out[i].set_shape(tensor.shape)
        return out


def connect() -> MpiCollectives:
    """Collectives over every rank mpirun started."""
    return MpiCollectives(MPI.COMM_WORLD)


def _bytes(array: np.ndarray) -> Any:
    return array.reshape(-1).view(np.uint8)
