"""A rank on a host that does not see the run's folder: it keeps a folder of its own, and sends home what it leaves.

Everything else in a rank works with the folder that it has. The files that an event names arrive before it does.
"""

from __future__ import annotations

import base64
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from obl_magic.events.event import Event, Failed, Result, Sent
from obl_magic.rundir import RunDir, buffers_of
from obl_magic.values import Job

PIECE_BYTES = 1 << 20
PREFIX = "obl-away-"
"""Of a stand-in's name, which ends with its process id."""


class StandIn:
    """A folder in place of the run's.

    Args:
        folder: the run's, as its kernel sees it. The last two parts of the path are kept: they tell a trial from a run.
        emit: sends an event home.

    Attributes:
        folder: the stand-in.
    """

    def __init__(self, folder: Path, emit: Callable[[Event], None]) -> None:
        self._top, self._send = Path(tempfile.mkdtemp(suffix=f".{os.getpid()}", prefix=PREFIX)), emit
        self.folder = RunDir.at(self._top / folder.parent.name / folder.name)
        self.folder.path.mkdir(parents=True, mode=0o700)

    def emit(self, event: Event) -> None:
        """Sends an event home, and before it the files that it names."""
        if isinstance(event, (Result, Failed)) and event.file:
            path = self.folder.path / event.file
            for each in (buffers_of(path), path):
                if each.exists():
                    self.send_home(event.rank, each)
        self._send(event)

    def send_home(self, rank: int, path: Path) -> None:
        """Sends a file, piece by piece."""
        for piece, last in _pieces(path):
            data = base64.b64encode(piece).decode("ascii")
            self._send(Sent(rank, time.time(), path.name, data, last))

    def remove(self) -> None:
        """Removes what lies there."""
        shutil.rmtree(self._top, ignore_errors=True)


@contextmanager
def at_hand(
    job: Job, rank: int, emit: Callable[[Event], None]
) -> Iterator[tuple[Job, Callable[[Event], None], Callable[[Path], None]]]:
    """The job with a folder that this rank sees, how its events are sent, and how a file goes home.

    Args:
        job: as it came.
        rank: this one.
        emit: sends an event home.
    """
    folder = Path(job.run_dir)
    if folder.is_dir():
        yield job, emit, lambda path: None
        return
    away = StandIn(folder, emit)
    try:
        yield replace(job, run_dir=str(away.folder.path)), away.emit, partial(away.send_home, rank)
    finally:
        away.remove()


def _pieces(path: Path) -> Iterator[tuple[bytes, bool]]:
    """What is in a file, and whether each piece is its last."""
    left = path.stat().st_size
    with path.open("rb") as file:
        while True:
            piece = file.read(PIECE_BYTES)
            left -= len(piece)
            yield piece, left <= 0
            if left <= 0 or not piece:
                return
