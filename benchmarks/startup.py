"""What a user waits for: the import, the extension, and ranks, from nothing and from the fork server."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import others
import ranks
from ratios import Goal, Line, interleaved, ratio

import obl_magic
from obl_magic.errors import SetupProblem
from obl_magic.server.server import SERVER
from obl_magic.setup.doctor import choose_engine

RANKS = 2
FORKED = {2: 150, 8: 800}
"""Ranks -> milliseconds that they may need more than a warm process."""
IDLE_S = 3.0

IMPORT = """
import time
began = time.perf_counter()
import obl_magic
print(time.perf_counter() - began)
"""

LOAD_EXT = """
import time
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
shell.run_cell("1 + 1")
began = time.perf_counter()
shell.run_line_magic("load_ext", "obl_magic")
print(time.perf_counter() - began)
"""

READY = """
import sys, time
import tensorflow
{communicator}
print(time.time(), flush=True)
"""
COMMUNICATORS = {
    "horovod": "import horovod.tensorflow as hvd; hvd.init()",
    "mpi": "from mpi4py import MPI; MPI.COMM_WORLD.Dup()",
}
"""What makes the collectives ready, as one does it by hand."""


def ready() -> float:
    """When the frameworks are imported and the collectives ready: seconds since 1970."""
    import time

    import tensorflow  # noqa: F401

    return time.time()


def first_step() -> float:
    """Trains two steps; when the first one was done, seconds since 1970."""
    import time

    import keras
    import numpy as np

    begun: list[float] = []
    clock = keras.callbacks.LambdaCallback(on_train_batch_begin=lambda batch, logs: begun.append(time.time()))
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.ones((16, 4)), np.ones(16), batch_size=8, verbose=0, callbacks=[clock])
    return begun[1]


def measure(quick: bool) -> list[Line]:
    """Milliseconds of the imports, seconds of the launches and of first steps, and what we add to them."""
    turns = 2 if quick else 5
    imports = interleaved(
        {"import obl_magic": lambda: _python(IMPORT), "%load_ext obl_magic": lambda: _python(LOAD_EXT)},
        repetitions=3 if quick else 7,
    )
    lines = [
        Line("import obl_magic", "ms", _ms(imports["import obl_magic"]), Goal("at most", 100)),
        Line("%load_ext obl_magic", "ms", _ms(imports["%load_ext obl_magic"]), Goal("at most", 300)),
    ]
    for engine in _engines():
        lines += [*_cold(engine, turns), *_forked(engine, turns)]
    return [*lines, *_by_ipyparallel(turns), *_what_it_costs(turns)]


def _engines() -> list[str]:
    """Those that work here."""
    found = []
    for engine in COMMUNICATORS:
        try:
            found.append(choose_engine(engine).engine)
        except SetupProblem:
            continue
    return found


def _cold(engine: str, turns: int) -> list[Line]:
    """From nothing to ranks that are ready, by hand and by us without the server, and to the first step."""
    SERVER.allowed = False
    hand = f"{engine}: cold, {RANKS} ranks ready, mpirun by hand"
    ours = f"{engine}: cold, {RANKS} ranks ready, obl_magic"
    first = f"{engine}: cold, first step, obl_magic"
    sides: dict[str, Callable[[], float]] = {
        hand: partial(_ready_by_hand, engine),
        ours: partial(until, ready, engine),
        first: partial(until, first_step, engine),
    }
    taken = interleaved(sides, turns)
    return [
        *(Line(side, "s", tuple(seconds)) for side, seconds in taken.items()),
        ratio(f"{engine}: ranks ready, obl_magic / by hand", taken[ours], taken[hand], Goal("at most", 1.15)),
    ]


def _forked(engine: str, turns: int) -> list[Line]:
    """To the first step of ranks that are forked, against the same function in a process that has run it before."""
    SERVER.allow()
    until(first_step, engine)  # a kernel that has run a cell before; not counted
    sides: dict[str, Callable[[], float]] = {
        f"{engine}: first step, warm process": _in_a_warm_process,
        **{
            f"{engine}: first step, {ranks} ranks forked": partial(until, first_step, engine, ranks)
            for ranks in FORKED
        },
    }
    taken = interleaved(sides, turns)
    (warm, *_), lines = taken, []
    for (side, seconds), goal_ms in zip(taken.items(), (None, *FORKED.values()), strict=True):
        lines.append(Line(side, "ms", _ms(seconds)))
        if goal_ms is not None:
            more = [there - here for there, here in zip(seconds, taken[warm], strict=True)]
            lines.append(Line(f"{side}, more than warm", "ms", _ms(more), Goal("at most", goal_ms)))
    return lines


def _by_ipyparallel(turns: int) -> list[Line]:
    """Engines that run already keep what they have imported, and all that earlier cells have left in them."""
    if not others.has("ipyparallel"):
        return []
    first, *later = others.said_by(Path(__file__).with_name("by_ipyparallel.py"), str(turns + 1))
    return [
        Line(f"ipyparallel: cold, first step on {RANKS} engines", "s", (first,)),
        Line(f"ipyparallel: first step, {RANKS} engines that run", "ms", _ms(later)),
    ]


def _what_it_costs(turns: int) -> list[Line]:
    """Memory of this process with its server, and of eight ranks before they hold data; processor while it is idle."""
    SERVER.warm()
    while "coming up" in SERVER.status():
        time.sleep(0.1)
    idle, used, eight = [], [], []
    for _ in range(turns):
        idle.append(ranks.memory_mb([os.getpid(), SERVER.pid]))
        before, began = ranks.used_s(SERVER.pid), time.monotonic()
        time.sleep(IDLE_S)
        used.append(100 * (ranks.used_s(SERVER.pid) - before) / (time.monotonic() - began))
        eight.append(memory_of(8, "mpi"))
    return [
        Line("kernel and fork server, idle", "MB", tuple(idle), Goal("at most", 350)),
        Line("fork server, idle", "% of a core", tuple(used), Goal("at most", 0.2)),
        Line("8 forked ranks after a small fit", "MB", tuple(eight), Goal("at most", 1200)),
    ]


def memory_of(how_many: int, engine: str) -> float:
    """Megabytes of so many ranks that have trained a little."""
    with tempfile.TemporaryDirectory() as folder:
        run = obl_magic.run(
            fitted, workers=how_many, engine=engine, args={"folder": folder}, quiet=True, background=True
        )
        while len(here := list(Path(folder).glob("here-*"))) < how_many and run.status == "running":
            time.sleep(0.05)
        megabytes = ranks.memory_mb([int(path.name.removeprefix("here-")) for path in here])
        Path(folder, "go").touch()
        run.wait()
    return megabytes


def fitted(folder: str) -> None:
    """Trains a little, and waits."""
    import os
    import time
    from pathlib import Path

    first_step()
    Path(folder, f"here-{os.getpid()}").touch()
    while not Path(folder, "go").exists():
        time.sleep(0.05)


def _python(program: str) -> float:
    return float(ranks.wait_for([sys.executable, "-c", program], ranks.plain_environment()).split()[-1])


def _ready_by_hand(engine: str) -> float:
    program = READY.format(communicator=COMMUNICATORS[engine])
    began = time.time()
    said = ranks.plain(RANKS, [sys.executable, "-c", program])
    return max(float(word) for word in said.split()) - began


def until(function: Callable[[], float], engine: str, how_many: int = RANKS) -> float:
    """Seconds from the call to the time that the last rank's function gives."""
    began = time.time()
    run = obl_magic.run(function, workers=how_many, engine=engine, quiet=True, timeout=ranks.TIMEOUT_S)
    return float(max(run.values)) - began


def _in_a_warm_process() -> float:
    """Seconds of the second call of :func:`first_step`, in a process of its own."""
    program = [sys.executable, __file__]
    return float(json.loads(ranks.wait_for(program, ranks.plain_environment()).splitlines()[-1]))


def _ms(seconds: list[float]) -> tuple[float, ...]:
    return tuple(1000 * value for value in seconds)


if __name__ == "__main__":
    first_step()
    began = time.time()
    print(json.dumps(first_step() - began))
