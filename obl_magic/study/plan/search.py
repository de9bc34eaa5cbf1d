"""A hyperparameter search, drawn, pruned and kept by Optuna, whose secret this is. Draws and runs nothing itself."""

from __future__ import annotations

import contextlib
import importlib
import logging
import math
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from obl_magic.errors import SetupProblem, UsageProblem
from obl_magic.options import PRUNERS, SAMPLERS
from obl_magic.specs import Choice, Domain, Range, text_of
from obl_magic.values import Outcome, Trial

if TYPE_CHECKING:
    import optuna as opt

DIRECTIONS = ("maximize", "minimize")

NEEDED = {"cmaes": ("cmaes",), "gp": ("torch", "scipy")}
"""Packages that a sampler needs beside Optuna."""

LARGEST_GRID = 100_000
"""Optuna holds every point of a grid in memory."""

FEWEST_TELLING = 3
"""Fewer trials are their own best tenth, of which Optuna wants two."""

UNFINISHED = "its session ended before it did"
"""The error of a trial that a dead process has left behind."""

_SEEDS = 2**32


class Search:
    """A plan whose calls are the trials of an Optuna study, kept in a journal file. Usable from any thread.

    A study that the journal already holds is continued: what it has finished counts towards ``trials`` and is not
    repeated; what a dead process left running has failed, does not count, and comes first, under another number.
    The draws of another session are never drawn again.

    Args:
        space: what varies, as :func:`obl_magic.specs.parse_space` returns it.
        trials: how many there shall be in all sessions together; a grid may have fewer points.
        direction: ``maximize`` or ``minimize``.
        sampler: ``tpe``, ``random``, ``grid`` (each point once, in an order that the seed shuffles), ``cmaes``
            (draws choices at random), ``gp`` or ``nsga2`` (random for its first 50 trials).
        pruner: ``none``, ``median``, ``asha`` or ``hyperband``.
        seed: base seed. Alone and in its first session a search draws what ``study.optimize`` draws with this
            seed.
        journal: the file that Optuna writes; its folder exists.
        study_name: the study's name in it.
        at_once: how many trials may run at a time; TPE then counts on them.

    Raises:
        UsageProblem: a name is unknown, the space does not suit the sampler, or the study began as another one.
        SetupProblem: Optuna, or what the sampler needs, is missing; or the journal cannot be read.
    """

    def __init__(
        self,
        space: Sequence[Domain],
        *,
        trials: int,
        direction: str,
        sampler: str = "tpe",
        pruner: str = "none",
        seed: int,
        journal: Path,
        study_name: str,
        at_once: int = 1,
    ) -> None:
        _known("direction", direction, DIRECTIONS)
        _known("sampler", sampler, SAMPLERS)
        _known("pruner", pruner, PRUNERS)
        if trials < 1:
            raise UsageProblem(f"{trials} trials", "at least one", "--trials 20")
        points = _suits(sampler, space)
        optuna = _optuna()
        _installed(sampler)
        self._lock = threading.Lock()
        self._open: dict[int, _Open] = {}
        self._seed, self._direction = seed, direction
        self._coded = {domain.name: _Coded(domain) for domain in space}
        self.planned = trials if points is None else min(trials, points)
        """How many trials there will be at most, those of earlier sessions included."""
        _mend(journal)
        with _quiet():
            storage = _storage(journal)
            self._study: opt.Study = optuna.create_study(
                storage=storage,
                study_name=study_name,
                direction=direction,
                pruner=_pruner(pruner),
                load_if_exists=True,
            )
        self._continue(storage, sampler, seed)
        self._study.sampler = self._sampler(sampler, at_once)

    @property
    def optuna(self) -> opt.Study:
        """The study, for whatever Optuna has to offer. Not locked."""
        return self._study

    def ask(self) -> Trial | None:
        with self._lock:
            if self._begun() >= self.planned:
                return None
            trial = self._study.ask({name: coded.distribution for name, coded in self._coded.items()})
            self._open[trial.number] = _Open(trial)
            args = {name: coded.option(trial.params[name]) for name, coded in self._coded.items()}
            return Trial(trial.number, args, self._seed + trial.number)

    def judge(self, trial: Trial, step: int, value: float) -> bool:
        if step < 0:
            raise UsageProblem(
                f"a report at step {step}", "a step from 0 on", "report(loss=loss, step=epoch)"
            )
        with self._lock:
            running = self._open.get(trial.number)
            if running is None or step in running.steps:  # told already, or said again
                return False
            running.steps.add(step)
            running.trial.report(float(value), step)
            return running.trial.should_prune()

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        from optuna.trial import TrialState

        value, error = outcome.value, outcome.error
        if outcome.status == "succeeded" and (value is None or math.isnan(value)):
            error = "it gave no value" if value is None else "its value is NaN"
        state = TrialState.PRUNED if outcome.status == "pruned" else TrialState.FAIL
        if outcome.status == "succeeded" and not error:
            state = TrialState.COMPLETE
        with self._lock:
            running = self._open[trial.number].trial
            if error:
                running.set_user_attr("error", error)
            self._study.tell(running, value if state == TrialState.COMPLETE else None, state)
            del self._open[trial.number]

    def note(self, trial: Trial, **attrs: Any) -> None:
        """Keeps something about a running trial in the study, as Optuna's user attributes.

        Args:
            trial: as asked, not yet told.
            attrs: names and values that JSON can hold.
        """
        with self._lock:
            for name, value in attrs.items():
                self._open[trial.number].trial.set_user_attr(name, value)

    def importances(self) -> dict[str, float]:
        """As :func:`importances_of`, of this study."""
        with self._lock:
            return importances_of(self._study)

    def _begun(self) -> int:
        """Returns how many trials count: not those that are queued, nor those whose session ended before them."""
        from optuna.trial import TrialState

        return sum(
            trial.state != TrialState.WAITING and trial.user_attrs.get("error") != UNFINISHED
            for trial in self._study.get_trials(deepcopy=False)
        )

    def _continue(self, storage: opt.storages.BaseStorage, sampler: str, seed: int) -> None:
        """Checks that a study is the one it was, and queues what was not finished; or notes how a new one begins."""
        from optuna.trial import TrialState

        began = self._study.user_attrs
        space = [text_of(coded.domain) for coded in self._coded.values()]
        if "space" not in began:
            for name, value in {"space": space, "sampler": sampler, "seed": seed}.items():
                self._study.set_user_attr(name, value)
        else:
            self._same("direction", self._study.direction.name.lower(), self._direction)
            self._same("space", " ".join(began["space"]), " ".join(space))
            if "grid" in (sampler, began["sampler"]):  # its points are numbered
                self._same("sampler", began["sampler"], sampler)
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            study = storage.get_study_id_from_name(self._study.study_name)
            id_ = storage.get_trial_id_from_study_id_trial_number(study, trial.number)
            storage.set_trial_user_attr(id_, "error", UNFINISHED)
            self._study.tell(trial.number, state=TrialState.FAIL)
            if trial.params:
                self._study.enqueue_trial(trial.params)

    def _same(self, what: str, began: str, now: str) -> None:
        if began != now:
            option = {"direction": f"--{began} M", "space": f'--search "{began}"'}.get(
                what, f"--{what} {began}"
            )
            raise UsageProblem(
                f"the {what} {now}",
                f"{began}, with which this search began",
                f"{option}, or search under another name",
            )

    def _sampler(self, name: str, at_once: int) -> opt.samplers.BaseSampler:
        from optuna import samplers

        if name == "grid":  # in the order it began with
            return _grid(self._coded, self._study.user_attrs["seed"] % _SEEDS)
        seed = (self._seed + self._begun()) % _SEEDS
        make: dict[str, Callable[[], opt.samplers.BaseSampler]] = {
            "tpe": lambda: samplers.TPESampler(seed=seed, constant_liar=at_once > 1),
            "random": lambda: samplers.RandomSampler(seed=seed),
            "cmaes": lambda: samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False),
            "gp": lambda: samplers.GPSampler(seed=seed),
            "nsga2": lambda: samplers.NSGAIISampler(seed=seed),
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # some are experimental in some versions
            return make[name]()


