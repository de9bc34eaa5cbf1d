"""A fork server: imports once what ranks import, and forks worlds whose ranks have it from their first moment on.

Run as ``python -P -m obl_magic.server``. For each request of its kernel it
forks a conductor, which holds the launcher on a leash as ever (``leash``) and forks a rank for each stub that the
launcher starts (``stub``). So everything of a world lives below its conductor, and ranks end, are killed and are
reaped like any others. A conductor does not depend on the server: a new one may take its place while worlds run.

It forks only while it has a single thread: what other threads hold would be held for ever in a child.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import importlib
import json
import os
import secrets
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from obl_magic.server.asking import MARK_OF_NO_WORLD, STARTED, Request, receive, tell
from obl_magic.worker import __main__ as worker
from obl_magic.worker import heartbeat, shelf
from obl_magic.world.leash import Ear, Leash, deaf, end_as, hold

OURS = ("obl_magic.worker.frameworks.keras.adapter",)
"""What of ours a rank imports with Keras."""
_PR_SET_PDEATHSIG, _MADV_DONTNEED = 1, 4


class Forked(BaseException):
    """This process is a rank now.

    Args:
        numbers: the files of its stub.
        files: the same ones, here.
        variables: its environment.
    """

    def __init__(self, numbers: list[int], files: list[int], variables: list[bytes]) -> None:
        super().__init__()
        self.numbers, self.files, self.variables = numbers, files, variables


def why_not() -> str:
    """Why this process must not fork ranks; "" if it may."""
    threads = os.listdir("/proc/self/task")
    if len(threads) > 1:
        return f"what it has imported started {len(threads) - 1} thread{'s' if len(threads) > 2 else ''}"
    devices = [path for path in _files().values() if path.startswith("/dev/nvidia")]
    return f"what it has imported opened {devices[0]}" if devices else ""


def _files() -> dict[int, str]:
    """What this process has open, by number."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # what the list itself was read from
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def import_ahead(modules: Sequence[str]) -> list[str]:
    """Imports what can be imported, as far as that starts nothing; the names of what was."""
    with contextlib.suppress(ImportError):
        import mpi4py  # where there is MPI

        mpi4py.rc.initialize = False
        importlib.import_module(shelf.MPI)
    found = []
    for name in modules:
        with contextlib.suppress(Exception):  # a rank that imports it will say so itself
            importlib.import_module(name)
            found.append(name)
    with contextlib.suppress(Exception):
        for name in OURS if "keras" in found else ():
            importlib.import_module(name)
    return found


class Server:
    """Takes its kernel's requests, one after another.

    Args:
        kernel: the socket.
        modules: what to import first.
    """

    def __init__(self, kernel: socket.socket, modules: Sequence[str]) -> None:
        self._kernel, self._ear = kernel, Ear()
        self._over = False
        self._held: list[str] = []
        self._variables = dict(os.environ)
        self._import(modules)
        self._ear.listen(kernel.fileno(), self._take)

    def serve(self) -> None:
        """Until the kernel wants no more worlds, and those that there are have ended."""
        while not self._over or _has_children():
            self._ear.hear()
            _reap()

    def _take(self) -> None:
        said, files = receive(self._kernel)
        if not said:
            self._over = True
            self._ear.forget(self._kernel.fileno())
            self._kernel.close()
            return
        if not files:
            self._import(json.loads(said))
            return
        says = socket.socket(fileno=files[3])
        if problem := why_not():
            says.sendall(json.dumps({"no": problem}).encode() + b"\n")
        elif os.fork() == 0:
            deaf()
            self._kernel.close()
            _conduct(Request(*json.loads(said)), files[:3], says, files[4])
        says.close()
        for file in (*files[:3], files[4]):
            os.close(file)

    def _import(self, modules: Sequence[str]) -> None:
        """Has these, too, in memory from now on; tells the kernel."""
        before = _files()
        self._held += import_ahead(modules)
        HELD.update(_files().keys() - before.keys())
        gc.freeze()  # a collection in a rank would write into all pages that it shares
        _give_pages_back()
        changed = {name: value for name, value in os.environ.items() if self._variables.get(name) != value}
        told = {"held": self._held, "modules": list(sys.modules), "set": changed, "no": why_not()}
        self._kernel.sendall(json.dumps(told).encode() + b"\n")


