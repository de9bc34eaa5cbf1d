"""Pulls trials from a plan into seats until there are none: no seat waits for another, no trial for its neighbours."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from obl_magic.capture.credentials import as_text
from obl_magic.errors import SetupProblem
from obl_magic.events.event import LAUNCHER, Launched
from obl_magic.events.fold import RunState
from obl_magic.launch.awake import Awake
from obl_magic.launch.interrupts import Presses
from obl_magic.rundir import StudyDir, unwritable
from obl_magic.rundir.record import RunRecord
from obl_magic.runs.run import Ledger, Run
from obl_magic.runs.tensorboard import Board
from obl_magic.study.objective import Objective
from obl_magic.study.plan.base import Plan
from obl_magic.study.record import Records, TrialRecord, ranked
from obl_magic.study.seats import Prepared, Seat
from obl_magic.values import Job, Outcome, Trial
from obl_magic.world.threads import begin


@dataclass(frozen=True, slots=True)
class Shared:
    """What all trials of a study have in common.

    Attributes:
        folder: the study's.
        job: the one that all trials share.
        record: of a run, where a trial's does not differ.
        objective: what is compared.
        judges: values on the way decide whether a trial goes on.
        keep_weights: of how many trials, the best, weights are kept.
        board: folder below which TensorBoard reads their numbers, or None.
    """

    folder: StudyDir
    job: Job
    record: RunRecord
    objective: Objective
    judges: bool = False
    keep_weights: int = 0
    board: Path | None = None


@dataclass(frozen=True, slots=True)
class Live:
    """A trial under way."""

    trial: Trial
    run: Run
    world: int
    began_s: float = field(default_factory=time.monotonic)


class Driver:
    """Conducts the trials of one study.

    Args:
        shared: what they have in common.
        plan: says which there are.
        seats: where they run.
        records: where they are written down.
        stopping: counts how often the user has asked for the end.
        timeout_s: when the study must be over, in seconds from now, or None.
    """

    def __init__(
        self,
        shared: Shared,
        plan: Plan,
        seats: Sequence[Seat],
        records: Records,
        stopping: Presses,
        timeout_s: float | None = None,
    ) -> None:
        self._shared, self._plan, self._seats, self._records = shared, plan, seats, records
        self._stopping, self._clock, self._timeout_s = stopping, Awake(), timeout_s
        self._may_hold = {record.number for record in records.all}
        self._lock = threading.Lock()
        self._live: dict[int, Live] = {}
        self._busy_s = [0.0] * len(seats)
        self._began_s = time.monotonic()
        self._ended_s: float | None = None
        self._threads: list[threading.Thread] = []
        self.problem: BaseException | None = None
        self.timed_out = False

    def start(self) -> None:
        """Begins, with a thread for each seat."""
        try:
            for number in range(len(self._seats)):
                self._threads.append(begin(self.work, f"obl-seat-{number}", number))
        except SetupProblem as error:
            self._cannot_go_on(error)

    def wait(self, timeout_s: float) -> bool:
        """Whether all seats are empty for good within that time; looks after the deadline meanwhile."""
        until = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))
        under_way = any(thread.is_alive() for thread in self._threads)
        if under_way and self.is_late():
            self.end_now()
        return not under_way

    def is_late(self) -> bool:
        """Whether the time is over; to be asked often, since only what passes between two looks counts."""
        if self._timeout_s is not None and self._clock.now() > self._timeout_s and not self._stopping:
            self.timed_out = True
        return self.timed_out

    def end_now(self) -> None:
        """Trials under way are ended at once, and no more begun."""
        self._stopping.press()
        self._stopping.press()

    def work(self, number: int) -> None:
        """Fills one seat until there is nothing left to do; never raises but on an interrupt."""
        seat = self._seats[number]
        try:
            while not self.is_late() and not self._stopping and (trial := self._plan.ask()) is not None:
                self._conduct(trial, seat, number)
        except KeyboardInterrupt:
            self._stopping.press()
            raise
        except OSError as error:  # the plan writes, too
            problem = unwritable(self._shared.folder.path, error)
            problem.__cause__ = error
            self._cannot_go_on(problem)
        except BaseException as error:  # of ours, or of the plan's
            self._cannot_go_on(error)
        finally:
            seat.close()

    def _cannot_go_on(self, problem: BaseException) -> None:
        self.problem = self.problem or problem
        self.end_now()

    @property
    def live(self) -> list[Live]:
        """The trials under way, by number."""
        with self._lock:
            return [self._live[number] for number in sorted(self._live)]

    @property
    def busy(self) -> tuple[float, ...]:
        """Share of its time in which each seat ran a trial, 0 to 1."""
        now = time.monotonic()
        whole_s = (self._ended_s or time.monotonic()) - self._began_s
        going = {live.world: now - live.began_s for live in self.live}
        shares = (busy_s + going.get(number, 0.0) for number, busy_s in enumerate(self._busy_s))
        return tuple(min(1.0, seconds / whole_s) if whole_s > 0 else 0.0 for seconds in shares)

    def over(self) -> None:
        """All is done: shares of time stay as they are."""
        self._ended_s = time.monotonic()
        self._records.close()

    def _conduct(self, trial: Trial, seat: Seat, number: int) -> None:
        """One trial, from its folder to its record."""
        call = self._prepared(trial)
        live = Live(trial, call.run, number)
        with self._lock:
            self._live[trial.number] = live
        try:
            seat.run(call)
        finally:
            with self._lock:
                del self._live[trial.number]
                self._busy_s[number] += time.monotonic() - live.began_s
            call.ledger.close()
            call.ledger.folder.tidy()
        if call.run.status != "interrupted":  # that is none of the trial's, and it may be done again
            self._written_down(trial, call, number)

    def _prepared(self, trial: Trial) -> Prepared:
        folder = self._shared.folder.new_trial(trial.number)
        shared = self._shared
        changes: dict[str, Any] = {
            "args": {**shared.job.args, **trial.args}, "seed": trial.seed, "run_dir": str(folder.path),
            "component": trial.component, "quantity": shared.objective.quantity if shared.judges else "",
        }  # fmt: skip
        job = replace(shared.job, **changes)
        ledger = Ledger(folder)
        record = replace(
            shared.record, id=folder.id, started_s=time.time(), seed=trial.seed,
            arguments={name: as_text(name, value) for name, value in job.args.items()},
            study=shared.folder.id, trial=trial.number, params=trial.args, repeat=trial.repeat,
            component=trial.component.name if trial.component else "",
        )  # fmt: skip
        folder.write_json(folder.manifest, record.in_json)
        ledger.open()
        if shared.board is not None:
            left_out = (
                {"without": record.component or "base", "repeat": trial.repeat} if shared.job.ablates else {}
            )
            ledger.listen(Board(shared.board / folder.id, {**job.args, **left_out}, ledger.note).take)
        ledger.add(Launched(LAUNCHER, time.time(), record.workers))
        judge: Callable[[int, float], bool] | None = None
        if shared.judges:
            judge = lambda step, value: self._plan.judge(trial, step, value)  # noqa: E731
        return Prepared(job, changes, ledger, Run(ledger, record), judge)

    def _written_down(self, trial: Trial, call: Prepared, number: int) -> None:
        """Tells the plan and the file of records; the plan may find that the study cannot go on."""
        state, objective = call.ledger.state, self._shared.objective
        outcome = self._outcome(call)
        try:
            self._plan.tell(trial, outcome)
        finally:
            with self._lock:
                self._records.add(self._record(trial, outcome, call.run.id, state, number))
                self._drop_weights()
                known = any(record.status != "failed" for record in self._records.all)
        if call.run.status == "succeeded" and objective.of(state) is None and not known:
            raise objective.nobody_produced(state)

    def _record(
        self, trial: Trial, outcome: Outcome, run_id: str, state: RunState, number: int
    ) -> TrialRecord:
        component, trained = trial.component, state.trained
        return TrialRecord(
            number=trial.number, run_id=run_id, status=outcome.status, value=outcome.value, error=outcome.error,
            params=dict(trial.args), seed=trial.seed, began_s=state.ready_s or state.started_s or 0.0,
            ended_s=state.ended_s or time.time(), returned=dict(state.returned or {}), world=number,
            component=component.name if component else "base" * self._shared.job.ablates,
            kind=component.kind if component else "", repeat=trial.repeat,
            parameters=trained.parameters if trained else None, layers=tuple(trained.layers) if trained else (),
            inputs=trained.inputs if trained else None,
        )  # fmt: skip

    def _outcome(self, call: Prepared) -> Outcome:
        state, objective = call.ledger.state, self._shared.objective
        value = objective.of(state)
        if state.status not in ("succeeded", "pruned"):
            return Outcome("failed", None, state.error or state.status)
        if value is None and state.status == "succeeded":
            said = f"{objective.quantity} was neither returned nor reported"
            return Outcome("failed", None, said)
        if value is not None and (problem := objective.problem(value)) and state.status == "succeeded":
            return Outcome("failed", value, problem)
        return Outcome(state.status, value, "")

    def _drop_weights(self) -> None:
        """Keeps the weights of the best trials only, so that the disk they take does not grow with the study."""
        if not self._shared.keep_weights:
            return
        best = ranked(self._records.all, self._shared.objective.direction)[: self._shared.keep_weights]
        kept = {record.number for record in best}
        for number in {*self._may_hold, self._records.all[-1].number} - kept:
            self._shared.folder.trial(number).weights.unlink(missing_ok=True)
        self._may_hold = kept
