"""Searches and ablations as a user asks for them: every option is checked here. The magics only parse and call this."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from obl_magic.api.lineage import arguments_of, inherited
from obl_magic.api.request import checked, checked_args
from obl_magic.api.signatures import takes_options
from obl_magic.capture import parameters
from obl_magic.capture.function_source import read_cell
from obl_magic.display.study.view import StudyDisplay
from obl_magic.errors import SetupProblem, UsageProblem
from obl_magic.launch.one_run import Call
from obl_magic.options import ABLATE, SEARCH, StudyOptions
from obl_magic.payload.code_names import global_names
from obl_magic.rundir.trust import refuse_foreign
from obl_magic.specs import Asked as Component
from obl_magic.specs import Domain, parse_components, parse_space, text_of
from obl_magic.study.ablation_result import AblationResult
from obl_magic.study.conductor import MakePlan, Wish, conduct, shared_job
from obl_magic.study.find import open_results
from obl_magic.study.holding import under_way
from obl_magic.study.objective import Objective, checked_objective
from obl_magic.study.plan.ablation import Ablation
from obl_magic.study.search_result import Study
from obl_magic.values import RESERVED, Captured, CellSource, Inherited
from obl_magic.worker import execute
from obl_magic.worker.ablation import apply
from obl_magic.worker.report import Reporter

TRIALS = 20
FUNCTIONS = {"feature": "dataset_fn", "layer": "model_fn", "model": "model_fn"}
"""From what which function returns a kind of component is taken."""


@takes_options(SEARCH)
def search(
    fn: Callable[..., Any],
    space: str | Mapping[str, Any] | None = None,
    *,
    args: Mapping[str, Any] | None = None,
    provide: Mapping[str, Any] | None = None,
    namespace: Mapping[str, Any] | None = None,
    cells: Callable[[str], CellSource | None] = read_cell,
    display: StudyDisplay | None = None,
    out: str = "",
    **options: Any,
) -> Study:
    """Searches the hyperparameters of an ordinary training function, unchanged.

    Trials are pulled: whichever world is free takes the next one; none waits for another. A trial that raises or
    dies is a failed row, and its world is replaced.

    Args:
        fn: the function; see :func:`obl_magic.run`.
        space: what varies: ``"lr=log(1e-4,1e-1) units=int(16,128) act=choice('relu','tanh')"``, or a mapping.
        args: arguments by name that all trials share.
        provide: values for parameters without default.
        namespace: the notebook's names.
        cells: gives the cell behind a code object's file name.
        display: where to show it; by default the notebook or the terminal.
        out: the name it is known by later, beside its id.
        **options: see :mod:`obl_magic.options`.

    Returns:
        The study: ``.trials``, ``.best``, ``.optuna``.

    Raises:
        UsageProblem, SetupProblem, CannotTravel: before anything is started; or the quantity is not to be found.
        KeyboardInterrupt: it was interrupted; finished trials are kept (``error.study``), no process is left.
    """
    __tracebackhide__ = True
    from obl_magic.study.plan.search import Search  # it needs Optuna

    earlier = _earlier(options.get("resume"))
    asked = checked(StudyOptions, SEARCH, {**options, **_as_before(earlier, options)})
    objective = checked_objective(asked.maximize, asked.minimize)
    _refuse_another_quantity(objective, earlier)
    space = earlier.record.asked.get("space") if space is None and earlier else space
    if space is None:
        raise UsageProblem(
            "a search without a space", "what varies", '--search "lr=log(1e-4,1e-1)" --trials 20'
        )
    domains = parse_space(space)
    _refuse_unknown(fn, domains)
    taken = _taken_again(earlier, asked, namespace, args or ())
    sampler, pruner, trials = asked.sampler or "tpe", asked.pruner or "none", asked.trials or TRIALS
    pieces = tuple(text_of(domain) for domain in domains)
    wish = Wish(
        call=Call(fn, checked_args(args), provide, namespace, cells, taken), objective=objective, options=asked,
        out=out or (earlier.record.out if earlier else ""),
        told={
            "sampler": sampler, "pruner": pruner, "trials": trials, "seed": asked.base_seed, "space": " ".join(pieces)
        },
        pieces=pieces, judges=pruner != "none", keep_weights=asked.keep_weights,
        varied=tuple(domain.name for domain in domains),
    )  # fmt: skip

    def plan(captured: Captured) -> MakePlan:
        if earlier is not None and earlier.digest != captured.digest:
            wish.remarks.append(
                f"the function is not that of the earlier trials (sha256 {earlier.digest[:12]})"
            )
        return lambda folder, worlds: Search(
            domains, trials=trials, direction=objective.direction, sampler=sampler, pruner=pruner,
            seed=asked.base_seed, journal=folder.journal, study_name=folder.id, at_once=worlds,
        )  # fmt: skip

    return conduct(Study, wish, plan, display, earlier)


@takes_options(ABLATE)
def ablate(
    fn: Callable[..., Any],
    study: str | Mapping[str, Any],
    *,
    args: Mapping[str, Any] | None = None,
    provide: Mapping[str, Any] | None = None,
    namespace: Mapping[str, Any] | None = None,
    cells: Callable[[str], CellSource | None] = read_cell,
    display: StudyDisplay | None = None,
    out: str = "",
    **options: Any,
) -> AblationResult:
    """Measures what parts of a training function are worth, by leaving out one at a time; the function is unchanged.

    Features are taken from what ``dataset_fn`` returns, layers from what ``model_fn`` returns: the functions of these
    names that the training function calls. What is to be left out is tried first, in this process, on what they
    return: an unknown name, a layer that cannot be removed, and what would change nothing are refused before
    anything runs.

    Args:
        fn: the function; see :func:`obl_magic.run`.
        study: what to leave out: ``"features=age,sex layers=conv2,dropout groups=block1_*"``, or a mapping;
            further kinds are ``models`` (other functions in place of ``model_fn``) and ``flags`` (parameters to
            be toggled).
        args: arguments by name that all runs share.
        provide: values for parameters without default.
        namespace: the notebook's names.
        cells: gives the cell behind a code object's file name.
        display: where to show it; by default the notebook or the terminal.
        out: the name it is known by later, beside its id.
        **options: see :mod:`obl_magic.options`.

    Returns:
        The result: ``.table``, and a chart of the differences.

    Raises:
        UsageProblem, SetupProblem, CannotTravel: before anything is started.
        KeyboardInterrupt: it was interrupted; finished runs are kept (``error.study``), no process is left.
    """
    __tracebackhide__ = True
    wanted = checked(StudyOptions, ABLATE, options)
    objective = checked_objective(wanted.maximize, wanted.minimize)
    asked = parse_components(study)
    if wanted.repeats > 1 and find_spec("scipy") is None:
        raise SetupProblem("repeats are compared by SciPy, which is missing", "python -m pip install scipy")
    taken = inherited(wanted.params, wanted.init_from, namespace)
    names = namespace if namespace is not None else getattr(fn, "__globals__", {})
    models = _other_models(asked, {**names, **dict(provide or {})})
    wish = Wish(
        call=Call(fn, checked_args(args), provide, namespace, cells, taken), objective=objective, options=wanted,
        out=out, told={"repeats": wanted.repeats, "seed": wanted.base_seed}, pieces=_as_written(asked),
        ablates=True, models=models,
    )  # fmt: skip

    def plan(captured: Captured) -> MakePlan:
        arguments = execute.arguments_for(
            captured.provided_values, shared_job(wish, captured, Path()), fn, _unheard()
        )
        seen = apply.rehearse(fn, arguments, _needed(asked, fn, arguments))
        usual = arguments.get("model_fn", names.get("model_fn"))
        known = {**models, **({"model_fn": usual} if callable(usual) else {})}
        components = apply.resolve(asked, seen, fn, known, skip=wish.passed_over)
        return lambda folder, worlds: Ablation(components, wanted.repeats, wanted.base_seed)

    return conduct(AblationResult, wish, plan, display)


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
    refuse_foreign(found.dir, f"resume={resume}", f"copy it: cp -r {found.dir} COPY")
    return found


def _as_before(earlier: Study | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the search that goes on, as far as nothing else is said."""
    if earlier is None:
        return {}
    was = {name: earlier.record.asked.get(name) for name in ("trials", "sampler", "pruner", "seed")}
    if given.get("maximize") is None and given.get("minimize") is None:
        was[earlier.direction] = earlier.quantity
    return {name: value for name, value in was.items() if given.get(name) is None}


def _taken_again(
    earlier: Study | None, asked: StudyOptions, namespace: Mapping[str, Any] | None, given: Collection[str]
) -> Inherited:
    """What is taken from earlier runs; arguments of a search that goes on are as before, if nothing is said."""
    lineage = earlier.record.lineage if earlier else {}
    init_from = asked.init_from
    if init_from is None and "weights" in lineage:
        init_from = lineage["weights"]["run"]
    taken = inherited(asked.params, init_from, namespace)
    before = arguments_of(earlier.record, given) if earlier else {}
    return replace(taken, args={**before, **taken.args}, lineage={**lineage, **taken.lineage})


def _refuse_another_quantity(objective: Objective, earlier: Study | None) -> None:
    """Values of two quantities cannot be compared."""
    if earlier is not None and objective.quantity != earlier.quantity:
        raise UsageProblem(
            f"--{objective.direction} {objective.quantity}",
            f"{earlier.quantity}, with which this search began",
            f"--{earlier.direction} {earlier.quantity}, or search anew",
        )


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
