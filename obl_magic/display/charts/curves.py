"""Metric rows as curves: what to draw and what was best. Draws nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise

from obl_magic.display.run.view import one_line
from obl_magic.events.fold import SINGLE_STEP, MetricRow
from obl_magic.events.table import Course, MetricTable

VALIDATION = "val_"
_FALLING = ("loss", "error", "mse", "mae", "mape", "msle", "perplexity", "entropy", "divergence")
_RISING = ("acc", "auc", "precision", "recall", "f1", "iou", "score", "r2")
LIVE_POINTS = 1000
"""Of a metric, that a live chart looks at."""
_BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Curve:
    """The course of one metric.

    Attributes:
        name: the metric's name.
        unit: what ``xs`` counts, ``epoch`` or ``step``.
        xs: epochs or steps, rising.
        ys: the values there; may be NaN or infinite.
        best: position of the best value, or None where better has no direction, nothing is finite, or there is
            one value only.
        now: of the epoch under way: how far it is, as a place on the axis, and the newest value; or None.
    """

    name: str
    unit: str
    xs: tuple[int, ...]
    ys: tuple[float, ...]
    best: int | None
    now: tuple[float, float] | None = None

    @property
    def last(self) -> float:
        """The last value."""
        return self.ys[-1]

    @property
    def best_at(self) -> str:
        """Where the best value was, e.g. ``epoch 4``, or ""."""
        return "" if self.best is None else f"{self.unit} {self.xs[self.best]:,}"


@dataclass(frozen=True, slots=True)
class Chart:
    """Curves that share their axes: a metric in training and in validation.

    Attributes:
        title: the metric's name.
        curves: one or two, labelled ``train`` and ``val`` if two.
    """

    title: str
    curves: tuple[tuple[str, Curve], ...]


def curves(rows: Sequence[MetricRow], live: bool = False) -> tuple[Curve, ...]:
    """One curve for each metric, in order of appearance, validation next to training.

    A metric that several ranks report is taken from the lowest; one that was reported within epochs
    is drawn over epochs, any other over steps.

    Args:
        rows: the metrics so far.
        live: what single steps tell is drawn, too: the first epoch step by step, and how a later one goes. Of long
            courses some values are left out.
    """
    courses = rows.courses(LIVE_POINTS if live else None) if isinstance(rows, MetricTable) else _courses(rows)
    single = {name.removeprefix(SINGLE_STEP): courses.pop(name) for name in _of_single_steps(courses)}
    if live:
        courses = {**{name: course for name, course in single.items() if name not in courses}, **courses}
    families = list(dict.fromkeys(_base(name) for name in courses))
    ordered = sorted(courses, key=lambda name: (families.index(_base(name)), name.startswith(VALIDATION)))
    return tuple(_curve(name, courses[name], single.get(name) if live else None) for name in ordered)


def _of_single_steps(courses: Iterable[str]) -> list[str]:
    return [name for name in courses if name.startswith(SINGLE_STEP)]


def charts(of: Sequence[Curve]) -> tuple[Chart, ...]:
    """The curves that have a course, training and validation of a metric together."""
    known = {curve.name: curve for curve in of}
    drawn = []
    for curve in of:
        base = _base(curve.name)
        if curve.name != base and base in known and known[base].unit == curve.unit:
            continue
        partner = known.get(VALIDATION + curve.name)
        shared: tuple[tuple[str, Curve], ...] = (("", curve),)
        if partner and partner.unit == curve.unit:
            shared = (("train", curve), ("val", partner))
        if any(_has_two(each.ys) for _, each in shared) and not _constant(curve):
            drawn.append(Chart(curve.name, shared))
    return tuple(drawn)


def _has_two(ys: Sequence[float]) -> bool:
    """Whether there are two values that can be drawn."""
    return len(list(islice(filter(drawable, ys), 2))) == 2


def _constant(curve: Curve) -> bool:
    """Whether it is a learning rate that nobody changes."""
    return curve.name in ("learning_rate", "lr") and len(set(curve.ys)) == 1


def drawable(value: float) -> bool:
    """Whether a value has a place on an axis."""
    return -1e100 < value < 1e100  # neither is NaN, nor what is infinite


def sparkline(curve: Curve, width: int = 20) -> str:
    """The curve in block characters; a gap where a value is not finite."""
    ys = [curve.ys[at] for at in thinned(len(curve.ys), width)]
    finite = [y for y in ys if drawable(y)]
    if len(finite) < 2:
        return ""
    low, span = min(finite), max(finite) - min(finite)
    levels = (round((y - low) / span * 7) if drawable(y) and span > 0 else 3 for y in ys)
    return "".join(_BLOCKS[level] if drawable(y) else " " for y, level in zip(ys, levels, strict=True))


def thinned(count: int, most: int) -> list[int]:
    """At most ``most`` positions out of ``count``, evenly spread, with the first and the last."""
    if count <= most:
        return list(range(count))
    return sorted({round(at * (count - 1) / (most - 1)) for at in range(most)})


def _base(name: str) -> str:
    return name.removeprefix(VALIDATION)


def _courses(rows: Sequence[MetricRow]) -> dict[str, Course]:
    """As :meth:`MetricTable.courses`, of any rows."""
    reporters: dict[str, int] = {}
    for row in rows:
        reporters[row.name] = min(row.rank, reporters.get(row.name, row.rank))
    of: dict[str, list[MetricRow]] = {}
    for row in rows:
        if row.rank == reporters[row.name]:
            of.setdefault(row.name, []).append(row)
    return {
        name: ([row.epoch for row in its], [row.step for row in its], [_value(row.value) for row in its])
        for name, its in of.items()
    }


def _curve(name: str, course: Course, single: Course | None) -> Curve:
    epochs, steps, values = course
    unit, points, now = "epoch", _over_epochs(epochs, values), None
    if len(points) < 2 and single is not None and len(single[2]) > 1:
        unit, points = "step", _over_steps(*single[1:])
    elif len(points) < 2 and len(values) > len(points):
        unit, points = "step", _over_steps(steps, values)
    elif single is not None:
        now = _now(course, single)
    xs, ys = tuple(points), tuple(points.values())
    return Curve(one_line(name), unit, xs, ys, _best(_base(name), ys), now)


def _now(course: Course, single: Course) -> tuple[float, float] | None:
    """Where the epoch under way is, and the newest value there."""
    epochs, steps, _ = course
    stepped = single[1][-1]
    if not epochs or not epochs[-1] or not steps[-1] or stepped is None or stepped <= steps[-1]:
        return None
    return stepped * epochs[-1] / steps[-1], single[2][-1]


def _over_epochs(epochs: list[int | None], values: list[float]) -> dict[int, float]:
    """Last value of each epoch; a second fit, which starts at epoch 1 again, continues the first."""
    points: dict[int, float] = {}
    before = offset = 0
    for epoch, value in zip(epochs, values, strict=True):
        if epoch is None:
            continue
        if epoch == 1 and before > 1:
            offset = max(points)
        before = epoch
        points[epoch + offset] = value
    return dict(sorted(points.items()))


def _over_steps(steps: list[int | None], values: list[float]) -> dict[int, float]:
    """Every value by its step, or by its place in the order where steps are missing or do not rise."""
    known = [step for step in steps if step is not None]
    rising = len(known) == len(steps) and all(a < b for a, b in pairwise(known))
    return dict(zip(known if rising else range(1, len(values) + 1), values, strict=True))


def _value(value: object) -> float:
    """The value as a float; what was reported by hand may be none."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return math.nan


def _best(base: str, ys: tuple[float, ...]) -> int | None:
    finite = [at for at, y in enumerate(ys) if math.isfinite(y)]
    if not finite or len(ys) < 2:
        return None
    if any(word in base.lower() for word in _FALLING):
        return min(finite, key=lambda at: ys[at])
    if any(word in base.lower() for word in _RISING):
        return max(finite, key=lambda at: ys[at])
    return None
