"""Ranks that are forked: one for each stub of their world, which lives as long as it and ends as it does."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import secrets
import signal
import socket
import sys
from pathlib import Path
from typing import Any, NoReturn

from obl_magic.server.asking import MARK_OF_NO_WORLD, receive, tell
from obl_magic.server.imported import HELD
from obl_magic.worker import __main__ as worker
from obl_magic.worker import heartbeat, shelf
from obl_magic.world.leash import Ear, deaf


class IsRank(BaseException):
    """This process is a rank now.

    Args:
        numbers: the files of its stub.
        files: the same ones, here.
        variables: its environment.
    """

    def __init__(self, numbers: list[int], files: list[int], variables: list[bytes]) -> None:
        super().__init__()
        self.numbers, self.files, self.variables = numbers, files, variables


class Ranks:
    """The ranks of one world on this host, which live as long as the stubs whose places they have.

    Args:
        ear: hears of the stubs.
        address: where they look for this.

    Attributes:
        came: whether any did.
    """

    def __init__(self, ear: Ear, address: str) -> None:
        self._ear = ear
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._door.bind("\0" + address)
        self._door.listen(4096)
        self._stubs: dict[int, socket.socket] = {}
        self.came = False
        ear.listen(self._door.fileno(), self._let_in)

    @property
    def any(self) -> bool:
        """Whether there are some now."""
        return bool(self._stubs)

    def _let_in(self) -> None:
        came, _ = self._door.accept()
        came.settimeout(10.0)
        self.came = True
        process, user = _other(came)
        if user != os.geteuid():
            came.close()
            return
        said, files = receive(came)
        listed, *variables = said.split(b"\0")
        numbers = [int(number) for number in listed.split()]
        taken = HELD.intersection(numbers)
        rank = 0 if taken else os.fork()
        if rank == 0 and not taken:
            os.chdir(f"/proc/{process}/cwd")
            for each in (came, self._door, *self._stubs.values()):
                each.close()
            raise IsRank(numbers, files, variables)
        for file in files:
            os.close(file)
        if rank == 0:  # the stub becomes the rank itself
            tell(came, 0)
            came.close()
            return
        came.settimeout(None)
        self._stubs[rank] = came
        tell(came, rank)
        self._ear.listen(came.fileno(), lambda: self._stub_is_gone(rank))

    def _stub_is_gone(self, rank: int) -> None:
        """The launcher has ended it, or it was killed."""
        if (stub := self._stubs.pop(rank, None)) is not None:
            self._ear.forget(stub.fileno())
            stub.close()
            with contextlib.suppress(ProcessLookupError):
                os.kill(rank, signal.SIGKILL)

    def ended(self, pid: int, status: int) -> None:
        """A child of this process has."""
        if (stub := self._stubs.pop(pid, None)) is not None:
            self._ear.forget(stub.fileno())
            tell(stub, status)
            stub.close()


def _other(end: socket.socket) -> tuple[int, int]:
    """The process at the other end, and its user, as the system tells them."""
    said = end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(said[:4], sys.byteorder), int.from_bytes(said[4:8], sys.byteorder)


def be_a_rank(of_stub: IsRank) -> NoReturn:
    """Takes a stub's place: its files, its environment; then it is as a fresh process."""
    deaf()
    os.setpgid(0, 0)
    numbers, files = of_stub.numbers, of_stub.files
    high = max((*numbers, *files)) + 1
    for number, file in zip(numbers, [_moved(file, high) for file in files], strict=True):
        os.dup2(file, number)
    kept = {*numbers, *HELD}
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in kept:
            with contextlib.suppress(OSError):
                os.close(int(name))
    os.environ.clear()
    for variable in of_stub.variables:
        key, _, value = variable.partition(b"=")
        os.environb[key] = value
    heartbeat.inherits_memory()
    _forget_chance()
    _use_threads(int(os.environ.get("OMP_NUM_THREADS") or 0))
    sys.argv = [str(worker.__file__)]
    shelf.Shelf(then={shelf.MPI: _begin_mpi})
    worker.main()
    os._exit(0)


def _moved(file: int, high: int) -> int:
    found = fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, high)
    os.close(file)
    return found


def _begin_mpi() -> None:
    """As it begins whenever it is imported."""
    import mpi4py
    from mpi4py import MPI

    mpi4py.rc.initialize = True
    MPI.Init_thread(MPI.THREAD_MULTIPLE)


def _forget_chance() -> None:
    """No two processes that were forked draw the same numbers; Python's own ``random`` sees to itself."""
    processes: Any = sys.modules.get("multiprocessing.process")
    if processes is not None:
        processes.current_process().authkey = secrets.token_bytes(32)
    numpy: Any = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()


def _use_threads(threads: int) -> None:
    """What was imported for a single thread may use so many: the libraries below NumPy and SciPy."""
    if threads > 1:
        import threadpoolctl  # where ranks have more than one

        threadpoolctl.threadpool_limits(threads)


def look_like(mark: tuple[str, str]) -> None:
    """Makes a child of the server look like a rank of its world to whoever looks at the list of processes."""
    _rewrite(f"{mark[0]}={MARK_OF_NO_WORLD}".encode(), f"{mark[0]}={mark[1]}".encode())
    _rewrite(b"obl_magic.server\0", b"obl_magic.worker\0")


def _rewrite(old: bytes, new: bytes) -> None:
    """Replaces a text by one as long, in the command line or environment that the system shows; see proc(5)."""
    stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    first, last = int(stat[45]), int(stat[48])  # arg_start, env_end
    at = ctypes.string_at(first, last - first).find(old) if first else -1
    if at >= 0:
        ctypes.memmove(first + at, new, len(new))
