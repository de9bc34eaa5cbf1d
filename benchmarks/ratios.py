"""What a benchmark says: medians with their spread and goal; and how sides take turns. Starts nothing."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

Taken = TypeVar("Taken")


@dataclass(frozen=True, slots=True)
class Goal:
    """Where a line's number should lie.

    Attributes:
        side: ``at least`` or ``at most``. bound: in the unit of the line it belongs to.
    """

    side: Literal["at least", "at most"]
    bound: float

    def met(self, value: float) -> bool:
        """Whether ``value`` lies on the right side."""
        return value >= self.bound if self.side == "at least" else value <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.side == 'at least' else '≤'} {self.bound:g}"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table.

    Attributes:
        what: what was measured. unit: of the values; ``ratio`` has none. values: one a repetition.
        goal: for the number; None where the line only explains another. number: the median of the values.
    """

    what: str
    unit: str
    values: tuple[float, ...]
    goal: Goal | None = None

    @property
    def number(self) -> float:
        """What the line says: the middle of the repetitions."""
        return statistics.median(self.values)

    @property
    def met(self) -> bool | None:
        """Whether the goal was reached; None without one."""
        return None if self.goal is None else self.goal.met(self.number)

    def as_json(self) -> dict[str, Any]:
        """The line as plain values, every repetition included."""
        return {
            "what": self.what,
            "unit": self.unit,
            "number": self.number,
            "values": list(self.values),
            "goal": None if self.goal is None else str(self.goal),
            "met": self.met,
        }


def interleaved(sides: Mapping[str, Callable[[], Taken]], repetitions: int) -> dict[str, list[Taken]]:
    """Lets the sides take turns, A B A B …, so that a slow minute of the machine meets all of them.

    Args:
        sides: what to measure, by name. repetitions: how many turns each has.

    Returns:
        What each side gave, in the order of its turns.
    """
    taken: dict[str, list[Taken]] = {name: [] for name in sides}
    for _ in range(repetitions):
        for name, measure in sides.items():
            taken[name].append(measure())
    return taken


def ratio(what: str, above: Sequence[float], below: Sequence[float], goal: Goal | None = None) -> Line:
    """``above / below``, each repetition with its neighbour in time."""
    return Line(what, "ratio", tuple(a / b for a, b in zip(above, below, strict=True)), goal)


def table(lines: Sequence[Line]) -> str:
    """The lines as aligned text: what, number, range over the repetitions, unit, goal, whether it was met."""
    rows = [("", "number", "range", "unit", "goal", "")]
    for line in lines:
        verdict = {None: "", True: "met", False: "MISSED"}[line.met]
        span = f"{short(min(line.values))} – {short(max(line.values))}"
        rows.append((line.what, short(line.number), span, line.unit, str(line.goal or ""), verdict))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(_aligned(row, widths) for row in rows)


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    what, number, span, *rest = (
        cell.rjust(width) if column in (1, 2) else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(row, widths, strict=True))
    )
    return "  ".join((what, number, span, *rest)).rstrip()


def short(value: float) -> str:
    """A number as people read it."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}" if value >= 100 else f"{value:.2f}"
