"""One server process, as its kernel sees it: started, asked for worlds, told to go."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import queue
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from obl_magic.errors import SetupProblem
from obl_magic.server import stub
from obl_magic.server.asking import MARK_OF_NO_WORLD, STARTED, Request, ask
from obl_magic.server.conductor import Forked
from obl_magic.world import process
from obl_magic.world.process import MARK, Held
from obl_magic.world.threads import begin

_UP_WITHIN_S = 120.0
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""By which libraries below NumPy start no threads when they are imported."""


class Running:
    """One server process.

    Args:
        modules: what it imports, in order.

    Attributes:
        modules: the same.
        owner: the process that it serves.

    Raises:
        SetupProblem: it cannot be started.
    """

    def __init__(self, modules: Sequence[str]) -> None:
        self.modules, self.owner = tuple(modules), os.getpid()
        self._said: dict[str, Any] = {}  # what it said last, whenever it had imported all that it was told to
        self._told, self._gone = threading.Event(), threading.Event()
        self._lock = threading.Lock()
        self._ours, theirs = socket.socketpair()
        answer: queue.SimpleQueue[subprocess.Popen[bytes] | OSError] = queue.SimpleQueue()
        begin(self._hold, "obl-server", theirs, answer)
        came = answer.get()
        if isinstance(came, OSError):
            self._ours.close()
            raise SetupProblem(f"no fork server: {came}", "OBLIVIOUS_FORK=off")
        self._process = came

    def _hold(self, theirs: socket.socket, answer: queue.SimpleQueue[Any]) -> None:
        """In a thread that lives as long as the server: it is killed when whoever started it ends."""
        env = {**os.environ, MARK: MARK_OF_NO_WORLD, "PYTHONHASHSEED": os.environ.get("PYTHONHASHSEED", "0")}
        env |= {"TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2"), "PYTHONUNBUFFERED": "1"}
        env |= dict.fromkeys(_ONE_THREAD, "1")
        env[STARTED] = " ".join((str(self.owner), str(theirs.fileno()), *self.modules))
        # the module's name is as long as that of a rank's, which takes its place in the list of processes
        argv = [sys.executable, "-P", "-m", "obl_magic.server"]
        try:
            with theirs:
                server = subprocess.Popen(
                    argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                    start_new_session=True, pass_fds=(theirs.fileno(),),
                )  # fmt: skip
        except OSError as error:
            answer.put(error)
            return
        answer.put(server)
        with contextlib.suppress(OSError, ValueError), self._ours.makefile("rb") as words:
            for line in words:
                self._said = json.loads(line)
                self._told.set()
        self._told.set()
        server.wait()
        self._gone.set()

    def has_ended(self, within_s: float = 0.0) -> bool:
        """Whether it has ended, or does so within some seconds."""
        return self._gone.wait(within_s)

    @property
    def is_ready(self) -> bool:
        """Whether it has imported all."""
        return self._told.is_set()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def has(self, module: str) -> bool:
        """Whether it has imported a module, or will have, as far as that is known."""
        return not self.is_ready or module in self.modules or module in self._said.get("modules", ())

    def sets(self, name: str, value: str | None) -> bool:
        """Whether its imports have set a variable to this, or may have: TensorFlow's sets some, in its kernel too."""
        return not self.is_ready or self._said.get("set", {}).get(name) == value is not None

    def problem(self, in_a_hurry: Callable[[], bool] = lambda: False) -> str:
        """Why it cannot be used, once it is ready; waits for that, but for who is in a hurry. "" if it can."""
        until = time.monotonic() + _UP_WITHIN_S
        while not self._told.wait(0.05) and not self.has_ended():
            if in_a_hurry():
                return "the fork server was still coming up"
            if time.monotonic() > until:
                return f"the fork server had not imported everything after {_UP_WITHIN_S:g} s"
        if not self._said:
            return "the fork server has ended"
        return f"the fork server cannot fork: {self._said['no']}" if self._said["no"] else ""

    def also(self, modules: Sequence[str]) -> None:
        """It imports these, too, before it forks again; once it is ready."""
        self.modules += tuple(modules)
        self._told.clear()
        with self._lock, contextlib.suppress(OSError):  # it has ended
            ask(self._ours, json.dumps(modules).encode(), [])

    def status(self) -> str:
        """One line for people."""
        if not self.is_ready:
            return f"the fork server is coming up (process {self.pid})"
        if problem := self.problem():
            return f"{problem}; worlds are started afresh"
        held = ", ".join(name.partition(".")[0] for name in self._said["held"])
        return (
            f"the fork server is ready (process {self.pid}): any world starts from it, with {held} imported"
        )

    def end(self) -> None:
        """It takes no more requests, and ends with the last of its worlds."""
        imports = not self.is_ready  # asked first: who listens takes the end of the connection for its answer
        with contextlib.suppress(OSError):
            self._ours.shutdown(socket.SHUT_RDWR)
        if imports:
            self._process.send_signal(signal.SIGKILL)

    def start(
        self,
        argv: Sequence[str],
        program: Sequence[str],
        env: Mapping[str, str],
        cwd: Path,
        ended: Callable[[], None],
    ) -> Held:
        """Asks for a world; see :data:`obl_magic.world.process.Start`.

        Raises:
            OSError: none was forked.
        """
        address = f"obl-{secrets.token_hex(16)}"
        stubs = [sys.executable, "-I", "-S", "-E", stub.__file__, address, *program]
        request = Request(
            [process.found(argv[0]), *argv[1:], *stubs], dict(env), str(cwd), process.session_folders(),
            process.segments(), address, (MARK, env[MARK]),
        )  # fmt: skip
        answer: queue.SimpleQueue[Held | OSError] = queue.SimpleQueue()
        begin(self._see_it_through, "obl-leash", request, ended, answer)
        held = answer.get()
        if isinstance(held, OSError):
            raise held
        return held

    def _see_it_through(
        self, request: Request, ended: Callable[[], None], answer: queue.SimpleQueue[Held | OSError]
    ) -> None:
        try:
            leash, hears, words = self._ask(request)
            began = json.loads(words.readline() or b"{}")
            if "launcher" not in began:
                raise OSError(errno.ECHILD, "its leash has ended")
        except OSError as error:
            answer.put(error)
            return
        held = Held(leash, began["launcher"], {}, threading.Event())
        answer.put(held)
        with hears, words:
            if last := words.readline():
                said = json.loads(last)
                held.left.update(said["left"])
                leash.status = said["status"]
                held.said_all.set()
        leash.wait()
        ended()

    def _ask(self, request: Request) -> tuple[Forked, socket.socket, IO[bytes]]:
        hears, says = socket.socketpair()
        stdin, to = os.pipe()
        out, stdout = os.pipe()
        err, stderr = os.pipe()
        me = os.pidfd_open(os.getpid())
        try:
            try:
                with self._lock:
                    ask(self._ours, json.dumps(request).encode(), [stdin, stdout, stderr, says.fileno(), me])
            finally:
                for each in (stdin, stdout, stderr, me):
                    os.close(each)
                says.close()
            said, handles, _, _ = socket.recv_fds(hears, 1 << 16, 1)
            if not handles:
                raise OSError(errno.ECHILD, json.loads(said or b"{}").get("no", "the fork server has ended"))
        except OSError:
            for mine in (to, out, err):
                os.close(mine)
            hears.close()
            raise
        leash = Forked(json.loads(said.partition(b"\n")[0])["leash"], handles[0], to, out, err)
        return leash, hears, hears.makefile("rb")
