"""One run from its capture to its end, its options checked: captures, launches, shows."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from obl_magic import rundir
from obl_magic.capture import capture
from obl_magic.capture.distribution import refuse_own_distribution
from obl_magic.capture.function_source import read_cell
from obl_magic.capture.own_modules import namesakes, own_modules
from obl_magic.display.choose import current_cell, showing
from obl_magic.display.run.view import Display, NoDisplay
from obl_magic.errors import SetupProblem, UsageProblem
from obl_magic.events.event import Ended, Launched, Note
from obl_magic.hosts.places import Hosts
from obl_magic.launch import in_process
from obl_magic.launch.headroom import HEADROOM
from obl_magic.launch.interrupts import Presses, interrupts_held, interrupts_let_through
from obl_magic.launch.manifest import in_words, record_of
from obl_magic.launch.on_ranks import LaunchedRun
from obl_magic.options import RunOptions
from obl_magic.payload import files
from obl_magic.rundir.record import RunRecord
from obl_magic.runs.jobs import JOBS
from obl_magic.runs.leftovers import remove_leftovers
from obl_magic.runs.run import LIVE, Ledger, Run
from obl_magic.runs.tensorboard import Board, check_tensorboard
from obl_magic.setup import hosts as setup
from obl_magic.setup.doctor import choose_engine
from obl_magic.values import Captured, CarriedGenerators, CellSource, Inherited, Job, Settings
from obl_magic.worker.on_import import uses_keras


@dataclass(frozen=True, slots=True)
class Call:
    """One function with what it is called with.

    Attributes:
        fn: the function.
        args: arguments by name.
        provide: values for parameters without default.
        namespace: the notebook's names.
        cells: gives the cell behind a code object's file name.
        inherited: what it takes over from an earlier run.
    """

    fn: Callable[..., Any]
    args: dict[str, Any]
    provide: Mapping[str, Any] | None = None
    namespace: Mapping[str, Any] | None = None
    cells: Callable[[str], CellSource | None] = read_cell
    inherited: Inherited = field(default_factory=Inherited)

    @property
    def all_args(self) -> dict[str, Any]:
        """Arguments by name; those of an earlier run are the weaker ones."""
        return {**self.inherited.args, **self.args}

    def settings(self, options: RunOptions) -> Settings:
        """How the ranks make Keras oblivious in this call."""
        weights = self.inherited.weights
        return replace(options.settings, init_from="" if weights is None else str(weights))


def launch(
    call: Call,
    options: RunOptions,
    *,
    display: Display | None = None,
    earlier: Run | None = None,
    settings: Settings | None = None,
    says: str = "",
) -> Run:
    """Runs a call whose options are checked; see :func:`obl_magic.run`.

    Args:
        call: the function and what it is called with.
        options: how.
        display: where to show it; by default the notebook or the terminal.
        earlier: the run that it goes on from.
        settings: how the ranks make Keras oblivious; by default as the options say.
        says: what the user should know about the number of ranks, or "".

    Returns:
        The run; under way where ``options.background``.

    Raises:
        UsageProblem, SetupProblem, CannotTravel: before anything is started.
        KeyboardInterrupt: it was interrupted.
        BaseException: what the function raised.
    """
    __tracebackhide__ = True
    began = time.perf_counter()
    check_tensorboard(options.tensorboard)
    workers = options.workers
    captured = capture(
        call.fn,
        namespace=call.namespace,
        provide=call.provide,
        args=call.all_args,
        cells=call.cells,
        travels=workers is not None,
    )
    refuse_own_distribution(call.fn)
    arguments = in_words(call.all_args)  # may take long: before interrupts are held
    capture_s = time.perf_counter() - began
    engine, reason = engine_for(options)
    of_hosts = ready(captured, options, [options.placed] if options.placed else [])
    settings = replace(settings or call.settings(options), goes_on=earlier is not None)
    with interrupts_held() as interrupted:
        remove_leftovers()
        folder = rundir.create()
        notes = [] if earlier is None else _take_over(earlier, captured, folder)
        record = record_of(
            captured, options, settings, arguments, engine, reason, folder, capture_s, call.inherited.lineage
        )
        job = job_of(captured, call, options, settings, "alone" if workers is None else engine, folder.path)
        ledger = _begun(folder, captured, record)
        if options.tensorboard is not None:
            ledger.listen(Board(Path(options.tensorboard) / folder.id, call.all_args, ledger.note).take)
        ledger.add(Launched(-1, record.started_s, workers))
        if workers is not None:
            _keep_job(job, folder, ledger, interrupted)
        for text in notes:
            ledger.add(Note(-1, record.started_s, text, "resume"))
        if says:
            ledger.add(Note(-1, record.started_s, says, "workers"))
        for text in of_hosts:
            ledger.add(Note(-1, record.started_s, text, "hosts"))
        shown = NoDisplay() if options.quiet else display or showing()
        shown.begin(record)
        live = (
            None
            if workers is None
            else LaunchedRun(
                ledger, options, engine, shown, interrupted, imports=uses_keras(captured.payload)
            )
        )
        this = Run(ledger, record, live)
        this.shown_in = None if options.quiet else current_cell()
        if live is not None:
            LIVE[this.id] = this
            live.hold(this)
            live.start(shows=options.background)
            if options.background:
                return this
            live.show_until_done()
    if live is None:
        in_process.run(call.fn, job, captured, ledger, this, shown, bool(interrupted))
    elif this.error is not None:
        raise this.error
    elif interrupted:  # when the run was over; what else the cell does is to stop
        raise KeyboardInterrupt
    return this


def ready(captured: Captured, options: RunOptions, worlds: Sequence[Hosts]) -> list[str]:
    """Whether the ranks will find what they need where they are to be; what to say of it.

    Args:
        captured: the function.
        options: how it runs.
        worlds: where each world is, if not all here.

    Raises:
        SetupProblem: a host cannot be had, or is not like this one.
        UsageProblem: they would not fit into memory.
    """
    placed = options.placed
    if placed is None:
        if options.workers is not None:
            HEADROOM.check(captured, options.workers)
        return []
    answers, notes, _ = setup.KNOWN.ready(placed, [world.names[0] for world in worlds])
    for place, host in zip(placed.places, answers, strict=True):
        HEADROOM.check(captured, place.ranks, host.free_bytes, host.name)
    return notes


def engine_for(options: RunOptions) -> tuple[str, str]:
    """(engine, why this one); SetupProblem if it does not work here."""
    if options.workers is None:
        return "inline", ""
    choice = choose_engine(options.engine)
    return choice.engine, choice.reason


def job_of(
    captured: Captured, call: Call, options: RunOptions, settings: Settings, engine: str, folder: Path
) -> Job:
    """A call as the ranks get it.

    Args:
        captured: its function.
        call: its arguments.
        options: how it behaves.
        settings: how the ranks make Keras oblivious.
        engine: already decided.
        folder: of the run, or of the study whose trials differ in little.
    """
    return Job(
        name=captured.name, digest=captured.digest, source=captured.source, payload=captured.payload,
        args=call.all_args, sources=captured.sources, seed=options.base_seed, settings=settings, engine=engine,
        run_dir=str(folder), beat_s=_beat_s(options), stall_s=options.stall_timeout,
        path=tuple(str(Path(entry).absolute()) for entry in sys.path), namesakes=namesakes(),
        buffers=captured.buffers,
        library_settings=captured.library_settings,
        generators=CarriedGenerators() if options.seeded else captured.generators,
    )  # fmt: skip


def _begun(folder: rundir.RunDir, captured: Captured, record: RunRecord) -> Ledger:
    """Writes down what is about to run; a folder that does not take it is removed.

    Raises:
        SetupProblem: there is no room for it.
    """
    try:
        folder.write_bytes(folder.source, captured.source.encode())
        folder.write_json(folder.manifest, record.in_json)
        ledger = Ledger(folder)
        ledger.open()
    except SetupProblem:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise
    return ledger


def put_job(job: Job, folder: rundir.RunDir) -> None:
    """Writes a job where rank 0 reads it; its arrays are on disk then, from where the ranks take them.

    Args:
        job: of a run, or what the trials of a study share.
        folder: of the run, or of what they share.

    Raises:
        SetupProblem: there is no room for it.
    """
    files.save(job, folder, folder.job, own_modules())
    JOBS.keep(folder.id, folder.job)
    for buffer in job.buffers:
        buffer.release()


def _keep_job(job: Job, folder: rundir.RunDir, ledger: Ledger, interrupted: Presses) -> None:
    """Puts the job where rank 0 reads it.

    Raises:
        SetupProblem: there is no room for it. The run is then over, as failed.
        KeyboardInterrupt: the user did not want to wait for it. The run is then over, as interrupted.
    """
    try:
        with interrupts_let_through(interrupted):
            put_job(job, folder)
    except BaseException as error:
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        ledger.add(Ended(-1, time.time(), status, str(error) or status))
        ledger.close()
        folder.tidy()
        raise


def _take_over(earlier: Run, captured: Captured, folder: rundir.RunDir) -> list[str]:
    """Copies what an earlier run has kept; what to say of it.

    Raises:
        UsageProblem: it has kept nothing.
    """
    if not folder.take_checkpoints_of(rundir.RunDir.at(earlier.dir)):
        shutil.rmtree(folder.path)
        raise UsageProblem(
            f"resume={earlier.id} (a run that has kept no epoch)",
            "a run that was given retries, or that trained for longer than some seconds",
            "retries=1",
        )
    changed = "" if earlier.digest == captured.digest else "; the function has changed since"
    return [f"goes on from run {earlier.id}{changed}"]


def _beat_s(options: RunOptions) -> float:
    """Seconds between two heartbeats of a rank: several of them fit into the time it may stand still."""
    return min(1.0, (options.stall_timeout or math.inf) / 4)
