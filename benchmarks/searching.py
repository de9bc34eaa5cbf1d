"""Searches: against Optuna alone, per trial in a warm world, and with trials of uneven length.

Optuna's side is this file as a program of its own (``python searching.py optuna TRIALS --journal FILE``), as its users
run it, and so is ours (``python searching.py oblivious TRIALS``): both are timed from their start to their end.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count, pairwise
from operator import attrgetter
from pathlib import Path
from typing import Any

import others
import ranks
from ratios import Goal, Line, interleaved, ratio

import obl_magic
from obl_magic.rundir import StudyDir
from obl_magic.study.record import TrialRecord, read

TRIALS = 20
CALLS = 12
WORKERS = 2
SEED = 7
SAMPLERS = ("random", "tpe")
SAMPLER = "tpe"
"""Whose searches are timed: the default of both sides."""
SPACE = "lr=log(1e-4,1e-1) drop=float(0,0.5)"
PLAIN_SPACE = "x=float(-5,5) y=log(1e-3,1e3) kind=choice('a','b')"
PER_TRIAL = Goal("at most", 50)

OURS = f"obl_magic, {WORKERS} workers"
PROCESSES = f"Optuna, {WORKERS} processes, one journal"
THREADS = f"Optuna, n_jobs={WORKERS}"
RAY = f"Ray Tune, {WORKERS} at a time"

SIGMA = 0.8
MEDIAN_S, SHORTEST_S, LONGEST_S = 0.5, 0.1, 2.0
DRAWN = f"{TRIALS} trials, log-normal {SHORTEST_S:g} to {LONGEST_S:g} s, sigma {SIGMA:g}"
FULL_S, EPOCHS, FULL = 4.0, 20, 6
STOPPED = f"{TRIALS} trials, {FULL} of {EPOCHS} epochs in {FULL_S:g} s, the others stopped early after one"
SOONER = 0.33
"""What asynchronous trials saved at the least where they were published (Maggy, 2020): with early stopping."""


def train(lr: float = 1e-2, drop: float = 0.0, epochs: int = 4) -> dict[str, float]:
    """A small network on scikit-learn's digits, whose length no parameter changes; and its own seconds."""
    import time

    began_s = time.perf_counter()
    import keras
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    layers = [keras.layers.Dense(64, "relu"), keras.layers.Dropout(drop), keras.layers.Dense(10)]
    model = keras.Sequential([keras.Input((64,)), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(lr), loss, metrics=["accuracy"])
    fit = model.fit(x / 16.0, y, batch_size=64, epochs=epochs, validation_split=0.2, verbose=0)
    return {"val_accuracy": fit.history["val_accuracy"][-1], "own_s": time.perf_counter() - began_s}


def plain_function(x: float = 0.0, y: float = 1.0, kind: str = "a") -> float:
    """A smooth function with a valley, the same on every machine, so that TPE has something to follow."""
    import math

    return (x - 1.0) ** 2 + math.log10(y) ** 2 + (kind == "b")


def at_once(x: float = 0.0) -> float:
    """Nothing."""
    return x


def sleep(
    index: int = 0, lengths_s: Sequence[float] = (), meeting: str = "", worlds: int = 1
) -> dict[str, float]:
    """Sleeps as long as the trial of this index lasts; a world's first one waits until all worlds are there."""
    import os
    import time
    from pathlib import Path

    if "MET" not in os.environ:
        Path(meeting, str(os.getpid())).touch()
        while len(os.listdir(meeting)) < worlds:
            time.sleep(0.001)
        os.environ["MET"] = "yes"
    began_s = time.time()
    time.sleep(lengths_s[index])
    return {"value": 0.0, "began_s": began_s}


def measure(quick: bool) -> list[Line]:
    """The same trials, walls and their ratios, milliseconds per trial, and makespans."""
    return [*_same_trials(), *_against_optuna(quick), *_per_trial(quick), *_uneven(quick)]


# --- the same trials


def _same_trials() -> list[Line]:
    lines = []
    for sampler in SAMPLERS:
        study = obl_magic.search(
            plain_function, PLAIN_SPACE, trials=TRIALS, minimize="value", workers=1, sampler=sampler, seed=SEED,
            quiet=True, timeout=ranks.TIMEOUT_S,
        )  # fmt: skip
        ours = study.trials.sort_values("number")[["x", "y", "kind", "value"]].to_dict("records")
        same = sum(mine == other for mine, other in zip(ours, optunas_trials(sampler), strict=True))
        what = f"{sampler}, one world: trials as study.optimize(n_jobs=1) draws them, of {TRIALS}"
        lines.append(Line(what, "trials", (float(same),), Goal("at least", TRIALS)))
    return lines


def optunas_trials(sampler: str) -> list[dict[str, Any]]:
    """Parameters and values as Optuna alone finds them, in order."""
    import optuna

    def objective(trial: optuna.Trial) -> float:
        return plain_function(
            x=trial.suggest_float("x", -5, 5),
            y=trial.suggest_float("y", 1e-3, 1e3, log=True),
            kind=trial.suggest_categorical("kind", ["a", "b"]),
        )

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="minimize", sampler=_sampler(sampler, SEED))
    study.optimize(objective, n_trials=TRIALS, n_jobs=1)
    return [{**trial.params, "value": trial.value} for trial in study.trials]


