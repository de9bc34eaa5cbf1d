"""Lays a view out as HTML that survives in a saved notebook. Pure: view -> str."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from obl_magic.display.charts.curves import Chart, Curve, charts, curves, sparkline
from obl_magic.display.charts.palette import BAD, GROUND, LINE, ink
from obl_magic.display.charts.svg import HEIGHT, WIDTH, chart_svg
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
from obl_magic.display.run.view import Failure, View, last_known_s, number, one_line, shorten, view
from obl_magic.events.fold import MetricRow, RunState
from obl_magic.rundir.record import RunRecord

_MOST_CHARTS = 6
_MOST_ROWS = 40
_TABLE_HEIGHT = 134
"""In pixels: five metrics, the usual number at most; to more one scrolls."""
_CELL = f"{FIRST};padding-left:14px"
_MOST_TRACEBACK_LINES = 60


def panel_html(shown: View, drawn: Sequence[Curve] = ()) -> str:
    """The panel of a run that is on its way; it is as high as the still that will take its place."""
    said = [*shown.notes, *shown.remarks]
    return frame(
        *_upper(shown, drawn),
        line(_phases(shown)),
        line(_log(shown), "\n".join(f"{name}:\n" + "\n".join(lines) for name, lines in shown.tails)),
        line(noted(said), "\n".join(said)),
        line(_facts(shown)),
        foot(shown.run_id, shown.folder, now=shown.now),
    )


def still_html(
    header: RunRecord, state: RunState, rows: Sequence[MetricRow], now_s: float | None = None
) -> str:
    """What stays of a run in the notebook; for a run on its way, what is known so far.

    Args:
        header: what was known at the start.
        state: the events so far, folded.
        rows: the metrics so far.
        now_s: Unix time in seconds, for a run on its way; by default the time of its last metric.
    """
    shown = view(header, state, last_known_s(header, rows) if now_s is None else now_s)
    said = [*shown.notes, *shown.remarks]
    return frame(
        *_upper(shown, curves(rows, live=not shown.status.over)),
        line(_phases(shown)),
        folded(_log(shown), _tails(shown)) if shown.tails else line(""),
        folded(noted(said), listed(said)) if said else line(""),
        folded(_facts(shown), _details(shown)),
        foot(shown.run_id, shown.folder),
    )


def _upper(shown: View, drawn: Sequence[Curve]) -> tuple[str, ...]:
    """What panel and still have in common."""
    over = shown.status.over
    where = [
        (f"epoch {shown.epoch}" if shown.epoch else "", 11),
        (f"step {shown.step}" if shown.step else "", 12),
        (shown.elapsed if over else f"{shown.elapsed} elapsed", 11),
        (f"→ {shown.value}" if over and shown.value else shown.left, 10),
    ]
    if shown.status.word in ("succeeded", "interrupted"):  # the phrase says where that was
        where = where[2:]
    if over:  # nothing moves any more
        where = [(text, 0) for text, _ in where if text]
    return (
        headline(shown.function, shown.status, *where),
        _bar(shown),
        folded(_cause(shown.failure), _failure(shown.failure)) if shown.failure else line(_paces(shown)),
        _figures(shown, drawn) if drawn or shown.metrics or shown.draws else "",
    )


def _bar(shown: View) -> str:
    """The progress bar, by its width and in figures; empty while nothing is known."""
    done = 0.0 if shown.fraction is None else 100 * shown.fraction
    said = "&nbsp;" if shown.fraction is None else f"{int(done)} %"
    colour = TONES[shown.status.tone]
    pace = "" if shown.status.over else dotted([escape(shown.step_time), escape(shown.speed)])
    return (
        '<div style="display:flex;align-items:center;gap:12px;margin:6px 0;height:18px">'
        f'<div role="img" aria-label="{int(done)} % done" '
        f'style="flex:1;height:6px;border-radius:3px;background:{GROUND};overflow:hidden">'
        f'<div style="width:{done:.2f}%;height:6px;border-radius:3px;background:{colour}"></div></div>'
        f'<div style="width:44px;{ONE_LINE};text-align:right;font-size:12px">{said}</div>'
        f'<div style="width:210px;{ONE_LINE};text-align:right;font-size:12px">{pace or "&nbsp;"}</div></div>'
    )


def _figures(shown: View, drawn: Sequence[Curve]) -> str:
    """Charts and the table of numbers, side by side where there is room, each of a height of its own.

    A chart for which there is no room is whole below the others, where one can scroll to it.
    """
    pictures = "".join(
        f'<div style="flex:0 0 auto">{chart_svg(chart)}</div>'
        for chart in _first_loss(charts(drawn))[:_MOST_CHARTS]
    )
    if not pictures and shown.draws and not shown.status.over:
        pictures = (
            f'<div style="{FAINT};align-self:center;padding-left:40px">curves come with the first steps</div>'
        )
    both = 2 * WIDTH + 8
    left = (
        f'<div style="flex:1 1 {both}px;min-width:0;height:{HEIGHT + 4}px;display:flex;flex-wrap:wrap;gap:8px;'
        f'overflow-x:hidden;overflow-y:auto">{pictures}</div>'
        if pictures
        else ""
    )
    return f'<div style="display:flex;flex-wrap:wrap;gap:4px 14px;margin:8px 0">{left}{_table(drawn, pictures)}</div>'


def _first_loss(drawn: Sequence[Chart]) -> list[Chart]:
    """What is minimized comes first, wherever Keras names it."""
    return sorted(drawn, key=lambda chart: chart.title != "loss")


def _table(drawn: Sequence[Curve], beside: str) -> str:
    """Newest and best value of each metric with its course; best is left empty where better has no direction."""
    if not drawn and not beside:
        return ""
    head = "".join(
        f'<th style="{cell};{FAINT};font-weight:400;text-align:{side}">{name}</th>'
        for cell, name, side in (
            (FIRST, "", "left"), (_CELL, "now", "right"), (_CELL, "○ best", "right"), (_CELL, "at", "left"),
            (_CELL, "", "left"),
        )
    )  # fmt: skip
    body = "".join(_row(curve) for curve in drawn[:_MOST_ROWS])
    more = len(drawn) - _MOST_ROWS
    rest = f'<div style="{FAINT}">and {more:,} more metrics</div>' if more > 0 else ""
    height = f"height:{_TABLE_HEIGHT}px;" if beside else ""
    return (
        f'<div style="flex:0 1 360px;{height}overflow:auto">'
        '<table style="border-collapse:collapse;border:0;margin:0;table-layout:auto;width:auto">'
        f'<thead><tr style="border-bottom:1px solid {LINE};background:transparent">{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>{rest}</div>"
    )


def _paces(shown: View) -> str:
    """How fast each rank is, and how long it waits; what ranks do where no rank is in a fit."""
    if not shown.paces or shown.status.over:
        return escape(shown.ranks)
    said = []
    host = ""
    for pace in shown.paces:
        if pace.host != host:
            host = pace.host
            said.append(f'<span style="{FAINT}">on {escape(host)}</span>')
        busy = round(5 * (1 - pace.waits))
        bar = "▇" * busy + "▁" * (5 - busy)
        words = (f"{pace.rank} {bar} {pace.step}", f"{round(100 * pace.waits)} % wait", pace.share)
        text = " · ".join(word for word in words if word)
        weight = ";font-weight:600" if pace.slowest else ""
        mark = " ◂ slowest" if pace.slowest else ""
        said.append(f'<span style="display:inline-block;min-width:24ch{weight}">{escape(text)}{mark}</span>')
    return f'<span style="{FAINT}">ranks</span>&ensp;{" ".join(said)}'


def _phases(shown: View) -> str:
    """Where its time went."""
    said = [
        f"{phase.name} {phase.took} ✓"
        if phase.over
        else f'<span style="font-weight:600">{phase.name}</span> {phase.took}'
        for phase in shown.phases
    ]
    return f'<span style="{FAINT}">{" → ".join(said)}</span>' if said else ""


def _facts(shown: View) -> str:
    return facts((shown.world, shown.engine, shown.batch), shown.digest)


def _details(shown: View) -> str:
    """What few ask for."""
    said = [f"seed {shown.seed}", shown.versions, *shown.usage]
    return listed([each for each in said if each])


def _log(shown: View) -> str:
    """The last line of each rank that printed any, for one line; the few before them are below it or in its title."""
    if not shown.tails:
        return ""
    most = max(24, 120 // len(shown.tails))
    said = [
        f'<span style="{FAINT}">{escape(name)}</span> <span style="{MONO};font-size:11.5px">'
        f"{escape(shorten(lines[-1], most))}</span>"
        for name, lines in shown.tails
    ]
    return f'<span style="{FAINT}">log</span>&ensp;{"&ensp;".join(said)}'


def _tails(shown: View) -> str:
    """What ranks printed last."""
    return "".join(
        f'<div style="margin-top:6px;{FAINT}">last lines of {escape(name)}</div>'
        f'<pre style="{MONO};font-size:12px;margin:0;padding:0 0 0 14px;background:transparent;color:inherit;border:0">'
        f"{escape(chr(10).join(lines))}</pre>"
        for name, lines in shown.tails
    )


def _cause(failure: Failure) -> str:
    """What failed, on one line."""
    parts = [f"at {failure.where}" if failure.where else "", failure.others]
    return (
        f'<span style="{ink(BAD)};font-weight:600">{escape(shorten(one_line(failure.cause), 160))}</span> '
        f'<span style="{FAINT}">{dotted([escape(part) for part in parts])}</span>'
    )


def _failure(failure: Failure) -> str:
    """All that is known of it."""
    place = f'<div style="{FAINT}">at {escape(failure.where)}</div>' if failure.where else ""
    others = f'<div style="{FAINT}">{escape(failure.others)}</div>' if failure.others else ""
    return (
        f'<div style="margin:10px 0 8px;padding:2px 0 2px 12px;border-left:3px solid {BAD}">'
        f'<div style="{MONO};font-size:12.5px;white-space:pre-wrap;overflow-wrap:anywhere">'
        f"{escape(_few_lines(failure.cause, 8))}</div>{place}{others}{_traceback(failure)}</div>"
    )


def _traceback(failure: Failure) -> str:
    if not failure.traceback:
        return ""
    lines = failure.traceback.split("\n")
    kept = lines if len(lines) <= _MOST_TRACEBACK_LINES else ["…", *lines[-_MOST_TRACEBACK_LINES:]]
    return (
        f'<details style="margin-top:4px"><summary style="{FAINT};cursor:pointer">traceback</summary>'
        f'<pre style="{MONO};font-size:12px;margin:4px 0 0;padding:0;background:transparent;color:inherit;'
        f'border:0;white-space:pre-wrap;overflow-wrap:anywhere">{escape(chr(10).join(kept))}</pre></details>'
    )


def _row(curve: Curve) -> str:
    last = number(curve.last)
    best = "" if curve.best is None else number(curve.ys[curve.best])
    return (
        '<tr style="background:transparent;border:0">'
        f'<td style="{FIRST};text-align:left" title="{escape(curve.name)}">'
        f"{escape(shorten(curve.name, 40))}</td>"
        f'<td style="{_CELL};text-align:right;{alarm(last)}">{escape(last)}</td>'
        f'<td style="{_CELL};text-align:right">{escape(best)}</td>'
        f'<td style="{_CELL};text-align:left;opacity:.68">{escape(curve.best_at)}</td>'
        f'<td style="{_CELL};text-align:left;{MONO};font-size:11px">{sparkline(curve, 12)}</td></tr>'
    )


def _few_lines(text: str, most: int) -> str:
    lines = [shorten(line, 400) for line in text.split("\n")]
    return "\n".join(lines if len(lines) <= most else [*lines[:most], "…"])
