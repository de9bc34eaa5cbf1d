"""This process's fork server: brought up in the background, renewed when it is no longer like this process, asked.

A world that is forked finds TensorFlow in its memory; see ``__main__`` and docs/decisions/0014-fork-server.md.
It is used only while all that a fresh process would be started with is as it was when the server was started:
compared by equality, not by meaning.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import resource
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from obl_magic.environment import OLDER, PREFIX, setting
from obl_magic.errors import SetupProblem
from obl_magic.hosts.places import is_this_host
from obl_magic.server.afar import Afar
from obl_magic.server.here import Here
from obl_magic.server.imported import NEEDS_BYTES
from obl_magic.server.running import Running
from obl_magic.worker import shelf
from obl_magic.world.channel import Channel, Wanted
from obl_magic.world.free_memory import available_bytes

BASE = ("numpy", "tensorflow", "keras", "horovod.tensorflow")
"""What it imports in any case; in this order."""
_ATTEMPTS = 3
_OF_NO_IMPORT = ("PYTEST_CURRENT_TEST", "COLUMNS", "LINES")
"""Variables that change while a process runs and that no library reads, beside our own."""


@dataclass(frozen=True, slots=True)
class Grounds:
    """What a fresh process would be started with, here and now.

    Attributes:
        env: the environment, without what is ours and what no import reads.
        limits: of resources, processors, rights of new files, and the control group.
        files: of the packages that are held: when each was last written.
    """

    env: Mapping[str, str] = field(repr=False)
    limits: tuple[object, ...]
    files: tuple[tuple[str, int], ...]


def grounds(environ: Mapping[str, str] = os.environ) -> Grounds:
    """Those of this process."""
    env = {name: value for name, value in environ.items() if not _is_of_no_import(name)}
    limits = [
        resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")
    ]
    status = Path("/proc/self/status").read_text()
    mask = [line for line in status.splitlines() if line.startswith("Umask")]
    group = Path("/proc/self/cgroup").read_text()
    about = (
        *limits,
        tuple(sorted(os.sched_getaffinity(0))),
        os.getpriority(os.PRIO_PROCESS, 0),
        *mask,
        group,
    )
    return Grounds(env, about, tuple(_files()))


def _is_of_no_import(name: str) -> bool:
    return name.startswith((PREFIX, OLDER)) or name in _OF_NO_IMPORT


def _files() -> list[tuple[str, int]]:
    found = []
    for name in ("numpy", "tensorflow", "keras", "horovod", "mpi4py"):
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin:
            with contextlib.suppress(OSError):
                found.append((name, os.stat(spec.origin).st_mtime_ns))
    return found


def can_fork() -> bool:
    """Whether this system has what a fork server needs: Linux, with handles of processes (pidfd, since 5.3)."""
    if sys.platform != "linux":
        return False
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError:  # an old kernel, or a container that forbids it
        return False
    return True


def is_forbidden(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether the user wants none: ``OBLIVIOUS_FORK=off``, once called ``STANDBY``."""
    return "off" in (setting("FORK", environ)[1], setting("STANDBY", environ)[1])


