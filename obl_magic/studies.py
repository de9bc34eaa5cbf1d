"""Conducts searches and ablations: checks, captures, plans, fills seats, shows. The magics only parse and call this."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import json
import shutil
import sys
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from obl_magic import rundir
from obl_magic.capture import capture, parameters
from obl_magic.capture.distribution import refuse_own_distribution
from obl_magic.capture.function_source import read_cell
from obl_magic.capture.own_modules import own_modules
from obl_magic.chain import Inherited, Source, arguments_of, inherited
from obl_magic.conductor import Call, beat_s
from obl_magic.display.base import Header
from obl_magic.display.studies import NoStudyDisplay, StudyDisplay, StudyHeader
from obl_magic.errors import RunTimedOut, UsageProblem
from obl_magic.interrupts import Presses, interrupts_held
from obl_magic.launched import wanted
from obl_magic.leftovers import remove_leftovers
from obl_magic.manifest import header_of, in_words, manifest_of
from obl_magic.payload import files
from obl_magic.payload.code_names import global_names
from obl_magic.plan.ablation import Ablation
from obl_magic.plan.base import Plan
from obl_magic.request import checked_options, checked_settings, checked_whole, engine_for
from obl_magic.runs import LIVE
from obl_magic.show import current_cell, keeps_worlds_ready, showing_study
from obl_magic.specs import Asked as Component
from obl_magic.specs import Domain, parse_components, parse_space, text_of
from obl_magic.study.driver import Asked, Driver
from obl_magic.study.objective import Objective, checked_objective
from obl_magic.study.record import Records, read
from obl_magic.study.results import AblationResult, Study, open_results
from obl_magic.study.seats import KernelSeat, Seat, in_worlds
from obl_magic.values import RESERVED, Captured, CellSource, Job, Options
from obl_magic.worker import execute
from obl_magic.worker.frameworks import uses_keras
from obl_magic.worker.report import Reporter
from obl_magic.world.standby import STANDBY

TRIALS = 20
SHOW_EVERY_S = 0.2
FUNCTIONS = {"feature": "dataset_fn", "layer": "model_fn", "model": "model_fn"}
"""From what which function returns a kind of component is taken."""

MakePlan = Callable[[rundir.StudyDir, int], Plan]
"""(the study's folder, trials at a time) -> which trials there are."""

_R = TypeVar("_R", Study, AblationResult)


def search(
    fn: Callable[..., Any],
    space: str | Mapping[str, Any] | None = None,
    *,
    trials: int | None = None,
    maximize: str | None = None,
    minimize: str | None = None,
    sampler: str | None = None,
    pruner: str | None = None,
    workers: int | None = None,
    workers_per_trial: int = 1,
    keep_weights: int = 1,
    resume: str | None = None,
    params: Source | None = None,
    init_from: Source | None = None,
    args: Mapping[str, Any] | None = None,
    engine: str = "auto",
    batch: str = "global",
    lr_scale: str = "none",
    warmup_epochs: int = 0,
    sync_batchnorm: bool = False,
    seed: int | None = None,
    timeout: float | None = None,
    stall_timeout: float | None = None,
    quiet: bool = False,
    background: bool = False,
    provide: Mapping[str, Any] | None = None,
    namespace: Mapping[str, Any] | None = None,
    cells: Callable[[str], CellSource | None] = read_cell,
    display: StudyDisplay | None = None,
    out: str = "",
) -> Study:
    """Searches the hyperparameters of an ordinary training function, unchanged.

    Trials are pulled: whichever world is free takes the next one; none waits for another. A trial that raises or
    dies is a failed row, and its world is replaced.

    Args:
        fn: the function; see :func:`obl_magic.run`.
        space: what varies: ``"lr=log(1e-4,1e-1) units=int(16,128) act=choice('relu','tanh')"``, or a mapping.
        trials: how many (default 20; those of the search that is resumed included).
        maximize, minimize: the quantity to compare, one of them: a key of the returned dict, a reported metric's last
            value, or ``value`` for a function that returns a bare number.
        sampler: ``tpe`` (default), ``random``, ``grid``, ``cmaes``, ``gp`` or ``nsga2``; Optuna's.
        pruner: ``none`` (default), ``median``, ``asha`` or ``hyperband``; Optuna's.
        workers: ranks of all trials together; None: one trial after another in this process.
        workers_per_trial: ranks of one trial. keep_weights: of how many trials, the best, weights are kept.
        resume: an earlier search, by its id or its ``out``: go on with it; what is not said is as it was there.
        params, init_from, args, engine, batch, lr_scale, warmup_epochs, sync_batchnorm, stall_timeout, quiet,
            provide, namespace, cells: as for :func:`obl_magic.run`, for each trial.
        seed: base seed of the search; a trial's is ``seed + number``.
        timeout: deadline for the whole search in seconds. background: return at once with a live study.
        display: where to show it. out: the name it is known by later, beside its id.

    Returns:
        The study: ``.trials``, ``.best``, ``.optuna``.

    Raises:
        UsageProblem, SetupProblem, CannotTravel: before anything is started; or the quantity is not to be found.
        KeyboardInterrupt: it was interrupted; finished trials are kept (``error.study``), no process is left.
    """
    __tracebackhide__ = True
    from obl_magic.plan.search import PRUNERS, SAMPLERS, Search

    earlier = _earlier(resume)
    was: dict[str, Any] = earlier._manifest["asked"] if earlier else {}
    space = was.get("space") if space is None else space
    if maximize is None and minimize is None and earlier is not None:
        maximize, minimize = (
            (earlier.quantity, None) if earlier.direction == "maximize" else (None, earlier.quantity)
        )
    objective = checked_objective(maximize, minimize)
    _refuse_another_quantity(objective, earlier)
    if space is None:
        raise UsageProblem(
            "a search without a space", "what varies", '--search "lr=log(1e-4,1e-1)" --trials 20'
        )
    domains = parse_space(space)
    sampler = _one_of("sampler", sampler or was.get("sampler") or "tpe", SAMPLERS)
    pruner = _one_of("pruner", pruner or was.get("pruner") or "none", PRUNERS)
    trials = checked_whole("trials", was.get("trials", TRIALS) if trials is None else trials, 1)
    keep_weights = checked_whole("keep_weights", keep_weights, 0)
    settings = replace(
        checked_settings(batch, lr_scale, warmup_epochs, sync_batchnorm),
        keep_weights=keep_weights > 0, keep_weights_of=objective.quantity,
        keep_largest=objective.direction == "maximize",
    )  # fmt: skip
    seed = was.get("seed") if seed is None else seed
    options = checked_options(workers, engine, settings, seed, timeout, stall_timeout, 0, "0", quiet)
    taken, before = _taken_again(earlier, params, init_from, namespace, args or ())
    base = {**before, **taken.args, **dict(args or {})}
    _refuse_unknown(fn, domains)
    wish = _Wish(
        call=Call(fn, base, provide, namespace, cells), objective=objective, options=options,
        workers_per_trial=workers_per_trial, taken=taken, wanted=trials,
        out=out or (earlier._manifest["out"] if earlier else ""),
        told={"sampler": sampler, "pruner": pruner, "trials": trials, "seed": options.seed,
              "space": " ".join(text_of(domain) for domain in domains)},
        pieces=tuple(text_of(domain) for domain in domains), judges=pruner != "none", keep_weights=keep_weights,
    )  # fmt: skip

    def plan(captured: Captured) -> MakePlan:
        if earlier is not None and earlier.digest != captured.digest:
            wish.remarks.append(
                f"the function is not that of the earlier trials (sha256 {earlier.digest[:12]})"
            )
        return lambda folder, worlds: Search(
            domains, trials=trials, direction=objective.direction, sampler=sampler, pruner=pruner,
            seed=options.seed, journal=folder.journal, study_name=folder.id, at_once=worlds,
        )  # fmt: skip

    return _conduct(Study, wish, plan, background, display, earlier)


def ablate(
    fn: Callable[..., Any],
    study: str | Mapping[str, Any],
    *,
    maximize: str | None = None,
    minimize: str | None = None,
    repeats: int = 1,
    workers: int | None = None,
    workers_per_trial: int = 1,
    params: Source | None = None,
    init_from: Source | None = None,
    args: Mapping[str, Any] | None = None,
    engine: str = "auto",
    batch: str = "global",
    lr_scale: str = "none",
    warmup_epochs: int = 0,
    sync_batchnorm: bool = False,
    seed: int | None = None,
    timeout: float | None = None,
    stall_timeout: float | None = None,
    quiet: bool = False,
    background: bool = False,
    provide: Mapping[str, Any] | None = None,
    namespace: Mapping[str, Any] | None = None,
    cells: Callable[[str], CellSource | None] = read_cell,
    display: StudyDisplay | None = None,
    out: str = "",
) -> AblationResult:
    """Measures what parts of a training function are worth, by leaving out one at a time; the function is unchanged.

    Features are taken from what ``dataset_fn`` returns, layers from what ``model_fn`` returns: the functions of these
    names that the training function calls. What is to be left out is tried first, in this process, on what they
    return: an unknown name, a layer that cannot be removed, and what would change nothing are refused before
    anything runs.

    Args:
        fn: the function; see :func:`obl_magic.run`.
        study: what to leave out: ``"features=age,sex layers=conv2,dropout groups=block1_*"``, or a mapping; further
            kinds are ``models`` (other functions in place of ``model_fn``) and ``flags`` (parameters to be toggled).
        maximize, minimize: the quantity to compare, as for :func:`search`.
        repeats: how often each run is made, with other seeds.
        workers, workers_per_trial, params, init_from, args, engine, batch, lr_scale, warmup_epochs, sync_batchnorm,
            seed, timeout, stall_timeout, quiet, background, provide, namespace, cells, display, out: as for
            :func:`search`.

    Returns:
        The result: ``.table``, and a chart of the differences.

    Raises:
        UsageProblem, SetupProblem, CannotTravel: before anything is started.
        KeyboardInterrupt: it was interrupted; finished runs are kept (``error.study``), no process is left.
    """
    __tracebackhide__ = True
    from obl_magic.worker import ablating

    objective = checked_objective(maximize, minimize)
    asked = parse_components(study)
    repeats = checked_whole("repeats", repeats, 1)
    settings = checked_settings(batch, lr_scale, warmup_epochs, sync_batchnorm)
    options = checked_options(workers, engine, settings, seed, timeout, stall_timeout, 0, "0", quiet)
    taken = inherited(params, init_from, namespace)
    base = {**taken.args, **dict(args or {})}
    names = namespace if namespace is not None else getattr(fn, "__globals__", {})
    models = _other_models(asked, {**names, **dict(provide or {})})
    wish = _Wish(
        call=Call(fn, base, provide, namespace, cells), objective=objective, options=options,
        workers_per_trial=workers_per_trial, taken=taken, out=out,
        told={"repeats": repeats, "seed": options.seed}, pieces=_as_written(asked),
        ablates=True, models=models, repeats=repeats,
    )  # fmt: skip

    def plan(captured: Captured) -> MakePlan:
        arguments = execute.arguments_for(
            captured.provided_values, _job(wish, captured, Path()), fn, _unheard()
        )
        seen = ablating.rehearse(fn, arguments, _needed(asked, fn, arguments))
        usual = arguments.get("model_fn", names.get("model_fn"))
        known = {**models, **({"model_fn": usual} if callable(usual) else {})}
        components = ablating.resolve(asked, seen, fn, known, skip=wish.passed_over)
        return lambda folder, worlds: Ablation(components, repeats, options.seed)

    return _conduct(AblationResult, wish, plan, background, display)


@dataclass(frozen=True, slots=True)
class _Wish:
    """A study whose every option is checked.

    Attributes:
        call: the function, and what all trials are called with. objective: what is compared. options: of each trial.
        workers_per_trial: ranks of each. taken: from earlier runs. out: its name. wanted: trials, or None.
        told: what is recorded of the wish. pieces: of the spec, as the user would write them.
        judges: values on the way decide. keep_weights: of how many trials. ablates: it is an ablation study.
        models: functions that may stand in for ``model_fn``. repeats: of each run.
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
    wanted: int | None = None
    judges: bool = False
    keep_weights: int = 0
    ablates: bool = False
    models: Mapping[str, Callable[..., Any]] = field(default_factory=dict)
    repeats: int = 1
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


def _conduct(
    kind: type[_R],
    wish: _Wish,
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
        call.fn, namespace=call.namespace, provide=call.provide, args=call.args, cells=call.cells,
        travels=options.workers is not None, also=wish.models,
    )  # fmt: skip
    refuse_own_distribution(call.fn)
    make = plan(captured)
    capture_s = time.perf_counter() - began
    chosen, reason = ("inline", "") if options.workers is None else engine_for(options)
    with interrupts_held() as stopping:
        remove_leftovers()
        folder = earlier._folder if earlier else rundir.create_study()
        try:
            driver, study = _prepared(
                kind, wish, captured, make, folder, (chosen, reason), capture_s, stopping
            )
        except BaseException:
            if earlier is None:
                shutil.rmtree(folder.path, ignore_errors=True)
            raise
        shown = NoStudyDisplay() if options.quiet else display or showing_study()
        study._shown_in = None if options.quiet else current_cell()
        shown.begin(study._header)
        if background:
            LIVE[study.id] = study  # type: ignore[assignment]
            driver.start()
            threading.Thread(
                target=_see_to_its_end, args=(driver, study, shown, stopping), daemon=True
            ).start()
            return study
        if options.workers is not None:
            driver.start()
            error = _see_to_its_end(driver, study, shown, stopping)
            if error is None and keeps_worlds_ready() and STANDBY.allowed:
                STANDBY.prepare(wanted(options.workers, chosen))
    if options.workers is None:
        error = _in_this_process(driver, study, shown, stopping)
    if error is not None:
        error.study = study  # type: ignore[attr-defined]
        raise error
    return study


def _prepared(
    kind: type[_R],
    wish: _Wish,
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
    job = _job(wish, captured, folder.path, "alone" if alone else engine)
    about: Header = header_of(captured, trial_options, engine, reason, folder.shared)
    manifest = manifest_of(captured, trial_options, in_words(job.args), about, capture_s)
    if options.workers is not None:
        files.save(job, folder.shared, folder.shared.job, own_modules())
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
    deadline_s = None if options.timeout_s is None else time.monotonic() + options.timeout_s
    driver = Driver(asked, plan, seats, records, stopping, deadline_s)
    return driver, kind(folder, whole, records, driver, stopping.press)


def _see_to_its_end(
    driver: Driver, study: Study | AblationResult, shown: StudyDisplay, stopping: Presses
) -> BaseException | None:
    """Shows a study in worlds until it has ended; what is to be raised."""
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
            _show(study, shown)

    showing = threading.Thread(target=show, name="obl-show", daemon=True)
    showing.start()
    try:
        with contextlib.suppress(KeyboardInterrupt):  # the driver has counted it
            driver.work(0)
    finally:
        over.set()
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
    shown.end(study._shown())
    return error


def _job(wish: _Wish, captured: Captured, folder: Path, engine: str = "alone") -> Job:
    """What all trials have in common."""
    settings = wish.options.settings
    if wish.taken.weights is not None:
        settings = replace(settings, init_from=str(wish.taken.weights))
    return Job(
        name=captured.name, digest=captured.digest, source=captured.source, payload=captured.payload,
        args=wish.call.args, sources=captured.sources, seed=wish.options.seed, settings=settings, engine=engine,
        run_dir=str(folder), beat_s=beat_s(wish.options),
        path=tuple(str(Path(entry).absolute()) for entry in sys.path), buffers=captured.buffers,
        ablates=wish.ablates,
    )  # fmt: skip


def _unheard() -> Reporter:
    return Reporter(lambda event: None, 0)


def _check_seats(wish: _Wish, background: bool) -> None:
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


def _as_written(asked: Sequence[Component]) -> tuple[str, ...]:
    """An ablation's spec, by kind."""
    kinds: dict[str, list[str]] = {}
    for each in asked:
        kinds.setdefault(each.kind, []).append(each.text)
    return tuple(f"{kind}s={','.join(texts)}" for kind, texts in kinds.items())


def _remarks(wish: _Wish) -> list[str]:
    workers, each = wish.options.workers, wish.workers_per_trial
    said = list(wish.remarks)
    if workers is not None and workers % each:
        said.append(f"{workers % each} of {workers} workers left over: a trial takes {each}")
    for what, source in wish.taken.lineage.items():
        of = f"trial {source['trial']} of {source['study']}" if source["study"] else source["run"]
        said.append(f"{what} from {of}")
    return said


def _earlier(resume: str | None) -> Study | None:
    """The search to go on with."""
    if resume is None:
        return None
    found = open_results(resume)
    if not isinstance(found, Study):
        raise UsageProblem(f"resume={resume} (an ablation)", "a search", "run the ablation again")
    if found.status == "running":
        raise UsageProblem(
            f"resume={resume}, which is under way", "a search that has ended", "%oblivious stop"
        )
    return found


def _taken_again(
    earlier: Study | None, params: Source | None, init_from: Source | None, namespace: Mapping[str, Any] | None,
    given: Collection[str],
) -> tuple[Inherited, dict[str, Any]]:  # fmt: skip
    """What is taken from earlier runs, and the arguments of the search that goes on: as before, if nothing is said."""
    if earlier is None:
        return inherited(params, init_from, namespace), {}
    lineage: dict[str, dict[str, Any]] = earlier._manifest.get("lineage") or {}
    if init_from is None and "weights" in lineage:
        init_from = lineage["weights"]["run"]
    taken = inherited(params, init_from, namespace)
    before = arguments_of(earlier.id, earlier._manifest, given)
    return replace(taken, lineage={**lineage, **taken.lineage}), before


def _refuse_another_quantity(objective: Objective, earlier: Study | None) -> None:
    """Values of two quantities cannot be compared."""
    if earlier is not None and objective.quantity != earlier.quantity:
        raise UsageProblem(
            f"--{objective.direction} {objective.quantity}",
            f"{earlier.quantity}, with which this search began",
            f"--{earlier.direction} {earlier.quantity}, or search anew",
        )


def _one_of(what: str, name: str, names: Sequence[str]) -> str:
    if name not in names:
        raise UsageProblem(f"{what} {name!r}", f"one of {', '.join(names)}", f"--{what} {names[0]}")
    return name


def _refuse_unknown(fn: Callable[..., Any], domains: Sequence[Domain]) -> None:
    """Each thing that varies must be a parameter."""
    defaults, needed = parameters(fn)
    signature = inspect.signature(fn).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in signature):
        return
    known = [name for name in (*defaults, *needed) if name not in RESERVED]
    for domain in domains:
        if domain.name not in known:
            close = difflib.get_close_matches(domain.name, known, n=1) or known[:1]
            raise UsageProblem(
                f"{domain.name} in the space, which {fn.__name__} does not take",
                f"one of its parameters: {', '.join(known)}" if known else "a function with parameters",
                text_of(replace(domain, name=close[0])) if close else f"def {fn.__name__}({domain.name}=...)",
            )