# --- against Optuna alone


@dataclass(frozen=True, slots=True)
class Took:
    """How long a search took.

    Attributes:
        whole_s: from the start of its processes to their end, in seconds.
        trials_s: from the begin of its first trial to the end of its last, in seconds.
    """

    whole_s: float
    trials_s: float


def _against_optuna(quick: bool) -> list[Line]:
    trials = 6 if quick else TRIALS
    sides: dict[str, Callable[[], Took]] = {
        OURS: partial(_ours, trials),
        PROCESSES: partial(_optunas, trials, processes=WORKERS, threads=1),
        THREADS: partial(_optunas, trials, processes=1, threads=WORKERS),
    }
    if others.has("ray"):
        sides[RAY] = partial(_rays, trials)
    took = interleaved(sides, repetitions=1 if quick else 5)
    case = f"{trials} trials, {SAMPLER}"
    lines = []
    for span, seconds_of in (
        ("wall", attrgetter("whole_s")),
        ("first begin to last end", attrgetter("trials_s")),
    ):
        of = {side: tuple(map(seconds_of, turns)) for side, turns in took.items()}
        lines += [Line(f"{case}, {span}: {side}", "s", seconds) for side, seconds in of.items()]
        lines += [
            ratio(f"{case}, {span}: obl_magic / {side}", of[OURS], of[side], Goal("at most", 1))
            for side in sides
            if side != OURS
        ]
    return lines


def _ours(trials: int) -> Took:
    argv = [sys.executable, __file__, "oblivious", str(trials)]
    began_s = time.perf_counter()
    said = ranks.wait_for(argv, ranks.plain_environment())
    return Took(time.perf_counter() - began_s, _span_s([said]))


