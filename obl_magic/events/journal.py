"""Writes down what happens in a run: events in its log, what each rank prints in a log of its own.

What cannot be written is counted, and the run goes on: a full disk must not cost a training.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from obl_magic.events.appending import Appending
from obl_magic.events.event import Event, Heartbeat, Log, Metric, Progress
from obl_magic.events.log import EventLog

_MANY = (Heartbeat, Log, Metric, Progress)
"""Events of which a few may be missing; without any other one the run's story would be another."""


class Journal:
    """The logs of one run, open for writing.

    Args:
        events: the event log's path.
        log: gives the path of a rank's own log.

    Raises:
        OSError: the event log cannot be opened.
    """

    def __init__(self, events: Path, log: Callable[[int], Path]) -> None:
        self._path, self._log = events, log
        self._events = EventLog(events)
        self._logs: dict[int, Appending] = {}
        self._lost = 0
        self._owed: list[Event] = []
        self._reason = ""

    @property
    def lost(self) -> str:
        """That something could not be written, how much, why, and what to do; "" where all was."""
        if not self._lost:
            return ""
        what = f"{self._lost:,} event{'s' if self._lost > 1 else ''} could not be written"
        return (
            f"{what} to {self._path.parent} ({self._reason}): this kernel knows them, but who opens the run again "
            "will miss them; do: free or open that folder, or set OBLIVIOUS_HOME to another"
        )

    def write(self, event: Event, line: str | None = None) -> None:
        """Writes one event down.

        Args:
            event: the event.
            line: its JSON, where that is known already.
        """
        try:
            if isinstance(event, Log):
                self._log_of(event.rank).append(event.text.encode("utf-8", "replace"))
            self._events.append(event, line)
        except OSError as error:
            self._lost += 1
            if not isinstance(event, _MANY):
                self._owed.append(event)
            self._reason = error.strerror or type(error).__name__

    def close(self) -> None:
        """Closes all of it; how the run ended is written in place of its last numbers if need be."""
        if self._owed:
            with contextlib.suppress(OSError):
                self._events.end_with(self._owed)
        self._owed = []
        self._events.close()
        for log in self._logs.values():
            log.close()
        self._logs = {}

    def _log_of(self, rank: int) -> Appending:
        if rank not in self._logs:
            self._logs[rank] = Appending(self._log(rank))
        return self._logs[rank]
