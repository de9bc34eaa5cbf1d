"""How the comparison of one rank with several reads that ``--verify`` makes before a training; shows it as text."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from obl_magic.display.frame import frame, headline, line
from obl_magic.display.run.view import NoDisplay, Status, elapsed
from obl_magic.events.fold import MetricRow, RunState
from obl_magic.rundir.record import RunRecord


@dataclass(frozen=True, slots=True)
class Stage:
    """One of the runs that are compared.

    Attributes:
        ranks: how many it has.
        steps: it makes.
        step: that it has reached.
        took: how long it has taken, e.g. ``4.1 s``, or "" before it begins.
        over: it has ended.
    """

    ranks: int
    steps: int
    step: int = 0
    took: str = ""
    over: bool = False

    @property
    def text(self) -> str:
        """As one phrase."""
        ranks = f"{self.ranks} rank{'s' if self.ranks > 1 else ''}"
        if self.over:
            return f"{ranks}: {self.steps} steps {self.took} ✓"
        return f"{ranks}: step {self.step}/{self.steps} {self.took}" if self.took else ranks


class VerifyDisplay(NoDisplay):
    """Says once what is compared, and then the report."""

    def __init__(self) -> None:
        self.function = ""
        self._steps = 0
        self._ranks: tuple[int, ...] = (1,)
        self._at, self._began_s = -1, 0.0
        self._done: list[Stage] = []
        self._step = 0

    def plan(self, steps: int, ranks: tuple[int, ...]) -> None:
        """Takes what will be compared: so many steps of runs on so many ranks."""
        self._steps, self._ranks = steps, ranks

    def begin(self, header: RunRecord) -> None:
        """The next of the runs begins."""
        self.function, self._began_s = header.function, header.started_s
        self._at, self._step = self._at + 1, 0
        self.draw(header.started_s)

    def update(self, state: RunState, rows: Sequence[MetricRow], now_s: float) -> None:
        """Takes how far the run is."""
        self._step = min(self._steps, max((rank.step for rank in state.ranks.values()), default=0))
        self.draw(now_s)

    def end(self, state: RunState, rows: Sequence[MetricRow], now_s: float) -> None:
        """Takes that the run is over."""
        took = elapsed(now_s - self._began_s, precise=True)
        self._done.append(
            Stage(self._ranks[self._at], self._steps, self._steps, took, state.status == "succeeded")
        )

    def stages(self, now_s: float) -> tuple[Stage, ...]:
        """The runs, as far as they are."""
        going = Stage(self._ranks[self._at], self._steps, self._step, elapsed(now_s - self._began_s))
        begun = [*self._done, going][: len(self._ranks)]
        return (*begun, *(Stage(ranks, self._steps) for ranks in self._ranks[len(begun) :]))

    def draw(self, now_s: float) -> None:
        """Says once what is compared."""
        if self._at == 0 and now_s == self._began_s:
            sys.stdout.write(verifying_text(self.function, self.stages(now_s)) + "\n")

    def verdict(self, text: str, html: str) -> None:
        """Writes the report."""
        sys.stdout.write(text + "\n")


def verifying_text(function: str, stages: Sequence[Stage]) -> str:
    """One line."""
    return f"{function} verifying: {' → '.join(stage.text for stage in stages)}"


def verifying_html(function: str, stages: Sequence[Stage]) -> str:
    """The panel.

    Args:
        function: the training function's name.
        stages: the runs that are compared.
    """
    steps = stages[0].steps
    what = f"the first {steps} steps on one rank and on {stages[-1].ranks}, before training"
    status = Status("verifying", "verifying", "●", "active", over=False)
    return frame(
        headline(function, status, (what, 40)), line(escape(" → ".join(stage.text for stage in stages)))
    )
