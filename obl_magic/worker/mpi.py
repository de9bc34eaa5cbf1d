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

from obl_magic.errors import NotOblivious
from obl_magic.worker.ranks import identify


class MpiCollectives:
    """Collectives over a communicator of our own, so that a user's own MPI traffic cannot mix with it."""

    name = "mpi"

    def __init__(self, world: MPI.Comm) -> None:
        self._comm = world.Dup()
        self.rank = self._comm.Get_rank()
        self.size = self._comm.Get_size()
        me = identify()
        self.local_rank, self.local_size = me.local_rank, me.local_size

    def allreduce(self, tensors: Sequence[Any]) -> list[Any]:
        return _by_dtype(tensors, lambda flat: _call(self._sum, flat))

    def broadcast(self, tensors: Sequence[Any], root: int = 0) -> list[Any]:
        def from_root(buffer: np.ndarray) -> np.ndarray:
            buffer = np.array(buffer, copy=True)
            self._comm.Bcast(_bytes(buffer), root=root)
            return buffer

        return _by_dtype(tensors, lambda flat: _call(from_root, flat))

    def allgather(self, tensor: Any) -> Any:
        tensor = tf.convert_to_tensor(tensor)
        rest = tensor.shape[1:]

        def gather(mine: np.ndarray) -> np.ndarray:
            mine = np.ascontiguousarray(mine)
            counts = self._counts(mine)
            row_bytes = int(np.prod(mine.shape[1:], dtype=np.int64)) * mine.itemsize
            everyone = np.empty((sum(counts), *mine.shape[1:]), mine.dtype)
            self._comm.Allgatherv(_bytes(mine), [_bytes(everyone), [c * row_bytes for c in counts], MPI.BYTE])
            return everyone

        gathered = _call(gather, tensor)
        gathered.set_shape([None, *rest])
        return gathered

    def _counts(self, mine: np.ndarray) -> list[int]:
        """Rows of every rank.

        Raises:
            NotOblivious: the ranks are not at the same call.
        """
        told = self._comm.allgather((mine.shape[0], f"{mine.dtype} rows of shape {mine.shape[1:]}"))
        for rank, (_, what) in enumerate(told):
            if what != told[0][1]:
                raise NotOblivious(
                    f"the ranks no longer do the same: rank 0 exchanges {told[0][1]}, rank {rank} {what}",
                    "look for code that acts on one rank only, or for unseeded random numbers",
                )
        return [rows for rows, _ in told]

    def allgather_object(self, value: Any) -> list[Any]:
        return self._comm.allgather(value)

    def barrier(self) -> None:
        self._comm.Barrier()

    def close(self) -> None:
        self._comm.Free()

    def _sum(self, buffer: np.ndarray) -> np.ndarray:
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


def connect() -> MpiCollectives:
    """Collectives over every rank mpirun started."""
    return MpiCollectives(MPI.COMM_WORLD)


def _bytes(array: np.ndarray) -> Any:
    return array.reshape(-1).view(np.uint8)


def _call(function: Callable[[np.ndarray], np.ndarray], tensor: Any) -> Any:
    if tf.executing_eagerly():
        return tf.convert_to_tensor(function(tensor.numpy()))
    result = tf.numpy_function(function, [tensor], tensor.dtype, stateful=True)
    return result


def _by_dtype(tensors: Sequence[Any], reduce: Callable[[Any], Any]) -> list[Any]:
    """Applies ``reduce`` to one flat buffer per dtype and takes it apart again."""
    tensors = [tf.convert_to_tensor(tensor) for tensor in tensors]
    out: list[Any] = [None] * len(tensors)
    groups: dict[Any, list[int]] = {}
    for index, tensor in enumerate(tensors):
        groups.setdefault(tensor.dtype, []).append(index)
    for indices in groups.values():
        flat = tf.concat([tf.reshape(tensors[i], [-1]) for i in indices], axis=0)
        reduced = reduce(flat)
        reduced.set_shape(flat.shape)
        sizes = [tf.size(tensors[i]) for i in indices]
        for i, piece in zip(indices, tf.split(reduced, sizes), strict=True):
            out[i] = tf.reshape(piece, tf.shape(tensors[i]))
            out[i].set_shape(tensors[i].shape)
    return out
