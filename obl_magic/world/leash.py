"""Holds a launcher on a leash: when whoever started it is gone, or when it has ended, nothing below it lives on.

Run as a script, with as little of Python as there is. Open MPI's launcher does not tell its ranks that standard
input has ended, so that they cannot find out by themselves that their kernel is gone; nor does it end at every
SIGTERM. On Linux this process is the reaper of all that lives below it: what loses its parent becomes its child,
whatever its session and its environment.

It says on a pipe, as lines of JSON, ``{"launcher": pid}`` and at its end ``{"left": [[pid, command], ...],
"status": n}``: what it had to end itself, and how the launcher ended, as ``os.wait`` says it. It ends as the launcher
did. At SIGTERM it ends the world at once: the ranks are killed, not
asked, since they may sit in C code; the launcher has a moment to tidy up, or none after a second SIGTERM.
"""

from __future__ import annotations

import ctypes
import glob
import json
import os
import re
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable

GRACE_S = 2.0
"""What the launcher has to tidy up when the world is ended (Open MPI may take two seconds over dead ranks)."""
AGAIN_S = 0.3
"""After which a launcher without ranks is told again: salloc that has not heard yet what its job is called goes on."""
BY_THEMSELVES_S = 1.0
"""What the processes that a launcher leaves behind have to end by themselves, as trackers of resources do."""
ALL_GONE_S = 5.0
_TRACKER = "resource_tracker"
"""In the command line of the processes by which Python's pools remove their semaphores when all else is gone."""
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
_LINUX = sys.platform == "linux"
_HEARD = (signal.SIGTERM, signal.SIGCHLD)


class Ear:
    """Waits for signals and descriptors alike; at most one in a process, in its main thread."""

    def __init__(self) -> None:
        self._bell, ringing = os.pipe()
        for end in (self._bell, ringing):
            os.set_blocking(end, False)
        self._poll = select.poll()
        self._poll.register(self._bell, select.POLLIN)
        self._then: dict[int, Callable[[], None]] = {}
        for number in _HEARD:
            signal.signal(number, _ignored)
        signal.set_wakeup_fd(ringing, warn_on_full_buffer=False)

    def listen(self, descriptor: int, then: Callable[[], None]) -> None:
        """Calls ``then`` whenever there is something to read, or the other end is closed."""
        self._then[descriptor] = then
        self._poll.register(descriptor, select.POLLIN)

    def forget(self, descriptor: int) -> None:
        """Listens to it no more."""
        if self._then.pop(descriptor, None) is not None:
            self._poll.unregister(descriptor)

    def hear(self, within_s: float | None = None) -> set[int]:
        """The signals that have come since the last call; waits for something, at most so long."""
        ready = self._poll.poll(None if within_s is None else max(0.0, within_s) * 1000)
        signals: set[int] = set()
        for descriptor, _ in ready:
            if descriptor == self._bell:
                signals.update(os.read(self._bell, 4096))
            elif descriptor in self._then:
                self._then[descriptor]()
        return signals


def deaf() -> None:
    """Signals do to this process, a forked child of one that listened, what they do to any."""
    signal.set_wakeup_fd(-1)
    for number in _HEARD:
        signal.signal(number, signal.SIG_DFL)


def _ignored(number: int, frame: object) -> None:
    """The bell has rung."""


