"""The fork server on this host: started, asked for worlds, told to go."""

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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from obl_magic.errors import SetupProblem
from obl_magic.server import stub
from obl_magic.server.afar import Afar
from obl_magic.server.asking import Request, ask
from obl_magic.server.conductor import Forked
from obl_magic.server.running import Running, environment
from obl_magic.world import process
from obl_magic.world.process import MARK, Held
from obl_magic.world.threads import begin


class Here(Running):
    """One server process on this host.

    Args:
        modules: what it imports, in order.

    Raises:
        SetupProblem: it cannot be started.
    """

    def __init__(self, modules: Sequence[str]) -> None:
        super().__init__(modules, "the fork server")
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
        env = environment(" ".join((str(self.owner), str(theirs.fileno()), *self.modules)))
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
        with self._ours.makefile("rb") as words:
            self._hear(words)
        server.wait()
        self._gone.set()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def _import(self, modules: Sequence[str]) -> None:
        with self._lock:
            ask(self._ours, json.dumps(modules).encode(), [])

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
        elsewhere: Sequence[Afar] = (),
    ) -> Held:
        """Asks for a world; see :data:`obl_magic.world.process.Start`.

        Args:
            argv: of the launcher.
            program: a rank's command line.
            env: of both.
            cwd: of both.
            ended: called when the launcher has ended.
            elsewhere: the servers on other hosts of this world. Where there is none, ranks are started afresh.

        Raises:
            OSError: none was forked.
        """
        address = f"obl-{secrets.token_hex(16)}"
        opened: list[Afar] = []

        def over() -> None:
            for each in opened:
                each.closes(address)

        def all_ended() -> None:
            over()
            ended()

        for each in elsewhere:
            if not each.opens(address, env[MARK]):
                over()
                raise OSError(errno.ECHILD, "the fork server on another host has ended")
            opened.append(each)

        stubs = [sys.executable, "-I", "-S", "-E", stub.__file__, address, *program]
        request = Request(
            [process.found(argv[0]), *argv[1:], *stubs], dict(env), str(cwd), process.session_folders(),
            process.segments(), address, (MARK, env[MARK]),
        )  # fmt: skip
        answer: queue.SimpleQueue[Held | OSError] = queue.SimpleQueue()
        begin(self._see_it_through, "obl-leash", request, all_ended, answer)
        held = answer.get()
        if isinstance(held, OSError):
            over()
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
