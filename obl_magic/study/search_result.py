"""What a user holds of a search or an ablation: its trials, the best of them, its folder. Starts nothing."""

from __future__ import annotations

import importlib
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from obl_magic.display.studies import ComponentRow, StudyHeader, StudyState, TrialRow
from obl_magic.errors import UsageProblem
from obl_magic.events.fold import RunState
from obl_magic.kernel_process import is_gone
from obl_magic.rundir import RunDir, StudyDir, existing_studies, readable
from obl_magic.runs import Run
from obl_magic.study.driver import Driver, Live
from obl_magic.study.holding import Holding
from obl_magic.study.record import Records, TrialRecord, ranked, read
from obl_magic.values import Component, Trial

if TYPE_CHECKING:
    import optuna
    import pandas as pd

CURVE_POINTS = 60


class TrialView:
    """One trial of a study.

    Attributes:
        number: from 0. value: of the wanted quantity. params: what it was called with, by name.
        status: ``succeeded``, ``failed`` or ``pruned``. error: one line, or "". seed: base seed.
        duration_s: seconds it took.
    """

    def __init__(self, record: TrialRecord, folder: StudyDir) -> None:
        self._record, self._folder = record, folder
        self.number, self.value, self.params = record.number, record.value, dict(record.params)
        self.status, self.error, self.seed = record.status, record.error, record.seed
        self.duration_s = record.duration_s

    @property
    def run(self) -> Run:
        """The trial as a run: its curve, its logs, its value."""
        return Run.open(self._folder.trial(self.number))

    def __repr__(self) -> str:
        return f"trial {self.number}: {self.status}, value {self.value}, {self.params}"


class _Results:
    """What a search and an ablation have in common.

    Args:
        folder: the study's. manifest: what was asked for. records: the trials so far.
        driver: conducts it, in this process; None of a study that is read from its folder.
    """

    kind = ""

    def __init__(
        self,
        folder: StudyDir,
        manifest: Mapping[str, Any],
        records: Records | None = None,
        driver: Driver | None = None,
        stop: Callable[[], None] = lambda: None,
    ) -> None:
        self._folder, self._manifest, self._records = folder, dict(manifest), records
        self._driver, self._stop = driver, stop
        self._shown_in: int | None = None
        self._holding: Holding | None = None
        self._read: dict[int, Live] = {}

    @classmethod
    def open(cls, folder: StudyDir) -> Self:
        """A study that was conducted before, or elsewhere."""
        return cls(folder, folder.record())

    @property
    def id(self) -> str:
        """The study's id; the ids of its runs begin with it."""
        return self._folder.id

    @property
    def dir(self) -> Path:
        """The study's folder."""
        return self._folder.path

    @property
    def digest(self) -> str:
        """sha256 of the function's source."""
        return str(self._manifest["digest"])

    @property
    def quantity(self) -> str:
        """Name of the number that is compared."""
        return str(self._manifest["quantity"])

    @property
    def direction(self) -> str:
        """``maximize`` or ``minimize``."""
        return str(self._manifest["direction"])

    @property
    def status(self) -> str:
        """``running``, ``succeeded``, ``failed``, ``interrupted`` or ``timed out``."""
        if self._driver is None and self._manifest["status"] == "running":
            self._manifest = self._folder.record()
            if self._manifest["status"] == "running" and is_gone(
                self._manifest.get("kernel"), self._folder.logs
            ):
                return "interrupted"
        return str(self._manifest["status"])

    @property
    def runs(self) -> list[Run]:
        """The runs of all trials that have ended, by number."""
        return [Run.open(self._folder.trial(record.number)) for record in self._all]

    def wait(self, timeout_s: float | None = None) -> Self:
        """Returns this study when it has ended, or after ``timeout_s`` seconds; ask :attr:`status` which."""
        until = None if timeout_s is None else time.monotonic() + timeout_s
        while self.status == "running" and (until is None or time.monotonic() < until):
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        """Ends the trials under way and begins no more; returns when no process is left."""
        self._stop()
        self.wait()

    @property
    def _all(self) -> list[TrialRecord]:
        found = read(self._folder.rows) if self._records is None else list(self._records.all)
        return sorted(found, key=lambda record: record.number)

    def _ended(self, status: str) -> None:
        """Writes down how it ended."""
        self._manifest["status"], self._manifest["ended_s"] = status, time.time()
        self._folder.shared.write_json(self._folder.manifest, self._manifest)

    @property
    def _header(self) -> StudyHeader:
        header = dict(self._manifest["header"])
        return StudyHeader(**{**header, "space": tuple(header["space"]), "lines": tuple(header["lines"])})

    def _shown(self) -> StudyState:
        """The study as a display shows it now."""
        live = {live.trial.number: self._live_row(live) for live in self._live()}
        rows = [_row(record, self._label(record)) for record in self._all if record.number not in live]
        rows += live.values()
        return StudyState(
            rows=tuple(sorted(rows, key=lambda row: row.number)),
            components=self._components(),
            importances=self._weighed(),
            busy=() if self._driver is None else self._driver.busy,
            status={"timed out": "failed"}.get(self.status, self.status),
            now_s=self._manifest.get("ended_s") or time.time(),
        )

    def _live(self) -> list[Live]:
        """The trials under way; of a study that another process conducts, those that it has not written down."""
        if self._driver is not None:
            return self._driver.live
        if self.status != "running":
            return []
        ended = {record.number for record in self._all}
        for folder in self._folder.trials():
            number = int(folder.id.rpartition("-")[2])
            if number in ended:
                self._read.pop(number, None)
            elif number not in self._read:
                self._read[number] = _read_live(folder, number)
        for live in self._read.values():
            live.run._ledger.catch_up()
        return list(self._read.values())

    def _live_row(self, live: Live) -> TrialRow:
        state = live.run._ledger.state
        component = live.trial.component
        label = ""
        if self.kind == "ablation":
            label = _labelled(component.name if component else "base", live.trial.repeat, self._repeats)
        return TrialRow(
            live.trial.number, "running", (state.latest or {}).get(self.quantity), time.monotonic() - live.began_s, "",
            dict(live.trial.args), self._curve(live.run), _where(state), label,
        )  # fmt: skip

    def _curve(self, run: Run) -> tuple[tuple[int, float], ...]:
        """The course of the wanted quantity, or of a loss where it is only returned at the end."""
        for name in (self.quantity, "val_loss", "loss"):
            epochs, steps, values = run._ledger.rows.courses().get(name, ([], [], []))
            places = zip(epochs, steps, values, strict=True)
            points = [(epoch or step or at, value) for at, (epoch, step, value) in enumerate(places)]
            if points:
                return tuple(points[-CURVE_POINTS:])
        return ()

    @property
    def _repeats(self) -> int:
        return int(self._manifest.get("repeats") or 1)

    def _label(self, record: TrialRecord) -> str:
        return ""

    def _components(self) -> tuple[ComponentRow, ...]:
        return ()

    def _weighed(self) -> dict[str, float]:
        return {}

    def __repr__(self) -> str:
        from obl_magic.display.studies_text import study_summary

        return study_summary(self._header, self._shown())

    def _ipython_display_(self) -> None:
        """Shows the study as a still, but not a second time in the cell where its panel is."""
        from obl_magic.show import current_cell, show_study

        here, self._shown_in = self._shown_in, None
        if here is None or here != current_cell():
            show_study(self._header, self._shown())


