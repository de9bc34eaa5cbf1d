"""What any plan of calls does: says which call comes next, and hears how it went. Runs nothing."""

from __future__ import annotations

from typing import Protocol

from obl_magic.values import Outcome, Trial


class Plan(Protocol):
    """Which calls are made, in which order. Trials are pulled: whoever has a free world asks.

    Several threads may call at once, one for each world; the plan locks, its callers need not. Each trial that was
    asked is told once. What was asked and never told is unfinished, and is not asked again by the same plan.
    """

    @property
    def planned(self) -> int | None:
        """How many calls there will be at most, or None while that is open."""

    def ask(self) -> Trial | None:
        """Returns the next call, or None when nothing is left to ask for (others may still be running)."""

    def judge(self, trial: Trial, step: int, value: float) -> bool:
        """Returns whether a running trial shall be pruned.

        Args:
            trial: as asked.
            step: where it is, from 0; a step heard before is ignored.
            value: the wanted quantity there; may be NaN.
        """

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """Takes note of how a trial went.

        Args:
            trial: as asked.
            outcome: its status, with the value of a ``succeeded`` one or the error of a ``failed`` one.
        """