def open_study(journal: Path, name: str) -> opt.Study:
    """Optuna's own study, over its journal; a search that is still writing it is not disturbed.

    Raises:
        SetupProblem: Optuna is missing, or there is no journal that could be read.
    """
    optuna = _optuna()
    if not journal.is_file():
        raise SetupProblem(f"the search's journal {journal} is gone", "search again")
    with _quiet():
        found: opt.Study = optuna.load_study(study_name=name, storage=_storage(journal))
    return found


def importances_of(study: opt.Study) -> dict[str, float]:
    """How much each parameter matters, the most important first; together 1.

    By PED-ANOVA (Watanabe, Bansal, Hutter, 2023), which needs no further package: what tells the best tenth of the
    trials from all. Empty where too few trials, or all alike, tell nothing.
    """
    from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
    from optuna.trial import TrialState

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # remarks on few trials, and on what Optuna calls experimental
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        values = [trial.value for trial in finished if trial.value is not None and math.isfinite(trial.value)]
        if len(values) < FEWEST_TELLING or len(set(values)) < 2:
            return {}
        raw = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(), normalize=False)
    whole = sum(raw.values())
    return {name: value / whole for name, value in raw.items()} if whole > 0 else {}


@dataclass(slots=True)
class _Open:
    """A trial that was asked and not yet told, and the steps it has reported."""

    trial: opt.Trial
    steps: set[int] = field(default_factory=set)


