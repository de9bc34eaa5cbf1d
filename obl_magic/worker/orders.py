"""What rank 0 hears from its kernel, line by line: jobs, answers, and the wishes to stop and to keep. Runs nothing."""

from __future__ import annotations

import json
import os
import queue
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from obl_magic.worker.report import Reporter
from obl_magic.worker.streams import EXIT_ORPHANED


def lines_from(descriptor: int) -> Iterator[bytes]:
    """The lines that come from a descriptor; while it waits it holds no lock that a forked child would inherit."""
    rest = b""
    while chunk := os.read(descriptor, 65536):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from whole


class Orders:
    """Reads them in a thread of its own, since most come while a job runs.

    Args:
        lines: from the kernel; their end means that it is gone, and so is this process then.
    """

    def __init__(self, lines: Iterable[str | bytes]) -> None:
        self._lines = lines
        self._jobs: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._reporter: Reporter | None = None

    def listen(self) -> None:
        """Hears from now on."""
        threading.Thread(target=self._hear, name="obl-kernel", daemon=True).start()

    def job(self) -> dict[str, Any]:
        """The next job; waits for it."""
        return self._jobs.get()

    def serve(self, reporter: Reporter) -> None:
        """From now on a wish to stop is for this reporter's job."""
        self._reporter = reporter

    def answer(self) -> bool:
        """What the kernel says to a question that was just asked: whether the trial is to end."""
        return self._answers.get()

    def _hear(self) -> None:
        for line in self._lines:
            said = json.loads(line)
            if "job" in said:
                self._jobs.put(said)
            elif "prune" in said:
                self._answers.put(bool(said["prune"]))
            elif self._reporter is not None:
                self._reporter.stop_asked |= bool(said.get("stop"))
                self._reporter.keep_asked |= bool(said.get("keep"))
        os._exit(EXIT_ORPHANED)
