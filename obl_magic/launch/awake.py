"""Seconds in which this process ran: while a machine sleeps, or a process is stopped, none pass.

Deadlines and stalls are counted in these. A clock that is set, a laptop that is closed, a kernel that is stopped and
continued then end no healthy run.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

MOST_S = 2.0
"""Of the time between two looks at most so much counts: whoever looks ten times a second was kept from it."""


class Awake:
    """A clock that has to be looked at often.

    Args:
        clock: seconds that never go backwards.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._lock = clock, threading.Lock()
        self._looked_s, self._passed_s = clock(), 0.0

    def now(self) -> float:
        """Seconds since the clock was made, without those in which nobody could look."""
        with self._lock:
            now_s = self._clock()
            self._passed_s += min(now_s - self._looked_s, MOST_S)
            self._looked_s = now_s
            return self._passed_s
