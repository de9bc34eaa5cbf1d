"""Sums large arrays of ranks that share a host: each adds up its part of everyone's, in memory that all of them see.

Every rank writes its arrays there once and reads the sums once, a few megabytes at a time, so that they stay in the
processors' caches; MPI's own allreduce on one host moves twice as much. The memory has no name on any disk and is gone
with the last of its ranks. Sums are taken in the order of the ranks, so that every rank has the same bits.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

FROM_BYTES = 1 << 22
"""Smaller arrays are faster by MPI's own allreduce."""
CHUNK_BYTES = 1 << 22
_ALIGNED = 64
"""Bytes; as TensorFlow wants it, which copies other arrays."""


class HostSum:
    """Every rank of the communicator must make the same calls, with arrays of the same sizes and type.

    Args:
        comm: mpi4py's communicator.
    """

    def __init__(self, comm: Any) -> None:
        self._comm = comm
        self._memory: Any = None
        self._looked = False

    @property
    def works(self) -> bool:
        """Whether all ranks share one host's memory, and there are several; every rank must ask."""
        if not self._looked:
            from mpi4py import MPI

            self._looked = True
            host = self._comm.Split_type(MPI.COMM_TYPE_SHARED)
            alike = self._comm.allreduce(1 < host.size == self._comm.size, MPI.LAND)
            host.Free()
            self._memory = self._shared() if alike else None
        return self._memory is not None

    def __call__(self, mine: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The sums over all ranks, as arrays of their own.

        Args:
            mine: this rank's; they are left as they are.
        """
        ranks, rank, dtype = self._comm.size, self._comm.rank, mine[0].dtype
        sums = [aligned(array.shape, dtype) for array in mine]
        length = CHUNK_BYTES // dtype.itemsize
        *slots, total = (self._slot(each, dtype, length) for each in range(ranks + 1))
        for chunk in _chunks(mine, length):
            here = sum(last - first for _, first, last in chunk)
            for place, (number, first, last) in zip(_places(slots[rank], chunk), chunk, strict=True):
                place[:] = mine[number].reshape(-1)[first:last]
            self._comm.Barrier()
            part = slice(here * rank // ranks, here * (rank + 1) // ranks)
            with np.errstate(all="ignore"):  # as MPI: infinities are the function's affair
                np.add(slots[0][part], slots[1][part], out=total[part])
                for slot in slots[2:]:
                    total[part] += slot[part]
            self._comm.Barrier()  # nobody writes into the total again before all have come to the next one
            for place, (number, first, last) in zip(_places(total, chunk), chunk, strict=True):
                sums[number].reshape(-1)[first:last] = place
        return sums

    def _slot(self, number: int, dtype: np.dtype, length: int) -> np.ndarray:
        return np.frombuffer(self._memory, dtype, length, number * CHUNK_BYTES)

    def _shared(self) -> mmap.mmap | None:
        """Memory for a chunk of each rank and their sum, mapped by all; None on every rank where one cannot."""
        from mpi4py import MPI

        whole = (self._comm.size + 1) * CHUNK_BYTES
        kept, place = -1, ""
        if self._comm.rank == 0 and hasattr(os, "memfd_create"):
            kept = os.memfd_create("obl-sum")
            os.ftruncate(kept, whole)
            place = f"/proc/{os.getpid()}/fd/{kept}"
        place = self._comm.bcast(place)
        try:
            opened = kept if kept >= 0 else os.open(place, os.O_RDWR)
        except OSError:  # a system that keeps processes apart
            opened = -1
        memory = mmap.mmap(opened, whole) if self._comm.allreduce(opened >= 0, MPI.LAND) else None
        if opened >= 0:
            os.close(opened)
        return memory


def aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """An array that TensorFlow takes over as it lies, without a copy of its own."""
    size_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    memory = np.empty(size_bytes + _ALIGNED, np.uint8)
    first = -memory.ctypes.data % _ALIGNED
    array: np.ndarray = memory[first : first + size_bytes].view(dtype).reshape(shape)
    return array


_Piece = tuple[int, int, int]
"""(which array, from which of its elements, up to which)."""


def _chunks(arrays: Sequence[np.ndarray], length: int) -> Iterator[list[_Piece]]:
    """The arrays' elements one after another, cut into chunks of so many; the last one may be shorter."""
    chunk: list[_Piece] = []
    room = length
    for number, array in enumerate(arrays):
        first = 0
        while first < array.size:
            last = min(array.size, first + room)
            chunk.append((number, first, last))
            room -= last - first
            first = last
            if not room:
                yield chunk
                chunk, room = [], length
    if chunk:
        yield chunk


def _places(flat: np.ndarray, chunk: Sequence[_Piece]) -> Iterator[np.ndarray]:
    """Where the pieces of a chunk lie in it."""
    at = 0
    for _, first, last in chunk:
        yield flat[at : at + last - first]
        at += last - first
