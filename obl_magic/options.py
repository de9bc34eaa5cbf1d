"""Every option of a run, a search and an ablation, once: name, type, default, help, who takes it, and its check.

From the fields below come the keywords of :func:`obl_magic.run`, ``search`` and ``ablate`` with their docstrings and
the stub that editors read, the options of the magic and of the command line, completion, ``docs/options.md``, and what
``run.json`` says. A new option is one field here, and its use.
"""

from __future__ import annotations

import difflib
import re
from argparse import BooleanOptionalAction
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, Self

from obl_magic.engines import CHOICES, CHOICES_IN_WORDS
from obl_magic.errors import UsageProblem
from obl_magic.hosts import salloc, where
from obl_magic.hosts.allocation import allocation
from obl_magic.hosts.places import Hosts, parse
from obl_magic.values import DEFAULT_SEED, LR_SCALES, Settings

RUN, SEARCH, ABLATE = "run", "search", "ablate"
ALL = (RUN, SEARCH, ABLATE)
STUDIES = (SEARCH, ABLATE)

BATCHES = ("global", "per-worker")
SAMPLERS = ("tpe", "random", "grid", "cmaes", "gp", "nsga2")
PRUNERS = ("none", "median", "asha", "hyperband")
PROVES = ("auto", "off")
"""Whether steps with code of the user's prove themselves."""

_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
"""Seconds of each unit of a time."""

VERIFY_STEPS = 3
"""What ``--verify`` without a number compares."""

Source = Any
"""``best``, a name or an id, or a Study, a trial of one, a Run, a dict of arguments."""

