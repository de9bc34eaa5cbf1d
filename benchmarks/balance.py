"""What a slow rank costs, with equal shares and with shares that follow the ranks' pace.

Two ranks with a processor each; on the last one's run programs that only count, so that it has a half or a third of it.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from functools import partial

from ratios import Goal, Line, interleaved

import obl_magic

SLOWED = (1, 2, 3)
ENGINES = ("mpi", "horovod")
BATCH, STEPS, EPOCHS, COUNTED = 256, 12, 8, 3
COUNTS = "import os; os.sched_setaffinity(0, {1})\nwhile True: pass"


def measure(quick: bool) -> list[Line]:
    """Seconds an epoch takes; the ideal is what ranks of these paces could do together."""
    turns = 1 if quick else 5
    lines = []
    for engine in ENGINES[:1] if quick else ENGINES:
        sides = {
            f"{slow} {'balanced' if balanced else 'equal'}": partial(_epoch_s, engine, slow, balanced)
            for slow in SLOWED
            for balanced in (False, True)
        }
        taken = interleaved(sides, turns)
        for slow in SLOWED:
            ideal = [2 / (1 + 1 / slow) * alone for alone in taken["1 equal"]]
            for how in ("equal", "balanced"):
                seconds = tuple(taken[f"{slow} {how}"])
                lines.append(Line(f"{engine}: last rank {slow}x slower, {how} shares", "s an epoch", seconds))
            shares = tuple(mine / best for mine, best in zip(taken[f"{slow} balanced"], ideal, strict=True))
            lines.append(
                Line(f"{engine}: the same, balanced / ideal", "ratio", shares, Goal("at most", 1.15))
            )
    return lines


def train() -> list[float]:
    """Seconds of each epoch of the CNN; each rank on a processor of its own. The ranks are told apart to slow one."""
    import os
    import time

    import keras
    import workloads

    rank = int(os.environ.get("OMPI_COMM_WORLD_RANK", "0"))
    for thread in os.listdir("/proc/self/task"):
        os.sched_setaffinity(int(thread), {rank})
    model = workloads.cnn()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.01), loss)
    x, y = workloads.WORKLOADS["cnn"].data(BATCH * STEPS)
    began: list[float] = []
    took: list[float] = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: began.append(time.perf_counter()),
        on_epoch_end=lambda epoch, logs: took.append(time.perf_counter() - began[-1]),
    )
    model.fit(x, y, batch_size=BATCH, epochs=EPOCHS, callbacks=[watch], verbose=0)
    return took


def _epoch_s(engine: str, slow: int, balanced: bool) -> float:
    counting = [subprocess.Popen([sys.executable, "-c", COUNTS]) for _ in range(slow - 1)]
    try:
        run = obl_magic.run(train, workers=2, engine=engine, balance=balanced, quiet=True)
    finally:
        for each in counting:
            each.kill()
            each.wait()
    took: list[float] = run.value
    return statistics.median(took[-COUNTED:])
