"""Checks what was asked for, before anything is started: one line for whatever is wrong. Starts nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from obl_magic.doctor import choose_engine
from obl_magic.errors import SetupProblem, UsageProblem
from obl_magic.library_settings import generators
from obl_magic.options import BATCHES, ENGINES
from obl_magic.values import DEFAULT_SEED, LR_SCALES, PROVES, Options, Settings

VERIFY_STEPS = 3
"""What ``--verify`` without a number compares."""


def checked_verify(verify: str | int | bool, steps: bool = True) -> tuple[bool, int]:
    """Whether steps prove themselves, and how many steps are compared with one rank's before training.

    Args:
        verify: ``auto``, ``off`` or a number of steps; True stands for three. steps: a number makes sense here.

    Raises:
        UsageProblem: it is none of these.
    """
    if verify in PROVES or verify is False:
        return verify != "off", 0
    if not steps:
        raise UsageProblem(
            f"verify={verify!r} for a search or an ablation", "auto or off", "verify one run: --verify 3"
        )
    if not isinstance(verify, int) or verify < 1:
        raise UsageProblem(f"verify={verify!r}", "auto, off or a number of steps, 1 or more", "--verify 3")
    return True, VERIFY_STEPS if verify is True else verify


def checked_settings(
    batch: str, lr_scale: str, warmup_epochs: int, sync_batchnorm: bool, prove: bool = True
) -> Settings:
    """How Keras is to be made oblivious, if what was asked for makes sense; else UsageProblem."""
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
    return Settings(batch, lr_scale, warmup_epochs, sync_batchnorm, prove)


def checked_options(
    workers: int | None,
    engine: str,
    settings: Settings,
    seed: int | None,
    timeout: float | None,
    stall_timeout: float | None,
    retries: int,
    show_ranks: str | Sequence[int],
    quiet: bool,
) -> Options:
    """The options of a run, if what was asked for makes sense; else UsageProblem."""
    if workers is not None and (isinstance(workers, bool) or not isinstance(workers, int) or workers < 1):
        raise UsageProblem(f"workers={workers!r}", "a whole number of ranks, 1 or more", "workers=2")
    _check_working_folder()
    if engine not in ENGINES:
        raise UsageProblem(f"engine {engine!r}", "auto, horovod or mpi", "--engine auto")
    for name, seconds in (("timeout", timeout), ("stall_timeout", stall_timeout)):
        number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        if seconds is not None and not (number and seconds > 0):
            raise UsageProblem(f"{name}={seconds!r}", "seconds, more than 0", f"{name}=600")
    if stall_timeout is not None and workers is None:
        raise UsageProblem("stall_timeout without workers", "a number of workers", "workers=1")
    if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
        raise UsageProblem(f"retries={retries!r}", "a whole number of restarts, 0 or more", "retries=1")
    if retries and workers is None:
        raise UsageProblem("retries without workers", "a number of workers", "workers=1")
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or seed < 0):
        raise UsageProblem(f"seed={seed!r}", "a whole number, 0 or more", "seed=1")
    ranks = _shown_ranks(show_ranks, workers or 1)
    base = generators.notebook_seed() if seed is None else seed
    return Options(
        workers, engine, settings, DEFAULT_SEED if base is None else base, ranks, quiet, timeout, stall_timeout,
        retries, seed is not None,
    )  # fmt: skip


def _check_working_folder() -> None:
    """Refuses to begin in a folder that somebody has removed: whatever looks for a file would fail in it."""
    try:
        os.getcwd()
    except OSError as error:
        raise SetupProblem(
            f"the working folder does not exist any more ({error.strerror})", "os.chdir to a folder that does"
        ) from None


def checked_args(args: Mapping[str, Any] | None) -> dict[str, Any]:
    """Arguments by name; else UsageProblem."""
    if args is not None and not isinstance(args, Mapping):
        raise UsageProblem(f"args of type {type(args).__name__}", "arguments by name", "args={'lr': 0.01}")
    return dict(args or {})


def checked_whole(name: str, value: int, least: int) -> int:
    """A whole number that is large enough; else UsageProblem."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageProblem(f"{name}={value!r}", f"a whole number, {least} or more", f"{name}={max(least, 1)}")
    return value


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


def engine_for(options: Options) -> tuple[str, str]:
    """(engine, why this one); SetupProblem if it does not work here."""
    choice = choose_engine(options.engine)
    return choice.engine, choice.reason
