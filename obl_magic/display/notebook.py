"""The only display that talks to IPython: one output, updated in place, that stays as a still."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from obl_magic.display.run.html import panel_html, still_html
from obl_magic.display.run.text import status_line, summary
from obl_magic.display.run.view import Lines, Pace, View, view
from obl_magic.events.fold import MetricRow, RunState, empty
from obl_magic.rundir.record import RunRecord

__all__ = ["NotebookDisplay", "in_notebook", "still_html"]

Bundle = dict[str, str]


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


class NotebookDisplay:
    """A run as one panel below the cell.

    What ranks print goes to the cell's own output, untouched.

    Args:
        show: shows a mime bundle and returns its handle.
    """

    def __init__(self, show: Callable[[Bundle], Handle] = publish) -> None:
        self._show = show
        self._pace = Pace()
        self._lines = {"stdout": Lines(), "stderr": Lines()}
        self._header: RunRecord | None = None
        self._handle: Handle | None = None
        self._shown: View | None = None

    def begin(self, header: RunRecord) -> None:
        """Shows the panel."""
        self._header = header
        self._shown = view(header, empty(), header.started_s)
        self._put(panel_bundle(self._shown))

    def text(self, rank: int, stream: str, text: str, many: bool) -> None:
        """Writes what a rank printed to the cell's standard output or error."""
        name = "stderr" if stream == "stderr" else "stdout"
        written = self._lines[name].feed(rank, name, text, many)
        getattr(sys, name).write(written.encode("utf-8", "replace").decode("utf-8"))

    def shown(self, data: Mapping[str, str], name: str, update: bool) -> None:
        """Shows what the function displayed as an output of the cell."""
        from IPython.display import display

        display(dict(data), raw=True, display_id=name or None, update=update)  # type: ignore[no-untyped-call]

    def update(self, state: RunState, now_s: float) -> None:
        """Replaces the panel, at most four times a second, and only if it looks different."""
        if self._header is None or not self._pace.due(now_s):
            return
        shown = view(self._header, state, now_s)
        if shown != self._shown:
            self._shown = shown
            self._put(panel_bundle(shown))

    def end(self, state: RunState, rows: Sequence[MetricRow], now_s: float) -> None:
        """Replaces the panel by the still."""
        if self._header is not None:
            self._put(still_bundle(self._header, state, rows, now_s))

    def _put(self, bundle: Bundle) -> None:
        if self._handle is None:
            self._handle = self._show(bundle)
        else:
            self._handle.update(bundle, raw=True)


def panel_bundle(shown: View) -> Bundle:
    """The panel for a frontend with HTML, and for one without."""
    return {"text/html": panel_html(shown), "text/plain": status_line(shown)}


def still_bundle(
    header: RunRecord, state: RunState, rows: Sequence[MetricRow], now_s: float | None
) -> Bundle:
    """The still for a frontend with HTML, and for one without."""
    return {
        "text/html": still_html(header, state, rows, now_s),
        "text/plain": summary(header, state, rows, now_s),
    }
