"""What a search and an ablation have in common for whoever holds one: trials, status, folder. Starts nothing."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from obl_magic.display.choose import current_cell, show_study
from obl_magic.display.study.text import study_summary
from obl_magic.display.study.view import ComponentRow, StudyState, TrialRow
from obl_magic.events.fold import RunState
from obl_magic.rundir import RunDir, StudyDir
from obl_magic.rundir.record import StudyRecord
from obl_magic.runs.owner import is_gone
from obl_magic.runs.run import Run
from obl_magic.study.driver import Driver, Live
from obl_magic.study.holding import Holding
from obl_magic.study.record import Records, TrialRecord, read
from obl_magic.values import Component, Trial

if TYPE_CHECKING:
    pass

CURVE_POINTS = 60


class TrialView:
    """One trial of a study.

    Attributes:
        number: from 0.
        value: of the wanted quantity.
        params: what it was called with, by name.
        status: ``succeeded``, ``failed`` or ``pruned``.
        error: one line, or "".
        seed: base seed.
        duration_s: seconds it took.
    """

    def __init__(self, record: TrialRecord, folder: StudyDir) -> None:
        self._folder = folder
        self.number, self.value, self.params = record.number, record.value, dict(record.params)
        self.status, self.error, self.seed = record.status, record.error, record.seed
        self.duration_s = record.duration_s

    @property
    def run(self) -> Run:
        """The trial as a run: its curve, its logs, its value."""
        return Run.open(self._folder.trial(self.number))

    def __repr__(self) -> str:
        return f"trial {self.number}: {self.status}, value {self.value}, {self.params}"


class Results:
    """What a search and an ablation have in common.

    Args:
        folder: the study's.
        record: what is known of it.
        records: the trials so far.
        driver: conducts it, in this process; None of a study that is read from its folder.
        stop: ends it.
    """

    kind = ""

    def __init__(
        self,
        folder: StudyDir,
        record: StudyRecord,
        records: Records | None = None,
        driver: Driver | None = None,
        stop: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder, self.record, self._records = folder, record, records
        self._driver, self._stop = driver, stop
        self.shown_in: int | None = None
        self.holding: Holding | None = None
        self._read: dict[int, Live] = {}

    @classmethod
    def open(cls, folder: StudyDir) -> Self:
        """A study that was conducted before, or elsewhere."""
        return cls(folder, folder.record())

    @property
    def id(self) -> str:
        """The study's id; the ids of its runs begin with it."""
        return self.folder.id

    @property
    def dir(self) -> Path:
        """The study's folder."""
        return self.folder.path

    @property
    def digest(self) -> str:
        """sha256 of the function's source."""
        return self.record.digest

    @property
    def quantity(self) -> str:
        """Name of the number that is compared."""
        return self.record.quantity

    @property
    def direction(self) -> str:
        """``maximize`` or ``minimize``."""
        return self.record.direction

    @property
    def status(self) -> str:
        """``running``, ``succeeded``, ``failed``, ``interrupted`` or ``timed out``."""
        if self._driver is None and self.record.status == "running":
            self.record = self.folder.record()
            if self.record.status == "running" and is_gone(self.record.kernel, self.folder.logs):
                return "interrupted"
        return self.record.status

    @property
    def runs(self) -> list[Run]:
        """The runs of all trials that have ended, by number."""
        return [Run.open(self.folder.trial(record.number)) for record in self.ended_trials]

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
    def ended_trials(self) -> list[TrialRecord]:
        """The records of the trials that have ended, by number."""
        found = read(self.folder.rows) if self._records is None else list(self._records.all)
        return sorted(found, key=lambda record: record.number)

    def keep_end(self, status: str) -> None:
        """Writes down how it ended."""
        self.record = replace(self.record, status=status, ended_s=time.time())
        self.folder.shared.write_json(self.folder.manifest, self.record.in_json)

    def shown(self) -> StudyState:
        """The study as a display shows it now."""
        live = {live.trial.number: self._live_row(live) for live in self._live()}
        rows = [
            _row(record, self._label(record)) for record in self.ended_trials if record.number not in live
        ]
        rows += live.values()
        return StudyState(
            rows=tuple(sorted(rows, key=lambda row: row.number)),
            components=self._components(),
            importances=self._weighed(),
            busy=() if self._driver is None else self._driver.busy,
            status={"timed out": "failed"}.get(self.status, self.status),
            now_s=self.record.ended_s or time.time(),
        )

    def _live(self) -> list[Live]:
        """The trials under way; of a study that another process conducts, those that it has not written down."""
        if self._driver is not None:
            return self._driver.live
        if self.status != "running":
            return []
        ended = {record.number for record in self.ended_trials}
        for folder in self.folder.trials():
            number = int(folder.id.rpartition("-")[2])
            if number in ended:
                self._read.pop(number, None)
            elif number not in self._read:
                self._read[number] = _read_live(folder, number)
        for live in self._read.values():
            live.run.ledger.catch_up()
        return list(self._read.values())

    def _live_row(self, live: Live) -> TrialRow:
        state = live.run.ledger.state
        component = live.trial.component
        label = ""
        if self.kind == "ablation":
            label = labelled(component.name if component else "base", live.trial.repeat, self.record.repeats)
        return TrialRow(
            live.trial.number, "running", (state.latest or {}).get(self.quantity), time.monotonic() - live.began_s, "",
            dict(live.trial.args), self._curve(live.run), _where(state), label,
        )  # fmt: skip

    def _curve(self, run: Run) -> tuple[tuple[int, float], ...]:
        """The course of the wanted quantity, or of a loss where it is only returned at the end."""
        for name in (self.quantity, "val_loss", "loss"):
            epochs, steps, values = run.ledger.rows.courses().get(name, ([], [], []))
            places = zip(epochs, steps, values, strict=True)
            points = [(epoch or step or at, value) for at, (epoch, step, value) in enumerate(places)]
            if points:
                return tuple(points[-CURVE_POINTS:])
        return ()

    def _label(self, record: TrialRecord) -> str:
        return ""

    def _components(self) -> tuple[ComponentRow, ...]:
        return ()

    def _weighed(self) -> dict[str, float]:
        return {}

    def __repr__(self) -> str:
        return study_summary(self.record, self.shown())

    def _ipython_display_(self) -> None:
        """Shows the study as a still, but not a second time in the cell where its panel is."""
        here, self.shown_in = self.shown_in, None
        if here is None or here != current_cell():
            show_study(self.record, self.shown())


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
    told = run.record
    component = Component(told.component, "", ()) if told.component else None
    trial = Trial(number, dict(told.params), run.seed, component, told.repeat)
    return Live(trial, run, 0, time.monotonic() - (time.time() - told.started_s))


def labelled(component: str, repeat: int, repeats: int) -> str:
    """What a table calls one of several repeats."""
    return f"{component} ({repeat + 1}/{repeats})" if repeats > 1 else component


def _where(state: RunState) -> str:
    progress = state.progress
    return f"epoch {progress.epoch}/{progress.epochs}" if progress else ""