class Study(_Results):
    """A hyperparameter search: its trials, the best of them, and Optuna's own study."""

    kind = "search"

    @property
    def trials(self) -> pd.DataFrame:
        """One row a trial that has ended.

        ``number, status, value, duration_s, error``, one column per parameter, one per key of what the function
        returned (``returned_<key>`` where a parameter is called so).
        """
        import pandas as pd

        first = ["number", "status", "value", "duration_s", "error"]
        rows, names, keys = [], dict[str, None](), dict[str, None]()
        for record in self._all:
            keys.update(dict.fromkeys(record.returned))
            names.update(dict.fromkeys(record.params))
        for record in self._all:
            row = {name: getattr(record, name) for name in first}
            row |= {name: record.params.get(name) for name in names}
            row |= {
                f"returned_{key}" if key in names or key in first else key: record.returned.get(key)
                for key in keys
                if key != "value"
            }
            rows.append(row)
        columns = list(dict.fromkeys([*first, *names, *(c for r in rows for c in r)]))
        frame = pd.DataFrame(rows, columns=columns)
        types = {"number": "int64", "value": "float64", "duration_s": "float64"}
        types |= {name: "object" for name in names if any(row[name] is None for row in rows)}
        frame = frame.astype(types)
        for name in names:  # pandas would make NaN of a None that is an option
            if types.get(name) == "object":
                frame[name] = pd.Series([row[name] for row in rows], dtype="object", index=frame.index)
        return frame

    @property
    def best(self) -> TrialView:
        """The best trial.

        Raises:
            UsageProblem: no trial has succeeded.
        """
        return self._ranked()[0]

    @property
    def worst(self) -> TrialView:
        """The worst of the trials that succeeded.

        Raises:
            UsageProblem: no trial has succeeded.
        """
        return self._ranked()[-1]

    @property
    def optuna(self) -> optuna.Study:
        """Optuna's study, over the journal in the study's folder: for its dashboard, plots and importances."""
        from obl_magic.plan.search import open_study

        return open_study(self._folder.journal, self.id)

    @property
    def importances(self) -> dict[str, float]:
        """How much of the quantity's variance each parameter explains, largest first; empty where that is unknown."""
        from obl_magic.plan.search import importances_of

        return importances_of(self.optuna)

    @staticmethod
    def prepare_still() -> None:
        """Imports what :attr:`importances` needs."""
        importlib.import_module("optuna.importance")

    def _ranked(self) -> list[TrialView]:
        found = ranked(self._all, self.direction)
        if not found:
            failed = next((record for record in self._all if record.error), None)
            said = f"; the first that failed: {failed.error}" if failed else ""
            raise UsageProblem(
                f"the best trial of {self.id}, of which none has succeeded{said}",
                "a search in which a trial succeeded",
                "study.trials",
            )
        return [TrialView(record, self._folder) for record in found]

    def _weighed(self) -> dict[str, float]:
        return {} if self.status == "running" or len(self._all) < 2 else self.importances


