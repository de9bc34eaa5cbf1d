"""Appends events to a run's log and reads them back. One JSON line each; a torn last line is left out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from obl_magic.events.event import Event, from_json, to_json


class EventLog:
    """An append-only file of events; every line is on its way to the disk when :meth:`append` returns."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="ascii", buffering=1)

    def append(self, event: Event) -> None:
        """Adds one event."""
        self._file.write(to_json(event) + "\n")

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()


def read(path: Path) -> Iterator[Event]:
    """The events of a log, in order.

    Raises:
        ValueError: a line other than the last is not an event.
    """
    if not path.exists():
        return
    with path.open(encoding="ascii", errors="replace") as file:
        for line in file:
            if line.endswith("\n"):
                yield from_json(line)
