"""Runs a study whose every option is checked: captures, plans, fills seats, shows, ends."""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from obl_magic import rundir
from obl_magic.capture import capture
from obl_magic.capture.distribution import refuse_own_distribution
from obl_magic.capture.own_modules import own_modules
from obl_magic.chain import Inherited
from obl_magic.conductor import Call, job_of
from obl_magic.display.base import Header
from obl_magic.display.studies import NoStudyDisplay, StudyDisplay, StudyHeader
from obl_magic.errors import OblError, RunTimedOut, UsageProblem
from obl_magic.interrupts import Presses, interrupts_held
from obl_magic.jobs import JOBS
from obl_magic.launched import wanted
from obl_magic.leftovers import remove_leftovers
from obl_magic.manifest import header_of, in_words, manifest_of
from obl_magic.payload import files
from obl_magic.plan.base import Plan
from obl_magic.request import checked_whole, engine_for
from obl_magic.room import ROOM
from obl_magic.runs import LIVE
from obl_magic.show import current_cell, keeps_worlds_ready, showing_study
from obl_magic.study.driver import Asked, Driver
from obl_magic.study.holding import Holding
from obl_magic.study.objective import Objective
from obl_magic.study.record import Records, read
from obl_magic.study.results import AblationResult, Study
from obl_magic.study.seats import KernelSeat, Seat, in_worlds
from obl_magic.threads import begin
from obl_magic.values import Captured, CarriedGenerators, Job, Options
from obl_magic.worker.frameworks import uses_keras
from obl_magic.world.standby import STANDBY

SHOW_EVERY_S = 0.2

MakePlan = Callable[[rundir.StudyDir, int], Plan]
"""(the study's folder, trials at a time) -> which trials there are."""

_R = TypeVar("_R", Study, AblationResult)


@dataclass(frozen=True, slots=True)
class Wish:
    """A study whose every option is checked.

    Attributes:
        call: the function, and what all trials are called with. objective: what is compared. options: of each trial.
        workers_per_trial: ranks of each. taken: from earlier runs. out: its name.
        told: what is recorded of the wish. pieces: of the spec, as the user would write them.
        judges: values on the way decide. keep_weights: of how many trials. ablates: it is an ablation study.
        models: functions that may stand in for ``model_fn``. repeats: of each run.
        varied: parameters that each trial gets from the plan.
        remarks: what the user should know; grows until the study begins.
    """

    call: Call
    objective: Objective
    options: Options
    workers_per_trial: int
    taken: Inherited
    out: str
    told: dict[str, Any]
    pieces: tuple[str, ...]
    judges: bool = False
    keep_weights: int = 0
    ablates: bool = False
    models: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    repeats: int = 1
    varied: tuple[str, ...] = ()
    remarks: list[str] = field(default_factory=list)

    def passed_over(self, name: str, error: Exception) -> None:
        """Notes a name that a pattern matched, but that cannot be left out."""
        self.remarks.append(f"{name} is not left out: {error}")

    @property
    def worlds(self) -> int:
        """How many trials run at a time."""
        return 1 if self.options.workers is None else self.options.workers // self.workers_per_trial

    @property
    def trial_options(self) -> Options:
        """The options as they hold for one trial."""
        return (
            self.options
            if self.options.workers is None
            else replace(self.options, workers=self.workers_per_trial)
        )


