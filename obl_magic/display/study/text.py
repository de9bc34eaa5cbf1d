"""Lays a study's view out as plain text, and keeps one status line at the foot of a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TextIO

from obl_magic.display.charts.bars import ranked_importances, share_text
from obl_magic.display.charts.curves import sparkline
from obl_magic.display.run.text import clip, columns, pad, terminal_width, write
from obl_magic.display.run.view import Pace, shorten
from obl_magic.display.study.view import (
    NOTHING,
    STILL_ROWS,
    ComponentLine,
    StudyState,
    StudyView,
    TrialLine,
    TrialRow,
    has_ended,
    study_view,
    trial_line,
)
from obl_magic.rundir.record import StudyRecord

_BAR = 12
_SIDE = 10
_SPARK = 10
_COUNTS = ("parameters", "inputs", "layers")


class TextStudyDisplay:
    """A study in a terminal: one line rewritten in place. In a file or a pipe: one line a trial that ended.

    Args:
        out: where it is written; by default ``sys.stdout``.
        width: gives the terminal's columns at any moment.
    """

    def __init__(self, out: TextIO | None = None, width: Callable[[], int] = terminal_width) -> None:
        self._out = out or sys.stdout
        self._width = width
        self._rewrites = self._out.isatty()
        self._pace = Pace()
        self._drawn = 0
        self._told: set[int] = set()
        self._header: StudyRecord | None = None

    def begin(self, header: StudyRecord) -> None:
        """Writes what is known before the study, and the remarks."""
        self._header = header
        shown = study_view(header, StudyState(now_s=header.started_s))
        write(self._out, f"{shown.function} · {world_line(shown)}\n")
        for remark in shown.remarks:
            write(self._out, f"note: {remark}\n")
        self._out.flush()

    def update(self, state: StudyState) -> None:
        """Rewrites the status line, or writes the lines of trials that ended."""
        if self._header is None:
            return
        if not self._rewrites:
            self._tell(self._header, state)
        elif self._pace.due(state.now_s):
            self._draw(study_status_line(study_view(self._header, state)))

    def end(self, state: StudyState) -> None:
        """Writes the summary in place of the status line."""
        if self._header is None:
            return
        if self._rewrites:
            self._draw("")
            write(self._out, "\r")
        else:
            self._tell(self._header, state)
        write(self._out, study_summary(self._header, state) + "\n")
        self._out.flush()

    def _tell(self, header: StudyRecord, state: StudyState) -> None:
        for row in state.rows:
            if row.number not in self._told and has_ended(row, state):
                self._told.add(row.number)
                write(self._out, trial_text(header, state, row) + "\n")
        self._out.flush()

    def _draw(self, line: str) -> None:
        room = max(0, self._width() - 1)
        clipped = clip(line, room)
        rest = min(self._drawn, room) - columns(clipped)
        write(self._out, "\r" + clipped + " " * max(0, rest))
        self._drawn = columns(clipped)
        self._out.flush()


def study_status_line(shown: StudyView) -> str:
    """The study on one line, the most important first."""
    best = f"best {shown.best} ({shown.best_of})" if shown.best_of != "base" else f"base {shown.best}"
    parts = [
        f"{shown.status.symbol} {shorten(shown.function, 28)} {shown.elapsed}",
        _share(shown),
        shown.counts,
        best if shown.best else "",
        shown.best_params,
        *(_going(line) for line in shown.running),
    ]
    return " · ".join(part for part in parts if part)


def trial_text(header: StudyRecord, state: StudyState, row: TrialRow) -> str:
    """One trial that ended, on one line."""
    line = trial_line(row, state, ())
    name = line.name if row.label else f"trial {line.name}"
    value = f"{shorten(header.quantity, 28)} {line.value}" if row.value is not None else ""
    time = line.duration if row.duration_s is not None else ""
    parts = [f"{line.mark.symbol} {name} {line.mark.word}", value, time, line.called, line.error]
    return " · ".join(part for part in parts if part)


def world_line(shown: StudyView) -> str:
    """What is sought, where and how, on one line."""
    digest = f"sha256 {shown.digest}" if shown.digest else ""
    return " · ".join(part for part in (shown.aim, shown.world, *shown.method, digest) if part)


def study_summary(header: StudyRecord, state: StudyState) -> str:
    """A study in plain text: how it went, the best, the table, what mattered, where it lies.

    Args:
        header: what was known at the start.
        state: the study now.
    """
    shown = study_view(header, state, STILL_ROWS)
    lines = [
        f"{shown.status.symbol} {shown.function} {shown.status.phrase} {shown.elapsed} · {world_line(shown)}",
        "  " + " · ".join(part for part in (shown.counts, shown.busy) if part),
    ]
    lines += [f"  {text}" for text in _best(shown)]
    lines += [f"  {_going(line)}" for line in shown.running]
    lines += [f"  {text}" for text in (*_trials(shown), *_importances(state), *_components(shown))]
    lines += [f"  note: {remark}" for remark in shown.remarks]
    lines.append(f"  study {shown.study_id}" + (f" in {shown.folder}" if shown.folder else ""))
    return "\n".join(line.rstrip() for line in lines)


def _share(shown: StudyView) -> str:
    if shown.shares is None:
        return ""
    done = min(1.0, sum(share for _, share in shown.shares))
    full = int(done * _BAR)
    return f"{'█' * full}{'░' * (_BAR - full)} {int(100 * done)}%"


def _going(line: TrialLine) -> str:
    course = sparkline(line.curve, _SPARK) if line.curve else ""
    value = "" if line.value == NOTHING else line.value
    return " ".join(part for part in (line.mark.symbol, line.name, line.where, value, course) if part)


def _best(shown: StudyView) -> list[str]:
    if shown.best_of == "base":
        return [f"base: {shown.quantity} {shown.best}"]
    if shown.best:
        params = f" with {shown.best_params}" if shown.best_params else ""
        return [f"best: {shown.best_of}, {shown.quantity} {shown.best}{params}"]
    return ["no trial succeeded"] if shown.status.over else []


def _trials(shown: StudyView) -> list[str]:
    """Trials that ended, best first; one that failed has its error at the end of its line."""
    if not shown.trials:
        return []
    heads = ["", "trial", shorten(shown.quantity, 20), "time", *shown.names, ""]
    rows = [
        [
            "★" if line.best else line.mark.symbol,
            line.name,
            line.value,
            line.duration,
            *line.params,
            " ".join(
                part for part in (line.mark.word if line.mark.word != "succeeded" else "", line.error) if part
            ),
        ]
        for line in shown.trials
    ]
    more = [f"… and {shown.trials_more:,} more in study.trials"] if shown.trials_more else []
    more += [f"{shown.names_more:,} more parameters in study.trials"] if shown.names_more else []
    return [*_table([heads, *rows], {1, 2, 3}), *more]


def _importances(state: StudyState) -> list[str]:
    ranked = ranked_importances(state)
    if not ranked:
        return []
    top = max(share for _, share in ranked)
    rows = [
        [shorten(name, 28), _blocks(share / top if top > 0 else 0.0, _BAR), share_text(share)]
        for name, share in ranked
    ]
    return ["importance of parameters", *(f"  {line}" for line in _table(rows, {2}))]


def _components(shown: StudyView) -> list[str]:
    """An ablation's table, each delta as a bar to the left or to the right of nothing."""
    if not shown.components:
        return []
    known = [name for name in _COUNTS if any(getattr(line, name) != NOTHING for line in shown.components)]
    heads = [
        "",
        "component",
        "kind",
        shorten(shown.quantity, 20),
        "delta",
        "± std",
        "repeats",
        *known,
        "",
        "",
    ]
    top = max((abs(line.change) for line in shown.components if line.change is not None), default=0.0)
    rows = [
        [
            line.mark.symbol,
            *(line.name, line.kind, line.value, line.delta, line.std, line.repeats),
            *(getattr(line, name) for name in known),
            _both_sides(line, top),
            _remark(line),
        ]
        for line in shown.components[:STILL_ROWS]
    ]
    left = len(shown.components) - STILL_ROWS
    more = [f"… and {left:,} more in result.table"] if left > 0 else []
    return [*_table([heads, *rows], set(range(3, 7 + len(known)))), *more]


def _remark(line: ComponentLine) -> str:
    word = line.mark.word if line.mark.word != "succeeded" else ""
    return " ".join(part for part in (word, line.verdict, line.error) if part)


def _both_sides(line: ComponentLine, top: float) -> str:
    """A bar on its side of the middle; a pale one may be chance."""
    if line.change is None:
        return ""
    bar = _blocks(abs(line.change) / top if top > 0 else 0.0, _SIDE, "░" if line.noise else "█")
    return f"{bar if line.change < 0 else '':>{_SIDE}}│{bar if line.change > 0 else '':<{_SIDE}}"


def _blocks(share: float, width: int, block: str = "█") -> str:
    return block * max(1 if share > 0 else 0, round(min(1.0, max(0.0, share)) * width))


def _table(rows: Sequence[Sequence[str]], to_the_right: set[int]) -> list[str]:
    widths = [max(columns(row[at]) for row in rows) for at in range(len(rows[0]))]
    return [
        "  ".join(pad(text, widths[at], at in to_the_right) for at, text in enumerate(row)).rstrip()
        for row in rows
    ]
