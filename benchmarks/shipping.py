"""What it costs to send data to ranks and to have a model back, in seconds and in copies of it.

A copy is what the memory of all ranks grows by, shared pages counted once, over what the same run takes with next to
no data. The kernel's memory is not looked at. Every rank reads all of the data.
"""

from __future__ import annotations

import os
import pickle
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ranks
import startup
from ratios import Goal, Line, interleaved, ratio

import obl_magic
from obl_magic.capture import capture

SIZES = {"1 kB": 1 << 10, "10 MB": 10 << 20, "1 GB": 1 << 30}
RANKS = (1, 4, 8)
MODELS_MB = (10, 500)
NAMES = 200


def measure(quick: bool) -> list[Line]:
    """Data there, models back, and a notebook of many names."""
    turns = 1 if quick else 5
    return [*_there(turns, quick), *_back(turns, quick), _captured(turns)]


def held(data: Any, folder: str) -> float:
    """Reads all of the data, and waits; when it was there, seconds since 1970."""
    import time
    from pathlib import Path

    there_s = time.time()
    data.sum()
    Path(folder, f"here-{os.getpid()}").touch()
    while not Path(folder, "go").exists():
        time.sleep(0.01)
    return there_s


def _there(turns: int, quick: bool) -> list[Line]:
    arrays = {
        name: np.ones(size // 8, np.float64) for name, size in SIZES.items() if not (quick and size > 1 << 25)
    }
    _sent(arrays["1 kB"], 1)  # the server is there; not counted
    sides: dict[Any, Any] = {
        (name, n): partial(_sent, array, n) for n in RANKS for name, array in arrays.items()
    }
    largest, array = next(reversed(arrays.items()))
    taken = interleaved({**sides, "memcpy": partial(_memcpy_s, array)}, turns)
    lines = [Line(f"one memcpy of {largest}", "s", tuple(taken["memcpy"]))]
    for n in RANKS:
        least = taken["1 kB", n]
        for name in arrays:
            seconds = tuple(seconds for seconds, _ in taken[name, n])
            lines.append(Line(f"{name} to {n} ranks", "s", seconds))
        most = taken[largest, n]
        more = [mine - other for (mine, _), (other, _) in zip(most, least, strict=True)]
        copies = [
            (mine - other) / (SIZES[largest] / 2**20)
            for (_, mine), (_, other) in zip(most, least, strict=True)
        ]
        goals = (Goal("at most", 2), Goal("at most", 1.2)) if n == RANKS[-1] else (None, None)
        lines.append(ratio(f"  {largest} more than 1 kB / one memcpy", more, taken["memcpy"], goals[0]))
        lines.append(
            Line(f"  {largest}: copies in the memory of all ranks", "copies", tuple(copies), goals[1])
        )
    return lines


def _sent(array: Any, how_many: int) -> tuple[float, float]:
    """Seconds until the last rank has the array, and the megabytes that the ranks hold once all have read it."""
    with tempfile.TemporaryDirectory() as folder:
        began_s = time.time()
        run = obl_magic.run(
            held, workers=how_many, engine="mpi", args={"data": array, "folder": folder}, quiet=True, background=True,
            timeout=ranks.TIMEOUT_S,
        )  # fmt: skip
        while len(here := list(Path(folder).glob("here-*"))) < how_many and run.status == "running":
            time.sleep(0.01)
        megabytes = ranks.memory_mb([int(path.name.removeprefix("here-")) for path in here])
        Path(folder, "go").touch()
        run.wait()
    return max(run.values) - began_s, megabytes


def _memcpy_s(array: Any) -> float:
    """Seconds in which one core copies the array into memory that is there already."""
    there = np.zeros_like(array)
    there += 1
    began_s = time.perf_counter()
    np.copyto(there, array)
    return time.perf_counter() - began_s


def model_of(megabytes: int) -> tuple[Any, float]:
    """A model whose weights take so much; and when the function returned, seconds since 1970."""
    import time

    import keras

    wide = int((megabytes * (1 << 20) / 4) ** 0.5)
    model = keras.Sequential([keras.Input((wide,)), keras.layers.Dense(wide, use_bias=False)])
    return model, time.time()


def _back(turns: int, quick: bool) -> list[Line]:
    import keras  # noqa: F401  # as a notebook that gets a model has it; not counted

    lines = []
    for megabytes in MODELS_MB[:1] if quick else MODELS_MB:
        sides = {"ours": partial(_came_back, megabytes), "pickle": partial(_through_a_file, megabytes)}
        taken = interleaved(sides, turns)
        what = f"a model of {megabytes} MB"
        lines += [
            Line(f"{what}, from the function's end to its use in the kernel", "s", tuple(taken["ours"])),
            Line(f"{what}, pickled to a file and read", "s", tuple(taken["pickle"])),
            ratio(
                f"{what}, back from 2 ranks / through a file",
                taken["ours"],
                taken["pickle"],
                Goal("at most", 1.3),
            ),
        ]
    return lines


def _came_back(megabytes: int) -> float:
    run = obl_magic.run(model_of, workers=2, engine="mpi", args={"megabytes": megabytes}, quiet=True)
    _, returned_s = run.value
    return time.time() - returned_s


def _through_a_file(megabytes: int) -> float:
    model, _ = model_of(megabytes)
    with tempfile.TemporaryDirectory() as folder:
        began_s = time.perf_counter()
        path = Path(folder, "model")
        with path.open("wb") as file:
            pickle.dump(model, file, protocol=5)
        with path.open("rb") as file:
            pickle.load(file)
        return time.perf_counter() - began_s


def _captured(turns: int) -> Line:
    """A function that reaches a notebook's functions, each of which reaches a number and another function."""
    last = NAMES // 2
    numbers = "".join(f"n{number} = {number}.5\n" for number in range(last))
    functions = "".join(
        f"def f{number}(x):\n    return x + n{number} + f{number + 1}(x)\n" for number in range(last)
    )
    namespace: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(f"{numbers}{functions}def f{last}(x):\n    return x\n", "<cell>", "exec"), namespace)
    capture(startup.first_step)  # what is imported for the first time is not counted
    taken = []
    for _ in range(turns):
        began_s = time.perf_counter()
        capture(namespace["f0"], args={"x": 1.0}, cells=lambda name: None)
        taken.append(1000 * (time.perf_counter() - began_s))
    return Line(f"capture of a function that reaches {NAMES} names", "ms", tuple(taken), Goal("at most", 50))
