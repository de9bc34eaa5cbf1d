"""Lays a view out as HTML that survives in a saved notebook. Pure: view -> str."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from obl_magic.display.charts.curves import Curve, charts, curves
from obl_magic.display.charts.palette import BAD, GROUND, LINE
from obl_magic.display.charts.svg import chart_svg
from obl_magic.display.frame import (
    CELL,
    FAINT,
    FIRST,
    MONO,
    TONES,
    alarm,
    dotted,
    facts,
    foot,
    frame,
    headline,
    listed,
)
from obl_magic.display.run.view import SHOWN_METRICS, Failure, View, number, shorten, view
from obl_magic.events.fold import MetricRow, RunState
from obl_magic.rundir.record import RunRecord

_MOST_CHARTS = 4
_MOST_ROWS = 40
_MOST_TRACEBACK_LINES = 60


def panel_html(shown: View) -> str:
    """The panel of a run that is on its way."""
    return frame(
        headline(shown.function, shown.status, shown.elapsed),
        facts((shown.world, shown.engine, shown.batch), shown.digest),
        _bar(shown),
        _where(shown),
        _tiles(shown),
        _failure(shown),
        listed((*shown.remarks, *shown.notes)),
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
    if now_s is None:
        now_s = max([header.started_s, *(row.time_s for row in rows[-1:])])
    shown = view(header, state, now_s)
    drawn = curves(rows)
    return frame(
        headline(shown.function, shown.status, shown.elapsed),
        facts((shown.world, shown.engine, shown.batch), shown.digest),
        _failure(shown),
        "" if shown.status.over else _bar(shown),
        "" if shown.status.word == "succeeded" else _where(shown),
        _charts(drawn),
        _table(drawn),
        listed((*shown.remarks, *shown.notes)),
        foot(shown.run_id, shown.folder),
    )


def _bar(shown: View) -> str:
    """The progress bar, by its width and in figures; empty while nothing is known."""
    done = 0.0 if shown.fraction is None else 100 * shown.fraction
    said = "&nbsp;" if shown.fraction is None else f"{int(done)} %"
    colour = TONES[shown.status.tone]
    return (
        '<div style="display:flex;align-items:center;gap:12px;margin:8px 0 6px">'
        f'<div style="flex:1;height:6px;border-radius:3px;background:{GROUND};overflow:hidden">'
        f'<div style="width:{done:.2f}%;height:6px;border-radius:3px;background:{colour}"></div></div>'
        f'<div style="width:38px;text-align:right;font-size:12px">{said}</div></div>'
    )


def _where(shown: View) -> str:
    parts = [
        f"epoch {_strong(shown.epoch)}" if shown.epoch else "",
        f"step {_strong(shown.step)}" if shown.step else "",
        escape(shown.speed) if not shown.status.over else "",
        escape(shown.ranks) if not shown.failure else "",
    ]
    return f'<div style="font-size:12.5px;margin-top:4px">{dotted(parts)}</div>' if any(parts) else ""


def _tiles(shown: View) -> str:
    """The newest value of each metric, name above number."""
    tiles = [
        f'<div style="min-width:84px"><div style="{FAINT}" title="{escape(figure.name)}">'
        f"{escape(shorten(figure.name, 24))}</div> "
        f'<div style="font-size:17px;line-height:1.3;{alarm(figure.text)}">{escape(figure.text)}</div></div>'
        for figure in shown.metrics[:SHOWN_METRICS]
    ]
    more = len(shown.metrics) - SHOWN_METRICS
    if more > 0:
        tiles.append(f'<div style="{FAINT};align-self:end">and {more:,} more</div>')
    if not tiles:
        return ""
    return f'<div style="display:flex;flex-wrap:wrap;gap:6px 28px;margin-top:8px">{"".join(tiles)}</div>'


def _failure(shown: View) -> str:
    failure = shown.failure
    if failure is None:
        return ""
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


def _charts(drawn: Sequence[Curve]) -> str:
    pictures = charts(drawn)[:_MOST_CHARTS]
    if not pictures:
        return ""
    inside = "".join(f'<div style="flex:0 1 auto">{chart_svg(chart)}</div>' for chart in pictures)
    return f'<div style="display:flex;flex-wrap:wrap;gap:10px 24px;margin:12px 0 4px">{inside}</div>'


def _table(drawn: Sequence[Curve]) -> str:
    """Last and best value of each metric; best is left empty where better has no direction."""
    if not drawn:
        return ""
    has_best = any(curve.best is not None for curve in drawn)
    head = "".join(
        f'<th style="{cell};{FAINT};font-weight:400;text-align:{side}">{name}</th>'
        for cell, name, side in (
            (FIRST, "", "left"),
            (CELL, "last", "right"),
            (CELL, "○ best" if has_best else "", "right"),
            (CELL, "at" if has_best else "", "left"),
        )
    )
    body = "".join(_row(curve) for curve in drawn[:_MOST_ROWS])
    more = len(drawn) - _MOST_ROWS
    rest = f'<div style="{FAINT}">and {more:,} more metrics</div>' if more > 0 else ""
    return (
        '<table style="border-collapse:collapse;border:0;margin:8px 0 4px;table-layout:auto;width:auto">'
        f'<thead><tr style="border-bottom:1px solid {LINE};background:transparent">{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>{rest}"
    )


def _row(curve: Curve) -> str:
    last = number(curve.last)
    best = "" if curve.best is None else number(curve.ys[curve.best])
    return (
        '<tr style="background:transparent;border:0">'
        f'<td style="{FIRST};text-align:left" title="{escape(curve.name)}">'
        f"{escape(shorten(curve.name, 40))}</td>"
        f'<td style="{CELL};text-align:right;{alarm(last)}">{escape(last)}</td>'
        f'<td style="{CELL};text-align:right">{escape(best)}</td>'
        f'<td style="{CELL};text-align:left;opacity:.68">{escape(curve.best_at)}</td></tr>'
    )


def _strong(text: str) -> str:
    return f'<span style="font-weight:600">{escape(text)}</span>'


def _few_lines(text: str, most: int) -> str:
    lines = [shorten(line, 400) for line in text.split("\n")]
    return "\n".join(lines if len(lines) <= most else [*lines[:most], "…"])
