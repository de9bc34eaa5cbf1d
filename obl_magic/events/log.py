"""Appends events to a run's log and reads them back, also along. One JSON line each; a torn last line is left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from obl_magic.events.appending import Appending
from obl_magic.events.event import Event, from_json, to_json


class EventLog:
    """An append-only file of events; every line is on its way to the disk when :meth:`append` returns."""

    def __init__(self, path: Path) -> None:
        self._file = Appending(path)

    def append(self, event: Event, line: str | None = None) -> None:
        """Adds one event.

        Args:
            event: the event.
            line: its JSON, where that is known already.

        Raises:
            OSError: it could not be written; nothing of it was.
        """
        self._file.append(((to_json(event) if line is None else line) + "\n").encode("ascii"))

    def end_with(self, events: Sequence[Event]) -> None:
        """Adds the last events, in place of those before them where there is no room.

        Raises:
            OSError: they could not be written all the same.
        """
        self._file.end_with("".join(to_json(event) + "\n" for event in events).encode("ascii"))

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.close()


class Follower:
    """Reads along in a log that somebody else, perhaps another process, is writing.

    Args:
        path: the log; it need not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_bytes = 0
        self.damaged = 0

    def fresh(self) -> list[Event]:
        """The events whose lines were completed since the last call, in order; a half-written one comes later.

        A line that is no event, as a power cut leaves, is left out and counted in ``damaged``.
        """
        return list(self.each())

    def each(self) -> Iterator[Event]:
        """As :meth:`fresh`, one after another: a log of a million events is never in memory as a whole."""
        try:
            file = self._path.open("rb")
        except FileNotFoundError:
            return
        with file:
            file.seek(self._read_bytes)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read_bytes += len(line)
                try:
                    event = from_json(line.strip(b"\0").decode("ascii", "replace"))
                except ValueError:
                    self.damaged += 1
                else:
                    yield event


def read(path: Path) -> Iterator[Event]:
    """The events of a log, in order; see :meth:`Follower.fresh`."""
    yield from Follower(path).each()
