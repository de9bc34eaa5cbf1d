"""Draws a chart as inline SVG: no script, no style sheet, text in the page's own colour."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape

from obl_magic.display.charts.curves import Chart, Curve, drawable, thinned
from obl_magic.display.charts.palette import LINE, TRAIN, VALIDATION, ink
from obl_magic.display.run.view import number, shorten

WIDTH, HEIGHT = 332, 168
_LEFT, _RIGHT, _TOP, _BOTTOM = 40, 84, 30, 24
_MOST_POINTS = 140
_LABEL_GAP = 14.0


@dataclass(frozen=True, slots=True)
class _Axes:
    """The box of data values, and where it lies on the picture."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        share = (value - self.x_low) / (self.x_high - self.x_low) if self.x_high > self.x_low else 0.5
        return _LEFT + share * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        share = (value - self.y_low) / (self.y_high - self.y_low)
        return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)


def chart_svg(chart: Chart) -> str:
    """The chart: curves with their names and last values at their ends, the best point ringed."""
    axes = _axes(chart)
    coloured = [(label, curve, _colour(label)) for label, curve in chart.curves]
    body = [heading(chart.title), *_grid(axes), *_x_axis(axes, chart.curves[0][1].unit)]
    body += [piece for _, curve, colour in coloured for piece in _line(axes, curve, colour)]
    body += _labels(axes, coloured)
    said = ", ".join(f"{label} {number(curve.last)}".strip() for label, curve, _ in coloured)
    return picture(WIDTH, HEIGHT, f"{chart.title}: {said}", body)


def picture(width: float, height: float, said: str, body: list[str]) -> str:
    """The pieces as one inline picture; ``said`` is read to who does not see it."""
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:g}" height="{height:g}" '
        f'viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{_esc(said)}" '
        f'style="max-width:100%;height:auto;font-size:11px;font-family:inherit;display:block;overflow:visible">'
        f"{''.join(body)}</svg>"
    )


def _axes(chart: Chart) -> _Axes:
    now = [curve.now for _, curve in chart.curves if curve.now is not None and drawable(curve.now[1])]
    xs = [*(x for _, curve in chart.curves for x in curve.xs), *(x for x, _ in now)]
    ys = [*(y for _, curve in chart.curves for y in filter(drawable, curve.ys)), *(y for _, y in now)] or [
        0.0
    ]
    low, high = min(ys), max(ys)
    size = max(abs(low), abs(high))
    pad = (high - low) * 0.04
    if high - low <= max(size * 1e-9, 1e-100):
        pad = size * 0.1 or 1.0
    return _Axes(min(xs), max(xs), low - pad, high + pad)


def _colour(label: str) -> str:
    return VALIDATION if label == "val" else TRAIN


def heading(title: str) -> str:
    """The title at the top left of a picture."""
    return (
        '<text x="0" y="14" fill="currentColor" font-size="12" font-weight="600">'
        f"{_esc(shorten(title, 38))}</text>"
    )


def _grid(axes: _Axes) -> list[str]:
    step = nice((axes.y_high - axes.y_low) / 4)
    pieces = []
    for count in range(math.ceil(axes.y_low / step), math.floor(axes.y_high / step) + 1):
        y = axes.y(count * step)
        ends = f'x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"'
        pieces.append(f'<line {ends} stroke="{LINE}" stroke-width="1"/>')
        pieces.append(faint(_LEFT - 6, y + 3.5, tick(count * step, step), "end"))
    return pieces


def _x_axis(axes: _Axes, unit: str) -> list[str]:
    y = HEIGHT - 6
    if axes.x_high <= axes.x_low:
        return [faint(axes.x(axes.x_low), y, f"{unit} {axes.x_low:,.0f}", "middle")]
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    return [
        faint(_LEFT, y, f"{axes.x_low:,.0f}", "start"),
        faint(middle, y, unit, "middle"),
        faint(WIDTH - _RIGHT, y, f"{axes.x_high:,.0f}", "end"),
    ]


