"""Lays a study's view out as HTML that survives in a saved notebook. Pure: values -> str.

The frame, the colours and the rules are those of ``frame.py``: inline styles only, no script, sentences and
tables where styles and pictures are stripped.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from obl_magic.display.charts.bars import MOST_BARS, deltas_svg, importances_svg
from obl_magic.display.charts.palette import BAD, GOOD, GROUND, LINE, ink
from obl_magic.display.charts.scatter import history_svg, slices_svg, spark_svg
from obl_magic.display.frame import (
    FAINT,
    FIRST,
    MONO,
    ONE_LINE,
    TONES,
    alarm,
    dotted,
    facts,
    folded,
    foot,
    frame,
    headline,
    line,
    listed,
    noted,
)  # fmt: skip
from obl_magic.display.run.view import shorten
from obl_magic.display.study.view import (
    NOTHING,
    STILL_ROWS,
    ComponentLine,
    Mark,
    StudyState,
    StudyView,
    TrialLine,
    study_view,
)
from obl_magic.rundir.record import StudyRecord

_TABLE = "border-collapse:collapse;border:0;margin:8px 0 4px;table-layout:auto;width:auto"
_NARROW = f"{FIRST};padding-left:12px"
_BARE = "background:transparent;border:0"
ROWS = 10
"""Of trials that ended, for which a panel keeps room."""
_COUNTS = ("parameters", "inputs", "layers")


def study_panel_html(shown: StudyView, pictures: Sequence[str] = ()) -> str:
    """The panel of a study that is on its way; it is as high as the still that will take its place."""
    return frame(*_body(shown, pictures), foot(shown.study_id, shown.folder, "study", now=shown.now))


def study_still_html(header: StudyRecord, state: StudyState) -> str:
    """What stays of a study in the notebook; of one on its way, what is known so far."""
    shown = study_view(header, state, STILL_ROWS)
    return frame(
        *_body(shown, study_pictures(header, state, shown)), foot(shown.study_id, shown.folder, "study")
    )


def _body(shown: StudyView, pictures: Sequence[str]) -> tuple[str, ...]:
    """What panel and still have in common."""
    over = shown.status.over
    time = [(shown.elapsed, 8)] if over else [(f"{shown.elapsed} elapsed", 13), (shown.left, 12)]
    return (
        headline(shown.function, shown.status, *time, aim=shown.aim),
        line(facts((shown.world, *shown.method), shown.digest)),
        line(f'<span style="{FAINT};{MONO};font-size:11px">{escape(shown.space)}</span>', shown.space),
        _bar(shown),
        _counts(shown),
        _best(shown),
        _side_by_side(shown, pictures),
        _rows(shown),
        folded(noted(shown.remarks), listed(shown.remarks)) if shown.remarks else line(""),
    )


def study_pictures(header: StudyRecord, state: StudyState, shown: StudyView) -> tuple[str, ...]:
    """A search's history, slices and importances; an ablation's bars."""
    if header.kind != "search":
        return (deltas_svg(header, shown.components),)
    return (history_svg(header, state), *slices_svg(header, state), importances_svg(state))


def _side_by_side(shown: StudyView, pictures: Sequence[str]) -> str:
    inside = "".join(f'<div style="flex:0 0 auto">{picture}</div>' for picture in pictures if picture)
    if not inside and shown.status.over:
        return ""
    height = 68 + 20 * min(shown.planned - 1, MOST_BARS) if shown.planned > 1 else 184
    return (
        f'<div style="display:flex;flex-wrap:wrap;gap:10px 16px;margin:8px 0;height:{height}px;overflow-x:hidden;'
        f'overflow-y:auto">'
        f"{inside}</div>"
    )


def _rows(shown: StudyView) -> str:
    """Trials on their way and those that have ended, in a place that keeps its height."""
    inside = f"{_running(shown)}{_trials(shown)}{_components(shown)}"
    if not inside and shown.status.over:
        return ""
    rows = min(shown.worlds, 4) + (shown.planned or min(shown.wanted or ROWS, ROWS))
    return f'<div style="height:{36 + 22 * rows}px;overflow:auto">{inside}</div>'


def _bar(shown: StudyView) -> str:
    """How many of the wanted trials ended, and how; none where their number is open."""
    if shown.shares is None:
        return ""
    pieces = "".join(
        f'<div style="width:{100 * share:.2f}%;height:6px;background:{TONES[tone]}"></div>'
        for tone, share in shown.shares
    )
    return (
        f'<div style="display:flex;margin:8px 0 6px;height:6px;border-radius:3px;background:{GROUND};'
        f'overflow:hidden">{pieces}</div>'
    )


def _counts(shown: StudyView) -> str:
    busy = f'<span style="opacity:.68">{escape(shown.busy)}</span>' if shown.busy else ""
    return line(dotted([escape(shown.counts), busy]))


def _best(shown: StudyView) -> str:
    """The best value, or an ablation's base, large; its parameters beside it."""
    title = escape(f"{'base' if shown.best_of == 'base' else 'best'} {shorten(shown.quantity, 40)}")
    if not shown.best:
        title = "no trial succeeded" if shown.status.over else "&nbsp;"
    of = "" if shown.best_of == "base" else escape(shown.best_of)
    large = f'<span style="font-size:17px;line-height:1.3;font-weight:600">{escape(shown.best)}</span>'
    params = f'<span style="{MONO};font-size:12px">{escape(shown.best_params)}</span>'
    return (
        f'<div style="margin-top:4px;height:44px"><div style="{FAINT}">{title}</div> '
        f'<div style="{ONE_LINE}">{large} &ensp;<span>{of}</span>&ensp;'
        f"{params if shown.best_params else ''}</div></div>"
    )


