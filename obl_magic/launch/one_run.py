"""Conducts one run: checks the request, captures, launches, shows, ends. The magics only parse and call this."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from obl_magic import inline, rundir
from obl_magic.capture import capture
from obl_magic.capture.distribution import refuse_own_distribution
from obl_magic.capture.function_source import read_cell
from obl_magic.capture.own_modules import namesakes, own_modules
from obl_magic.chain import Source, inherited
from obl_magic.display.base import Display, NoDisplay
from obl_magic.errors import SetupProblem, UsageProblem
from obl_magic.events.event import Ended, Launched, Note
from obl_magic.interrupts import Presses, interrupts_held, interrupts_let_through
from obl_magic.jobs import JOBS
from obl_magic.launched import LaunchedRun
from obl_magic.leftovers import remove_leftovers
from obl_magic.manifest import header_of, in_words, manifest_of
from obl_magic.parity import ParityReport, report_of
from obl_magic.payload import files
from obl_magic.request import (
    VERIFY_STEPS,
    checked_args,
    checked_options,
    checked_settings,
    checked_verify,
    engine_for,
)
from obl_magic.room import ROOM
from obl_magic.runs import LIVE, Ledger, Run
from obl_magic.show import current_cell, keeps_worlds_ready, show_table, showing
from obl_magic.trust import refuse_foreign
from obl_magic.values import Captured, CarriedGenerators, CellSource, Job, Options


def run(
    fn: Callable[..., Any],
    *,
    workers: int | None = None,
    args: Mapping[str, Any] | None = None,
    engine: str = "auto",
    batch: str = "global",
    lr_scale: str = "none",
    warmup_epochs: int = 0,
    sync_batchnorm: bool = True,
    verify: str | int | bool = "auto",
    seed: int | None = None,
    timeout: float | None = None,
    stall_timeout: float | None = None,
    retries: int = 0,
    resume: str | None = None,
    params: Source | None = None,
    init_from: Source | None = None,
    show_ranks: str | Sequence[int] = "0",
    quiet: bool = False,
    background: bool = False,
    provide: Mapping[str, Any] | None = None,
    namespace: Mapping[str, Any] | None = None,
    cells: Callable[[str], CellSource | None] = read_cell,
    display: Display | None = None,
) -> Run:
    """Runs an ordinary training function, unchanged, data-parallel on ``workers`` ranks (or here, in this process).

    Args:
        fn: the function. Its parameters without default are filled by name from ``provide``, ``namespace`` or its
            own globals; ``reporter`` and ``hparams`` are reserved.
        workers: number of MPI ranks; None calls it in this process with the same reporting.
        args: arguments by name.
        engine: ``auto``, ``horovod`` or ``mpi``.
        batch: ``global``: the batch size in the code is the whole world's, so that 1 and N ranks compute the same.
            ``per-worker``: each rank takes that many, so the global batch grows with the world.
        lr_scale: with per-worker batches, the learning rate times the world's size (``linear``), its square root
            (``sqrt``) or nothing (``none``); Goyal et al., 2017.
        warmup_epochs: epochs over which the scaled rate is reached.
        sync_batchnorm: batch normalisation takes its moments over the global batch, as one process does; False: each
            rank over its own rows, which is said.
        verify: ``auto``: steps that contain code of the user's prove themselves at their calls 1, 2, 4, 8, …; ``off``:
            they don't. A number: before training, compare that many steps (True: 3) on one rank and on ``workers``
            too, and refuse to go on when they differ. See :func:`obl_magic.verify`.
        seed: base seed of every random number; recorded in the run in any case.
        timeout: deadline for the whole run in seconds.
        stall_timeout: seconds without progress (no step, no number, no rank that comes up or returns) after which
            the run is ended, with the rank that holds it up and its line; without it, such a world is named in a
            note and goes on.
        retries: how often a failed world is replaced by a new one, which goes on from the last completed epoch of
            the Keras fit that was under way; the function stays as it is.
        resume: id of an earlier run that did not come to its end: go on from the last epoch that it has kept.
        params: where hyperparameters come from: ``"best"`` (of the newest search), a search or a run, or the name or
            id of one; ``args`` go before. init_from: where initial weights come from, likewise.
        show_ranks: whose prints appear live: ``"0"``, ``"all"``, or rank numbers. All are kept on disk.
        quiet: show nothing.
        background: return at once with a live run.
        provide: values for parameters without default.
        namespace: the notebook's names. cells: gives the cell behind a code object's file name.
        display: where to show it; by default the notebook or the terminal.

    Returns:
        The run, with its value, metrics and folder.

    Raises:
        UsageProblem, SetupProblem, CannotTravel: before anything is started.
        KeyboardInterrupt: it was interrupted; no process is left.
        BaseException: what the function raised on a rank, with the rank's traceback attached and ``.run`` set.
    """
    __tracebackhide__ = True
    prove, compared_steps = checked_verify(verify)
    settings = checked_settings(batch, lr_scale, warmup_epochs, sync_batchnorm, prove)
    options = checked_options(
        workers, engine, settings, seed, timeout, stall_timeout, retries, show_ranks, quiet
    )
    if background and workers is None:
        raise UsageProblem("background without workers", "a number of workers", "workers=1")
    taken = inherited(params, init_from, namespace)
    call = Call(fn, {**taken.args, **checked_args(args)}, provide, namespace, cells)
    if taken.weights is not None:
        options = replace(options, settings=replace(options.settings, init_from=str(taken.weights)))
    earlier = None if resume is None else Run.open(resume)
    if earlier is not None:
        refuse_foreign(earlier.dir, f"resume={resume}", f"copy it: cp -r {earlier.dir} COPY")
    if compared_steps:
        report = compare(call, options, compared_steps)
        if not quiet:
            show_table(report.text(), report.html())
        report.check()
    return launch(
        call, options, background=background, display=display, earlier=earlier, lineage=taken.lineage
    )


@dataclass(frozen=True, slots=True)
class Call:
    """One function with what it is called with.

    Attributes:
        fn: the function. args: arguments by name. provide: values for parameters without default.
        namespace: the notebook's names. cells: gives the cell behind a code object's file name.
    """

    fn: Callable[..., Any]
    args: dict[str, Any]
    provide: Mapping[str, Any] | None = None
    namespace: Mapping[str, Any] | None = None
    cells: Callable[[str], CellSource | None] = read_cell


def launch(
    call: Call,
    options: Options,
    *,
    background: bool = False,
    display: Display | None = None,
    earlier: Run | None = None,
    lineage: Mapping[str, Any] | None = None,
    stand_by: bool = True,
) -> Run:
    """Runs a call whose options are checked; see :func:`run`.

    ``earlier`` is the run that it goes on from, ``lineage`` where its parameters and weights come from; afterwards
    a world like its own may stand by.
    """
    __tracebackhide__ = True
    began = time.perf_counter()
    workers = options.workers
    captured = capture(
        call.fn,
        namespace=call.namespace,
        provide=call.provide,
        args=call.args,
        cells=call.cells,
        travels=workers is not None,
    )
    refuse_own_distribution(call.fn)
    arguments = in_words(call.args)  # may take long: before interrupts are held
    capture_s = time.perf_counter() - began
    chosen, reason = ("inline", "") if workers is None else engine_for(options)
    if workers is not None:
        ROOM.check(captured, workers)
    with interrupts_held() as interrupted:
        remove_leftovers()
        folder = rundir.create()
        notes = [] if earlier is None else _take_over(earlier, captured, folder)
        header = header_of(captured, options, arguments, chosen, reason, folder)
        settings = replace(options.settings, goes_on=earlier is not None, keep_each_epoch=options.retries > 0)
        engine = "alone" if workers is None else chosen
        job = job_of(captured, call, replace(options, settings=settings), engine, folder.path)
        manifest = manifest_of(captured, options, arguments, header, capture_s)
        manifest["lineage"] = dict(lineage or {})
        ledger = _begun(folder, captured, manifest)
        ledger.add(Launched(-1, header.started_s, workers))
        if workers is not None:
            _write_down(job, folder, ledger, interrupted)
        for text in notes:
            ledger.add(Note(-1, header.started_s, text, "resume"))
        shown = NoDisplay() if options.quiet else display or showing()
        shown.begin(header)
        live = (
            None
            if workers is None
            else LaunchedRun(
                ledger, options, chosen, shown, interrupted, stand_by=stand_by and keeps_worlds_ready()
            )
        )
        this = Run(ledger, manifest, live)
        this._shown_in = None if options.quiet else current_cell()
        if live is not None:
            LIVE[this.id] = this
            live.hold(this)
            live.start(shows=background)
            if background:
                return this
            live.show_until_done()
    if live is None:
        inline.run(call.fn, job, captured, ledger, this, shown, bool(interrupted))
    elif this.error is not None:
        raise this.error
    elif interrupted:  # when the run was over; what else the cell does is to stop
        raise KeyboardInterrupt
    return this


def job_of(captured: Captured, call: Call, options: Options, engine: str, folder: Path) -> Job:
    """A call as the ranks get it.

    Args:
        captured: its function. call: its arguments. options: how it behaves. engine: already decided.
        folder: of the run, or of the study whose trials differ in little.
    """
    return Job(
        name=captured.name, digest=captured.digest, source=captured.source, payload=captured.payload,
        args=call.args, sources=captured.sources, seed=options.seed, settings=options.settings, engine=engine,
        run_dir=str(folder), beat_s=_beat_s(options),
        path=tuple(str(Path(entry).absolute()) for entry in sys.path), namesakes=namesakes(),
        buffers=captured.buffers,
        library_settings=captured.library_settings,
        generators=CarriedGenerators() if options.seeded else captured.generators,
    )  # fmt: skip


def _begun(folder: rundir.RunDir, captured: Captured, manifest: Mapping[str, Any]) -> Ledger:
    """Writes down what is about to run; a folder that does not take it is removed.

    Raises:
        SetupProblem: there is no room for it.
    """
    try:
        folder.write_bytes(folder.source, captured.source.encode())
        folder.write_json(folder.manifest, manifest)
        ledger = Ledger(folder)
        ledger.open()
    except SetupProblem:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise
    return ledger


def _write_down(job: Job, folder: rundir.RunDir, ledger: Ledger, interrupted: Presses) -> None:
    """Puts the job where rank 0 reads it.

    Raises:
        SetupProblem: there is no room for it. The run is then over, as failed.
        KeyboardInterrupt: the user did not want to wait for it. The run is then over, as interrupted.
    """
    try:
        with interrupts_let_through(interrupted):
            files.save(job, folder, folder.job, own_modules())
        JOBS.keep(folder.id, folder.job)
    except BaseException as error:
        status = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        ledger.add(Ended(-1, time.time(), status, str(error) or status))
        ledger.close()
        folder.tidy()
        raise
    for buffer in job.buffers:  # on disk now, from where the ranks take them
        buffer.release()


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


def _beat_s(options: Options) -> float:
    """Seconds between two heartbeats of a rank: several of them fit into the time it may stand still."""
    return min(1.0, (options.stall_timeout_s or math.inf) / 4)


def verify(
    fn: Callable[..., Any],
    *,
    workers: int,
    steps: int = VERIFY_STEPS,
    args: Mapping[str, Any] | None = None,
    engine: str = "auto",
    sync_batchnorm: bool = True,
    seed: int | None = None,
    provide: Mapping[str, Any] | None = None,
    namespace: Mapping[str, Any] | None = None,
) -> ParityReport:
    """Runs the first steps of a function on one rank and on ``workers``, and compares what they give.

    Args:
        fn: the training function; it is stopped after ``steps`` steps of its fits.
        workers: ranks to compare with one. steps: optimizer steps to compare.
        args, engine, sync_batchnorm, seed, provide, namespace: as for :func:`run`.

    Returns:
        The report: per quantity the largest difference and where it is. ``report.ok`` says whether all is within
        tolerance, ``report.check()`` raises NotTheSame if not.
    """
    options = checked_options(
        workers, engine, checked_settings("global", "none", 0, sync_batchnorm), seed, None, None, 0, "0", True
    )
    return compare(Call(fn, checked_args(args), provide, namespace), options, steps)


def compare(call: Call, options: Options, steps: int) -> ParityReport:
    """The parity report of a call; see :func:`verify`."""
    if options.workers is None or options.settings.batch != "global":
        raise UsageProblem(
            "verify without workers or with per-worker batches", "workers and the global batch", "-w 2"
        )
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise UsageProblem(f"verify={steps!r}", "a number of steps, 1 or more", "--verify 3")
    limited = replace(options.settings, stop_after=steps)
    one = replace(options, workers=1, settings=limited, quiet=True, show_ranks=(0,))
    single = launch(call, one, stand_by=options.workers == 1)
    several = launch(call, replace(options, settings=limited, quiet=True))
    return report_of(single.value, several.value, options.workers, options.settings.sync_batchnorm)