def _other_models(asked: Sequence[Component], names: Mapping[str, Any]) -> dict[str, Callable[..., Any]]:
    """The functions that stand in for ``model_fn``, by name.

    Raises:
        UsageProblem: there is none of that name.
    """
    found = {}
    for name in (member for each in asked if each.kind == "model" for member in each.members):
        if not callable(names.get(name)):
            known = [each for each, value in names.items() if inspect.isfunction(value) and "model" in each]
            close = difflib.get_close_matches(name, known, n=1) or known[:1] or ["small_model"]
            raise UsageProblem(
                f"models={name}, which is no function of this notebook",
                f"one of {', '.join(known)}" if known else "a function that makes another model",
                f"models={close[0]}",
            )
        found[name] = names[name]
    return found


def _needed(asked: Sequence[Component], fn: Callable[..., Any], arguments: Mapping[str, Any]) -> set[str]:
    """Which of ``dataset_fn`` and ``model_fn`` must be looked at.

    Raises:
        UsageProblem: the function does not use the one that is needed.
    """
    names = getattr(fn, "__globals__", {})
    reach = {name for name in FUNCTIONS.values() if name in arguments or name in names}
    needed = set()
    for each in asked:
        name = FUNCTIONS.get(each.kind)
        if each.kind == "group":  # of layers or of features, which only both can tell
            needed |= {name for name in reach if name in arguments or name in _names_used(fn)} or reach
        if name is None:
            continue
        if name not in reach:
            raise UsageProblem(
                f"{each.kind} {each.text}, where {fn.__name__} uses no {name}",
                f"a training function that gets its {'data' if name == 'dataset_fn' else 'model'} from {name}()",
                f"def {fn.__name__}({name}, ...): ... {name}() ...",
            )
        needed.add(name)
    return needed


def _names_used(fn: Callable[..., Any]) -> set[str]:
    """The names outside it that a function uses, and the functions of the same notebook that it reaches."""
    names: Mapping[str, Any] = getattr(fn, "__globals__", {})
    used: set[str] = set()
    waiting: list[Any] = [fn]
    while waiting:
        code = getattr(waiting.pop(), "__code__", None)
        new = set() if code is None else {*global_names(code), *code.co_freevars} - used
        used |= new
        waiting += [names[name] for name in new if callable(names.get(name))]
    return used