class _Coded:
    """One parameter as Optuna knows it.

    Optuna keeps only plain options, and takes ``1`` for ``True``; others stand in the study as their text.
    """

    def __init__(self, domain: Domain) -> None:
        self.domain = domain
        self._options: dict[str, Any] = {}
        if isinstance(domain, Choice) and not _plain(domain.options):
            self._options = {repr(option): option for option in domain.options}
        self.distribution = self._distribution()

    def option(self, coded: Any) -> Any:
        """Returns the value that the function gets."""
        return self._options[coded] if self._options else coded

    def values(self) -> Sequence[Any]:
        """Returns all values of a finite parameter, coded."""
        domain = self.domain
        if isinstance(domain, Choice):
            return tuple(self._options) or domain.options
        if domain.whole:
            return range(int(domain.low), int(domain.high) + 1, int(domain.step or 1))
        low, step = Decimal(str(domain.low)), Decimal(str(domain.step))
        return [float(low + index * step) for index in range(_points(domain))]

    def _distribution(self) -> opt.distributions.BaseDistribution:
        from optuna import distributions

        domain = self.domain
        if isinstance(domain, Choice):
            return distributions.CategoricalDistribution(tuple(self._options) or domain.options)
        if domain.whole:
            low, high, step = int(domain.low), int(domain.high), int(domain.step or 1)
            return distributions.IntDistribution(low, high, log=domain.log, step=step)
        return distributions.FloatDistribution(domain.low, domain.high, log=domain.log, step=domain.step)


def _plain(options: tuple[Any, ...]) -> bool:
    plain = all(option is None or type(option) in (bool, int, float, str) for option in options)
    return plain and len(set(options)) == len(options)


def _points(domain: Domain) -> int:
    """Returns how many values a finite parameter has."""
    if isinstance(domain, Choice):
        return len(domain.options)
    step = 1 if domain.step is None else domain.step
    return int((Decimal(str(domain.high)) - Decimal(str(domain.low))) / Decimal(str(step))) + 1


def _known(what: str, name: str, names: tuple[str, ...]) -> None:
    if name not in names:
        option = f"--{names[0]} M" if what == "direction" else f"--{what} {names[0]}"
        raise UsageProblem(f"the {what} {name!r}", f"one of {', '.join(names)}", option)


def _suits(sampler: str, space: Sequence[Domain]) -> int | None:
    """Returns how many points a grid has, None for other samplers; refuses a space that the sampler cannot use."""
    ranges = [domain for domain in space if isinstance(domain, Range)]
    if sampler == "cmaes" and len(ranges) < 2:
        raise UsageProblem(
            f"{len(ranges)} range{'' if len(ranges) == 1 else 's'} of numbers for the sampler cmaes",
            "at least two; it draws all else at random",
            "--sampler tpe",
        )
    if sampler != "grid":
        return None
    for domain in ranges:
        if not domain.whole and domain.step is None:
            low, high = text_of(domain).split("(")[1].rstrip(")").split(",")[:2]
            step = f"{(domain.high - domain.low) / 10:g}"
            raise UsageProblem(
                f"{text_of(domain)} for the sampler grid",
                "parameters with finitely many values: choices, whole numbers, or ranges with step=",
                f"write {domain.name}=float({low},{high},step={step})",
            )
    points = math.prod(_points(domain) for domain in space)
    if points > LARGEST_GRID:
        raise UsageProblem(
            f"a grid of {points:,} points", f"at most {LARGEST_GRID:,}", "--sampler tpe, or larger steps"
        )
    return points


