"""Lays a view out as plain text, and keeps one status line at the foot of a terminal."""

from __future__ import annotations

import shutil
import sys
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

from obl_magic.display.charts.curves import Curve, curves, sparkline
from obl_magic.display.run.view import (
    SHOWN_METRICS,
    Failure,
    Lines,
    Pace,
    View,
    last_known_s,
    number,
    shorten,
    view,
)
from obl_magic.events.event import Progress
from obl_magic.events.fold import MetricRow, RunState, empty
from obl_magic.rundir.record import RunRecord

_BAR = 12
_TO_THE_RIGHT = (False, True, True, False, False)
_NAME = 28


def terminal_width() -> int:
    """Columns of the terminal, as it is now."""
    return shutil.get_terminal_size().columns


class TextDisplay:
    """A run in a terminal: one line rewritten in place. In a file or a pipe: one line an epoch.

    Args:
        out: where the display and the ranks' standard output go; by default ``sys.stdout``.
        err: where the ranks' standard error goes; by default ``sys.stderr``.
        width: gives the terminal's columns at any moment.
    """

    def __init__(
        self,
        out: TextIO | None = None,
        err: TextIO | None = None,
        width: Callable[[], int] = terminal_width,
    ) -> None:
        self._out = out or sys.stdout
        self._err = err or sys.stderr
        self._width = width
        self._rewrites = self._out.isatty()
        self._pace = Pace()
        self._lines = Lines()
        self._drawn = 0
        self._epochs = _Epochs()
        self._header: RunRecord | None = None

    def begin(self, header: RunRecord) -> None:
        """Writes what is known before the run, and the remarks."""
        self._header = header
        shown = view(header, empty(), header.started_s)
        self._write(f"{shown.function} · {world_line(shown)}\n")
        for remark in shown.remarks:
            self._write(f"note: {remark}\n")
        self._out.flush()

    def text(self, rank: int, stream: str, text: str, many: bool) -> None:
        """Writes what a rank printed, above the status line."""
        self._erase()
        to = self._err if stream == "stderr" else self._out
        write(to, self._lines.feed(rank, stream, text, many))
        to.flush()

    def shown(self, data: Mapping[str, str], name: str, update: bool) -> None:
        """Writes the text of what the function displayed."""
        if text := data.get("text/plain", ""):
            self.text(0, "stdout", f"{text}\n", many=False)

    def update(self, state: RunState, rows: Sequence[MetricRow], now_s: float) -> None:
        """Rewrites the status line, or writes the line of an epoch that is over."""
        if self._header is None:
            return
        if not self._rewrites:
            over = self._epochs.over(state)
            if over is not None:
                self._write_epoch(*over, now_s)
        elif not self._lines.open and self._pace.due(now_s):
            self._draw(status_line(view(self._header, state, now_s)))

    def end(self, state: RunState, rows: Sequence[MetricRow], now_s: float) -> None:
        """Writes the summary in place of the status line."""
        if self._header is None:
            return
        self._erase()
        if self._lines.open:
            self._write("\n")
        last = None if self._rewrites else self._epochs.last(state)
        if last is not None:
            self._write_epoch(*last, now_s)
        self._write(summary(self._header, state, rows, now_s) + "\n")
        self._out.flush()

    def _write_epoch(self, progress: Progress, latest: dict[str, float], now_s: float) -> None:
        assert self._header is not None
        if self._lines.open:
            self._write("\n")
            self._lines = Lines()
        state = RunState(ranks={}, progress=progress, latest=latest)
        self._write(epoch_line(view(self._header, state, now_s)) + "\n")
        self._out.flush()

    def _draw(self, line: str) -> None:
        clipped = clip(line, self._width() - 1)
        self._write("\r" + clipped + " " * max(0, self._drawn - columns(clipped)))
        self._drawn = columns(clipped)
        self._out.flush()

    def _erase(self) -> None:
        if self._drawn:
            self._write("\r" + " " * min(self._drawn, max(0, self._width() - 1)) + "\r")
            self._drawn = 0

    def _write(self, text: str) -> None:
        write(self._out, text)


class _Epochs:
    """Notices that an epoch is over: the next one has begun, or the run has ended."""

    def __init__(self) -> None:
        self._seen: tuple[Progress, dict[str, float]] | None = None

    def over(self, state: RunState) -> tuple[Progress, dict[str, float]] | None:
        """The epoch that ended since the last call, with its values, or None."""
        progress, latest = state.progress, state.latest or {}
        if progress is None:
            return None
        seen, self._seen = self._seen, (progress, latest)
        if seen is None or (progress.epoch == seen[0].epoch and progress.step >= seen[0].step):
            return None
        begun = progress.logs
        return seen[0], {**latest, **{name: value for name, value in seen[1].items() if name in begun}}

    def last(self, state: RunState) -> tuple[Progress, dict[str, float]] | None:
        """The last epoch there was, or None."""
        return (state.progress, state.latest or {}) if state.progress else None