def _conduct(asked: Request, streams: list[int], says: socket.socket, kernel: int) -> NoReturn:
    """Holds a world, in a child of the server's."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        handle = os.pidfd_open(os.getpid())  # told first, by the same process that tells the rest
        socket.send_fds(says, [json.dumps({"leash": os.getpid()}).encode() + b"\n"], [handle])
        os.close(handle)
        os.setsid()
        _look_like(asked.mark)
        os.environ.clear()
        os.environ.update(asked.env)
        os.chdir(asked.cwd)
        for number, file in enumerate(streams):
            os.dup2(file, number)
            os.close(file)
        for file in (says.fileno(), kernel):
            os.set_inheritable(file, False)
        ear = Ear()
        ranks = _Ranks(ear, asked.address)

        def leashed(launcher: int) -> Leash:
            leash = Leash(launcher, asked.segments, ear, ranks.ended)

            def kernel_is_gone() -> None:
                leash.asked = True
                ear.forget(kernel)

            ear.listen(kernel, kernel_is_gone)
            return leash

        status = hold(ear, leashed, says.fileno(), asked.folders, asked.argv)
    except Forked:
        says.close()
        os.close(kernel)
        raise
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    end_as(status)
    raise AssertionError("it has ended")


class _Ranks:
    """The ranks of one world, which live as long as the stubs whose places they have."""

    def __init__(self, ear: Ear, address: str) -> None:
        self._ear = ear
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._door.bind("\0" + address)
        self._door.listen(4096)
        self._stubs: dict[int, socket.socket] = {}
        ear.listen(self._door.fileno(), self._let_in)

    def _let_in(self) -> None:
        came, _ = self._door.accept()
        came.settimeout(10.0)
        if _user(came) != os.geteuid():
            came.close()
            return
        said, files = receive(came)
        listed, *variables = said.split(b"\0")
        numbers = [int(number) for number in listed.split()]
        taken = HELD.intersection(numbers)
        rank = 0 if taken else os.fork()
        if rank == 0 and not taken:
            for each in (came, self._door, *self._stubs.values()):
                each.close()
            raise Forked(numbers, files, variables)
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


def _user(other: socket.socket) -> int:
    """Who is at the other end; the system tells process, user and group."""
    said = other.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    return int.from_bytes(said[4:8], sys.byteorder)


def _be_a_rank(of_stub: Forked) -> NoReturn:
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


HELD: set[int] = set()
"""The files that belong to what was imported."""


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


def _look_like(mark: tuple[str, str]) -> None:
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


def _give_pages_back() -> None:
    """Unmaps what can be read from its file again: the code of libraries, most of which is needed once, at import."""
    libc = ctypes.CDLL(None)
    place = (0, 0)
    with open("/proc/self/smaps") as maps:
        for line in maps:
            name, *words = line.split()
            if "-" in name and not name.endswith(":"):
                first, last = (int(number, 16) for number in name.split("-"))
                of_file = words[0] in ("r--p", "r-xp") and words[3] != "0"
                place = (first, last - first) if of_file else (0, 0)
            elif name == "Anonymous:" and words[0] == "0" and place[1]:  # nothing was written into it
                libc.madvise(ctypes.c_void_p(place[0]), ctypes.c_size_t(place[1]), _MADV_DONTNEED)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            continue


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def main(parent: int, descriptor: int, modules: list[str]) -> None:
    """Serves until its kernel is gone.

    Args:
        parent: the kernel's process id.
        descriptor: of the socket to it.
        modules: what to import first.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return
    kernel = socket.socket(fileno=descriptor)
    kernel.set_inheritable(False)
    try:
        Server(kernel, modules).serve()
    except Forked as rank:
        of_stub = rank
    else:
        return
    try:
        _be_a_rank(of_stub)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


if __name__ == "__main__":
    parent, descriptor, *modules = os.environ.pop(STARTED).split()
    main(int(parent), int(descriptor), modules)