def _optuna() -> Any:
    """Returns Optuna's module, imported when first needed."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "IProgress not found"
            )  # of a progress bar that nobody will draw
            optuna = importlib.import_module("optuna")
    except ImportError as error:
        raise SetupProblem("a search needs Optuna, which is not installed", "pip install optuna") from error
    if int(optuna.__version__.partition(".")[0]) < 4:
        raise SetupProblem(
            f"a search needs Optuna 4 or later; here is {optuna.__version__}", "pip install --upgrade optuna"
        )
    return optuna


def _installed(sampler: str) -> None:
    """Makes sure that what a sampler needs can be imported."""
    missing = [package for package in NEEDED.get(sampler, ()) if not _importable(package)]
    if missing:
        names = " and ".join(missing)
        lacks = (
            f"the sampler {sampler} needs {names}, which {'is' if len(missing) == 1 else 'are'} not installed"
        )
        raise SetupProblem(lacks, f"pip install {' '.join(missing)}")


def _importable(package: str) -> bool:
    try:
        importlib.import_module(package)
    except ImportError:
        return False
    return True


def _pruner(name: str) -> opt.pruners.BasePruner:
    from optuna import pruners

    make: dict[str, Callable[[], opt.pruners.BasePruner]] = {
        "none": pruners.NopPruner,
        "median": pruners.MedianPruner,
        "asha": pruners.SuccessiveHalvingPruner,
        "hyperband": pruners.HyperbandPruner,
    }
    return make[name]()


def _grid(coded: dict[str, _Coded], seed: int) -> opt.samplers.BaseSampler:
    from optuna.samplers import GridSampler

    class Grid(GridSampler):
        """Optuna's grid; its own ends ``study.optimize`` after the last point, an error where that does not run."""

        def after_trial(self, *_: Any, **__: Any) -> None:
            pass

    return Grid({name: list(one.values()) for name, one in coded.items()}, seed)


def _storage(journal: Path) -> opt.storages.JournalStorage:
    """Returns the storage in a journal file; a new one where there is none."""
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    path = str(journal.absolute())  # Optuna's lock is a link to it
    try:
        return JournalStorage(JournalFileBackend(path))
    except (ValueError, KeyError, TypeError) as error:
        what = f"the search's journal {path} cannot be read: {type(error).__name__}: {error}"
        raise SetupProblem(what, "search under another name") from error


def _mend(journal: Path) -> None:
    """Takes away what a process that died while it wrote has left: Optuna's lock, and an unfinished last line.

    For the lock some versions of Optuna wait 30 seconds, others for ever; to the line the next one would be glued.
    For the one process that writes: a reader would take the lock from it.
    """
    lock = journal.with_name(f"{journal.name}.lock")
    if lock.is_symlink():
        lock.unlink(missing_ok=True)
    with contextlib.suppress(FileNotFoundError), journal.open("rb+") as file:
        text = file.read()
        if text.startswith(b"{"):  # nobody else's file
            file.truncate(text.rfind(b"\n") + 1)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps Optuna's information on what this thread does from being printed; its level is the user's and stays."""
    thread = threading.get_ident()

    def wanted(record: logging.LogRecord) -> bool:
        ours = record.thread == thread and record.name.partition(".")[0] == "optuna"
        return not ours or record.levelno >= logging.ERROR

    handlers = _handlers(logging.getLogger("optuna"))
    for handler in handlers:
        handler.addFilter(wanted)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(wanted)


def _handlers(logger: logging.Logger) -> list[logging.Handler]:
    """Returns all that a logger's records reach."""
    above = logger.parent if logger.propagate else None
    return [*logger.handlers, *(_handlers(above) if above else [])]
