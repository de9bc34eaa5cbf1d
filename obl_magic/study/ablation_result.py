"""What a user holds of an ablation: what each component is worth. Starts nothing."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from obl_magic.display.charts.figures import ablation_figure
from obl_magic.display.study.view import ComponentRow
from obl_magic.errors import UsageProblem
from obl_magic.runs.run import Run
from obl_magic.study.record import TrialRecord
from obl_magic.study.results import Results, labelled

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class _Sample:
    """The repeats of one component.

    Attributes:
        records: all.
        values: of those that succeeded, by repeat.
    """

    records: tuple[TrialRecord, ...]
    values: dict[int, float]

    @classmethod
    def of(cls, records: Sequence[TrialRecord]) -> Self:
        good = [r for r in records if r.status == "succeeded" and r.value is not None]
        return cls(tuple(records), {r.repeat: r.value for r in good if r.value is not None})

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.values.values()) if self.values else None

    @property
    def std(self) -> float | None:
        return statistics.stdev(self.values.values()) if len(self.values) > 1 else None


class AblationResult(Results):
    """An ablation study: what each component is worth, measured by doing without it."""

    kind = "ablation"

    @property
    def table(self) -> pd.DataFrame:
        """The base run as row ``base``, then each component, the most harmful to lose first.

        ``component, kind, value, delta, std, repeats, status``: means over the repeats, ``delta`` = ablated - base,
        ``std`` the standard deviation of the value over the repeats (None for one); ``within_noise``: so large a delta
        comes by chance in more than one of twenty studies, by Student's t over the repeats (None for one);
        ``parameters, inputs, layers``: what was really trained, as the proof that something was taken away;
        ``error``: why a run failed.
        """
        import pandas as pd

        columns = [
            "component", "kind", "value", "delta", "std", "repeats", "status", "within_noise", "parameters", "inputs",
            "layers", "error",
        ]  # fmt: skip
        rows = [{name: getattr(row, name) for name in columns} for row in self._components()]
        frame = pd.DataFrame(rows, columns=columns)
        whole = dict.fromkeys(("parameters", "inputs", "layers"), "Int64")
        return frame.astype({**dict.fromkeys(("value", "delta", "std"), "float64"), **whole})

    @property
    def base(self) -> Run:
        """The base run: nothing was taken away.

        Raises:
            UsageProblem: it has not ended.
        """
        for record in self.ended_trials:
            if not record.kind:
                return Run.open(self.folder.trial(record.number))
        raise UsageProblem(
            f"the base run of {self.id}", "an ablation whose base run has ended", "result.wait()"
        )

    def plot(self) -> Figure:
        """What each component is worth, with the intervals that decide, as a matplotlib figure.

        Raises:
            SetupProblem: matplotlib is missing.
        """
        return ablation_figure(self.record, self.shown())

    def run_of(self, component: str, repeat: int = 0) -> Run:
        """The run that did without a component.

        Raises:
            UsageProblem: there is none.
        """
        for record in self.ended_trials:
            if record.component == component and record.repeat == repeat:
                return Run.open(self.folder.trial(record.number))
        known = ", ".join(dict.fromkeys(record.component for record in self.ended_trials)) or "none"
        raise UsageProblem(f"component {component!r}, repeat {repeat}", f"one of {known}", "result.table")

    def _label(self, record: TrialRecord) -> str:
        return labelled(record.component, record.repeat, self.record.repeats)

    def _components(self) -> tuple[ComponentRow, ...]:
        groups: dict[tuple[str, str], list[TrialRecord]] = {}
        for record in self.ended_trials:
            groups.setdefault((record.kind, record.component), []).append(record)
        base = _Sample.of(groups.pop(("", "base"), []))
        rows = [_component("base", "", base, base)] if base.records else []
        others = [_component(name, kind, _Sample.of(found), base) for (kind, name), found in groups.items()]
        sign = 1 if self.direction == "maximize" else -1
        others.sort(key=lambda row: (row.delta is None, sign * (row.delta or 0.0)))
        return (*rows, *others)


def _component(name: str, kind: str, sample: _Sample, base: _Sample) -> ComponentRow:
    """One line of the table; a run that trained the very same as the base run has failed to ablate."""
    value, at_base = sample.mean, base.mean
    delta = None if value is None or at_base is None else value - at_base
    first = sample.records[0]
    error = next((record.error for record in sample.records if record.error), "")
    status = "succeeded" if value is not None else first.status
    if kind in ("feature", "layer", "group") and value is not None and base.records:
        was = base.records[0]
        if (first.parameters, first.layers, first.inputs) == (was.parameters, was.layers, was.inputs):
            status, error = (
                "failed",
                "nothing changed: it trained the same model on the same data as the base run",
            )
            value = delta = None
    shared = sorted(sample.values.keys() & base.values.keys())
    noise = half = None
    if kind and delta is not None and len(shared) > 1:
        pairs = [sample.values[repeat] - base.values[repeat] for repeat in shared]
        half = _half_width(pairs)
        noise = abs(statistics.fmean(pairs)) <= half
    return ComponentRow(
        component=name, kind=kind, value=value, delta=delta, std=sample.std, repeats=len(sample.values),
        status=status, within_noise=noise, parameters=first.parameters, inputs=first.inputs,
        layers=len(first.layers) or None, error=error, interval=half,
    )  # fmt: skip


def _half_width(pairs: Sequence[float]) -> float:
    """Half of the 95 % confidence interval of a mean (Student's t)."""
    from scipy.special import stdtrit  # only who repeats runs needs SciPy

    errors: float = stdtrit(len(pairs) - 1, 0.975)
    return errors * statistics.stdev(pairs) / math.sqrt(len(pairs))
