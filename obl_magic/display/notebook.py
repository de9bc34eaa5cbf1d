"""The only display that talks to IPython: one output, updated in place, that stays as a still."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeVar

from obl_magic.display.charts.curves import Curve, curves
from obl_magic.display.run.html import panel_html, still_html
from obl_magic.display.run.text import status_line, summary
from obl_magic.display.run.view import Lines, Pace, View, view
from obl_magic.display.study.html import study_panel_html, study_pictures, study_still_html
from obl_magic.display.study.text import study_status_line, study_summary
from obl_magic.display.study.view import StudyState, StudyView, study_view
from obl_magic.display.verifying import VerifyDisplay, verifying_html, verifying_text
from obl_magic.events.fold import MetricRow, RunState, empty
from obl_magic.rundir.record import RunRecord, StudyRecord

Bundle = dict[str, str]

_V = TypeVar("_V")


class Handle(Protocol):
    """One output of a cell that can be replaced; IPython's ``DisplayHandle``."""

    def update(self, obj: Bundle, **kwargs: Any) -> None:
        """Replaces the output."""


def publish(bundle: Bundle) -> Handle:
    """Shows a mime bundle as a new output of the cell."""
    from IPython.display import display

    return display(bundle, raw=True, display_id=True)  # type: ignore[no-any-return, no-untyped-call]


def in_notebook() -> bool:
    """Whether this process is a kernel, so that a panel has somewhere to be shown."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None) is not None


class Panel:
    """One output of a cell, replaced in place at most four times a second, and only when it looks different.

    Args:
        show: shows a mime bundle and returns its handle.
    """

    def __init__(self, show: Callable[[Bundle], Handle]) -> None:
        self._show = show
        self._pace = Pace()
        self._handle: Handle | None = None
        self._shown: object = None

    def update(self, look: Callable[[], _V], bundle: Callable[[_V], Bundle], now_s: float) -> None:
        """Shows what there is now, if it is time.

        Args:
            look: gives the view.
            bundle: lays it out.
            now_s: Unix time in seconds.
        """
        if self._handle is not None and not self._pace.due(now_s):
            return
        shown = look()
        if shown != self._shown:
            self._shown = shown
            self.put(bundle(shown))

    def put(self, bundle: Bundle) -> None:
        """Shows it now."""
        if self._handle is None:
            self._handle = self._show(bundle)
        else:
            self._handle.update(bundle, raw=True)


class NotebookDisplay:
    """A run as one panel below the cell.

    What ranks print goes to the cell's own output, untouched.

    Args:
        show: shows a mime bundle and returns its handle.
    """

    def __init__(self, show: Callable[[Bundle], Handle] = publish) -> None:
        self._panel = Panel(show)
        self._lines = {"stdout": Lines(), "stderr": Lines()}
        self._header: RunRecord | None = None

    def begin(self, header: RunRecord) -> None:
        """Shows the panel."""
        self._header = header
        self.update(empty(), (), header.started_s)

    def text(self, rank: int, stream: str, text: str, many: bool) -> None:
        """Writes what a rank printed to the cell's standard output or error."""
        name = "stderr" if stream == "stderr" else "stdout"
        written = self._lines[name].feed(rank, name, text, many)
        getattr(sys, name).write(written.encode("utf-8", "replace").decode("utf-8"))

    def shown(self, data: Mapping[str, str], name: str, update: bool) -> None:
        """Shows what the function displayed as an output of the cell."""
        from IPython.display import display

        display(dict(data), raw=True, display_id=name or None, update=update)  # type: ignore[no-untyped-call]

    def update(self, state: RunState, rows: Sequence[MetricRow], now_s: float) -> None:
        """Brings the panel up to date."""
        if (header := self._header) is not None:
            look = lambda: (view(header, state, now_s), curves(rows, live=True))  # noqa: E731
            self._panel.update(look, panel_bundle, now_s)

    def end(self, state: RunState, rows: Sequence[MetricRow], now_s: float) -> None:
        """Replaces the panel by the still."""
        if self._header is not None:
            self._panel.put(still_bundle(self._header, state, rows, now_s))


class NotebookStudyDisplay:
    """A study as one panel below the cell.

    Args:
        show: shows a mime bundle and returns its handle.
    """

    def __init__(self, show: Callable[[Bundle], Handle] = publish) -> None:
        self._panel = Panel(show)
        self._header: StudyRecord | None = None

    def begin(self, header: StudyRecord) -> None:
        """Shows the panel."""
        self._header = header
        self.update(StudyState(now_s=header.started_s))

    def update(self, state: StudyState) -> None:
        """Brings the panel up to date."""
        if (header := self._header) is not None:
            self._panel.update(lambda: _study_looks(header, state), study_panel, state.now_s)

    def end(self, state: StudyState) -> None:
        """Replaces the panel by the still."""
        if self._header is not None:
            self._panel.put(study_still(self._header, state))


class NotebookVerification(VerifyDisplay):
    """The comparison before a training as one panel below the cell; the report takes its place.

    Args:
        show: shows a mime bundle and returns its handle.
    """

    def __init__(self, show: Callable[[Bundle], Handle] = publish) -> None:
        super().__init__()
        self._panel = Panel(show)

    def draw(self, now_s: float) -> None:
        """Brings the panel up to date."""
        self._panel.update(
            lambda: self.stages(now_s),
            lambda stages: {
                "text/html": verifying_html(self.function, stages),
                "text/plain": verifying_text(self.function, stages),
            },
            now_s,
        )

    def verdict(self, text: str, html: str) -> None:
        """Shows the report in the panel's place."""
        self._panel.put({"text/html": html, "text/plain": text})


def panel_bundle(shown: tuple[View, Sequence[Curve]]) -> Bundle:
    """The panel for a frontend with HTML, and for one without."""
    return {"text/html": panel_html(*shown), "text/plain": status_line(shown[0])}


def still_bundle(
    header: RunRecord, state: RunState, rows: Sequence[MetricRow], now_s: float | None
) -> Bundle:
    """The still for a frontend with HTML, and for one without."""
    return {
        "text/html": still_html(header, state, rows, now_s),
        "text/plain": summary(header, state, rows, now_s),
    }


def _study_looks(header: StudyRecord, state: StudyState) -> tuple[StudyView, tuple[str, ...]]:
    shown = study_view(header, state)
    return shown, study_pictures(header, state, shown)


def study_panel(shown: tuple[StudyView, tuple[str, ...]]) -> Bundle:
    """The panel for a frontend with HTML, and for one without."""
    return {"text/html": study_panel_html(*shown), "text/plain": study_status_line(shown[0])}


def study_still(header: StudyRecord, state: StudyState) -> Bundle:
    """The still for a frontend with HTML, and for one without; for a rich representation.

    Args:
        header: what was known at the start.
        state: the study now.
    """
    return {"text/html": study_still_html(header, state), "text/plain": study_summary(header, state)}
