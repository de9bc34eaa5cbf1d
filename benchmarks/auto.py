"""What ``--workers auto`` takes, against runs on each number of ranks that it may take."""

from __future__ import annotations

from functools import partial

import ranks
import workloads
from ratios import Goal, Line, interleaved

import obl_magic
from obl_magic.hosts.cores import cores

STEPS = {"small": 600, "cnn": 100}
"""Of the one epoch that is measured."""
BATCH = 64


def train(workload: str, steps: int) -> float:
    """Samples/s of so many steps, after some that trace and build."""
    import time

    import keras

    if workload == "small":  # 200 weights
        model = keras.Sequential([keras.Input((99,)), keras.layers.Dense(2)])
        x, y = workloads.floats(99)(BATCH * steps)
        y %= 2
    else:
        model = workloads.cnn()
        x, y = workloads.WORKLOADS["cnn"].data(BATCH * steps)
    model.compile("sgd", workloads.loss())
    model.fit(x[: 8 * BATCH], y[: 8 * BATCH], batch_size=BATCH, verbose=0)
    began = time.perf_counter()
    model.fit(x, y, batch_size=BATCH, verbose=0)
    return steps * BATCH / (time.perf_counter() - began)


def measure(quick: bool) -> list[Line]:
    """Samples/s on each number of ranks, what ``auto`` took, and its speed as a share of the best."""
    lines = []
    for workload, title in (("small", "200 weights"), ("cnn", "CNN")):
        args = {"workload": workload, "steps": STEPS[workload] // (4 if quick else 1)}
        sizes = [n for n in (1, 2, 4, 8) if n <= cores()]
        sides = {str(n): partial(_speed, n, args) for n in sizes}
        taken = interleaved({**sides, "auto": partial(_chosen, args)}, 1 if quick else 5)
        for n in sizes:
            speeds = tuple(taken[str(n)])
            lines.append(
                Line(f"{title}, batch {BATCH}: {n} rank{'' if n == 1 else 's'}", "samples/s", speeds)
            )
        lines.append(Line(f"{title}: --workers auto took", "ranks", tuple(taken["auto"])))
        shares = tuple(
            taken[str(int(chosen))][at] / max(taken[str(n)][at] for n in sizes)
            for at, chosen in enumerate(taken["auto"])
        )
        lines.append(Line(f"{title}: its speed / the best", "ratio", shares, Goal("at least", 0.95)))
    return lines


def _speed(workers: int, args: dict[str, object]) -> float:
    run = obl_magic.run(train, workers=workers, args=args, quiet=True, timeout=ranks.TIMEOUT_S)
    speed: float = run.value
    return speed


def _chosen(args: dict[str, object]) -> float:
    return float(
        obl_magic.run(train, workers="auto", args=args, quiet=True, timeout=ranks.TIMEOUT_S).record.workers
        or 1
    )
