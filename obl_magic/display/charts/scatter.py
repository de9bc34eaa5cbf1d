"""Draws a search's trials as dots: by their number, and by one parameter. Inline SVG, no script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from obl_magic.display.charts.curves import Curve, drawable, thinned
from obl_magic.display.charts.palette import ACTIVE, BAD, LINE, NEUTRAL, TRAIN, VALIDATION, ink
from obl_magic.display.charts.svg import faint, heading, nice, picture, tick
from obl_magic.display.run.view import number, one_line, shorten
from obl_magic.display.study.view import StudyState, TrialRow, best_trial, harm, has_ended, placed
from obl_magic.rundir.record import StudyRecord

_MOST_DOTS = 1500
_MOST_MARKS = 400
_MOST_STEPS = 200
_MOST_SLICES = 4
_FEW = 8
_LOG_FROM = 50.0
_CROSS = "m-2.5,-2.5l5,5m0,-5l-5,5"
_DIAMOND = "m0,-3.2l3.2,3.2l-3.2,3.2l-3.2,-3.2z"


@dataclass(frozen=True, slots=True)
class _Scale:
    """Where values lie between two pixels; what is outside lies at the edge. ``log`` asks for values above 0."""

    low: float
    high: float
    first: float
    last: float
    log: bool = False

    def at(self, value: float) -> float:
        low, high, here = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        share = (here - low) / (high - low) if high > low else 0.5
        return self.first + min(1.0, max(0.0, share)) * (self.last - self.first)


Dot = tuple[float, float]


def history_svg(header: StudyRecord, state: StudyState) -> str:
    """Each trial at its number and value, and the best so far as a line; "" before there are two trials.

    Trials without a value are crosses at the worse edge; what is much worse than most lies at that edge too.
    """
    rows = [row for row in state.rows if has_ended(row, state)]
    succeeded, pruned, lost = sorted_out(rows)
    if len(rows) < 2 or not succeeded:
        return ""
    up = header.direction == "maximize"
    across = _Scale(min(row.number for row in rows), max(row.number for row in rows), 44, 318)
    low, high = _window([value for _, value in (*succeeded, *pruned)], up)
    down = _Scale(low, high, 150, 32)
    edge = 150 if up else 32
    body = [heading(f"{shorten(one_line(header.quantity), 30)} by trial"), *_grid(down, 44, 318)]
    body += [faint(44, 168, f"{across.low:,.0f}", "start"), faint(181, 168, "trial", "middle")]
    body += [faint(318, 168, f"{across.high:,.0f}", "end")]
    body.append(_marks([(across.at(n), edge) for n in lost], _CROSS, BAD))
    body.append(_marks([(across.at(n), down.at(v)) for n, v in pruned], _DIAMOND, NEUTRAL))
    body.append(_dots([(across.at(n), down.at(v)) for n, v in succeeded], TRAIN))
    body += _best_line(header, succeeded, across, down)
    body += _legend(len(pruned), len(lost), 140 if up else 42, -14 if up else 14)
    best = best_trial(header, state)
    top = f", the best {number(best.value)} of trial {best.number}" if best and best.value is not None else ""
    said = f"{one_line(header.quantity)} of {len(rows):,} trials by number{top}."
    return picture(410, 172, said, body)


def slices_svg(header: StudyRecord, state: StudyState) -> tuple[str, ...]:
    """The quantity over each numeric parameter, the most important first; none for fewer than 3 trials."""
    succeeded = [row for row in state.rows if row.status == "succeeded" and placed(row.value) is not None]
    names = list(dict.fromkeys(name for row in succeeded for name in row.params))
    names.sort(key=lambda name: -(placed(state.importances.get(name)) or 0.0))
    drawn = (_slice(header, name, succeeded) for name in names)
    return tuple([svg for svg in drawn if svg][:_MOST_SLICES])


def spark_svg(curve: Curve) -> str:
    """A curve as tiny as a word; "" where it has no course."""
    points = [(curve.xs[at], curve.ys[at]) for at in thinned(len(curve.ys), 60) if drawable(curve.ys[at])]
    if len(points) < 2:
        return ""
    across = _Scale(points[0][0], points[-1][0], 2, 78)
    down = _Scale(min(y for _, y in points), max(y for _, y in points), 15, 3)
    line = " ".join(f"{across.at(x):.1f},{down.at(y):.1f}" for x, y in points)
    body = f'<polyline points="{line}" fill="none" stroke="{ACTIVE}" stroke-width="1.4" stroke-linejoin="round"/>'
    return picture(80, 18, f"from {number(points[0][1])} to {number(points[-1][1])}", [body])


def sorted_out(rows: Sequence[TrialRow]) -> tuple[list[Dot], list[Dot], list[int]]:
    """Those that succeeded, those that were pruned, and the numbers of those without a value."""
    succeeded, pruned, lost = [], [], []
    for row in sorted(rows, key=lambda row: row.number):
        value = placed(row.value)
        if row.status == "pruned":
            if value is not None:
                pruned.append((float(row.number), value))
        elif value is None or row.status != "succeeded":
            lost.append(row.number)
        else:
            succeeded.append((float(row.number), value))
    return succeeded, pruned, lost


def _window(values: Sequence[float], up: bool) -> tuple[float, float]:
    """The values to draw between: all, but for those so far on the worse side that the rest would be a line."""
    ordered = sorted(values)
    low, high = ordered[0], ordered[-1]
    first, third = ordered[len(ordered) // 4], ordered[3 * len(ordered) // 4]
    reach = 3 * (third - first)
    if len(ordered) >= _FEW and reach > 0:
        low, high = (max(low, first - reach), high) if up else (low, min(high, third + reach))
    size = max(abs(low), abs(high))
    pad = (high - low) * 0.06
    if high - low <= max(size * 1e-9, 1e-100):
        pad = size * 0.1 if size > 1e-90 else 1.0
    return low - pad, high + pad


def _grid(down: _Scale, left: float, right: float, lines: int = 4) -> list[str]:
    step = nice((down.high - down.low) / lines)
    pieces = []
    for count in range(math.ceil(down.low / step), math.floor(down.high / step) + 1):
        y = down.at(count * step)
        pieces.append(
            f'<line x1="{left}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="{LINE}" stroke-width="1"/>'
        )
        pieces.append(faint(left - 6, y + 3.5, tick(count * step, step), "end"))
    return pieces


def _dots(places: Sequence[Dot], colour: str, width: float = 5) -> str:
    """Round dots as one path: a thousand elements would be too many for a notebook."""
    return _path(
        places,
        "h0",
        _MOST_DOTS,
        f'stroke="{colour}" stroke-opacity=".85" stroke-width="{width:g}" stroke-linecap="round"',
    )


def _marks(places: Sequence[Dot], shape: str, colour: str) -> str:
    return _path(places, shape, _MOST_MARKS, f'stroke="{colour}" stroke-width="1.2"')


def _path(places: Sequence[Dot], shape: str, most: int, how: str) -> str:
    if not places:
        return ""
    path = "".join(f"M{places[at][0]:.1f},{places[at][1]:.1f}{shape}" for at in thinned(len(places), most))
    return f'<path d="{path}" fill="none" {how}/>'


def best_so_far(header: StudyRecord, succeeded: Sequence[Dot]) -> list[Dot]:
    """Those of the trials that were the best when they ended."""
    bests = list(succeeded[:1])
    for n, value in succeeded[1:]:
        if harm(header, value) < harm(header, bests[-1][1]):
            bests.append((n, value))
    return bests


def _best_line(header: StudyRecord, succeeded: list[Dot], across: _Scale, down: _Scale) -> list[str]:
    """The best so far as steps, the best of all ringed and told at the right."""
    bests = best_so_far(header, succeeded)
    steps = [bests[at] for at in thinned(len(bests), _MOST_STEPS)]
    best = steps[-1]
    path = f"M{across.at(steps[0][0]):.1f},{down.at(steps[0][1]):.1f}"
    path += "".join(f"H{across.at(n):.1f}V{down.at(value):.1f}" for n, value in steps[1:])
    x, y = across.at(best[0]), down.at(best[1])
    return [
        f'<path d="{path}H318" fill="none" stroke="{VALIDATION}" stroke-width="1.8" stroke-linejoin="round"/>',
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" fill="none" stroke="{VALIDATION}" stroke-width="1.5"/>',
        _word(327, y + 3.8, f"best {number(best[1])}", VALIDATION),
    ]


def _legend(pruned: int, lost: int, y: float, step: float) -> list[str]:
    """What the other marks are, at the edge where the best is not."""
    told = [(f"✗ {lost:,} no value", BAD)] if lost else []
    told += [(f"◇ {pruned:,} pruned", NEUTRAL)] if pruned else []
    return [_word(327, y + at * step, text, colour) for at, (text, colour) in enumerate(told)]


def _word(x: float, y: float, text: str, colour: str) -> str:
    return (
        f'<text x="{x:g}" y="{y:.1f}" fill="{colour}" font-weight="600" '
        f'style="{ink(colour, "fill")};font-variant-numeric:tabular-nums">{escape(text)}</text>'
    )


def _slice(header: StudyRecord, name: str, rows: Sequence[TrialRow]) -> str:
    """The quantity over one parameter, its axis logarithmic where that spreads the values; "" if not numeric."""
    known = [(_numeric(row.params.get(name)), placed(row.value)) for row in rows]
    dots = [(x, y) for x, y in known if x is not None and y is not None]
    if len(dots) < 3 or len({x for x, _ in dots}) < 2:
        return ""
    low, high = min(x for x, _ in dots), max(x for x, _ in dots)
    log = _crowded(sorted(x for x, _ in dots))
    across = _Scale(low, high, 40, 152, log)
    down = _Scale(*_window([y for _, y in dots], header.direction == "maximize"), 104, 26)
    said = f"{one_line(header.quantity)} over {one_line(name)}, {len(dots):,} trials."
    return picture(
        164,
        122,
        said,
        [
            heading(shorten(one_line(name), 18) + (" (log)" if log else "")),
            *_grid(down, 40, 152, 3),
            faint(40, 118, f"{low:.3g}", "start"),
            faint(152, 118, f"{high:.3g}", "end"),
            _dots([(across.at(x), down.at(y)) for x, y in dots], TRAIN, 4),
        ],
    )


def _crowded(xs: Sequence[float]) -> bool:
    """Whether values lie so close to the low end that only a logarithmic axis tells them apart."""
    low, high = xs[0], xs[-1]
    return low > 0 and high / low >= _LOG_FROM and xs[len(xs) // 2] - low < (high - low) / 5


def _numeric(value: object) -> float | None:
    return placed(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