class Leash:
    """One launcher and what lives below it.

    Args:
        launcher: its process id; 0: it is on another host.
        segments: what shared memory of MPI's own is called, as a regular expression.
        ear: hears of SIGTERM, of the launcher's end, and of whatever else is to end the world.
        reaped: told of every other child that has ended: its process id, and its status.

    Attributes:
        asked: this world is to be ended now.
        left: what had to be ended, as process id and command.
    """

    def __init__(
        self, launcher: int, segments: str, ear: Ear, reaped: Callable[[int, int], None] = lambda *_: None
    ) -> None:
        self._launcher, self._segments = launcher, re.compile(segments, re.M)
        self._ear, self._reaped = ear, reaped
        self._status: int | None = None
        self._shared: set[str] = set()
        self.asked = False
        self.left: dict[int, str] = {}

    def hold(self) -> int:
        """Returns when nothing below is left; how the launcher ended, as ``os.wait`` says it."""
        while not self.asked and not self._has_ended():
            self.asked = signal.SIGTERM in self._ear.hear() or self.asked
        asked = self.asked
        if asked:
            self._end_at_once()
        self.end_the_rest(0.0 if asked else BY_THEMSELVES_S)
        return self._status or 0

    def _end_at_once(self) -> None:
        """Kills all but the launcher, which is held meanwhile so that it starts nothing new."""
        _send(self._launcher, signal.SIGSTOP)
        alone = not self._kill(
            but=self._launcher
        )  # it waits for something else than the ranks' end: for Slurm, say
        if alone:
            _send(self._launcher, signal.SIGTERM)
        _send(self._launcher, signal.SIGCONT)
        until = time.monotonic() + GRACE_S
        while not self._has_ended():
            left_s = until - time.monotonic()
            if signal.SIGTERM in self._ear.hear(min(left_s, AGAIN_S) if alone else left_s) or left_s <= 0:
                _send(self._launcher, signal.SIGKILL)
                break
            if alone:
                _send(self._launcher, signal.SIGTERM)

    def end_the_rest(self, by_themselves_s: float = 0.0) -> None:
        """Kills what the launcher has left, after a while in which it may end by itself; and removes what it shared."""
        until = time.monotonic() + by_themselves_s
        while self._below() and (left_s := until - time.monotonic()) > 0:
            if signal.SIGTERM in self._ear.hear(min(left_s, 0.1)):
                break
        began = time.monotonic()
        while self._kill(trackers=time.monotonic() - began > BY_THEMSELVES_S) and (
            time.monotonic() - began < ALL_GONE_S
        ):
            self._ear.hear(0.01)
        self._has_ended()
        for path in self._shared:
            try:
                os.unlink(path)
            except OSError:
                continue

    def reap(self) -> None:
        """Says of whatever has ended that it has."""
        self._has_ended()

    def _kill(self, but: int = 0, trackers: bool = False) -> bool:
        """Kills what is below; whether there was anything. Trackers of resources may first remove what they track."""
        below = {pid: _command(pid) for pid in self._below() if pid != but}
        found = [pid for pid, command in below.items() if trackers or _TRACKER not in command]
        for pid in found:
            self.left.setdefault(pid, below[pid])
            self._shared |= set(self._segments.findall(_read(f"/proc/{pid}/maps")))
        for pid in found:
            _send(pid, signal.SIGKILL)
        return bool(below)

    def _below(self) -> list[int]:
        """Every living process below this one; the dead ones that are its own are reaped."""
        self._has_ended()
        parents = dict(_parents())
        below: list[int] = []
        ours = {os.getpid()}
        while more := [pid for pid, parent in parents.items() if parent in ours]:
            below += more
            ours = set(more)
        return below

    def _has_ended(self) -> bool:
        """Whether the launcher has; reaps whatever has ended."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            if pid == self._launcher:
                self._status = status
            else:
                self._reaped(pid, status)
        return self._status is not None


def _parents() -> list[tuple[int, int]]:
    """(process, its parent) of every process that lives."""
    if not _LINUX:
        with os.popen("ps -axo pid=,ppid=,stat=") as said:
            rows = [line.split() for line in said]
        return [(int(row[0]), int(row[1])) for row in rows if len(row) > 2 and row[2][0] != "Z"]
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit() and (stat := _read(f"/proc/{name}/stat")):
            state, parent = stat.rpartition(")")[2].split()[:2]
            if state not in "ZX":
                found.append((int(name), int(parent)))
    return found


def _command(pid: int) -> str:
    return " ".join(_read(f"/proc/{pid}/cmdline").split("\0")).strip()


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def prctl(option: int, value: int) -> None:
    """Asks the system for something about this process, on Linux; see its manual page."""
    if _LINUX:
        ctypes.CDLL(None).prctl(option, value)


def _become_the_launcher(holder: int, argv: list[str]) -> None:
    """In a session of its own; it is killed if the one who holds it is."""
    try:
        deaf()
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == holder:
            os.execv(argv[0], argv)
    finally:
        os._exit(127)


def main(parent: int, says: int, folders: list[str], segments: str, argv: list[str]) -> None:
    """Starts the launcher and holds it, for as long as whoever starts this lives.

    Args:
        parent: process id of whoever does.
        says: descriptor of the pipe.
        folders: patterns of folders that the launcher may leave behind, with ``{pid}`` for its process id.
        segments: see :class:`Leash`.
        argv: the launcher's command line.
    """
    ear = Ear()
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:
        return
    os.set_inheritable(says, False)
    status = hold(ear, lambda launcher: Leash(launcher, segments, ear), says, folders, argv)
    end_as(status)


def hold(ear: Ear, leashed: Callable[[int], Leash], says: int, folders: list[str], argv: list[str]) -> int:
    """Starts the launcher, holds it to its end and tells; how it ended, as ``os.wait`` says it.

    Args:
        ear: hears of its end.
        leashed: makes the leash of its process id.
        says: as for :func:`main`.
        folders: as for :func:`main`.
        argv: as for :func:`main`.
    """
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    holder = os.getpid()
    launcher = os.fork()
    if launcher == 0:
        _become_the_launcher(holder, argv)
    _say(says, {"launcher": launcher})
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):  # who reads or writes them at the other end is to notice the launcher's end
        os.dup2(nothing, descriptor)
    leash = leashed(launcher)
    status = leash.hold()
    ended = [launcher, *leash.left]  # a launcher may have been started by another one: by Slurm's
    for found in [
        path for pattern in folders for pid in ended for path in glob.glob(pattern.format(pid=pid))
    ]:
        _remove(found)
    _say(says, {"left": sorted(leash.left.items()), "status": status})
    return status


def end_as(status: int) -> None:
    """Ends this process as another one ended, whose status this is."""
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 1)


def _remove(folder: str) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _say(to: int, what: dict[str, object]) -> None:
    try:
        os.write(to, json.dumps(what).encode() + b"\n")
    except BrokenPipeError:
        return


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3]), sys.argv[4], sys.argv[5:])
