"""One launcher and all that lives below it: how it is started, and how all of it is ended.

A world is started in a session of its own, since Jupyter interrupts the kernel's whole process group. It hangs on a
leash (``leash``), a process that holds all that lives below it and outlives this one if need be.
"""

from __future__ import annotations

import contextlib
import errno
import glob
import json
import os
import queue
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import psutil

from obl_magic.errors import SetupProblem
from obl_magic.launchers import launchers
from obl_magic.world import leash
from obl_magic.world.threads import begin

OnLine = Callable[[bytes], None]


class LeashProcess(Protocol):
    """What is used of ``subprocess.Popen``."""

    @property
    def pid(self) -> int: ...
    @property
    def stdin(self) -> IO[bytes] | None: ...
    @property
    def stdout(self) -> IO[bytes] | None: ...
    @property
    def stderr(self) -> IO[bytes] | None: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, number: int, /) -> None: ...
    def kill(self) -> None: ...


MARK = "OBLIVIOUS_WORLD"
"""Environment variable by which a process of a world is known when its parent and the leash are gone."""
_TIDIES_UP_S = 3.0
"""What a launcher has to end ranks that wait for their end, and to remove what it has made."""
_ENDED_WITHIN_S = 10.0
"""What the leash has to end a world, before this process does it itself."""


class World:
    """A launcher, its ranks, and whatever they start.

    Args:
        argv: the launcher's command line.
        env: its whole environment.
        cwd: working folder of the ranks.
        on_line: called with each line of the ranks' event stream, from a thread.
        on_word: called with each line of the launcher's own standard error, from another thread.
        on_end: called when the launcher has ended, from a third.
        program: a rank's command line, if it is not the end of ``argv``.
        start: how it is started.

    Raises:
        SetupProblem: the launcher could not be started.
    """

    def __init__(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        cwd: Path,
        on_line: OnLine,
        on_word: OnLine,
        on_end: Callable[[], None] = lambda: None,
        program: Sequence[str] = (),
        start: Start | None = None,
    ) -> None:
        self._mark = secrets.token_hex(16)
        self._ended = threading.Event()

        def ended() -> None:
            self._ended.set()
            on_end()

        readers = [_Reader(on_line), _Reader(on_word)]
        try:
            self._readers = [
                begin(reader.read, name)
                for reader, name in zip(readers, ("obl-events", "obl-launcher"), strict=True)
            ]
            self._held = (start or leashed)(argv, program, {**env, MARK: self._mark}, cwd, ended)
        except OSError as error:
            raise SetupProblem(
                f"{argv[0]} could not be started ({error.strerror})", "python -m obl_magic doctor"
            ) from error
        else:
            self._launcher = self._held.leash
            for reader, pipe in zip(readers, (self._launcher.stdout, self._launcher.stderr), strict=True):
                reader.pipe.put(pipe)
        finally:
            for reader in readers:
                reader.pipe.put(None)
        self._had_ranks = False

    @property
    def pid(self) -> int:
        """The launcher's process id."""
        return self._held.launcher

    @property
    def left(self) -> dict[int, str]:
        """What had to be ended when the launcher had ended or was ended: command lines by process id."""
        return self._held.left

    @property
    def exit_code(self) -> int | None:
        """The launcher's exit code (negative: killed by that signal), or None while it runs."""
        return self._launcher.poll()

    def give(self, job: Path, goes_on: bool = False, changes: Path | None = None) -> None:
        """Tells rank 0 where its job is.

        Args:
            job: its file.
            goes_on: from what an earlier world has kept.
            changes: file of the pickled fields in which this job differs from the one in its file.
        """
        self._tell({"job": str(job), "goes_on": goes_on, "changes": str(changes) if changes else None})

    def answer(self, prune: bool) -> None:
        """Answers rank 0's question whether its trial is to end."""
        self._tell({"prune": prune})

    def ask_to_stop(self) -> None:
        """Tells rank 0 that the run is to stop at the next step boundary."""
        self._tell({"stop": True})

    def ask_to_keep(self) -> None:
        """Tells rank 0 to keep where the function is at the end of each epoch from now on, whatever that costs."""
        self._tell({"keep": True})

    def _tell(self, message: Mapping[str, object]) -> None:
        """A line to rank 0. A world that is already gone is noticed elsewhere."""
        assert self._launcher.stdin is not None
        with contextlib.suppress(BrokenPipeError, ValueError):
            self._launcher.stdin.write(json.dumps(message).encode() + b"\n")
            self._launcher.stdin.flush()

    def wait(self, timeout_s: float) -> bool:
        """Whether the launcher has ended within ``timeout_s`` seconds and all it said was read."""
        if not self._ended.wait(
            timeout_s
        ):  # asking the process itself would wake up hundreds of times a second
            return False
        self._launcher.wait()
        for reader in self._readers:
            reader.join(timeout=2)
        return True

    def is_deserted(self, heard: bool) -> bool:
        """Whether the launcher runs on although all that it had started is gone, as Open MPI's may when MPI fails.

        Args:
            heard: a rank has spoken, so there were some, however short they lived.
        """
        if self._ended.is_set():
            return False
        with contextlib.suppress(psutil.NoSuchProcess):
            has_ranks = any(_lives(child) for child in psutil.Process(self.pid).children())
            self._had_ranks = self._had_ranks or has_ranks or heard
            return self._had_ranks and not has_ranks
        return False

    def end(self) -> None:
        """Ends a world whose ranks have nothing more to do: its launcher tidies up, on all its hosts.

        Returns when none of its processes is left.
        """
        if not self._ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
            self.wait(_TIDIES_UP_S)
        self.stop()

    def stop(self, grace_s: float = 0.3) -> None:
        """Ends every process of this world, the ranks at once; returns when none is left.

        The ranks are killed, not asked: they may sit in C code. The launcher then has ``grace_s`` seconds to tidy up
        and end by itself, before it is killed too.
        """
        for patience_s in (grace_s, _ENDED_WITHIN_S):
            if self._launcher.poll() is None:
                self._launcher.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._launcher.wait(patience_s)
        if self._launcher.poll() is None or not self._held.has_said_all(1.0):
            self._kill_all()
        self.wait(1)
        self.close()

    def close(self) -> None:
        """Releases the standard input of a world that has ended; the readers close what they read, at its end."""
        assert self._launcher.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._launcher.stdin.close()

    def _kill_all(self) -> None:
        """Ends what is left without its leash: re-parented, it is known by its environment alone."""
        self._launcher.kill()
        self._launcher.wait()
        deadline = time.monotonic() + 4
        while time.monotonic() < deadline:
            everyone = psutil.process_iter(["environ"])
            found = [p for p in everyone if (p.info["environ"] or {}).get(MARK) == self._mark and _lives(p)]
            if not found:
                return
            for process in found:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            time.sleep(0.005)