WORLD, PROMISE, SEEN, FROM, WHICH, LEFT_OUT, CELL = (
    "The world", "The promise", "What you see", "What it begins with", "Search", "Ablation", "The cell",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Option:
    """What is said of one option.

    Attributes:
        help: what it is for, with an example after the last colon.
        more: what the docs say beside that.
        calls: which calls take it, of ``run``, ``search`` and ``ablate``.
        group: its heading in the docs.
        check: returns a value that makes sense and raises UsageProblem for another; None where any does.
        read: makes a value of what was typed; None for text.
        choices: the words that it takes, or ().
        short: its one letter, or "".
        keyword: the parameter of the calls that a cell's option stands for, or "".
        action: as argparse has it.
        const: as argparse has it.
        nargs: as argparse has it.
        told: by the command line, too (``python -m obl_magic run``).
        name: of its field, as Python spells it.
        type: of its field.
        default: without it.
    """

    help: str
    more: str = ""
    calls: tuple[str, ...] = ALL
    group: str = WORLD
    check: Callable[[str, Any], Any] | None = None
    read: Callable[[str], Any] | None = None
    choices: tuple[str, ...] = ()
    short: str = ""
    keyword: str = ""
    action: Any = None
    const: Any = None
    nargs: str | None = None
    told: bool = False
    name: str = ""
    type: str = ""
    default: Any = None

    @property
    def flag(self) -> str:
        """As it is typed."""
        return "--" + self.name.replace("_", "-")


def option(default: Any, help: str, **more: Any) -> Any:
    """A field that is an option; see :class:`Option`."""
    return field(default=default, metadata={"option": Option(help, **more)})


def options_of(cls: type) -> tuple[Option, ...]:
    """The options that a class of options has, in order."""
    return tuple(
        replace(
            each.metadata["option"],
            name=each.name,
            type=str(each.type),
            default=None if each.default is MISSING else each.default,
        )
        for each in fields(cls)
        if "option" in each.metadata
    )


def _whole(least: int, of: str = "a whole number", example: int = 1) -> Callable[[str, Any], int]:
    """The check of a whole number that is large enough."""

    def check(name: str, value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UsageProblem(f"{name}={value!r}", f"{of}, {least} or more", f"{name}={example}")
        return value

    return check


def _ranks(text: str) -> int | str:
    """What was typed after ``--workers``: a number, or ``auto``."""
    return text if text == "auto" else int(text)


_ranks.__name__ = "int"  # argparse names it to whoever typed something else


def _seconds(name: str, value: Any) -> float:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not value > 0:
        raise UsageProblem(f"{name}={value!r}", "seconds, more than 0", f"{name}=600")
    seconds: float = value
    return seconds


def _duration(name: str, value: Any) -> float:
    """The check of a time, as a number of seconds or with a unit."""
    written = re.fullmatch(r"(\d+\.?\d*)([smh]?)", value.strip()) if isinstance(value, str) else None
    seconds = float(written[1]) * _UNITS[written[2]] if written else value
    try:
        return _seconds(name, seconds)
    except UsageProblem:
        raise UsageProblem(
            f"{name}={value!r}", "seconds, or a time like 30s, 5m, 1h", f"{name}='5m'"
        ) from None


def _one_of(choices: tuple[str, ...], expected: str, example: str) -> Callable[[str, Any], str]:
    """The check of a word."""

    def check(name: str, value: Any) -> str:
        if value not in choices:
            flag = name.replace("_", "-")
            raise UsageProblem(f"{flag} {value!r}", expected, example or f"--{flag} {choices[0]}")
        word: str = value
        return word

    return check


def _hosts(name: str, value: Any) -> Any:
    parse(value)
    return value


def _slurm(name: str, value: Any) -> str:
    if not isinstance(value, str) or not salloc.words(value):
        raise UsageProblem(f"slurm={value!r}", "salloc's options", "--slurm '-N 2'")
    return value


def _verify(name: str, value: Any) -> str | int | bool:
    if value not in PROVES and value is not False and (not isinstance(value, int) or value < 1):
        raise UsageProblem(f"verify={value!r}", "auto, off or a number of steps, 1 or more", "--verify 3")
    checked: str | int | bool = value
    return checked


def _verify_value(text: str) -> str | int:
    """What was typed after ``--verify``: a number of steps, or a word."""
    return int(text) if text.isdigit() else text


def _words(choices: tuple[str, ...], expected: str = "", example: str = "") -> dict[str, Any]:
    """Of an option that takes one of some words: what is expected where another came, and what to type instead."""
    return {
        "choices": choices,
        "check": _one_of(choices, expected or f"one of {', '.join(choices)}", example),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How a run, or each trial of a study, behaves; made by :meth:`of`, which checks it. Each field: see its help.

    Attributes:
        seeded: the base seed was asked for; else it is an earlier cell's, or the default.
    """

    workers: int | None = option(
        None, "number of ranks, or auto; without it the function runs here: --workers 2", read=_ranks, short="w",
        told=True, more="`auto` (of a run) measures some steps on 1, 2, 4 … ranks and takes the fastest. For a study: "
        "of all trials together.", check=_whole(1, "a whole number of ranks", 2),
    )  # fmt: skip
    engine: str = option(
        "auto", f"which collectives, {CHOICES_IN_WORDS}: --engine mpi", told=True,
        **_words(CHOICES, CHOICES_IN_WORDS),
    )  # fmt: skip
    hosts: str | Sequence[str] | None = option(
        None, "ranks per host, over ssh: --hosts a:4,b:4", read=str, short="H", told=True, check=_hosts,
        more="Without `workers`, as many ranks as that; `a,b` shares them out. Inside a Slurm allocation its nodes are "
        "the hosts, and this may narrow them. `OBLIVIOUS_HOSTS` is a default for runs with workers. See clusters.md.",
    )  # fmt: skip
    hostfile: str | None = option(
        None, "hosts from a file, a line each, a slots=4: --hostfile hosts.txt", told=True,
        more="As Open MPI and horovodrun read them.",
    )  # fmt: skip
    slurm: str | None = option(
        None, "ranks in a Slurm allocation of their own, with salloc's options: --slurm '-N 2 -p gpu'", calls=(RUN,),
        told=True, check=_slurm, more="From a login node. Without `workers`, as many ranks as it has tasks. "
        "`timeout` counts from the first rank; the allocation ends with the run. Inside an allocation nothing need be "
        "typed. See clusters.md.",
    )  # fmt: skip
    timeout: float | None = option(
        None, "deadline in seconds: --timeout 600", read=float, told=True, check=_seconds,
        more="For the whole run or study.",
    )  # fmt: skip
    stall_timeout: float | None = option(
        None, "end it after so many seconds without progress: --stall-timeout 60", read=float, told=True,
        check=_seconds, more="No step, no number, no rank that comes up or returns; the error names the rank that "
        "holds it up and its line. Without it such a world is named in a note and goes on.",
    )  # fmt: skip
    retries: int = option(
        0, "restarts after a failure, from the last epoch: --retries 2", calls=(RUN,), read=int, told=True,
        check=_whole(0, "a whole number of restarts"),
        more="A new world goes on from the last completed epoch of the Keras fit that was under way.",
    )  # fmt: skip
    min_workers: int | None = option(
        None, "restarts may have fewer ranks, at least so many: --min-workers 2", calls=(RUN,), read=int,
        told=True, check=_whole(1, "a whole number of ranks", 2), more="A rank or a host that is lost is not waited "
        "for: the next world takes what is left, with the same numbers. Without it a restart has as many as before.",
    )  # fmt: skip
    checkpoint_every: float | str | None = option(
        None, "keep where a fit is inside long epochs, too: --checkpoint-every 5m", calls=(RUN,), told=True,
        check=_duration, more="Seconds, or with a unit: `30s`, `5m`, `1h`. A run with `retries`, and `resume`, go on "
        "at the step that was kept last. For arrays, PyDatasets and `tf.data` whose length is known; what is behind "
        "in the epoch is read again, not computed.",
    )  # fmt: skip
    params: Source | None = option(
        None, "hyperparameters of an earlier search or run: --params best", group=FROM, told=True,
        more='`"best"` (of the newest search), a search or a run, or the name or id of one; `args` go before.',
    )  # fmt: skip
    init_from: Source | None = option(
        None, "initial weights from an earlier search or run: --init-from best", group=FROM, told=True,
        more="Named as for `params`.",
    )  # fmt: skip
    resume: str | None = option(
        None, "go on with a run that did not end, or with a search: --resume RUN", calls=(RUN, SEARCH), group=FROM,
        told=True, more="A run goes on from where it was kept last; of a search, what is not said is as it was.",
    )  # fmt: skip
    seed: int | None = option(
        None, "base seed of every random number: --seed 1", group=FROM, read=int, told=True,
        check=_whole(0), more="Recorded in any case; a trial's is the study's and its number.",
    )  # fmt: skip
    batch: str = option(
        "global", "whose batch the code names, global or per-worker: --batch global", group=PROMISE, told=True,
        **_words(BATCHES, "global or per-worker"), more="`global`: the whole world's, so that 1 and N ranks compute "
        "the same. `per-worker`: each rank takes that many, so the global batch grows with the world.",
    )  # fmt: skip
    lr_scale: str = option(
        "none", "per-worker learning rate, none, linear or sqrt: --lr-scale linear", group=PROMISE, told=True,
        **_words(tuple(LR_SCALES), ", ".join(LR_SCALES), "--batch per-worker --lr-scale linear"),
        more="Times the world's size, or its square root (Goyal et al., 2017).",
    )  # fmt: skip
    warmup_epochs: int = option(
        0, "epochs until the scaled rate: --warmup-epochs 5", group=PROMISE, read=int, told=True,
        check=_whole(0, "a whole number of epochs", 5),
    )  # fmt: skip
    sync_batchnorm: bool = option(
        True, "batch norm over the global batch, the default: --no-sync-batchnorm", group=PROMISE, told=True,
        action=BooleanOptionalAction, more="Without it, each rank takes its moments over its own rows, which is said.",
    )  # fmt: skip
    balance: bool | None = option(
        None, "shares of a batch follow the ranks' pace, soon or never: --no-balance", group=PROMISE, told=True,
        action=BooleanOptionalAction, more="Neither said, they do so where ranks differ by more than 10 % for long. "
        "The numbers are the same. In a Keras fit; loops by hand keep equal shares.",
    )  # fmt: skip
    verify: str | int | bool = option(
        "auto", "do steps prove themselves, auto or off; or compare so many with one rank: --verify 3", group=PROMISE,
        read=_verify_value, choices=PROVES, const=VERIFY_STEPS, nargs="?", told=True, check=_verify,
        more="`auto`: steps that contain code of yours prove themselves at their calls 1, 2, 4, 8, …. A number (of a "
        "run): before training, so many steps are compared on one rank and on `workers`, and a difference is refused.",
    )  # fmt: skip
    show_ranks: str | Sequence[int] = option(
        "0", "whose prints appear live, 0, all or a list: --show-ranks 0,1", calls=(RUN,), group=SEEN,
        more="All are kept on disk.",
    )  # fmt: skip
    tensorboard: str | None = option(
        None, "also write the numbers for TensorBoard below this folder: --tensorboard logs", group=SEEN, told=True,
        more="A folder each for the run or for every trial, written while it runs: scalars, and in HParams what it was "
        "called with; of an ablation what was left out.",
    )  # fmt: skip
    quiet: bool = option(False, "show nothing while it runs: --quiet", group=SEEN, action="store_true")
    background: bool = option(
        False, "return at once with what is under way: --background", group=SEEN, action="store_true"
    )
    seeded: bool = False

    @classmethod
    def of(cls, call: str, given: Mapping[str, Any]) -> Self:
        """The options of a call, if what was asked for makes sense.

        Args:
            call: ``run``, ``search`` or ``ablate``.
            given: options by name; those that are missing have their defaults.

        Raises:
            UsageProblem: a value, or two of them together, make no sense.
            TypeError: the call has no such option.
        """
        table = {each.name: each for each in keywords(call)}
        for name in given:
            if name not in table:
                close = difflib.get_close_matches(name, table, n=1)
                meant = f"; did you mean {close[0]}?" if close else ""
                raise TypeError(f"{call}() got an unexpected keyword argument {name!r}{meant}")
        made = cls(**{name: _checked(table[name], value) for name, value in given.items()})
        if made.workers is None and (hosts := where.asked_for(made.hosts, made.hostfile, None)) is not None:
            made = replace(made, workers=hosts.ranks)
        if made.workers is None and made.slurm is not None:
            made = replace(made, workers=salloc.tasks(made.slurm))
        made._check_together()
        return made

    @property
    def placed(self) -> Hosts | None:
        """Where the ranks are; None where all are on this host.

        Raises:
            UsageProblem: there are fewer places than workers, or the Slurm allocation has no such host.
        """
        if self.workers is None or self.slurm is not None:  # Slurm has not said yet
            return None
        return where.where(self.hosts, self.hostfile, self.workers)

    @property
    def settings(self) -> Settings:
        """How the ranks make Keras oblivious."""
        return Settings(
            batch=self.batch, lr_scale=self.lr_scale, warmup_epochs=self.warmup_epochs,
            sync_batchnorm=self.sync_batchnorm, prove=self.verify not in ("off", False),
            balance=self.balance, keep_each_epoch=self.retries > 0,
            keep_every_s=None if self.checkpoint_every is None else float(self.checkpoint_every),
        )  # fmt: skip

    @property
    def compared_steps(self) -> int:
        """How many steps are compared with one rank's before training."""
        if self.verify is True:
            return VERIFY_STEPS
        return self.verify if isinstance(self.verify, int) else 0

    @property
    def shown_ranks(self) -> tuple[int, ...]:
        """Whose prints appear live."""
        asked, workers = self.show_ranks, self.workers or 1
        if asked == "all":
            return tuple(range(workers))
        try:
            ranks = tuple(int(rank) for rank in (asked.split(",") if isinstance(asked, str) else asked))
        except (ValueError, TypeError):
            ranks = (-1,)
        if not ranks or not all(0 <= rank < workers for rank in ranks):
            raise UsageProblem(
                f"show_ranks={asked!r}",
                f"all, or ranks between 0 and {workers - 1} with commas",
                "--show-ranks all",
            )
        return ranks

    @property
    def base_seed(self) -> int:
        """What every random number derives from."""
        return DEFAULT_SEED if self.seed is None else self.seed

    def seeded_by(self, notebook: int | None) -> Self:
        """With a base seed: the one that was asked for, else what an earlier cell has seeded with, else 0.

        Args:
            notebook: the earlier cell's, or None.
        """
        return replace(self, seed=notebook if self.seed is None else self.seed, seeded=self.seed is not None)

    @property
    def record(self) -> dict[str, Any]:
        """For ``run.json``: what can be written down as it is."""
        told = {each.name: getattr(self, each.name) for each in options_of(type(self))}
        plain = (str, int, float, bool, type(None))
        return {name: value for name, value in told.items() if isinstance(value, plain)} | {
            "show_ranks": list(self.shown_ranks), "seed": self.base_seed, "seeded": self.seeded,
        }  # fmt: skip

    def _check_together(self) -> None:
        """Refuses options that make no sense beside each other."""
        if self.slurm is not None:
            if self.hosts is not None or self.hostfile is not None:
                raise UsageProblem("slurm with hosts", "one of them", f"--slurm {self.slurm!r}")
            if (job := allocation()) is not None:
                raise UsageProblem(
                    f"slurm={self.slurm!r} inside {job.of}",
                    "no options: its nodes are taken",
                    f"-w {job.ranks}",
                )
        if self.min_workers is not None and (not self.retries or self.min_workers > (self.workers or 1)):
            raise UsageProblem(
                f"min_workers={self.min_workers} with retries={self.retries} and workers={self.workers}",
                "restarts, and no more ranks than there are workers",
                f"retries=3, min_workers={max(1, (self.workers or 2) - 1)}",
            )
        if self.workers is None:
            for name in ("stall_timeout", "retries", "background"):
                if getattr(self, name):
                    raise UsageProblem(f"{name} without workers", "a number of workers", "workers=1")
        if self.batch == "global" and (self.lr_scale != "none" or self.warmup_epochs):
            raise UsageProblem(
                "lr-scale or warmup-epochs with the global batch",
                "them only where the global batch grows with the world",
                "--batch per-worker --lr-scale linear --warmup-epochs 5",
            )
        _ = self.shown_ranks
        _ = self.placed


def _checked(option: Option, value: Any) -> Any:
    """A value that makes sense; the default always does."""
    if option.check is None or (value is option.default and value is None):
        return value
    return option.check(option.name, value)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyOptions(RunOptions):
    """How a search or an ablation behaves, and each of its trials."""

    workers_per_trial: int = option(
        1, "ranks of each trial: --workers-per-trial 2", calls=STUDIES, read=int, check=_whole(1)
    )
    maximize: str | None = option(
        None, "the number to make large, returned or reported: --maximize val_accuracy", calls=STUDIES, group=WHICH,
        more="A key of the returned dict, a reported metric's last value, or `value` for a function that returns a "
        "bare number. One of `maximize` and `minimize` is given.",
    )  # fmt: skip
    minimize: str | None = option(
        None,
        "the number to make small, returned or reported: --minimize val_loss",
        calls=STUDIES,
        group=WHICH,
    )
    trials: int | None = option(
        None, "how many trials a search makes: --trials 30", calls=(SEARCH,), group=WHICH, read=int, check=_whole(1),
        more="20 unless said; those of a search that is resumed included.",
    )  # fmt: skip
    sampler: str | None = option(
        None, "who draws trials, tpe, random, grid, cmaes, gp or nsga2: --sampler random", calls=(SEARCH,),
        group=WHICH, **_words(SAMPLERS), more="Optuna's; `tpe` unless said.",
    )  # fmt: skip
    pruner: str | None = option(
        None, "who ends trials early, none, median, asha or hyperband: --pruner median", calls=(SEARCH,), group=WHICH,
        **_words(PRUNERS), more="Optuna's; `none` unless said.",
    )  # fmt: skip
    keep_weights: int = option(
        1,
        "of how many best trials: --keep-weights 3",
        calls=(SEARCH,),
        group=WHICH,
        read=int,
        check=_whole(0),
    )
    repeats: int = option(
        1, "each run of an ablation so often: --repeats 3", calls=(ABLATE,), group=LEFT_OUT, read=int,
        check=_whole(1), more="With other seeds.",
    )  # fmt: skip

    def _check_together(self) -> None:
        workers, each = self.workers, self.workers_per_trial
        if self.compared_steps:
            raise UsageProblem(
                f"verify={self.verify!r} for a search or an ablation",
                "auto or off",
                "verify one run: --verify 3",
            )
        if workers is None and (each > 1 or self.background):
            what = "background" if self.background else f"workers_per_trial={each}"
            raise UsageProblem(f"{what} without workers", "a number of workers", f"workers={each}")
        if workers is not None and workers < each:
            raise UsageProblem(
                f"workers={workers} with workers_per_trial={each}",
                "at least as many ranks as one trial takes",
                f"workers={each}",
            )
        RunOptions._check_together(self)

    @property
    def worlds(self) -> int:
        """How many trials run at a time."""
        return 1 if self.workers is None else self.workers // self.workers_per_trial

    @property
    def of_a_trial(self) -> Self:
        """The options as they hold for one trial."""
        return self if self.workers is None else replace(self, workers=self.workers_per_trial)


@dataclass(frozen=True, slots=True, kw_only=True)
class CellOptions:
    """What is typed above a cell and is another thing in Python: which function, its arguments, spaces and names."""

    function: str | None = option(
        None, "the function to run, if not the last def of the cell: --function train", group=CELL, short="f"
    )
    out: str | None = option(
        None, "name to bind what comes back to, also when it fails: --out run", group=CELL, short="o"
    )
    arg: Sequence[str] = option(
        (),
        "an argument (repeatable): --arg lr=0.1",
        group=FROM,
        short="a",
        keyword="args",
        action="append",
        told=True,
    )
    search: str | None = option(
        None, 'search these hyperparameters: --search "lr=log(1e-4,1e-1) units=int(16,128)"', calls=(SEARCH,),
        group=WHICH, keyword="space",
    )  # fmt: skip
    space: str | None = option(
        None, "as --search, from a dict of the notebook: --space my_space", calls=(SEARCH,), group=WHICH,
        keyword="space",
    )  # fmt: skip
    ablate: str | None = option(
        None, 'leave these out, one at a time: --ablate "features=age,sex layers=conv2"', calls=(ABLATE,),
        group=LEFT_OUT, keyword="study",
    )  # fmt: skip
    study: str | None = option(
        None, "as --ablate, from a dict of the notebook: --study my_study", calls=(ABLATE,), group=LEFT_OUT,
        keyword="study",
    )  # fmt: skip


OF_CALLS = options_of(StudyOptions)
"""The options that are keywords of the calls."""

OF_CELLS = options_of(CellOptions)
"""The options that a cell has beside those."""

OPTIONS = (*OF_CALLS, *OF_CELLS)


def keywords(call: str) -> tuple[Option, ...]:
    """The options that are keywords of a call."""
    return tuple(each for each in OF_CALLS if call in each.calls)
