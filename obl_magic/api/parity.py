"""One rank and several over the same first steps, quantity by quantity: runs both, compares, reports."""

from __future__ import annotations

import html
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from obl_magic.display.frame import frame
from obl_magic.display.verifying import VerifyDisplay
from obl_magic.errors import NotTheSame, UsageProblem
from obl_magic.launch.one_run import Call, launch
from obl_magic.options import RunOptions

if TYPE_CHECKING:
    import pandas as pd

LOGS_RTOL = 1e-5
WEIGHTS_ATOL = 1e-4
SHOWN = 5


@dataclass(frozen=True, slots=True)
class Difference:
    """One compared quantity.

    Attributes:
        quantity: a logged name, or ``weights``.
        largest_abs: the largest difference over all steps or variables.
        largest_rel: the largest one relative to the value.
        where: at which step or in which variable.
        tolerance: what is accepted.
        ok: within it.
    """

    quantity: str
    largest_abs: float
    largest_rel: float
    where: str
    tolerance: str
    ok: bool


@dataclass(frozen=True, slots=True)
class ParityReport:
    """What one rank and several ranks gave over the same first steps.

    Attributes:
        workers: how many ranks were compared with one.
        steps: steps compared.
        rows: the quantities.
        without_gradient: variables whose gradients were rounding noise, wholly or in part; there they may
            differ.
        synced: whether batch normalization took moments over all rows.
    """

    workers: int
    steps: int
    rows: tuple[Difference, ...]
    without_gradient: tuple[str, ...] = ()
    synced: bool = True

    @property
    def ok(self) -> bool:
        """Whether every quantity is within its tolerance."""
        return all(row.ok for row in self.rows)

    @property
    def table(self) -> pd.DataFrame:
        """The rows as a DataFrame."""
        import pandas as pd

        return pd.DataFrame(
            [{name: getattr(row, name) for name in Difference.__slots__} for row in self.rows]
        )

    def check(self) -> None:
        """Raises NotTheSame for the first quantity out of tolerance, if there is one."""
        for row in self.rows:
            if not row.ok:
                weights = row.quantity == "weights"
                found = row.largest_abs if weights else row.largest_rel
                accepted = WEIGHTS_ATOL if weights else LOGS_RTOL
                raise NotTheSame(row.quantity, found, row.where, accepted, self.synced)

    def text(self) -> str:
        """The report as aligned text."""
        lines = [self._title()]
        width = max(len(row.quantity) for row in self.rows)
        for row in self.rows:
            mark = "ok " if row.ok else "NOT"
            lines.append(
                f"  {mark} {row.quantity:<{width}}  abs {row.largest_abs:.1e}  rel {row.largest_rel:.1e}"
                f"  at {row.where}  (accepted: {row.tolerance})"
            )
        if self.without_gradient:
            lines.append(f"  {self._left_out()}")
        return "\n".join(lines)

    def html(self) -> str:
        """The report as a small table."""
        head = "".join(f"<th>{name}</th>" for name in ("", "quantity", "abs", "rel", "at", "accepted"))
        body = "".join(
            f"<tr><td>{'✓' if row.ok else '✗'}</td><td>{html.escape(row.quantity)}</td><td>{row.largest_abs:.1e}</td>"
            f"<td>{row.largest_rel:.1e}</td><td>{html.escape(row.where)}</td><td>{row.tolerance}</td></tr>"
            for row in self.rows
        )
        left_out = f"<p>{html.escape(self._left_out())}</p>" if self.without_gradient else ""
        return frame(f"<b>{self._title()}</b><table><tr>{head}</tr>{body}</table>{left_out}")

    __repr__ = text
    _repr_html_ = html

    def _left_out(self) -> str:
        more = len(self.without_gradient) - SHOWN
        named = ", ".join(self.without_gradient[:SHOWN]) + (f" and {more} more" if more > 0 else "")
        return f"not compared where gradients are nothing but rounding: {named}"

    def _title(self) -> str:
        verdict = "the same numbers" if self.ok else "not the same numbers"
        return f"1 rank and {self.workers}, {self.steps} step{'s' if self.steps != 1 else ''}: {verdict}"