def session_folders() -> list[str]:
    """Patterns of what any launcher leaves in the folder for temporary files when it is killed."""
    temporary = glob.escape(tempfile.gettempdir())
    return [pattern for each in launchers() for pattern in each.session_folders(temporary, os.geteuid())]


def segments() -> str:
    """MPI's own shared memory in ``/proc/PID/maps`` of a rank; it stays behind when rank and launcher are killed."""
    return rf" (/dev/shm/(?:{'|'.join(each.SEGMENTS for each in launchers())})\S+)$"


@dataclass(frozen=True, slots=True)
class Held:
    """A launcher on its leash.

    Attributes:
        leash: the process that holds it.
        launcher: its process id.
        left: what the leash had to end.
        said_all: set when the leash has said so.
    """

    leash: LeashProcess
    launcher: int
    left: dict[int, str]
    said_all: threading.Event

    def has_said_all(self, timeout_s: float) -> bool:
        """Whether nothing is left, as far as Linux can tell."""
        return self.said_all.wait(timeout_s) and sys.platform == "linux"


Start = Callable[[Sequence[str], Sequence[str], Mapping[str, str], Path, Callable[[], None]], Held]
"""(argv, program, env, cwd, ended) -> a launcher that ends when this process does. It calls ``ended`` last, from a
thread that lives as long as the launcher. May raise OSError."""


def found(program: str) -> str:
    """The path of a program.

    Raises:
        OSError: there is none, or it must not be run.
    """
    path = shutil.which(program)
    if path is None:
        reason = errno.EACCES if os.path.exists(program) else errno.ENOENT
        raise OSError(reason, os.strerror(reason))
    return path


def leashed(
    argv: Sequence[str], program: Sequence[str], env: Mapping[str, str], cwd: Path, ended: Callable[[], None]
) -> Held:
    """Starts a launcher with a leash of its own; see :data:`Start`.

    Linux tells a child of the death of the thread that started it, not of the process.
    """
    path = found(argv[0])
    answer: queue.SimpleQueue[Held | OSError] = queue.SimpleQueue()

    def hold() -> None:
        hearing, saying = os.pipe()
        about = [str(os.getpid()), str(saying), json.dumps(session_folders()), segments()]
        with open(hearing, "rb") as words:
            try:
                holder = subprocess.Popen(
                    [sys.executable, "-I", "-S", leash.__file__, *about, path, *argv[1:], *program],
                    env=dict(env), cwd=cwd,
                    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
                    pass_fds=(saying,),
                )  # fmt: skip
            except OSError as error:
                answer.put(error)
                return
            finally:
                os.close(saying)
            began = words.readline()
            held = Held(holder, json.loads(began)["launcher"] if began else 0, {}, threading.Event())
            answer.put(held if began else OSError(errno.ECHILD, "its leash has ended"))
            if last := words.readline():
                held.left.update(json.loads(last)["left"])
                held.said_all.set()
        with contextlib.suppress(ChildProcessError):  # somebody else has already asked how it ended
            os.waitid(os.P_PID, holder.pid, os.WEXITED | os.WNOWAIT)
        ended()

    begin(hold, "obl-leash")
    started = answer.get()
    if isinstance(started, OSError):
        raise started
    return started


class _Reader:
    """Reads a pipe that it is given, or None; passes on its lines."""

    def __init__(self, on_line: OnLine) -> None:
        self.pipe: queue.SimpleQueue[IO[bytes] | None] = queue.SimpleQueue()
        self._on_line = on_line

    def read(self) -> None:
        """Until the end of the pipe."""
        if (pipe := self.pipe.get()) is not None:
            with pipe:
                for line in pipe:
                    self._on_line(line)


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def is_root() -> bool:
    """Whether this is the superuser, whom Open MPI refuses unless told otherwise."""
    return os.geteuid() == 0