def faint(x: float, y: float, text: str, anchor: str) -> str:
    """A word or a number beside an axis; ``anchor`` is ``start``, ``middle`` or ``end``."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="currentColor" fill-opacity=".68" font-size="10" '
        f'text-anchor="{anchor}" style="font-variant-numeric:tabular-nums">{_esc(text)}</text>'
    )


def _line(axes: _Axes, curve: Curve, colour: str) -> list[str]:
    pieces = []
    for run in _runs(curve):
        points = " ".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in run)
        if len(run) > 1:
            pieces.append(
                f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8" '
                'stroke-linejoin="round" stroke-linecap="round"/>'
            )
        else:
            pieces.append(_dot(axes, *run[0], f'r="1.6" fill="{colour}"'))
    if curve.best is not None and drawable(curve.ys[curve.best]) and curve.best < len(curve.ys) - 1:
        ring = f'r="4" fill="none" stroke="{colour}" stroke-width="1.3"'
        pieces.append(_dot(axes, curve.xs[curve.best], curve.ys[curve.best], ring))
    if drawable(curve.last):
        pieces.append(_dot(axes, curve.xs[-1], curve.last, f'r="2.4" fill="{colour}"'))
    if curve.now is not None and drawable(curve.now[1]) and drawable(curve.last):
        ends = f'x1="{axes.x(curve.xs[-1]):.1f}" y1="{axes.y(curve.last):.1f}"'
        ends += f' x2="{axes.x(curve.now[0]):.1f}" y2="{axes.y(curve.now[1]):.1f}"'
        pieces.append(f'<line {ends} stroke="{colour}" stroke-width="1.4" stroke-opacity=".5"/>')
        pieces.append(_dot(axes, *curve.now, f'r="2.4" fill="none" stroke="{colour}" stroke-width="1.2"'))
    return pieces


def _dot(axes: _Axes, x: float, y: float, how: str) -> str:
    return f'<circle cx="{axes.x(x):.1f}" cy="{axes.y(y):.1f}" {how}/>'


def _runs(curve: Curve) -> list[list[tuple[int, float]]]:
    """The drawable stretches of the curve, thinned; a value without a place leaves a gap."""
    runs: list[list[tuple[int, float]]] = [[]]
    for at in thinned(len(curve.ys), _MOST_POINTS):
        if drawable(curve.ys[at]):
            runs[-1].append((curve.xs[at], curve.ys[at]))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _labels(axes: _Axes, coloured: list[tuple[str, Curve, str]]) -> list[str]:
    """Names and last values at the ends of the curves, moved apart where they would overlap."""
    ends = sorted(
        (axes.y(next((y for y in reversed(curve.ys) if drawable(y)), axes.y_low)), label, curve, colour)
        for label, curve, colour in coloured
    )
    heights = [end[0] for end in ends]
    if len(heights) == 2 and heights[1] - heights[0] < _LABEL_GAP:
        middle = min(max(sum(heights) / 2, _TOP + _LABEL_GAP / 2), HEIGHT - _BOTTOM - _LABEL_GAP / 2)
        heights = [middle - _LABEL_GAP / 2, middle + _LABEL_GAP / 2]
    said = [f"{label} {number(curve.last)}".strip() for _, label, curve, _ in ends]
    return [
        f'<text x="{WIDTH - _RIGHT + 9}" y="{height + 3.8:.1f}" fill="{colour}" font-weight="600" '
        f'style="{ink(colour, "fill")};font-variant-numeric:tabular-nums">{_esc(text)}</text>'
        for height, text, (*_, colour) in zip(heights, said, ends, strict=True)
    ]


def nice(rough: float) -> float:
    """The smallest of 1, 2, 2.5, 5 times a power of ten that is not below ``rough``."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next((times * power for times in (1, 2, 2.5, 5) if times * power >= rough * 0.999), 10 * power)


def tick(value: float, step: float) -> str:
    """The value at a grid line, as exact as the distance between grid lines asks."""
    if value == 0:
        return "0"
    if not 1e-3 <= step < 1e5:
        return f"{value:.1e}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    if digits < 12 and round(step * 10**digits, 6) % 1:
        digits += 1
    return f"{value:,.{digits}f}"


def _esc(text: str) -> str:
    return escape(text, quote=True)
