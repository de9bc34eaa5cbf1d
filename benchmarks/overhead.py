"""What one worker in the kernel costs against the plain call of the same function: per step and per epoch.

Both sides run in one process of their own (``python overhead.py REPETITIONS SCALE`` prints seconds as JSON),
so that they share one TensorFlow, warm alike.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import ranks
from ratios import Goal, Line, interleaved, ratio
from workloads import WORKLOADS, cnn, loss

import obl_magic

CNN_STEP, TINY_STEP, TINY_EPOCH = (
    "CNN, batch 64, a step",
    "4 weights, batch 8, a step",
    "4 weights, an epoch of 1 step",
)


def train_cnn(steps: int, epochs: int) -> float:
    """Seconds of one step of the CNN."""
    x, y = WORKLOADS["cnn"].data(64 * steps)
    return timed_fit(cnn(), loss(), x, y, 64, epochs) / steps


def train_tiny(steps: int, epochs: int) -> float:
    """Seconds of one step of next to nothing, so that only the machinery around it is left."""
    import keras
    import numpy as np

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, use_bias=False)])
    x = np.ones((8 * steps, 4), np.float32)
    return timed_fit(model, "mse", x, x[:, :1], 8, epochs) / steps


def timed_fit(model: Any, objective: Any, x: Any, y: Any, batch: int, epochs: int) -> float:
    """Median seconds of an epoch, from the second on."""
    import keras

    ends: list[float] = []
    clock = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: ends.append(time.perf_counter()))
    model.compile("sgd", objective)
    model.fit(x, y, batch_size=batch, epochs=epochs, shuffle=False, verbose=0, callbacks=[clock])
    return statistics.median(later - earlier for earlier, later in pairwise(ends))


def measure(quick: bool) -> list[Line]:
    """Microseconds of a step or an epoch on both sides, and the ratio of the speeds."""
    argv = [sys.executable, __file__, *(("2", "0.25") if quick else ("5", "0.5"))]
    seconds = json.loads(ranks.wait_for(argv, ranks.plain_environment()).splitlines()[-1])
    lines = []
    for case, sides in seconds.items():
        lines += [
            Line(f"{case}: plain Keras", "µs", tuple(1e6 * value for value in sides["plain"])),
            Line(
                f"{case}: obl_magic in the kernel", "µs", tuple(1e6 * value for value in sides["oblivious"])
            ),
            ratio(
                f"{case}: speed, obl_magic / plain",
                sides["plain"],
                sides["oblivious"],
                Goal("at least", 0.97),
            ),
        ]
    return lines


def _both(repetitions: int, scale: float) -> dict[str, dict[str, list[float]]]:
    cases: dict[str, tuple[Callable[..., float], dict[str, int]]] = {
        CNN_STEP: (train_cnn, {"steps": int(60 * scale), "epochs": 4}),
        TINY_STEP: (train_tiny, {"steps": int(1000 * scale), "epochs": 4}),
        TINY_EPOCH: (train_tiny, {"steps": 1, "epochs": int(200 * scale)}),
    }
    seconds = {}
    for case, (function, args) in cases.items():
        sides = {"plain": partial(function, **args), "oblivious": partial(_in_kernel, function, args)}
        interleaved(sides, repetitions=1)  # warms both; not counted
        seconds[case] = interleaved(sides, repetitions)
    return seconds


def _in_kernel(function: Callable[..., float], args: dict[str, int]) -> float:
    value: float = obl_magic.run(function, args=args, quiet=True).value
    return value


if __name__ == "__main__":
    print(json.dumps(_both(int(sys.argv[1]), float(sys.argv[2]))))
