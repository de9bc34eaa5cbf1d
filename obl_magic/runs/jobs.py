"""Jobs of this process's runs, pickled as the ranks got them: from the disk they go when the run has ended.

A script of a run is made of its job. Whoever wants one later, or elsewhere, needs the notebook.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

from obl_magic.rundir import buffers_of

MOST_BYTES = 16 * 2**20
"""What is kept of them in all; the oldest go first."""


class Jobs:
    """Keeps the latest jobs by the id of their run, or study. Usable from any thread.

    Args:
        most_bytes: of all that are kept.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most_bytes, self._lock = most_bytes, threading.Lock()
        self._kept: OrderedDict[str, bytes] = OrderedDict()

    def keep(self, name: str, file: Path) -> None:
        """Keeps what was written for the ranks, unless it needs large arrays beside it, or is large itself.

        Args:
            name: id of the run.
            file: the pickle.
        """
        if buffers_of(file).exists() or file.stat().st_size > self._most_bytes:
            return
        data = file.read_bytes()
        with self._lock:
            self._kept[name] = data
            while sum(map(len, self._kept.values())) > self._most_bytes:
                self._kept.popitem(last=False)

    def of(self, name: str) -> bytes | None:
        """The pickle, if it is kept still."""
        with self._lock:
            return self._kept.get(name)


JOBS = Jobs()
"""This process's."""