class Server:
    """At most one, usable from any thread. ``OBLIVIOUS_FORK=off`` forbids it.

    Attributes:
        allowed: whether worlds may come from it.
    """

    def __init__(self) -> None:
        self.allowed = can_fork() and not is_forbidden()
        self._lock = threading.RLock()
        self._now: Here | None = None
        self._afar: dict[str, Afar] = {}
        self._grounds: Grounds | None = None
        self._learned: set[str] = set()

    def allow(self) -> None:
        """From now on worlds may come from it, where the system can fork so."""
        self.allowed = can_fork()

    def warm(self) -> None:
        """Brings it up in the background, where it is allowed and not there, or not like this process."""
        with self._lock:
            if not self.allowed or self._current() is not None:
                return
            self._end()
            if available_bytes() < NEEDS_BYTES:
                return
            self._grounds = grounds()
            with contextlib.suppress(SetupProblem):
                self._now = Here(self._wanted())

    def renew(self) -> None:
        """Replaces one that is no longer like this process; has it import what this process, or a run, has since."""
        with self._lock:
            if self._now is None:
                return
            running = self._current()
            if running is None:
                self.warm()
            else:
                for each in (running, *self._afar.values()):
                    if more := [name for name in self._wanted() if not each.has(name)]:
                        each.also(more)

    def learn(self, imported: Sequence[str]) -> None:
        """A function has imported these libraries, so the next one may as well."""
        with self._lock:
            self._learned.update(imported)

    def end(self) -> None:
        """No world comes from it any more; those that came run on."""
        with self._lock:
            self._end()

    def channel(self, want: Wanted, in_a_hurry: Callable[[], bool] = lambda: False) -> tuple[Channel, str]:
        """Starts a world: from the server if it may be, and is there or is worth waiting for; else afresh.

        Args:
            want: which.
            in_a_hurry: whether nobody wants to wait any more.

        Returns:
            The world, and why it, or a part of it, was started afresh where that is worth a word.

        Raises:
            SetupProblem: the launcher could not be started.
        """
        problem = ""
        for _ in range(_ATTEMPTS):  # it may end, or turn out to be unlike this process, just when it is asked
            running = self._for(want)
            if running is None:
                break
            afar = self._on_other_hosts(want)
            problem = running.problem(in_a_hurry)
            if not problem and running is self._for(want):  # what its imports have set is known by now
                problems = {each: each.problem(in_a_hurry) for each in afar}
                ready = [each for each, why in problems.items() if not why]
                try:
                    start = partial(running.start, elsewhere=ready)
                    whys = [f"{why}, so its ranks were started afresh" for why in problems.values() if why]
                    return Channel(want, start), "; ".join(whys)
                except SetupProblem:  # is it the launcher's, it is said when the world is started afresh
                    problem = "the fork server did not answer"
            if problem and not running.has_ended(within_s=1.0):
                break
        return Channel(want), f"{problem}, so this world was started afresh" if problem else ""

    def is_coming_up(self, want: Wanted) -> bool:
        """Whether :meth:`channel` would wait until it is ready."""
        running = self._for(want)
        return running is not None and not all(
            each.is_ready for each in (running, *self._on_other_hosts(want))
        )

    def _on_other_hosts(self, want: Wanted) -> list[Afar]:
        """The servers of a world's other hosts, ready or not; they are started where it imports the frameworks."""
        found = []
        for host in want.hosts.names if want.hosts is not None else ():
            if is_this_host(host):
                continue
            with self._lock:
                running = self._afar.get(host)
                if running is None or running.owner != os.getpid() or running.has_ended():
                    if not want.imports:
                        continue
                    running = self._afar[host] = Afar(host, self._wanted())
            if want.imports or running.is_ready:
                found.append(running)
        return found

    def _for(self, want: Wanted) -> Here | None:
        """The one that such a world comes from, ready or not; none if it had better be started afresh."""
        if not self.allowed or want.queued or (want.hosts is not None and want.hosts.of):
            return None  # what Slurm starts is bound by its rules
        with self._lock:
            running = self._current()
            if running is None and want.imports:  # once for all ranks, rather than once a rank
                self.warm()
                running = self._current()
            return running if running is not None and (want.imports or running.is_ready) else None

    def status(self) -> str:
        """One line for people."""
        if not self.allowed:
            why = "it is off (OBLIVIOUS_FORK=off, or %oblivious server off)"
            return (
                f"no fork server: {why if can_fork() else 'this system has no handles of processes (pidfd)'}"
            )
        with self._lock:
            running, afar = self._current(), [*self._afar.values()]
        if running is None:
            return "no fork server runs; the next run with workers starts one"
        return "; ".join(each.status() for each in (running, *afar))

    @property
    def pid(self) -> int:
        """Its process; 0 where there is none."""
        with self._lock:
            return 0 if self._now is None else self._now.pid

    def _current(self) -> Here | None:
        """The one that runs, if it may serve."""
        running = self._now
        if running is None or running.owner != os.getpid() or running.has_ended():
            return None
        return running if self._is_like(running, grounds()) else None

    def _wanted(self) -> list[str]:
        """What it is to import, in order."""
        used = {*shelf.in_use(), *self._learned}
        return [*(name for name in shelf.LIBRARIES if name in used), *BASE]

    def _is_like(self, running: Running, now: Grounds) -> bool:
        """Whether a fresh process would be started with the same, but for what the server's own imports have set."""
        then = self._grounds
        if then is None or (then.limits, then.files) != (now.limits, now.files):
            return False
        differ = [name for name in {**then.env, **now.env} if then.env.get(name) != now.env.get(name)]
        return all(running.sets(name, now.env.get(name)) for name in differ)

    def _end(self) -> None:
        ending = [*filter(None, [self._now]), *self._afar.values()]
        self._now, self._afar = None, {}
        for running in ending:
            if running.owner == os.getpid():
                running.end()


SERVER = Server()
"""This process's."""
