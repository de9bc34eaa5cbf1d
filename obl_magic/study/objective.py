"""Which number of a trial is wanted, and where it is found. Pure."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass

from obl_magic.errors import UsageProblem
from obl_magic.events.fold import RunState

BARE = "value"
"""What a bare number is called that a function returns."""


@dataclass(frozen=True, slots=True)
class Objective:
    """The wanted quantity.

    Attributes:
        quantity: a key of the returned dict, a reported metric, or ``value`` for a bare number.
        direction: ``maximize`` or ``minimize``.
    """

    quantity: str
    direction: str

    def of(self, state: RunState) -> float | None:
        """Its value in a trial that has ended: as returned, else as last reported; None where there is none."""
        for found in (state.returned or {}, state.latest or {}):
            value = found.get(self.quantity)
            if isinstance(value, (bool, int, float)):
                return float(value)
        return None

    def names(self, state: RunState) -> list[str]:
        """What could have been wanted of that trial."""
        numbers = [name for name, value in (state.returned or {}).items() if isinstance(value, (int, float))]
        return sorted({*numbers, *(state.latest or {})})

    def nobody_produced(self, state: RunState) -> UsageProblem:
        """That the function gives no such number, with the names that there are."""
        known = self.names(state)
        option = f"--{self.direction}"
        close = difflib.get_close_matches(self.quantity, known, n=1) or known
        return UsageProblem(
            f"{option} {self.quantity}, which the function neither returns nor reports",
            f"one of {', '.join(known)}"
            if known
            else "a function that returns a number or a dict, or reports one",
            f"{option} {close[0]}" if close else f"return {{'{self.quantity}': ...}}",
        )

    def problem(self, value: float) -> str:
        """Why a value cannot be compared, or ""."""
        return f"{self.quantity} is {value}" if math.isnan(value) else ""


def checked_objective(maximize: str | None, minimize: str | None) -> Objective:
    """The wanted quantity.

    Raises:
        UsageProblem: none is named, or two.
    """
    if (maximize is None) == (minimize is None):
        got = "neither maximize nor minimize" if maximize is None else "both maximize and minimize"
        raise UsageProblem(
            got, "the one quantity to compare", "--maximize val_accuracy, or --minimize val_loss"
        )
    quantity, direction = (minimize, "minimize") if maximize is None else (maximize, "maximize")
    if not isinstance(quantity, str) or not quantity:
        raise UsageProblem(f"{direction}={quantity!r}", "the name of a number", "--maximize val_accuracy")
    return Objective(quantity, direction)
