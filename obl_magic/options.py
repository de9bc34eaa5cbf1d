"""Every option of a run, a search and an ablation, once. The magic, the command line, completion and docs read it here.

The keyword arguments of :func:`obl_magic.run`, ``search`` and ``ablate`` are written out for editors; a test holds them
equal to this table. What an option means is checked where it is used (``request.py``, ``studies.py``).
"""

from __future__ import annotations

from argparse import BooleanOptionalAction
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from obl_magic.values import LR_SCALES

RUN, SEARCH, ABLATE = "run", "search", "ablate"
ALL = (RUN, SEARCH, ABLATE)
STUDIES = (SEARCH, ABLATE)

ENGINES = ("auto", "horovod", "mpi")
BATCHES = ("global", "per-worker")
SAMPLERS = ("tpe", "random", "grid", "cmaes", "gp", "nsga2")
PRUNERS = ("none", "median", "asha", "hyperband")


def verify_value(text: str) -> str | int:
    """What was typed after ``--verify``: a number of steps, or a word."""
    return int(text) if text.isdigit() else text


@dataclass(frozen=True, slots=True)
class Option:
    """One option.

    Attributes:
        name: as Python spells it. help: what it is for, with an example after the colon.
        calls: which calls take it, of ``run``, ``search`` and ``ablate``. group: its heading in the docs.
        default: without it. read: makes a value of what was typed; None for text.
        choices: the words that it takes, or (). short: its one letter, or "".
        keyword: of the calls, where it is another; "" where it is for the cell alone.
        action, const, nargs: as argparse has them.
        told: by the command line, too (``python -m obl_magic run``).
    """

    name: str
    help: str
    calls: tuple[str, ...] = ALL
    group: str = "The run"
    default: Any = None
    read: Callable[[str], Any] | None = None
    choices: tuple[str, ...] = ()
    short: str = ""
    keyword: str | None = None
    action: Any = None
    const: Any = None
    nargs: str | None = None
    told: bool = True

    @property
    def flag(self) -> str:
        """As it is typed."""
        return "--" + self.name.replace("_", "-")

    @property
    def parameter(self) -> str:
        """The keyword of the calls that take it, or ""."""
        return self.name if self.keyword is None else self.keyword

    def typed(self, default: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
        """What argparse is told of it: (names, keywords).

        Args:
            default: its value where it is not given.
        """
        names = (*([f"-{self.short}"] if self.short else []), self.flag)
        said: dict[str, Any] = {"default": default, "help": self.help.replace("%", "%%")}
        if self.action is not None:
            return names, {**said, "action": self.action}
        told = {"type": self.read, "nargs": self.nargs, "const": self.const}
        return names, {**said, **{name: value for name, value in told.items() if value is not None}}


WORLD, PROMISE, SEEN, FROM, WHICH, LEFT_OUT, CELL = (
    "The world", "The promise", "What you see", "What it begins with", "Search", "Ablation", "The cell",
)  # fmt: skip

OPTIONS = (
    Option("workers", "number of ranks; without it the function runs here: --workers 4", group=WORLD, read=int,
           short="w"),
    Option("engine", "which collectives, auto, horovod or mpi: --engine mpi", group=WORLD, default="auto",
           choices=ENGINES),
    Option("timeout", "deadline in seconds: --timeout 600", group=WORLD, read=float),
    Option("stall_timeout", "end it after so many seconds without progress: --stall-timeout 60", group=WORLD,
           read=float),
    Option("retries", "restarts after a failure, from the last epoch: --retries 2", (RUN,), WORLD, default=0, read=int),
    Option("workers_per_trial", "ranks of each trial: --workers-per-trial 2", STUDIES, WORLD, default=1, read=int,
           told=False),
    Option("function", "the function to run, if not the last def of the cell: --function train", group=CELL, short="f",
           keyword="", told=False),
    Option("out", "name to bind what comes back to, also when it fails: --out run", group=CELL, short="o", keyword="",
           told=False),
    Option("arg", "an argument (repeatable): --arg lr=0.1", group=FROM, default=(), short="a", keyword="args",
           action="append"),
    Option("params", "hyperparameters of an earlier search or run: --params best", group=FROM),
    Option("init_from", "initial weights from an earlier search or run: --init-from best", group=FROM),
    Option("resume", "go on with a run that did not end, or with a search: --resume RUN", (RUN, SEARCH), FROM),
    Option("seed", "base seed of every random number: --seed 1", group=FROM, read=int),
    Option("batch", "whose batch the code names, global or per-worker: --batch global", group=PROMISE, default="global",
           choices=BATCHES),
    Option("lr_scale", "per-worker learning rate, none, linear or sqrt: --lr-scale linear", group=PROMISE,
           default="none", choices=tuple(LR_SCALES)),
    Option("warmup_epochs", "epochs until the scaled rate: --warmup-epochs 5", group=PROMISE, default=0, read=int),
    Option("sync_batchnorm", "batch norm over the global batch, the default: --no-sync-batchnorm", group=PROMISE,
           default=True, action=BooleanOptionalAction),
    Option("verify", "do steps prove themselves, auto or off; or compare so many with one rank: --verify 3",
           group=PROMISE, default="auto", read=verify_value, choices=("auto", "off"), const=3, nargs="?"),
    Option("show_ranks", "whose prints appear live, 0, all or a list: --show-ranks 0,1", (RUN,), SEEN, default="0",
           told=False),
    Option("quiet", "show nothing while it runs: --quiet", group=SEEN, default=False, action="store_true", told=False),
    Option("background", "return at once with what is under way: --background", group=SEEN, default=False,
           action="store_true", told=False),
    Option("search", 'search these hyperparameters: --search "lr=log(1e-4,1e-1) units=int(16,128)"', (SEARCH,), WHICH,
           keyword="space", told=False),
    Option("space", "as --search, from a dict of the notebook: --space my_space", (SEARCH,), WHICH, told=False),
    Option("trials", "how many trials a search makes: --trials 30", (SEARCH,), WHICH, read=int, told=False),
    Option("maximize", "the number to make large, returned or reported: --maximize val_accuracy", STUDIES, WHICH,
           told=False),
    Option("minimize", "the number to make small, returned or reported: --minimize val_loss", STUDIES, WHICH,
           told=False),
    Option("sampler", "who draws trials, tpe, random, grid, cmaes, gp or nsga2: --sampler random", (SEARCH,), WHICH,
           choices=SAMPLERS, told=False),
    Option("pruner", "who ends trials early, none, median, asha or hyperband: --pruner median", (SEARCH,), WHICH,
           choices=PRUNERS, told=False),
    Option("keep_weights", "of how many best trials: --keep-weights 3", (SEARCH,), WHICH, default=1, read=int,
           told=False),
    Option("ablate", 'leave these out, one at a time: --ablate "features=age,sex layers=conv2"', (ABLATE,), LEFT_OUT,
           keyword="study", told=False),
    Option("study", "as --ablate, from a dict of the notebook: --study my_study", (ABLATE,), LEFT_OUT, told=False),
    Option("repeats", "each run of an ablation so often: --repeats 3", (ABLATE,), LEFT_OUT, default=1, read=int,
           told=False),
)  # fmt: skip


def given(call: str, parsed: Any, leave_out: Iterable[str] = ()) -> dict[str, Any]:
    """The keyword arguments of a call, from what was parsed.

    Args:
        call: ``run``, ``search`` or ``ablate``. parsed: has an attribute for each option.
        leave_out: keywords that are made of what was parsed in another way.
    """
    skipped = {"", *leave_out}
    return {
        option.parameter: getattr(parsed, option.name)
        for option in OPTIONS
        if call in option.calls and option.parameter not in skipped
    }


def misplaced(call: str, parsed: Any) -> Option | None:
    """The first option that was given and that a call does not take, or None."""
    for option in OPTIONS:
        if call not in option.calls and getattr(parsed, option.name) != option.default:
            return option
    return None


def completions(before: str) -> list[str]:
    """What may be typed next: flags, or the words that the last one takes.

    Args:
        before: the magic's line so far, up to the cursor.
    """
    *words, begun = before.split(" ")
    flags = {option.flag: option for option in OPTIONS}
    last = flags.get(words[-1]) if words else None
    if last is not None and last.choices:
        return [word for word in last.choices if word.startswith(begun)]
    if not begun.startswith("-"):
        return []
    offered = [
        *flags,
        *("--no" + flag[1:] for flag, option in flags.items() if option.action is BooleanOptionalAction),
    ]
    return sorted(flag for flag in offered if flag.startswith(begun))


def as_markdown() -> str:
    """The page of all options, for ``docs/options.md``."""
    lines = [
        "# Options",
        "",
        "Of `%%oblivious`, and by the same names in Python (`obl_magic.run(train, workers=4)`). `make options` writes",
        "this page from [obl_magic/options.py](../obl_magic/options.py).",
    ]
    for group in dict.fromkeys(option.group for option in OPTIONS):
        lines += [
            "",
            f"## {group}",
            "",
            "| option | in Python | default | taken by | |",
            "|---|---|---|---|---|",
        ]
        for option in (each for each in OPTIONS if each.group == group):
            short = f"`-{option.short}`, " if option.short else ""
            keyword = f"`{option.parameter}`" if option.parameter else ""
            default = "" if option.default in (None, ()) else f"`{option.default}`"
            what, _, example = option.help.rpartition(": ")
            lines.append(
                f"| {short}`{option.flag}` | {keyword} | {default} | {', '.join(option.calls)} | {what}: `{example}` |"
            )
    return "\n".join(lines) + "\n"
