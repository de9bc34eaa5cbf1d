"""A study in a notebook: one output, updated in place, that stays as a still."""

from __future__ import annotations

from collections.abc import Callable

from obl_magic.display.notebook import Bundle, Handle, publish
from obl_magic.display.run.view import Pace
from obl_magic.display.study.html import study_panel_html, study_still_html
from obl_magic.display.study.text import study_status_line, study_summary
from obl_magic.display.study.view import StudyState, StudyView, study_view
from obl_magic.rundir.record import StudyRecord


class NotebookStudyDisplay:
    """A study as one panel below the cell.

    Args:
        show: shows a mime bundle and returns its handle.
    """

    def __init__(self, show: Callable[[Bundle], Handle] = publish) -> None:
        self._show = show
        self._pace = Pace()
        self._header: StudyRecord | None = None
        self._handle: Handle | None = None
        self._shown: StudyView | None = None

    def begin(self, header: StudyRecord) -> None:
        """Shows the panel."""
        self._header = header
        self._shown = study_view(header, StudyState(now_s=header.started_s))
        self._put(study_panel(self._shown))

    def update(self, state: StudyState) -> None:
        """Replaces the panel, at most four times a second, and only if it looks different."""
        if self._header is None or not self._pace.due(state.now_s):
            return
        shown = study_view(self._header, state)
        if shown != self._shown:
            self._shown = shown
            self._put(study_panel(shown))

    def end(self, state: StudyState) -> None:
        """Replaces the panel by the still."""
        if self._header is not None:
            self._put(study_still(self._header, state))

    def _put(self, bundle: Bundle) -> None:
        if self._handle is None:
            self._handle = self._show(bundle)
        else:
            self._handle.update(bundle, raw=True)


def study_panel(shown: StudyView) -> Bundle:
    """The panel for a frontend with HTML, and for one without."""
    return {"text/html": study_panel_html(shown), "text/plain": study_status_line(shown)}


def study_still(header: StudyRecord, state: StudyState) -> Bundle:
    """The still for a frontend with HTML, and for one without; for a rich representation.

    Args:
        header: what was known at the start.
        state: the study now.
    """
    return {"text/html": study_still_html(header, state), "text/plain": study_summary(header, state)}