@dataclass(frozen=True, slots=True)
class _Sample:
    """The repeats of one component.

    Attributes:
        records: all. values: of those that succeeded, by repeat.
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


class AblationResult(_Results):
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
        for record in self._all:
            if not record.kind:
                return Run.open(self._folder.trial(record.number))
        raise UsageProblem(
            f"the base run of {self.id}", "an ablation whose base run has ended", "result.wait()"
        )

    def run_of(self, component: str, repeat: int = 0) -> Run:
        """The run that did without a component.

        Raises:
            UsageProblem: there is none.
        """
        for record in self._all:
            if record.component == component and record.repeat == repeat:
                return Run.open(self._folder.trial(record.number))
        known = ", ".join(dict.fromkeys(record.component for record in self._all)) or "none"
        raise UsageProblem(f"component {component!r}, repeat {repeat}", f"one of {known}", "result.table")

    def _label(self, record: TrialRecord) -> str:
        return _labelled(record.component, record.repeat, self._repeats)

    def _components(self) -> tuple[ComponentRow, ...]:
        groups: dict[tuple[str, str], list[TrialRecord]] = {}
        for record in self._all:
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
    noise = None
    if kind and delta is not None and len(shared) > 1:
        pairs = [sample.values[repeat] - base.values[repeat] for repeat in shared]
        noise = abs(statistics.fmean(pairs)) <= _half_width(pairs)
    return ComponentRow(
        component=name, kind=kind, value=value, delta=delta, std=sample.std, repeats=len(sample.values),
        status=status, within_noise=noise, parameters=first.parameters, inputs=first.inputs,
        layers=len(first.layers) or None, error=error,
    )  # fmt: skip


def _half_width(pairs: Sequence[float]) -> float:
    """Half of the 95 % confidence interval of a mean (Student's t)."""
    from scipy.special import stdtrit  # only who repeats runs needs SciPy

    errors: float = stdtrit(len(pairs) - 1, 0.975)
    return errors * statistics.stdev(pairs) / math.sqrt(len(pairs))


def _row(record: TrialRecord, label: str) -> TrialRow:
    return TrialRow(
        record.number,
        record.status,
        record.value,
        record.duration_s,
        record.error,
        dict(record.params),
        label=label,
    )


def _read_live(folder: RunDir, number: int) -> Live:
    """A trial that another process conducts, from its folder."""
    run = Run.open(folder)
    told = run._manifest
    component = Component(told["component"], "", ()) if told.get("component") else None
    trial = Trial(number, {**told.get("params", {})}, run.seed, component, told.get("repeat", 0))
    return Live(trial, run, 0, time.monotonic() - (time.time() - told["header"]["started_s"]))


def _labelled(component: str, repeat: int, repeats: int) -> str:
    return f"{component} ({repeat + 1}/{repeats})" if repeats > 1 else component


def _where(state: RunState) -> str:
    progress = state.progress
    return f"epoch {progress.epoch}/{progress.epochs}" if progress else ""


def open_results(name: str | StudyDir) -> Study | AblationResult:
    """An earlier study by its id, by the beginning or end of its id, or by the name that ``--out`` gave it.

    Raises:
        UsageProblem: there is no such study, more than one, or its record is damaged.
    """
    folder = name if isinstance(name, StudyDir) else _find(name)
    kind = folder.record()["kind"]
    return (Study if kind == "search" else AblationResult).open(folder)


def is_search(folder: StudyDir) -> bool:
    """Whether a folder holds a search that can be read."""
    return readable(folder).get("kind") == "search"


def is_study(name: str) -> bool:
    """Whether a name means a study."""
    try:
        _find(name)
    except UsageProblem:
        return False
    return True


def _find(name: str) -> StudyDir:
    folders = existing_studies()
    found = [each for each in folders if each.id == name]
    found = found or [each for each in folders if each.id.startswith(name) or each.id.endswith(name)]
    if not found:  # a name may have been given to many; the newest is meant, as in a notebook
        found = [each for each in folders if readable(each).get("out") == name][-1:]
    if len(found) == 1:
        return found[0]
    known = ", ".join(each.id for each in folders[-3:]) or "none"
    what = "no study of that name" if not found else f"{len(found)} studies of that id"
    raise UsageProblem(
        f"study {name!r} ({what})",
        f"the id of one study, or its --out; the newest: {known}",
        "%oblivious runs",
    )
