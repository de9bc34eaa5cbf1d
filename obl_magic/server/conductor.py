"""The leash of a world that was forked: no child of this process, so known by a handle (pidfd)."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
from typing import IO


class Forked:
    """The leash of a world that a server has forked: what ``subprocess.Popen`` is to one of our own children.

    Args:
        pid: its process id.
        handle: a descriptor of it (pidfd).
        stdin: where the world's standard input is written.
        stdout: where its output is read.
        stderr: where the launcher's own words are read.

    Attributes:
        status: how the launcher ended, as ``os.wait`` says it; None until that is known.
    """

    def __init__(self, pid: int, handle: int, stdin: int, stdout: int, stderr: int) -> None:
        self.pid, self._handle = pid, handle
        self.stdin: IO[bytes] = os.fdopen(stdin, "wb")
        self.stdout: IO[bytes] = os.fdopen(stdout, "rb")
        self.stderr: IO[bytes] = os.fdopen(stderr, "rb")
        self.status: int | None = None

    def poll(self) -> int | None:
        """Its exit code, once it has ended."""
        return self.returncode if self._ends_within(0) else None

    @property
    def returncode(self) -> int:
        """As of ``Popen``; it was killed where it did not say how its launcher ended."""
        return -signal.SIGKILL if self.status is None else os.waitstatus_to_exitcode(self.status)

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, when it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not.
        """
        if not self._ends_within(timeout):
            raise subprocess.TimeoutExpired("a world", timeout or 0.0)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Sends it one, if it lives."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._handle, number)

    def kill(self) -> None:
        """Ends it."""
        self.send_signal(signal.SIGKILL)

    def _ends_within(self, seconds: float | None) -> bool:
        poll = select.poll()
        poll.register(self._handle, select.POLLIN)
        return bool(poll.poll(None if seconds is None else 1000 * seconds))

    def __del__(self) -> None:
        with contextlib.suppress(OSError):
            os.close(self._handle)
