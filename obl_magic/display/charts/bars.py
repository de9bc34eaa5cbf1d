"""Draws horizontal bars: what mattered in a search, what an ablation's parts are worth. Inline SVG, no script."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from obl_magic.display.charts.curves import drawable
from obl_magic.display.charts.palette import LINE, NEUTRAL, TRAIN, VALIDATION, ink
from obl_magic.display.charts.svg import faint, heading, nice, picture, tick
from obl_magic.display.run.view import number, one_line, shorten
from obl_magic.display.study.view import ComponentLine, StudyState, placed
from obl_magic.rundir.record import StudyRecord

HARM, GAIN = VALIDATION, TRAIN
"""Losing it makes the quantity worse, or better: no good and bad, so not green and red."""

MOST_BARS = 24
_MOST_IMPORTANCES = 8
_ROW = 20
_LEFT, _RIGHT, _WIDTH = 150, 556, 690


def ranked_importances(state: StudyState, most: int = _MOST_IMPORTANCES) -> list[tuple[str, float]]:
    """Parameters and what they mattered, the most first; those without a number are left out."""
    known = [(one_line(name), placed(share)) for name, share in state.importances.items()]
    ranked = sorted(((name, share) for name, share in known if share is not None), key=lambda it: -it[1])
    return ranked[:most]


def share_text(share: float) -> str:
    """An importance in figures; two decimals, since most add up to one."""
    return f"{share:.2f}" if abs(share) < 100 else number(share)


def importances_svg(state: StudyState) -> str:
    """How much each parameter mattered; "" where nothing is known of it."""
    ranked = ranked_importances(state)
    if not ranked:
        return ""
    top = max((share for _, share in ranked), default=0.0)
    body = [heading("importance of parameters")]
    for at, (name, share) in enumerate(ranked):
        y = 28 + _ROW * at
        width = 110 * max(0.0, share) / top if top > 0 else 0.0
        body.append(_name(96, y + 11, name, 15))
        body.append(f'<rect x="104" y="{y + 2}" width="{width:.1f}" height="11" rx="2" fill="{TRAIN}"/>')
        body.append(faint(110 + width, y + 11, share_text(share), "start"))
    said = "Importance of parameters: " + ", ".join(f"{name} {share_text(share)}" for name, share in ranked)
    return picture(268, 32 + _ROW * len(ranked), said, body)


def deltas_svg(header: StudyRecord, components: Sequence[ComponentLine]) -> str:
    """What the quantity changes by without each component, with the interval that decides; "" where nothing is known.

    A bar that may be chance is pale with a dashed edge.
    """
    shown = [line for line in components if not line.base][:MOST_BARS]
    ends = [end for line in shown for end in _ends(line)]
    if not ends:
        return ""
    low, high = _range(ends)
    quantity = shorten(one_line(header.quantity), 40)
    body = [heading(f"change of {quantity} without each")]
    body += [*_directions(header, low, high), *_axis(low, high, 46 + _ROW * len(shown))]
    for at, line in enumerate(shown):
        body += _bar(line, 44 + _ROW * at, low, high)
    return picture(_WIDTH, 64 + _ROW * len(shown), _said(quantity, shown), body)


def _ends(line: ComponentLine) -> list[float]:
    if line.change is None:
        return []
    spread = line.spread or 0.0
    return [end for end in (line.change, line.change - spread, line.change + spread) if drawable(end)]


def _range(ends: Sequence[float]) -> tuple[float, float]:
    low, high = min(0.0, *ends), max(0.0, *ends)
    if high - low <= 1e-100:
        return -1.0, 1.0
    pad = 0.04 * (high - low)
    return low - pad, high + pad


def _x(value: float, low: float, high: float) -> float:
    return _LEFT + (value - low) / (high - low) * (_RIGHT - _LEFT)


def _directions(header: StudyRecord, low: float, high: float) -> list[str]:
    """Which side is worse."""
    zero, pieces = _x(0.0, low, high), []
    worse_left = header.direction == "maximize"
    for left in (True, False):
        worse = left == worse_left
        text = "worse without it" if worse else "better without it"
        x, anchor, said = (zero - 8, "end", f"← {text}") if left else (zero + 8, "start", f"{text} →")
        colour = HARM if worse else GAIN
        how = f'fill="{colour}" style="{ink(colour, "fill")}" text-anchor="{anchor}"'
        pieces.append(f'<text x="{x:.1f}" y="36" {how}>{said}</text>')
    return pieces


def _axis(low: float, high: float, bottom: float) -> list[str]:
    step = nice((high - low) / 6)
    pieces = []
    for count in range(math.ceil(low / step), math.floor(high / step) + 1):
        x = _x(count * step, low, high)
        colour, wide = (NEUTRAL, "1.4") if count == 0 else (LINE, "1")
        ends = f'x1="{x:.1f}" x2="{x:.1f}" y1="42" y2="{bottom}"'
        pieces.append(f'<line {ends} stroke="{colour}" stroke-width="{wide}"/>')
        pieces.append(faint(x, bottom + 14, tick(count * step, step), "middle"))
    return pieces


def _bar(line: ComponentLine, y: float, low: float, high: float) -> list[str]:
    pieces = [_name(_LEFT - 10, y + 12, line.name, 22)]
    if line.change is None:
        return [*pieces, faint(_RIGHT + 10, y + 12, line.mark.word, "start")]
    colour = HARM if line.harm else GAIN
    left, right = sorted((_x(0.0, low, high), _x(line.change, low, high)))
    how = f'fill="{colour}"'
    if line.noise:
        how = f'fill="{colour}" fill-opacity=".16" stroke="{colour}" stroke-width="1" stroke-dasharray="3 2"'
    width = max(0.8, right - left)
    pieces.append(f'<rect x="{left:.1f}" y="{y + 3}" width="{width:.1f}" height="12" rx="2" {how}/>')
    if line.spread:
        pieces.append(_whisker(line.change, line.spread, y + 9, low, high))
    spread = f" ± {line.interval}" if line.spread else ""
    return [*pieces, faint(_RIGHT + 10, y + 12, f"{line.delta}{spread}", "start")]


def _whisker(change: float, spread: float, y: float, low: float, high: float) -> str:
    left, right = (
        min(float(_WIDTH), max(0.0, _x(end, low, high))) for end in (change - spread, change + spread)
    )
    path = f"M{left:.1f},{y - 4}v8m0,-4H{right:.1f}m0,-4v8"
    return f'<path d="{path}" fill="none" stroke="currentColor" stroke-opacity=".7" stroke-width="1.1"/>'


def _name(x: float, y: float, name: str, width: int) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" fill="currentColor" font-size="11" text-anchor="end">'
        f"{escape(shorten(name, width))}</text>"
    )


def _said(quantity: str, shown: Sequence[ComponentLine]) -> str:
    spreads = [f" ± {line.interval}" if line.spread else "" for line in shown]
    parts = [
        f"{line.name} {line.delta if line.change is not None else line.mark.word}{spread}"
        + (f" {line.verdict}" if line.verdict else "")
        for line, spread in zip(shown, spreads, strict=True)
    ]
    return f"Change of {quantity} without each component: {', '.join(parts)}."
