"""How a rank gets its job: rank 0 from its kernel, the others from rank 0. Large arrays come once to each host.

They lie in a file in the run's folder, which ranks that see it map into their memory, sharing its pages. To a host
that does not see it they are sent once, over MPI, and kept in a file in memory that its ranks map alike. Either way
who writes into an array gets pages of its own.
"""

from __future__ import annotations

import contextlib
import importlib
import mmap
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from obl_magic import payload
from obl_magic.payload import buffers, main_module
from obl_magic.rundir import RunDir, buffers_of
from obl_magic.values import Job
from obl_magic.worker.orders import Orders
from obl_magic.worker.ranks import Rank

POLL_S = 0.005
SOON_S = 5.0
POLL_SELDOM_S = 0.05
"""A rank whose job does not come soon stands by, and must cost next to nothing."""
CHUNK_BYTES = 1 << 26
_WOKEN, _ARRAYS = 1, 2


class Inbox:
    """Where a rank gets its jobs from: one, or one after another that differ in little.

    Args:
        me: this rank.
        orders: what rank 0 hears from its kernel; None on other ranks.

    Attributes:
        folder: of the run whose job it takes, or has taken last.
    """

    def __init__(self, me: Rank, orders: Orders | None) -> None:
        self._me, self._orders = me, orders
        self._path, self._job = "", b""
        self.folder: RunDir | None = None

    def next(self) -> Job:
        """The next job; waits for it, and on ranks other than 0 costs next to nothing meanwhile."""
        if self._me.size == 1:
            said = self._read()
            return self._load(said, _mapped_here(said.path))
        from mpi4py import MPI

        comm = MPI.COMM_WORLD
        told = None
        if self._me.rank == 0:
            told = self._read()
            for other in range(1, self._me.size):
                comm.Send([b"", MPI.BYTE], dest=other, tag=_WOKEN)
        else:
            began = time.monotonic()
            while not comm.Iprobe(source=0, tag=_WOKEN):
                time.sleep(POLL_S if time.monotonic() - began < SOON_S else POLL_SELDOM_S)
            comm.Recv([bytearray(0), MPI.BYTE], source=0, tag=_WOKEN)
        said = comm.bcast(told, root=0)
        return self._load(said, shared(comm, buffers_of(Path(said.path))))

    def _read(self) -> _Said:
        """What the kernel tells rank 0 next."""
        assert self._orders is not None
        told = self._orders.job()
        path, changes = told["job"], told.get("changes")
        self.folder = RunDir(Path(changes or path).parent)
        data = b"" if path == self._path else Path(path).read_bytes()
        changed = Path(changes).read_bytes() if changes else b""
        return _Said(path, data, bool(told["goes_on"]), changed, str(self.folder.path))

    def _load(self, said: _Said, large: Sequence[memoryview]) -> Job:
        """The job anew each time, so that nothing a trial does to its values is seen by the next one."""
        self.folder = RunDir.at(said.folder)
        if said.path != self._path:
            self._path, self._job = said.path, said.job
        main_module.renew()
        with main_module.filled():
            job: Any = payload.loads(self._job, large)
            changes: dict[str, Any] = payload.loads(said.changes) if said.changes else {}
        assert isinstance(job, Job)
        job = replace(job, **changes)
        job = replace(job, settings=replace(job.settings, goes_on=job.settings.goes_on or said.goes_on))
        _look_as_the_kernel_does(job)
        return job


def _look_as_the_kernel_does(job: Job) -> None:
    """The notebook's folders come first, as there; but what is imported there of Python's own is so here, too."""
    for name in job.namesakes:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    sys.path[:0] = [entry for entry in job.path if entry not in sys.path]


@dataclass(frozen=True, slots=True)
class _Said:
    """What rank 0 tells the others of a job.

    Attributes:
        path: of its file.
        job: its bytes, or none where they are known already.
        goes_on: from what an earlier world has kept.
        changes: pickled fields that differ from the file's, or none.
        folder: of the run.
    """

    path: str
    job: bytes
    goes_on: bool
    changes: bytes
    folder: str


def shared(comm: Any, path: Path) -> Sequence[memoryview]:
    """The large buffers of a job on every rank, with one copy of them on each host; every rank must call it.

    Args:
        comm: mpi4py's communicator.
        path: their file, as this rank would see it; rank 0 sees it if there is one.

    Returns:
        The buffers in order; none where rank 0 has no file.
    """
    from mpi4py import MPI

    size = comm.bcast(_size_bytes(path), root=0)
    if not size:
        return ()
    seen = _size_bytes(path) == size
    if comm.allreduce(seen, MPI.LAND):
        return buffers.mapped(path)
    host = comm.Split_type(MPI.COMM_TYPE_SHARED)
    alike = host.Split(int(seen))
    takes = not seen and alike.rank == 0
    for rank, wants in enumerate(comm.allgather(takes)):
        if wants and comm.rank == 0:
            _send(comm, path, rank)
    found = buffers.mapped(path) if seen else _received(comm, alike, size)
    alike.Free()
    host.Free()
    return found


def _mapped_here(job: str) -> Sequence[memoryview]:
    path = buffers_of(Path(job))
    return buffers.mapped(path) if path.exists() else ()


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _send(comm: Any, path: Path, to: int) -> None:
    from mpi4py import MPI

    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as memory:
        for at in range(0, len(memory), CHUNK_BYTES):
            comm.Send([memory[at : at + CHUNK_BYTES], MPI.BYTE], dest=to, tag=_ARRAYS)


def _received(comm: Any, alike: Any, size: int) -> Sequence[memoryview]:
    """The buffers that rank 0 sends to the first of the ranks of a host that do not see the file.

    They are kept in memory that has no name on any disk, and is gone with the last of its ranks.
    """
    from mpi4py import MPI

    place, kept = "", -1
    if alike.rank == 0:
        kept = os.memfd_create("obl-arrays")
        os.ftruncate(kept, size)
        with mmap.mmap(kept, size) as memory, memoryview(memory) as view:
            for at in range(0, size, CHUNK_BYTES):
                with view[at : at + CHUNK_BYTES] as piece:
                    comm.Recv([piece, MPI.BYTE], source=0, tag=_ARRAYS)
        place = f"/proc/{os.getpid()}/fd/{kept}"
    found = buffers.mapped(alike.bcast(place))
    alike.Barrier()
    if kept >= 0:
        os.close(kept)
    return found
