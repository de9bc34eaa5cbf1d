"""Runs a study whose every option is checked: captures, plans, fills seats, shows, ends."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from obl_magic import rundir
from obl_magic.capture import capture
from obl_magic.capture.distribution import refuse_own_distribution
from obl_magic.display.choose import current_cell, showing_study
from obl_magic.display.study.view import NoStudyDisplay, StudyDisplay
from obl_magic.errors import OblError, RunTimedOut
from obl_magic.hosts.places import LOCAL, Hosts, Place
from obl_magic.launch.interrupts import Presses, interrupts_held
from obl_magic.launch.manifest import in_words, record_of
from obl_magic.launch.on_ranks import wanted
from obl_magic.launch.one_run import Call, engine_for, job_of, put_job, ready
from obl_magic.options import StudyOptions
from obl_magic.rundir.record import RunRecord, StudyRecord
from obl_magic.runs.leftovers import remove_leftovers
from obl_magic.runs.run import LIVE
from obl_magic.runs.tensorboard import check_tensorboard
from obl_magic.study.ablation_result import AblationResult
from obl_magic.study.driver import Driver, Shared
from obl_magic.study.holding import Holding
from obl_magic.study.objective import Objective
from obl_magic.study.plan.base import Plan
from obl_magic.study.record import Records, read
from obl_magic.study.search_result import Study
from obl_magic.study.seats import KernelSeat, Seat, in_worlds
from obl_magic.values import Captured, CarriedGenerators, Job, Settings
from obl_magic.worker.on_import import uses_keras
from obl_magic.world.threads import begin

SHOW_EVERY_S = 0.2

MakePlan = Callable[[rundir.StudyDir, int], Plan]
"""(the study's folder, trials at a time) -> which trials there are."""

_R = TypeVar("_R", Study, AblationResult)


@dataclass(frozen=True, slots=True)
class Wish:
    """A study whose every option is checked.

    Attributes:
        call: the function, and what all trials are called with.
        objective: what is compared.
        options: of the study.
        out: its name.
        told: what a search that goes on takes from here.
        pieces: of the spec, as the user would write them.
        judges: values on the way decide.
        keep_weights: of how many trials.
        ablates: it is an ablation study.
        models: functions that may stand in for ``model_fn``.
        varied: parameters that each trial gets from the plan.
        remarks: what the user should know; grows until the study begins.
    """

    call: Call
    objective: Objective
    options: StudyOptions
    out: str
    told: dict[str, Any]
    pieces: tuple[str, ...]
    judges: bool = False
    keep_weights: int = 0
    ablates: bool = False
    models: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    varied: tuple[str, ...] = ()
    remarks: list[str] = field(default_factory=list)

    @property
    def settings(self) -> Settings:
        """How the ranks make Keras oblivious, in all trials."""
        return replace(
            self.call.settings(self.options), keep_weights=self.keep_weights > 0,
            keep_weights_of=self.objective.quantity if self.keep_weights else "",
            keep_largest=self.objective.direction == "maximize",
        )  # fmt: skip

    def passed_over(self, name: str, error: Exception) -> None:
        """Notes a name that a pattern matched, but that cannot be left out."""
        self.remarks.append(f"{name} is not left out: {error}")


def conduct(
    kind: type[_R],
    wish: Wish,
    plan: Callable[[Captured], MakePlan],
    display: StudyDisplay | None,
    earlier: Study | None = None,
) -> _R:
    """Runs a study whose options are checked, from its capture to its end."""
    __tracebackhide__ = True
    call, options = wish.call, wish.options
    began = time.perf_counter()
    check_tensorboard(options.tensorboard)
    captured = capture(
        call.fn, namespace=call.namespace, provide=call.provide, args={**dict.fromkeys(wish.varied), **call.all_args},
        cells=call.cells,
        travels=options.workers is not None, also=wish.models,
    )  # fmt: skip
    refuse_own_distribution(call.fn)
    make = plan(captured)
    capture_s = time.perf_counter() - began
    chosen, reason = engine_for(options)
    wish.remarks.extend(ready(captured, options, _worlds(options)))
    with interrupts_held() as stopping:
        remove_leftovers()
        folder = earlier.folder if earlier else rundir.create_study()
        holding = _held(folder, new=earlier is None)
        try:
            driver, study = _prepared(
                kind, wish, captured, make, folder, (chosen, reason), capture_s, stopping
            )
        except BaseException as problem:
            holding.let_go()
            if earlier is None:
                shutil.rmtree(folder.path, ignore_errors=True)
            if isinstance(problem, OSError):  # of Optuna's journal, say
                raise rundir.unwritable(folder.path, problem) from problem
            raise
        study.holding = holding
        shown = NoStudyDisplay() if options.quiet else display or showing_study()
        study.shown_in = None if options.quiet else current_cell()
        shown.begin(study.record)
        if options.workers is not None and study.kind == "search" and not options.quiet:
            # what a still needs, and what takes seconds to import, while the worlds come up
            with contextlib.suppress(OblError):
                begin(Study.prepare_still, "obl-import")
        if options.background:
            LIVE[study.id] = study  # type: ignore[assignment]
            try:
                begin(_see_to_its_end, "obl-study", driver, study, shown, stopping)
            except OblError as problem:
                driver.problem = problem
                _ended(driver, study, shown, stopping)
                raise
            return study
        if options.workers is not None:
            error = _see_to_its_end(driver, study, shown, stopping)
    if options.workers is None:
        error = _in_this_process(driver, study, shown, stopping)
    if error is not None:
        error.study = study  # type: ignore[attr-defined]
        raise error
    return study


def _worlds(options: StudyOptions) -> list[Hosts]:
    """Where each world of a study is; none where trials run in this process."""
    each = options.workers_per_trial
    here = Hosts((Place(LOCAL[0], each * options.worlds),))
    return [] if options.workers is None else (options.placed or here).worlds(options.worlds, each)


def _held(folder: rundir.StudyDir, new: bool) -> Holding:
    """Holds the study; a new one that cannot be held leaves nothing."""
    try:
        return Holding(folder)
    except OblError:
        if new:
            shutil.rmtree(folder.path, ignore_errors=True)
        raise


def _prepared(
    kind: type[_R],
    wish: Wish,
    captured: Captured,
    make: MakePlan,
    folder: rundir.StudyDir,
    engine_and_why: tuple[str, str],
    capture_s: float,
    stopping: Presses,
) -> tuple[Driver, _R]:
    """Writes down what is asked for; (who conducts it, what the user will hold)."""
    options = wish.options
    engine, reason = engine_and_why
    plan = make(folder, options.worlds)
    alone = options.workers is None or options.workers_per_trial == 1
    job = shared_job(wish, captured, folder.path, "alone" if alone else engine)
    of_a_trial: RunRecord = record_of(
        captured, options.of_a_trial, wish.settings, in_words(job.args), engine, reason, folder.shared, capture_s,
        wish.call.inherited.lineage,
    )  # fmt: skip
    if options.workers is not None:
        put_job(job, folder.shared)
    folder.shared.write_bytes(folder.shared.source, captured.source.encode())
    began_s, spent_s = _sessions_before(folder)
    record = StudyRecord(
        **{
            **{each.name: getattr(of_a_trial, each.name) for each in fields(of_a_trial)},
            "workers": options.workers, "engine": "" if alone else engine, "options": options.record,
            "hosts": options.placed.told if options.placed else "",
            "started_s": time.time() - spent_s, "lines": (*of_a_trial.lines, *_remarks(wish)),
        },
        kind=kind.kind, quantity=wish.objective.quantity, direction=wish.objective.direction, wanted=plan.planned,
        workers_per_trial=options.workers_per_trial, worlds=options.worlds, sampler=wish.told.get("sampler", ""),
        pruner=wish.told.get("pruner", ""), space=wish.pieces, repeats=options.repeats, asked=wish.told, out=wish.out,
        began_s=began_s,
    )  # fmt: skip
    folder.shared.write_json(folder.manifest, record.in_json)
    shared = Shared(
        folder,
        job,
        replace(of_a_trial, captured=(), hosts=""),
        wish.objective,
        wish.judges,
        wish.keep_weights,
        None if options.tensorboard is None else Path(options.tensorboard) / folder.id,
    )
    records = Records(folder.rows)
    seats: Sequence[Seat]
    if options.workers is None:
        seats = [KernelSeat(wish.call.fn, captured, dict(wish.models))]
    else:
        imports, placed = uses_keras(captured.payload), _worlds(options)
        on_this_host = sum(each.ranks for each in placed if each.is_here)
        wants = [
            wanted(each.ranks, engine, imports, on_this_host, None if each.is_here else each)
            for each in placed
        ]
        seats = in_worlds(wants, folder.shared.job, options.of_a_trial, stopping, engine)
    driver = Driver(shared, plan, seats, records, stopping, options.timeout)
    return driver, kind(folder, record, records, driver, stopping.press)


def _see_to_its_end(
    driver: Driver, study: Study | AblationResult, shown: StudyDisplay, stopping: Presses
) -> BaseException | None:
    """Starts a study in worlds and shows it until it has ended; what is to be raised."""
    driver.start()
    while not driver.wait(SHOW_EVERY_S):
        _show(study, shown)
    return _ended(driver, study, shown, stopping)


def _in_this_process(
    driver: Driver, study: Study | AblationResult, shown: StudyDisplay, stopping: Presses
) -> BaseException | None:
    """Runs all trials in the calling thread, while another one shows them; what is to be raised."""
    over = threading.Event()

    def show() -> None:
        while not over.wait(SHOW_EVERY_S):
            driver.is_late()  # seen between two trials
            _show(study, shown)

    showing = None
    with contextlib.suppress(OblError):  # trials need no thread
        showing = begin(show, "obl-show")
    try:
        with contextlib.suppress(KeyboardInterrupt):  # the driver has counted it
            driver.work(0)
    finally:
        over.set()
        if showing is not None:
            showing.join()
    return _ended(driver, study, shown, stopping)


def _show(study: Study | AblationResult, shown: StudyDisplay) -> None:
    with contextlib.suppress(Exception):  # what cannot be drawn costs no trial; the still will say why
        shown.update(study.shown())


def _ended(
    driver: Driver, study: Study | AblationResult, shown: StudyDisplay, stopping: Presses
) -> BaseException | None:
    """Writes down how a study ended, and leaves its still; what is to be raised."""
    driver.over()
    status, error = "succeeded", None
    if driver.problem is not None:
        status, error = "failed", driver.problem
    elif driver.timed_out:
        status = "timed out"
        error = RunTimedOut(f"the {study.kind} passed its timeout; what had ended by then is kept")
    elif stopping:
        status, error = "interrupted", KeyboardInterrupt()
    elif not any(record.status == "succeeded" for record in study.ended_trials):
        status = "failed"
    study.keep_end(status)
    study.folder.shared.tidy()
    if study.holding is not None:
        study.holding.let_go()
    if not isinstance(shown, NoStudyDisplay):
        shown.end(study.shown())
    return error


def shared_job(wish: Wish, captured: Captured, folder: Path, engine: str = "alone") -> Job:
    """What all trials have in common."""
    job = job_of(captured, wish.call, wish.options, wish.settings, engine, folder)
    return replace(
        job, ablates=wish.ablates, generators=CarriedGenerators()
    )  # each trial has a seed of its own


def _sessions_before(folder: rundir.StudyDir) -> tuple[float, float]:
    """(Unix time in seconds at which a study first began, seconds that its earlier sessions took)."""
    if not folder.manifest.is_file():
        return time.time(), 0.0
    before = folder.record()
    ends = [record.ended_s for record in read(folder.rows)]
    ended_s = before.ended_s or max(ends, default=before.started_s)
    return before.began_s, max(0.0, ended_s - before.started_s)


def _remarks(wish: Wish) -> list[str]:
    workers, each = wish.options.workers, wish.options.workers_per_trial
    said = list(wish.remarks)
    if workers is not None and workers % each:
        said.append(f"{workers % each} of {workers} workers left over: a trial takes {each}")
    for what, source in wish.call.inherited.lineage.items():
        of = f"trial {source['trial']} of {source['study']}" if source["study"] else source["run"]
        said.append(f"{what} from {of}")
    return said