def conduct(
    kind: type[_R],
    wish: Wish,
    plan: Callable[[Captured], MakePlan],
    background: bool,
    display: StudyDisplay | None,
    earlier: Study | None = None,
) -> _R:
    """Runs a study whose options are checked, from its capture to its end."""
    __tracebackhide__ = True
    call, options = wish.call, wish.options
    _check_seats(wish, background)
    began = time.perf_counter()
    captured = capture(
        call.fn, namespace=call.namespace, provide=call.provide, args={**dict.fromkeys(wish.varied), **call.args},
        cells=call.cells,
        travels=options.workers is not None, also=wish.models,
    )  # fmt: skip
    refuse_own_distribution(call.fn)
    make = plan(captured)
    capture_s = time.perf_counter() - began
    chosen, reason = ("inline", "") if options.workers is None else engine_for(options)
    if options.workers is not None:
        ROOM.check(captured, options.workers)
    with interrupts_held() as stopping:
        remove_leftovers()
        folder = earlier._folder if earlier else rundir.create_study()
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
        study._holding = holding
        shown = NoStudyDisplay() if options.quiet else display or showing_study()
        study._shown_in = None if options.quiet else current_cell()
        shown.begin(study._header)
        if options.workers is not None and study.kind == "search" and not options.quiet:
            # what a still needs, and what takes seconds to import, while the worlds come up
            with contextlib.suppress(OblError):
                begin(Study.prepare_still, "obl-import")
        if background:
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
            if error is None and keeps_worlds_ready() and STANDBY.allowed:
                STANDBY.prepare(wanted(options.workers, chosen))
    if options.workers is None:
        error = _in_this_process(driver, study, shown, stopping)
    if error is not None:
        error.study = study  # type: ignore[attr-defined]
        raise error
    return study


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
    options, trial_options = wish.options, wish.trial_options
    engine, reason = engine_and_why
    plan = make(folder, wish.worlds)
    alone = options.workers is None or wish.workers_per_trial == 1
    job = shared_job(wish, captured, folder.path, "alone" if alone else engine)
    arguments = in_words(job.args)
    about: Header = header_of(captured, trial_options, arguments, engine, reason, folder.shared)
    manifest = manifest_of(captured, trial_options, arguments, about, capture_s)
    if options.workers is not None:
        files.save(job, folder.shared, folder.shared.job, own_modules())
        JOBS.keep(folder.id, folder.shared.job)
        for buffer in job.buffers:  # on disk now, from where the ranks take them
            buffer.release()
    folder.shared.write_bytes(folder.shared.source, captured.source.encode())
    began_s, spent_s = _sessions_before(folder)
    told = StudyHeader(
        study_id=folder.id, kind=kind.kind, function=captured.name, digest=captured.digest,
        quantity=wish.objective.quantity, direction=wish.objective.direction,
        wanted=plan.planned, workers=options.workers,
        workers_per_trial=wish.workers_per_trial, worlds=wish.worlds, engine="" if alone else engine,
        sampler=wish.told.get("sampler", ""), pruner=wish.told.get("pruner", ""), space=wish.pieces,
        started_s=time.time() - spent_s, folder=about.folder, lines=(*about.lines, *_remarks(wish)),
    )  # fmt: skip
    whole = {
        **manifest, "kind": kind.kind, "status": "running", "quantity": wish.objective.quantity,
        "direction": wish.objective.direction, "asked": wish.told, "repeats": wish.repeats, "out": wish.out,
        "lineage": wish.taken.lineage, "workers": options.workers, "workers_per_trial": wish.workers_per_trial,
        "run_header": manifest["header"], "header": asdict(told), "began_s": began_s,
    }  # fmt: skip
    folder.shared.write_json(folder.manifest, whole)
    shared = {**manifest, "captured": [], "lineage": wish.taken.lineage}
    asked = Asked(folder, job, shared, wish.objective, wish.judges, wish.keep_weights)
    records = Records(folder.rows)
    seats: Sequence[Seat]
    if options.workers is None:
        seats = [KernelSeat(wish.call.fn, captured, dict(wish.models))]
    else:
        STANDBY.drop()
        want = wanted(wish.workers_per_trial, engine, options.workers)
        seats = in_worlds(
            want, folder.shared.job, wish.worlds, wish.workers_per_trial, trial_options, stopping,
            uses_keras(captured.payload),
        )  # fmt: skip
    driver = Driver(asked, plan, seats, records, stopping, options.timeout_s)
    return driver, kind(folder, whole, records, driver, stopping.press)


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
        shown.update(study._shown())


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
    elif not any(record.status == "succeeded" for record in study._all):
        status = "failed"
    study._ended(status)
    study._folder.shared.tidy()
    if study._holding is not None:
        study._holding.let_go()
    if not isinstance(shown, NoStudyDisplay):
        shown.end(study._shown())
    return error


def shared_job(wish: Wish, captured: Captured, folder: Path, engine: str = "alone") -> Job:
    """What all trials have in common."""
    settings = wish.options.settings
    if wish.taken.weights is not None:
        settings = replace(settings, init_from=str(wish.taken.weights))
    options = replace(wish.options, settings=settings)
    job = job_of(captured, wish.call, options, engine, folder)
    return replace(
        job, ablates=wish.ablates, generators=CarriedGenerators()
    )  # each trial has a seed of its own


def _check_seats(wish: Wish, background: bool) -> None:
    """Refuses a number of ranks that makes no world."""
    workers, each = wish.options.workers, checked_whole("workers_per_trial", wish.workers_per_trial, 1)
    if workers is None and (each > 1 or background):
        what = "background" if background else f"workers_per_trial={each}"
        raise UsageProblem(f"{what} without workers", "a number of workers", f"workers={max(each, 1)}")
    if workers is not None and workers < each:
        raise UsageProblem(
            f"workers={workers} with workers_per_trial={each}",
            "at least as many ranks as one trial takes",
            f"workers={each}",
        )


def _sessions_before(folder: rundir.StudyDir) -> tuple[float, float]:
    """(Unix time in seconds at which a study first began, seconds that its earlier sessions took)."""
    if not folder.manifest.is_file():
        return time.time(), 0.0
    before = json.loads(folder.manifest.read_text())
    ends = [record.ended_s for record in read(folder.rows)]
    ended_s = before.get("ended_s") or max(ends, default=before["header"]["started_s"])
    return before["began_s"], max(0.0, ended_s - before["header"]["started_s"])


def _remarks(wish: Wish) -> list[str]:
    workers, each = wish.options.workers, wish.workers_per_trial
    said = list(wish.remarks)
    if workers is not None and workers % each:
        said.append(f"{workers % each} of {workers} workers left over: a trial takes {each}")
    for what, source in wish.taken.lineage.items():
        of = f"trial {source['trial']} of {source['study']}" if source["study"] else source["run"]
        said.append(f"{what} from {of}")
    return said
