"""Searches and ablations as a user asks for them: every option is checked here. The magics only parse and call this."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from obl_magic.capture import parameters
from obl_magic.capture.function_source import read_cell
from obl_magic.chain import Inherited, Source, arguments_of, inherited
from obl_magic.conductor import Call
from obl_magic.display.studies import StudyDisplay
from obl_magic.errors import SetupProblem, UsageProblem
from obl_magic.options import PRUNERS, SAMPLERS
from obl_magic.payload.code_names import global_names
from obl_magic.plan.ablation import Ablation
from obl_magic.request import checked_args, checked_options, checked_settings, checked_verify, checked_whole
from obl_magic.specs import Asked as Component
from obl_magic.specs import Domain, parse_components, parse_space, text_of
from obl_magic.study.holding import under_way
from obl_magic.study.objective import Objective, checked_objective
from obl_magic.study.results import AblationResult, Study, open_results
from obl_magic.study_conductor import MakePlan, Wish, conduct, shared_job
from obl_magic.trust import refuse_foreign
from obl_magic.values import RESERVED, Captured, CellSource
from obl_magic.worker import execute
from obl_magic.worker.report import Reporter

TRIALS = 20
FUNCTIONS = {"feature": "dataset_fn", "layer": "model_fn", "model": "model_fn"}
"""From what which function returns a kind of component is taken."""


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
    sync_batchnorm: bool = True,
    verify: str = "auto",
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
        params, init_from, args, engine, batch, lr_scale, warmup_epochs, sync_batchnorm, verify, stall_timeout, quiet,
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
    from obl_magic.plan.search import Search

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
        checked_settings(batch, lr_scale, warmup_epochs, sync_batchnorm, checked_verify(verify, steps=False)[0]),
        keep_weights=keep_weights > 0, keep_weights_of=objective.quantity,
        keep_largest=objective.direction == "maximize",
    )  # fmt: skip
    seed = was.get("seed") if seed is None else seed
    options = checked_options(workers, engine, settings, seed, timeout, stall_timeout, 0, "0", quiet)
    taken, before = _taken_again(earlier, params, init_from, namespace, args or ())
    base = {**before, **taken.args, **checked_args(args)}
    _refuse_unknown(fn, domains)
    wish = Wish(
        call=Call(fn, base, provide, namespace, cells), objective=objective, options=options,
        workers_per_trial=workers_per_trial, taken=taken,
        out=out or (earlier._manifest["out"] if earlier else ""),
        told={"sampler": sampler, "pruner": pruner, "trials": trials, "seed": options.seed,
              "space": " ".join(text_of(domain) for domain in domains)},
        pieces=tuple(text_of(domain) for domain in domains), judges=pruner != "none", keep_weights=keep_weights,
        varied=tuple(domain.name for domain in domains),
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

    return conduct(Study, wish, plan, background, display, earlier)


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
    sync_batchnorm: bool = True,
    verify: str = "auto",
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
            verify, seed, timeout, stall_timeout, quiet, background, provide, namespace, cells, display, out: as for
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
    if repeats > 1 and find_spec("scipy") is None:
        raise SetupProblem("repeats are compared by SciPy, which is missing", "python -m pip install scipy")
    settings = checked_settings(
        batch, lr_scale, warmup_epochs, sync_batchnorm, checked_verify(verify, steps=False)[0]
    )
    options = checked_options(workers, engine, settings, seed, timeout, stall_timeout, 0, "0", quiet)
    taken = inherited(params, init_from, namespace)
    base = {**taken.args, **checked_args(args)}
    names = namespace if namespace is not None else getattr(fn, "__globals__", {})
    models = _other_models(asked, {**names, **dict(provide or {})})
    wish = Wish(
        call=Call(fn, base, provide, namespace, cells), objective=objective, options=options,
        workers_per_trial=workers_per_trial, taken=taken, out=out,
        told={"repeats": repeats, "seed": options.seed}, pieces=_as_written(asked),
        ablates=True, models=models, repeats=repeats,
    )  # fmt: skip

    def plan(captured: Captured) -> MakePlan:
        arguments = execute.arguments_for(
            captured.provided_values, shared_job(wish, captured, Path()), fn, _unheard()
        )
        seen = ablating.rehearse(fn, arguments, _needed(asked, fn, arguments))
        usual = arguments.get("model_fn", names.get("model_fn"))
        known = {**models, **({"model_fn": usual} if callable(usual) else {})}
        components = ablating.resolve(asked, seen, fn, known, skip=wish.passed_over)
        return lambda folder, worlds: Ablation(components, repeats, options.seed)

    return conduct(AblationResult, wish, plan, background, display)


def _unheard() -> Reporter:
    return Reporter(lambda event: None, 0)


def _as_written(asked: Sequence[Component]) -> tuple[str, ...]:
    """An ablation's spec, by kind."""
    kinds: dict[str, list[str]] = {}
    for each in asked:
        kinds.setdefault(each.kind, []).append(each.text)
    return tuple(f"{kind}s={','.join(texts)}" for kind, texts in kinds.items())


def _earlier(resume: str | None) -> Study | None:
    """The search to go on with."""
    if resume is None:
        return None
    found = open_results(resume)
    if not isinstance(found, Study):
        raise UsageProblem(f"resume={resume} (an ablation)", "a search", "run the ablation again")
    if found.status == "running":
        raise under_way(resume)
    refuse_foreign(found._folder.path, f"resume={resume}", f"copy it: cp -r {found._folder.path} COPY")
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
