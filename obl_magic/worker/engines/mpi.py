"""The ``mpi`` engine: mpi4py, all tensors of a dtype in one call. Needs no compiler, works on CPU memory.

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
from obl_magic.worker.engines.host_sum import FROM_BYTES, HostSum, aligned
from obl_magic.worker.ranks import identify

_Data = Callable[[Sequence[np.ndarray], list[int]], list[np.ndarray]]
"""Sends arrays, given every rank's rows."""
_WIDE = {"float16": np.float32, "bfloat16": np.float32, "bool": np.int32}
"""In which type the sums of another are taken; what is no number is so where any rank's is true."""


class MpiCollectives(Agreed):
    """Collectives over a communicator of our own, so that a user's own MPI traffic cannot mix with it."""

    name = "mpi"

    def __init__(self, world: MPI.Comm) -> None:
        super().__init__(world.Dup())
        self.rank = self._comm.Get_rank()
        self.size = self._comm.Get_size()
        self._host_sum = HostSum(self._comm)
        me = identify()
        self.local_rank, self.local_size = me.local_rank, me.local_size

    def allreduce(self, tensors: Sequence[Any]) -> list[Any]:
        return self._by_dtype("sum", tensors, self._sum)

    def broadcast(self, tensors: Sequence[Any], root: int = 0) -> list[Any]:
        def from_root(mine: Sequence[np.ndarray], rows: list[int]) -> list[np.ndarray]:
            flat = _flat(mine)
            self._comm.Bcast(_bytes(flat), root=root)
            return _pieces(flat, mine)

        return self._by_dtype(f"take from rank {root}", tensors, from_root)

    def allgather(self, tensor: Any) -> Any:
        tensor = tf.convert_to_tensor(tensor)
        rest = tensor.shape[1:]

        def gather(mine: Sequence[np.ndarray], counts: list[int]) -> list[np.ndarray]:
            own = np.ascontiguousarray(mine[0])
            row_bytes = int(np.prod(own.shape[1:], dtype=np.int64)) * own.itemsize
            everyone = np.empty((sum(counts), *own.shape[1:]), own.dtype)
            self._comm.Allgatherv(_bytes(own), [_bytes(everyone), [c * row_bytes for c in counts], MPI.BYTE])
            return [everyone]

        (gathered,) = self._send("gather the rows of", [tensor], gather, rows_differ=True)
        gathered.set_shape([None, *rest])
        return gathered

    def close(self) -> None:
        self._comm.Free()

    def _sum(self, mine: Sequence[np.ndarray], rows: list[int]) -> list[np.ndarray]:
        given = mine[0].dtype
        if wide := _WIDE.get(given.name):
            mine = [array.astype(wide) for array in mine]
        if sum(array.nbytes for array in mine) >= FROM_BYTES and self._host_sum.works:
            sums = self._host_sum(mine)
        else:
            flat = _flat(mine)
            self._comm.Allreduce(MPI.IN_PLACE, flat)
            sums = _pieces(flat, mine)
        return [each.astype(given) for each in sums] if wide else sums

    def _send(self, verb: str, tensors: Sequence[Any], data: _Data, rows_differ: bool = False) -> list[Any]:
        """Sends tensors of one type once all ranks are about to send the same.

        Args:
            verb: what is done.
            tensors: what is sent.
            data: sends it.
            rows_differ: ranks may have different numbers of rows.
        """
        purpose = self._agreement.purpose
        name = purpose[0] if tf.executing_eagerly() else ""  # ranks may trace at different times
        dtypes, shapes = carried.dtypes_of(tensors), carried.shapes_of(tensors, rows_differ)
        known = Exchange(verb, dtypes, shapes, name, *purpose) if isinstance(shapes, tuple) else None
        key = known.key() if known else None

        def send(*mine: np.ndarray) -> list[np.ndarray]:
            arrays = mine[: len(tensors)]
            exchange = known or Exchange(verb, dtypes, tuple(mine[-1].tolist()), name, *purpose)
            rows = len(arrays[0]) if rows_differ else sum(array.size for array in arrays)
            return data(arrays, self._agreement.meet(exchange, rows, key))

        if tf.executing_eagerly():
            return [tf.convert_to_tensor(each) for each in send(*(tensor.numpy() for tensor in tensors))]
        arguments = [*tensors] if known else [*tensors, shapes]
        sent: list[Any] = tf.numpy_function(
            send, arguments, [tensor.dtype for tensor in tensors], stateful=True
        )
        return sent

    def _by_dtype(self, verb: str, tensors: Sequence[Any], data: _Data) -> list[Any]:
        """Sends the tensors of each dtype together."""
        tensors = [tf.convert_to_tensor(tensor) for tensor in tensors]
        out: list[Any] = [None] * len(tensors)
        groups: dict[Any, list[int]] = {}
        for index, tensor in enumerate(tensors):
            groups.setdefault(tensor.dtype, []).append(index)
        for indices in groups.values():
            for i, sent in zip(indices, self._send(verb, [tensors[i] for i in indices], data), strict=True):
                sent.set_shape(tensors[i].shape)
                out[i] = sent
        return out


def connect() -> MpiCollectives:
    """Collectives over every rank mpirun started."""
    return MpiCollectives(MPI.COMM_WORLD)


def _flat(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """A copy of all, one after another."""
    flat = aligned((sum(array.size for array in arrays),), arrays[0].dtype)
    return np.concatenate([array.reshape(-1) for array in arrays], out=flat)


def _pieces(flat: np.ndarray, like: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Views of a flat array, one after another, in the shapes of these."""
    ends = np.cumsum([array.size for array in like])
    return [flat[end - array.size : end].reshape(array.shape) for array, end in zip(like, ends, strict=True)]


def _bytes(array: np.ndarray) -> Any:
    return array.reshape(-1).view(np.uint8)
