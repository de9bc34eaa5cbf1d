"""One server process, as its kernel sees it, wherever it runs: what it has said of itself, whether it may be used."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from obl_magic.server.asking import MARK_OF_NO_WORLD, STARTED
from obl_magic.world.process import MARK

_UP_WITHIN_S = 120.0
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""By which libraries below NumPy start no threads when they are imported."""


def environment(started: str) -> dict[str, str]:
    """Of a server that is started with these words."""
    return {
        **os.environ,
        MARK: MARK_OF_NO_WORLD,
        "PYTHONHASHSEED": os.environ.get("PYTHONHASHSEED", "0"),
        "TF_CPP_MIN_LOG_LEVEL": os.environ.get("TF_CPP_MIN_LOG_LEVEL", "2"),
        "PYTHONUNBUFFERED": "1",
        **dict.fromkeys(_ONE_THREAD, "1"),
        STARTED: started,
    }


class Running:
    """One server process.

    Args:
        modules: what it imports, in order.
        title: what it is called.

    Attributes:
        modules: the same.
        owner: the process that it serves.
    """

    def __init__(self, modules: Sequence[str], title: str) -> None:
        self.modules, self.owner, self._title = tuple(modules), os.getpid(), title
        self._said: dict[str, Any] = {}  # what it said last, whenever it had imported all that it was told to
        self._told, self._gone = threading.Event(), threading.Event()

    def _hear(self, words: Iterable[bytes]) -> None:
        """Takes what it says, until it says no more."""
        with contextlib.suppress(OSError, ValueError):
            for line in words:
                self._take(line)
        self._told.set()

    def _take(self, line: bytes) -> None:
        self._said = json.loads(line)
        self._told.set()

    def _import(self, modules: Sequence[str]) -> None:
        """Tells it to."""
        raise NotImplementedError

    def has_ended(self, within_s: float = 0.0) -> bool:
        """Whether it has ended, or does so within some seconds."""
        return self._gone.wait(within_s)

    @property
    def is_ready(self) -> bool:
        """Whether it has imported all."""
        return self._told.is_set()

    @property
    def pid(self) -> int:
        """Its process, or what leads to it."""
        raise NotImplementedError

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
                return f"{self._title} was still coming up"
            if time.monotonic() > until:
                return f"{self._title} had not imported everything after {_UP_WITHIN_S:g} s"
        if not self._said:
            return f"{self._title} has ended"
        return f"{self._title} cannot fork: {self._said['no']}" if self._said["no"] else ""

    def also(self, modules: Sequence[str]) -> None:
        """It imports these, too, before it forks again; once it is ready."""
        self.modules += tuple(modules)
        self._told.clear()
        with contextlib.suppress(OSError):  # it has ended
            self._import(modules)

    def status(self) -> str:
        """One line for people."""
        if not self.is_ready:
            return f"{self._title} is coming up (process {self.pid})"
        if problem := self.problem():
            return f"{problem}; worlds are started afresh"
        held = ", ".join(name.partition(".")[0] for name in self._said["held"])
        return f"{self._title} is ready (process {self.pid}): any world starts from it, with {held} imported"

    def end(self) -> None:
        """It takes no more requests, and ends with the last of its worlds."""
        raise NotImplementedError
