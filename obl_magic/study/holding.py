"""One process conducts a study at a time: the second one that resumes it is refused while the first lives."""

from __future__ import annotations

import fcntl
import os

from obl_magic.errors import UsageProblem
from obl_magic.rundir import StudyDir, private, unwritable


class Holding:
    """Holds a study for this process until it is let go, or the process has ended, however that comes about.

    Args:
        folder: of the study.

    Raises:
        UsageProblem: another process conducts it, or this one does already.
        SetupProblem: the folder cannot be written.
    """

    def __init__(self, folder: StudyDir) -> None:
        try:
            self._descriptor = private(str(folder.held), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        except OSError as error:
            raise unwritable(folder.held, error) from error
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._descriptor)
            raise under_way(folder.id) from error

    def let_go(self) -> None:
        """Others may resume it; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


def under_way(resume: str) -> UsageProblem:
    """That a search cannot be resumed while it is conducted."""
    return UsageProblem(f"resume={resume}, which is under way", "a search that has ended", "%oblivious stop")
