"""The fork server on another host: started there by ssh, told which worlds have ranks there, told to go.

It speaks on the standard streams of ssh, a line of JSON at a time. When ssh has ended, or this process has, it ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

from obl_magic.launchers import ssh
from obl_magic.launchers.mpirun import travels
from obl_magic.server import boot
from obl_magic.server.running import Running, environment
from obl_magic.world.process import MARK, segments
from obl_magic.world.threads import begin

_ANSWERS_WITHIN_S = 5.0


class Afar(Running):
    """One server process on another host.

    Args:
        host: its name, as ssh takes it.
        modules: what it imports, in order.
    """

    def __init__(self, host: str, modules: Sequence[str]) -> None:
        super().__init__(modules, f"the fork server on {host}")
        self._host = host
        self._words = ""  # what was said last that is no JSON: by ssh, or by a shell
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._lock, self._writing = threading.Lock(), threading.Lock()
        self._open: set[str] = set()
        self._leaves = False
        up: queue.SimpleQueue[subprocess.Popen[bytes] | None] = queue.SimpleQueue()
        begin(self._hold, "obl-server-afar", up)
        self._process = up.get()

    def _hold(self, up: queue.SimpleQueue[subprocess.Popen[bytes] | None]) -> None:
        """In a thread that lives as long as ssh, which is killed when whoever started it ends."""
        env = environment(" ".join(("0", "0", *self.modules)))
        given = json.dumps({name: value for name, value in env.items() if travels(name)}).encode()
        started = ssh.command(self._host, [sys.executable, "-I", "-S", "-E", boot.__file__])
        argv = [sys.executable, "-I", "-S", "-E", boot.__file__, str(os.getpid()), *started]
        try:
            process = subprocess.Popen(
                argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
            )  # fmt: skip
        except OSError as error:
            self._words = str(error)
            self._gone.set()
            up.put(None)
            return
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(OSError):
            process.stdin.write(b"%08x" % len(given) + given)
            process.stdin.flush()
        up.put(process)
        self._hear(process.stdout)
        process.wait()
        self._gone.set()
        self._answers.put("")

    def _take(self, line: bytes) -> None:
        try:
            said: Any = json.loads(line)
        except ValueError:
            said = None
        if not isinstance(said, dict):
            self._words = line.decode("utf-8", "replace").strip()
        elif "door" in said:
            self._answers.put(said["door"])
        else:
            self._said = said
            self._told.set()

    @property
    def pid(self) -> int:
        """The process of ssh."""
        return 0 if self._process is None else self._process.pid

    def problem(self, *args: Any) -> str:
        """As of any; with what ssh said."""
        found = super().problem(*args)
        return f'{found}: "{self._words}"' if found and self.has_ended() and self._words else found

    def opens(self, address: str, mark: str) -> bool:
        """Whether ranks of a world on that host will be forked.

        Args:
            address: where their stubs look for whoever forks them.
            mark: of the world.
        """
        with self._lock:
            self._open.add(address)
            try:
                self._tell({"world": address, "mark": [MARK, mark], "segments": segments()})
                while (answer := self._answers.get(timeout=_ANSWERS_WITHIN_S)) not in ("", address):
                    continue
            except (OSError, queue.Empty):
                answer = ""
        if not answer:
            self._leaves = True
            self.closes(address)
        return bool(answer)

    def closes(self, address: str) -> None:
        """That world is over: what is left of it on that host is to end."""
        with contextlib.suppress(OSError):
            self._tell({"over": address})
        with self._lock:
            self._open.discard(address)
        self._may_leave()

    def end(self) -> None:
        """It takes no more worlds, and ends with the last of those that there are: all that it forked ends with it."""
        self._leaves = True
        self._may_leave()

    def _may_leave(self) -> None:
        with self._lock:
            if self._leaves and not self._open and self._process is not None:
                self._process.terminate()

    def _import(self, modules: Sequence[str]) -> None:
        self._tell({"imports": [*modules]})

    def _tell(self, what: dict[str, object]) -> None:
        if self._process is None or self._process.stdin is None:
            raise BrokenPipeError
        with self._writing:
            self._process.stdin.write(json.dumps(what).encode() + b"\n")
            self._process.stdin.flush()
