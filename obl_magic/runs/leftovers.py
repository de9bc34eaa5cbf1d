"""Removes jobs that runs have left on disk because their kernels went away before them. Touches nothing else."""

from __future__ import annotations

import contextlib
from pathlib import Path

from obl_magic import rundir
from obl_magic.errors import Damaged
from obl_magic.rundir import StudyDir
from obl_magic.runs.owner import is_gone


def remove_leftovers(where: Path | None = None) -> None:
    """Tidies up after runs of a home whose kernels are gone: a job holds the user's data, and may take gigabytes.

    Args:
        where: the home; by default this notebook's.
    """
    for folder in rundir.with_jobs(where):
        study = StudyDir(folder.path)
        owner = folder if folder.manifest.is_file() else study
        with contextlib.suppress(OSError, Damaged):
            if is_gone(owner.record().kernel, owner.logs):
                for each in (*study.trials(), folder):  # a run has none
                    each.tidy()