def _running(shown: StudyView) -> str:
    """The trials on their way, each with its course so far."""
    if not shown.running:
        return ""
    rows = "".join(_running_row(line) for line in shown.running)
    more = f'<div style="{FAINT}">and {shown.running_more:,} more running</div>' if shown.running_more else ""
    return f'<table style="{_TABLE}"><tbody>{rows}</tbody></table>{more}'


def _running_row(line: TrialLine) -> str:
    spark = spark_svg(line.curve) if line.curve else ""
    return (
        f'<tr style="{_BARE}">{_cell(_symbol(line.mark) + " " + escape(line.name), FIRST)}'
        f"{_cell(spark, _NARROW)}{_cell(escape(line.value), _NARROW, 'right')}"
        f"{_cell(escape(line.where), _NARROW)}{_cell(escape(line.duration), _NARROW, 'right')}"
        f"{_cell(escape(shorten(line.called, 60)), f'{_NARROW};{MONO};font-size:11px')}</tr>"
    )


def _trials(shown: StudyView) -> str:
    """Trials that ended, best first; one that failed has its error below it."""
    if not shown.trials:
        return ""
    columns = [("trial", "left"), (shown.quantity, "right"), ("time", "right")]
    head = _heads([*columns, *((name, "left") for name in shown.names)])
    body = "".join(_trial_row(line) for line in shown.trials)
    more = [f"… and {shown.trials_more:,} more in study.trials"] if shown.trials_more else []
    more += [f"{shown.names_more:,} more parameters in study.trials"] if shown.names_more else []
    rest = "".join(f'<div style="{FAINT}">{text}</div>' for text in more)
    return f'<table style="{_TABLE}">{head}<tbody>{body}</tbody></table>' + rest


def _trial_row(line: TrialLine) -> str:
    weight = ";font-weight:600" if line.best else ""
    star = f' <span style="{ink(GOOD)}">★ best</span>' if line.best else ""
    pale = "opacity:.68" if line.mark.word != "succeeded" else ""
    cells = [
        _cell(f"{_symbol(line.mark)} {escape(line.name)}{star}", FIRST + weight),
        _cell(escape(line.value), f"{_NARROW}{weight};{alarm(line.value)}", "right"),
        _cell(escape(line.duration), f"{_NARROW};opacity:.68", "right"),
        *(_cell(escape(text), f"{_NARROW};{pale}") for text in line.params),
    ]
    return f'<tr style="{_BARE}">{"".join(cells)}</tr>' + _error_row(line.error, len(cells))


def _components(shown: StudyView) -> str:
    """An ablation's table; counts that nobody knows have no column."""
    if not shown.components:
        return ""
    known = [name for name in _COUNTS if any(getattr(line, name) != NOTHING for line in shown.components)]
    numbers = [shown.quantity, "delta", "± std", "repeats", *known]
    head = _heads(
        [("component", "left"), ("kind", "left"), *((name, "right") for name in numbers), ("status", "left")]
    )
    body = "".join(_component_row(line, known) for line in shown.components[:STILL_ROWS])
    left = len(shown.components) - STILL_ROWS
    more = f'<div style="{FAINT}">… and {left:,} more in result.table</div>' if left > 0 else ""
    return f'<table style="{_TABLE}">{head}<tbody>{body}</tbody></table>' + more


def _component_row(line: ComponentLine, known: Sequence[str]) -> str:
    strong = ";font-weight:600" if line.base else ""
    numbers = [line.value, line.delta, line.std, line.repeats, *(getattr(line, name) for name in known)]
    cells = [
        _cell(escape(line.name), FIRST + strong),
        _cell(escape(line.kind), f"{_NARROW};opacity:.68"),
        *(_cell(escape(text), f"{_NARROW}{strong};{alarm(text)}", "right") for text in numbers),
        _cell(f'{_symbol(line.mark)} <span style="opacity:.68">{_remark(line)}</span>', _NARROW),
    ]
    return f'<tr style="{_BARE}">{"".join(cells)}</tr>' + _error_row(line.error, len(cells))


def _remark(line: ComponentLine) -> str:
    """What the status column says beside the symbol, short enough for names that are long."""
    return escape(line.verdict) if line.mark.word == "succeeded" else escape(line.mark.word)


def _error_row(error: str, columns: int) -> str:
    if not error:
        return ""
    style = f"{FIRST};padding-left:16px;white-space:normal;{MONO};font-size:11.5px;{ink(BAD)};text-align:left"
    return f'<tr style="{_BARE}"><td colspan="{columns}" style="{style}">{escape(error)}</td></tr>'


def _heads(heads: Iterable[tuple[str, str]]) -> str:
    cells = "".join(
        f'<th style="{FIRST if at == 0 else _NARROW};{FAINT};font-weight:400;text-align:{side}" '
        f'title="{escape(name)}">{escape(shorten(name, 20))}</th>'
        for at, (name, side) in enumerate(heads)
    )
    return f'<thead><tr style="border-bottom:1px solid {LINE};background:transparent">{cells}</tr></thead>'


def _cell(inside: str, style: str, side: str = "left") -> str:
    return f'<td style="{style};text-align:{side}">{inside}</td>'


def _symbol(of: Mark) -> str:
    return f'<span style="{ink(TONES[of.tone])}" title="{escape(of.word)}">{of.symbol}</span>'
