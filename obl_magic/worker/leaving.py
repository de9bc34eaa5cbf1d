"""How a rank ends once its function has returned: as an interpreter does, with its threads joined, then exit handlers.

It waits as long as they take, since other ranks may still run the function; the conductor ends a world all of whose
ranks have returned. Meanwhile the rank says at what it is.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType

from obl_magic.events.event import Heartbeat
from obl_magic.values import CellSource
from obl_magic.worker.heartbeat import is_users
from obl_magic.worker.report import Reporter

SAID_EVERY_S = 0.5
THREADS_BETWEEN_S = 10.0
"""What the threads of a trial have, before the next one takes its rank."""
AT = "its "
"""What such a rank is at begins with this."""
OURS = "obl-"
"""The names of our own threads begin with this."""


class Leaving:
    """A rank whose function has returned.

    Args:
        reporter: of its last job.
        sources: whose lines are the user's.
    """

    def __init__(self, reporter: Reporter, sources: Iterable[CellSource] = ()) -> None:
        self._reporter = reporter
        self._labels = {cell.filename: cell.label for cell in sources}

    def leave(self) -> None:
        """Joins the threads that the function has left and runs the exit handlers; what they raise is printed."""
        with self._saying(self._threads):
            threading._shutdown()  # type: ignore[attr-defined]
        handlers = self._saying(lambda: f"exit handlers{self._place(threading.main_thread())}")
        with handlers, contextlib.suppress(BaseException):
            atexit._run_exitfuncs()

    def join_threads(self) -> None:
        """Waits for the threads that a trial has left, so that they disturb no other trial; not for ever."""
        until = time.monotonic() + THREADS_BETWEEN_S
        for thread in left():
            thread.join(max(0.0, until - time.monotonic()))
        if left():
            said = f"the function had returned, and {THREADS_BETWEEN_S:g} s later there still ran {self._threads()}"
            self._reporter.note(
                "threads-left", f"{said}; do: join what the function starts before it returns"
            )

    @contextmanager
    def _saying(self, what: Callable[[], str]) -> Iterator[None]:
        """Says again and again what the rank is at, if it takes a while, and when that is over."""
        over = threading.Event()

        def say() -> None:
            told = False
            while not over.wait(SAID_EVERY_S):
                self._beat(AT + what())
                told = True
            if told:
                self._beat("")

        teller = threading.Thread(target=say, name=f"{OURS}leaving", daemon=True)
        teller.start()
        try:
            yield
        finally:
            over.set()
            teller.join(SAID_EVERY_S)

    def _beat(self, where: str) -> None:
        me = self._reporter
        me.emit(Heartbeat(me.rank, time.time(), me.steps, where, me.ticks, waits=True))

    def _threads(self) -> str:
        """The threads that do not end, with the user's line that each is at."""
        alive = [t for t in threading.enumerate() if not t.daemon and t is not threading.main_thread()]
        names = [f"{thread.name}{self._place(thread)}" for thread in alive]
        return f"thread{'s' if len(names) > 1 else ''} {', '.join(names[:3])}"

    def _place(self, thread: threading.Thread) -> str:
        """The line of the user's code that a thread is at."""
        frame: FrameType | None = sys._current_frames().get(thread.ident or 0)
        while frame is not None:
            file = frame.f_code.co_filename
            if label := self._labels.get(file) or (is_users(file) and os.path.basename(file)):
                return f" at {label}, line {frame.f_lineno}"
            frame = frame.f_back
        return ""


def left() -> list[threading.Thread]:
    """The threads that somebody has to wait for; not those of pools, which wait for work as long as they can."""
    pools = sys.modules.get("concurrent.futures.thread")
    pooled = getattr(pools, "_threads_queues", {})
    return [
        thread
        for thread in threading.enumerate()
        if not thread.daemon
        and thread not in (threading.main_thread(), threading.current_thread())
        and not thread.name.startswith(OURS)
        and thread not in pooled
    ]