def report_of(single: Any, several: Any, workers: int, synced: bool = True) -> ParityReport:
    """Compares what a verification recorded.

    Args:
        single: of one rank: exact logs per step, arrays by variable, by variable the elements whose gradients were
            noise.
        several: the same of ``workers`` ranks.
        workers: how many ranks.
        synced: whether batch normalization took moments over all rows.

    Raises:
        UsageProblem: the function has no fit that could be compared.
    """
    (logs, weights, noise), (logs_n, weights_n, noise_n) = single, several
    if not logs and not weights:
        raise UsageProblem(
            "a function without a Keras fit or optimizer",
            "one whose first steps can be compared",
            "leave --verify out",
        )
    if len(logs) != len(logs_n):
        steps = Difference("steps", abs(len(logs) - len(logs_n)), math.inf, "all", "none", ok=False)
        return ParityReport(workers, len(logs), (steps,))
    rows = [_logs(name, logs, logs_n) for name in (logs[0] if logs else {})]
    noise = {name: noise[name] & noise_n[name] for name in noise if name in noise_n}
    if weights:
        rows.append(_weights(weights, weights_n, noise))
    left_out = tuple(name.partition(": ")[2] for name, elements in noise.items() if elements.any())
    return ParityReport(workers, len(logs), tuple(rows), left_out, synced)


def _logs(name: str, single: list[dict[str, float]], several: list[dict[str, float]]) -> Difference:
    pairs = [(a[name], b.get(name, math.nan)) for a, b in zip(single, several, strict=True)]
    gaps = [_gap(a, b) for a, b in pairs]
    relative = [gap / max(abs(a), 1e-6) for gap, (a, _) in zip(gaps, pairs, strict=True)]
    worst = max(range(len(pairs)), key=lambda i: relative[i])
    return Difference(
        name,
        max(gaps),
        relative[worst],
        f"step {worst + 1}",
        f"rel {LOGS_RTOL:.0e}",
        relative[worst] <= LOGS_RTOL,
    )


def _weights(single: dict[str, Any], several: dict[str, Any], noise: dict[str, Any]) -> Difference:
    import numpy as np

    worst, where, relative = 0.0, "everywhere", 0.0
    for name, array in single.items():
        other = several.get(name)
        if other is None or other.shape != array.shape:
            worst, where, relative = math.inf, f"{name} (missing or of another shape)", math.inf
            break
        counts = ~noise[name] if name in noise else np.ones(array.shape, bool)
        array, other = array[counts], other[counts]
        same_nans = np.array_equal(np.isnan(array), np.isnan(other))
        gap = float(np.nanmax(np.abs(array - other), initial=0.0)) if same_nans else math.inf
        if gap > worst:
            worst, where = gap, name.partition(": ")[2] or name
            relative = gap / max(float(np.max(np.abs(array), initial=0.0)), 1e-12)
    return Difference("weights", worst, relative, where, f"abs {WEIGHTS_ATOL:.0e}", worst <= WEIGHTS_ATOL)


def _gap(one: float, other: float) -> float:
    if math.isnan(one) and math.isnan(other):
        return 0.0
    gap = abs(one - other)
    return math.inf if math.isnan(gap) else gap


def compare(call: Call, options: RunOptions, steps: int, shown: VerifyDisplay | None = None) -> ParityReport:
    """The parity report of a call; see :func:`obl_magic.verify`.

    Args:
        call: the function and what it is called with.
        options: of the run on several ranks.
        steps: optimizer steps to compare.
        shown: shows both runs as they go, or None.

    Raises:
        UsageProblem: there is nothing to compare.
    """
    if options.workers is None or options.batch != "global":
        raise UsageProblem(
            "verify without workers or with per-worker batches", "workers and the global batch", "-w 2"
        )
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise UsageProblem(f"verify={steps!r}", "a number of steps, 1 or more", "--verify 3")
    quietly = replace(options, quiet=shown is None, background=False, tensorboard=None)
    settings = replace(call.settings(options), stop_after=steps)
    one = replace(quietly, workers=1, show_ranks="0")
    if shown is not None:
        shown.plan(steps, (1, options.workers))
    single = launch(call, one, settings=settings, display=shown)
    several = launch(call, quietly, settings=settings, display=shown)
    report = report_of(single.value, several.value, options.workers, options.sync_batchnorm)
    if shown is not None:
        shown.verdict(report.text(), report.html())
    return report
