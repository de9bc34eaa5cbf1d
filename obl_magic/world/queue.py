"""A run that waits for a Slurm allocation: what Slurm says of it, and that the allocation ends with the run."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Callable

from obl_magic.errors import OblError
from obl_magic.world.threads import begin

_PENDING = re.compile(r"salloc: Pending job allocation (\d+)")
_GRANTED = re.compile(r"salloc: Granted job allocation (\d+)")
_REFUSED = re.compile(r"salloc: (?:error|fatal): (.*)")
ANSWERS_S = 10.0


class Queue:
    """Hears what salloc says.

    Args:
        note: says something to the user.

    Attributes:
        waits: nothing was granted yet.
        job: the job's id, once it has one.
        refused: why there is no allocation, or "".
    """

    def __init__(self, note: Callable[[str, str], None]) -> None:
        self._note = note
        self.waits, self.job, self.refused = True, "", ""

    def hear(self, line: str) -> None:
        """Takes a line of the launcher's."""
        if found := _PENDING.search(line):
            self.job = found[1]
            with contextlib.suppress(OblError):
                begin(self._say_why, "obl-slurm")
        elif found := _GRANTED.search(line):
            self.job, self.waits = found[1], False
        elif self.waits and not self.refused and (found := _REFUSED.search(line)):
            self.refused = found[1]

    def cancel(self) -> None:
        """Ends the allocation, if salloc could not; does nothing where it has ended."""
        if self.job:
            _asked("scancel", "-Q", self.job)

    def _say_why(self) -> None:
        why = _asked("squeue", "-h", "-o", "%r", "-j", self.job).strip() or "queued"
        if self.waits:
            self._note("slurm", f"waiting for Slurm job {self.job} ({why})")


def _asked(*argv: str) -> str:
    """What one of Slurm's programs prints; "" where it cannot be asked."""
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=ANSWERS_S, stdin=subprocess.DEVNULL, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
