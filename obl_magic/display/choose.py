"""Chooses the display: the notebook's panel in a kernel, lines of text elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from obl_magic.display.notebook import (
    NotebookDisplay,
    NotebookStudyDisplay,
    NotebookVerification,
    in_notebook,
    publish,
    still_bundle,
    study_still,
)
from obl_magic.display.run.text import TextDisplay, summary
from obl_magic.display.run.view import Display
from obl_magic.display.study.text import TextStudyDisplay, study_summary
from obl_magic.display.study.view import StudyDisplay, StudyState
from obl_magic.display.verifying import VerifyDisplay
from obl_magic.events.fold import MetricRow, RunState
from obl_magic.rundir.record import RunRecord, StudyRecord


def showing() -> Display:
    """A new display for one run."""
    if in_notebook():
        return NotebookDisplay()

    return TextDisplay()


def showing_study() -> StudyDisplay:
    """A new display for one study."""
    if in_notebook():
        return NotebookStudyDisplay()

    return TextStudyDisplay()


def current_cell() -> int | None:
    """The prompt of the cell that is being executed, or None outside IPython."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "execution_count", None)


def show_still(header: RunRecord, state: RunState, rows: Sequence[MetricRow]) -> None:
    """Shows a run as it is now, once."""
    if in_notebook():
        publish(still_bundle(header, state, rows, None))
    else:
        sys.stdout.write(summary(header, state, rows) + "\n")


def show_study(header: StudyRecord, state: StudyState) -> None:
    """Shows a study as it is now, once."""
    if in_notebook():
        publish(study_still(header, state))
    else:
        sys.stdout.write(study_summary(header, state) + "\n")


def showing_verification() -> VerifyDisplay:
    """A new display for the runs that are compared before a training."""
    return NotebookVerification() if in_notebook() else VerifyDisplay()