def status_line(shown: View) -> str:
    """The run on one line, the most important first."""
    bar = ""
    if shown.fraction is not None:
        full = int(shown.fraction * _BAR)
        bar = f"{'█' * full}{'░' * (_BAR - full)} {int(100 * shown.fraction)}%"
    parts = [
        f"{shown.status.symbol} {shorten(shown.function, _NAME)} {shown.elapsed}",
        shown.status.word if not shown.epoch else "",
        bar,
        f"epoch {shown.epoch}" if shown.epoch else "",
        f"step {shown.step}" if shown.step else "",
        *_metrics(shown),
        shown.speed,
        shown.ranks if not shown.failure else shorten(shown.failure.cause.split("\n")[0], 60),
    ]
    return " · ".join(part for part in parts if part)


def epoch_line(shown: View) -> str:
    """One epoch on one line."""
    parts = [f"epoch {shown.epoch}", shown.elapsed, *_metrics(shown), shown.speed]
    return " · ".join(part for part in parts if part)


def world_line(shown: View) -> str:
    """Where and how it runs, on one line."""
    digest = f"sha256 {shown.digest}" if shown.digest else ""
    return " · ".join(part for part in (shown.world, shown.engine, shown.batch, digest) if part)


def summary(header: RunRecord, state: RunState, rows: Sequence[MetricRow], now_s: float | None = None) -> str:
    """A run in a few lines of plain text: how it went, its metrics, its notes, where it lies.

    Args:
        header: what was known at the start.
        state: the events so far, folded.
        rows: the metrics so far.
        now_s: Unix time in seconds, for a run on its way; by default the time of its last metric.
    """
    shown = view(header, state, last_known_s(header, rows) if now_s is None else now_s)
    how = f"{shown.status.symbol} {shown.function} {shown.status.phrase} {shown.elapsed}"
    lines = [f"{how} · {world_line(shown)}"]
    if shown.failure:
        lines += _failure(shown.failure)
    if shown.status.word != "succeeded":
        where = [f"epoch {shown.epoch}" if shown.epoch else "", f"step {shown.step}" if shown.step else ""]
        where.append(shown.ranks if not shown.failure else "")
        lines += ["  " + " · ".join(part for part in where if part)] if any(where) else []
    lines += ["  " + line for line in _table(curves(rows))]
    lines += [f"  note: {note}" for note in shown.notes]
    lines.append(f"  run {shown.run_id}" + (f" in {shown.folder}" if shown.folder else ""))
    return "\n".join(lines)


def columns(text: str) -> int:
    """How many terminal columns a printable text takes."""
    return sum(_columns(character) for character in text)


def clip(text: str, width: int) -> str:
    """The text in at most ``width`` terminal columns, cut at its end if need be."""
    if columns(text) <= width:
        return text
    taken, kept = 0, []
    for character in text:
        taken += _columns(character)
        if taken > width - 1:
            break
        kept.append(character)
    return "".join(kept) + "…" if width > 0 else ""


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _metrics(shown: View) -> list[str]:
    return [f"{shorten(figure.name, _NAME)} {figure.text}" for figure in shown.metrics[:SHOWN_METRICS]]


def _failure(failure: Failure) -> list[str]:
    cause = failure.cause.split("\n")
    lines = ["  " + shorten(line, 400) for line in cause[:8]] + (["  …"] if len(cause) > 8 else [])
    lines += [f"  at {failure.where}"] if failure.where else []
    return lines + ([f"  {failure.others}"] if failure.others else [])


def _table(drawn: Sequence[Curve]) -> list[str]:
    """Last and best value of each metric, aligned."""
    if not drawn:
        return []
    has_best = any(curve.best is not None for curve in drawn)
    cells = [("", "last", "best", "at", "") if has_best else ("", "last", "", "", "")]
    for curve in drawn:
        best = "" if curve.best is None else number(curve.ys[curve.best])
        cells.append((shorten(curve.name, 40), number(curve.last), best, curve.best_at, sparkline(curve)))
    widths = [max(columns(row[at]) for row in cells) for at in range(5)]
    return ["  ".join(map(pad, row, widths, _TO_THE_RIGHT)).rstrip() for row in cells]


def pad(text: str, width: int, right: bool) -> str:
    """The text with spaces up to ``width`` terminal columns, before it if it goes to the right."""
    space = " " * (width - columns(text))
    return space + text if right else text + space


def write(stream: TextIO, text: str) -> None:
    """Writes; what the stream's encoding does not have becomes ``?``."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(text.encode(encoding, "replace").decode(encoding))