def _optunas(trials: int, *, processes: int, threads: int) -> Took:
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(processes) as waiting:
        argv = [sys.executable, __file__, "optuna", str(trials // processes), "--n-jobs", str(threads)]
        argv += ["--journal", str(Path(folder, "journal"))]
        began_s = time.perf_counter()
        each = [
            waiting.submit(ranks.wait_for, [*argv, "--seed", str(SEED + number)], ranks.plain_environment())
            for number in range(processes)
        ]
        said = [process.result() for process in each]
        return Took(time.perf_counter() - began_s, _span_s(said))


def _rays(trials: int) -> Took:
    with tempfile.TemporaryDirectory() as folder:
        began_s = time.perf_counter()
        span = others.said_by(Path(__file__).with_name("by_ray.py"), str(trials), str(SEED), folder)
        return Took(time.perf_counter() - began_s, span[1] - span[0])


def _span_s(said: Sequence[str]) -> float:
    spans = [json.loads(text.splitlines()[-1]) for text in said]
    return max(ended_s for _, ended_s in spans) - min(began_s for began_s, _ in spans)


def search_ours(trials: int) -> tuple[float, float]:
    """When the first trial began and when the last one ended, in seconds since 1970."""
    study = obl_magic.search(
        train, SPACE, trials=trials, maximize="val_accuracy", workers=WORKERS, sampler=SAMPLER, seed=SEED,
        quiet=True, timeout=ranks.TIMEOUT_S,
    )  # fmt: skip
    records = records_of(study)
    return min(record.began_s for record in records), max(record.ended_s for record in records)


def records_of(study: obl_magic.Study) -> list[TrialRecord]:
    """The trials of a study with their times, by number."""
    return read(StudyDir(study.dir).rows)


def search_optunas(trials: int, jobs: int, journal: str, seed: int) -> tuple[float, float]:
    """The same by Optuna's own means, in this process; a journal is shared with whoever else opens it."""
    import keras  # as the head of a script does, so that it is no trial's
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    spans: list[tuple[float, float]] = []

    def objective(trial: optuna.Trial) -> float:
        began_s = time.time()
        if jobs == 1:  # threads share what it clears
            keras.backend.clear_session()
        keras.utils.set_random_seed(seed + trial.number)
        found = train(
            lr=trial.suggest_float("lr", 1e-4, 1e-1, log=True), drop=trial.suggest_float("drop", 0, 0.5)
        )
        spans.append((began_s, time.time()))
        return found["val_accuracy"]

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(
        storage=JournalStorage(JournalFileBackend(journal)), study_name="study", direction="maximize",
        sampler=_sampler(SAMPLER, seed), load_if_exists=True,
    )  # fmt: skip
    study.optimize(objective, n_trials=trials, n_jobs=jobs)
    return min(began_s for began_s, _ in spans), max(ended_s for _, ended_s in spans)


def _sampler(name: str, seed: int) -> Any:
    from optuna import samplers

    return samplers.TPESampler(seed=seed) if name == "tpe" else samplers.RandomSampler(seed=seed)


# --- what a trial costs in a warm world


def _per_trial(quick: bool) -> list[Line]:
    sides: dict[str, Callable[[], Sequence[float]]] = {
        "at once": _trials_at_once, "fits": _trials_of_fits, "plain": _plain_fits,
    }  # fmt: skip
    turns = interleaved(sides, repetitions=1 if quick else 5)
    at_once_ms, *_ = _in_ms(turns["at once"])
    whole_ms, around_ms = _in_ms(turns["fits"])
    plain_ms, *_ = _in_ms(turns["plain"])
    beside_ms = tuple(mine - other for mine, other in zip(whole_ms, plain_ms, strict=True))
    return [
        Line("a trial that returns at once, from one's end to the next one's", "ms", at_once_ms, PER_TRIAL),
        Line("a small fit: the call alone in a warm plain process", "ms", plain_ms),
        Line("a small fit: from one trial's end to the next one's, warm world", "ms", whole_ms),
        Line("a small fit: of that, outside the function", "ms", around_ms, PER_TRIAL),
        Line("a small fit: trial less plain call", "ms", beside_ms, PER_TRIAL),
    ]


def _in_ms(turns: Sequence[Sequence[float]]) -> list[tuple[float, ...]]:
    """What each turn measured, by what was measured."""
    return [tuple(1000 * seconds for seconds in each) for each in zip(*turns, strict=True)]


def _trials_at_once() -> tuple[float]:
    study = obl_magic.search(
        at_once, "x=float(0,1)", trials=CALLS, maximize="value", workers=1, sampler="random", seed=SEED, quiet=True,
        timeout=ranks.TIMEOUT_S,
    )  # fmt: skip
    return (statistics.median(periods_s(records_of(study))),)


def _trials_of_fits() -> tuple[float, float]:
    study = obl_magic.search(
        train, SPACE, trials=CALLS, maximize="val_accuracy", workers=1, sampler="random", seed=SEED, quiet=True,
        timeout=ranks.TIMEOUT_S,
    )  # fmt: skip
    records = records_of(study)
    periods = periods_s(records)
    own_s = [record.returned["own_s"] for record in records[1:]]
    around_s = [period - own for period, own in zip(periods, own_s, strict=True)]
    return statistics.median(periods), statistics.median(around_s)


def _plain_fits() -> tuple[float]:
    argv = [sys.executable, __file__, "plain", str(CALLS)]
    return (float(json.loads(ranks.wait_for(argv, ranks.plain_environment()).splitlines()[-1])),)


def plain_calls(times: int) -> float:
    """Median seconds of the call in this process, from the second on; what clears up between two is not counted."""
    import gc

    import keras

    own_s = []
    for _ in range(times):
        own_s.append(train(drop=0.25)["own_s"])
        keras.backend.clear_session()
        gc.collect()
    return statistics.median(own_s[1:])


def periods_s(records: Sequence[TrialRecord]) -> list[float]:
    """Seconds from each trial's end to the next one's, in one world: what warms it is the first one's alone."""
    return [later.ended_s - earlier.ended_s for earlier, later in pairwise(records)]


# --- trials of uneven length


def _uneven(quick: bool) -> list[Line]:
    seeds = range(1 if quick else 5)
    lines = []
    for drawn, of, worlds, goal in (
        (DRAWN, lengths, 2, None),
        (STOPPED, stopped_early, 2, Goal("at least", SOONER)),
        (DRAWN, lengths, 4, Goal("at least", SOONER)),
    ):
        runs = [_makespan(of(seed), worlds, seed) for seed in seeds]
        best = tuple(took_s / greedy_s(in_order, worlds) for took_s, in_order in runs)
        sooner = tuple(1 - took_s / staged_s(in_order, worlds) for took_s, in_order in runs)
        case = f"{drawn}, {worlds} worlds"
        note = " (of pairs, 0.25 is to be had in the mean: no goal)" if goal is None else ""
        lines += [
            Line(f"{case}: makespan", "s", tuple(took_s for took_s, _ in runs)),
            Line(f"{case}: makespan / ideal greedy", "ratio", best, Goal("at most", 1.05)),
            Line(f"{case}: of the time of stages, saved{note}", "", sooner, goal),
        ]
    return lines


def stopped_early(seed: int) -> list[float]:
    """Lengths of trials in seconds where a pruner ends most of them after their first epoch."""
    import random

    found = [FULL_S] * FULL + [FULL_S / EPOCHS] * (TRIALS - FULL)
    random.Random(seed).shuffle(found)
    return found


def lengths(seed: int) -> list[float]:
    """Lengths of trials in seconds: log-normal, cut to a range."""
    import random

    draw = random.Random(seed)
    drawn = (MEDIAN_S * draw.lognormvariate(0, SIGMA) for _ in count())
    return [min(max(next(drawn), SHORTEST_S), LONGEST_S) for _ in range(TRIALS)]


def greedy_s(lengths_s: Sequence[float], worlds: int) -> float:
    """Makespan where whichever world is free takes the next trial, at no cost."""
    free_s = [0.0] * worlds
    for length_s in lengths_s:
        free_s.sort()
        free_s[0] += length_s
    return max(free_s)


def staged_s(lengths_s: Sequence[float], worlds: int) -> float:
    """Makespan of stages of as many trials as there are worlds, each as long as its longest, at no cost."""
    return sum(max(lengths_s[at : at + worlds]) for at in range(0, len(lengths_s), worlds))


def _makespan(lengths_s: Sequence[float], worlds: int, seed: int) -> tuple[float, list[float]]:
    """Seconds from when all worlds are there to the last trial's end; and the lengths in the order asked."""
    with tempfile.TemporaryDirectory() as meeting:
        study = obl_magic.search(
            sleep, f"index=int(0,{len(lengths_s) - 1})", trials=len(lengths_s), maximize="value", sampler="grid",
            workers=worlds, seed=seed, quiet=True, timeout=ranks.TIMEOUT_S,
            args={"lengths_s": list(lengths_s), "meeting": meeting, "worlds": worlds},
        )  # fmt: skip
    records = records_of(study)
    began_s = min(record.returned["began_s"] for record in records)
    in_order = [lengths_s[record.params["index"]] for record in records]
    return max(record.ended_s for record in records) - began_s, in_order


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("side", choices=("oblivious", "optuna", "plain"))
    parser.add_argument("trials", type=int)
    parser.add_argument("--n-jobs", type=int, default=1)
    parser.add_argument("--journal")
    parser.add_argument("--seed", type=int, default=SEED)
    wish = parser.parse_args()
    if wish.side == "oblivious":
        print(json.dumps(search_ours(wish.trials)))
    elif wish.side == "optuna":
        print(json.dumps(search_optunas(wish.trials, wish.n_jobs, wish.journal, wish.seed)))
    else:
        print(json.dumps(plain_calls(wish.trials)))
