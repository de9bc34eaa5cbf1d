"""What a user waits for: the import, the extension, and two ranks, from nothing and where they stood by."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial

import ranks
from ratios import Goal, Line, interleaved, ratio

import obl_magic
from obl_magic.errors import SetupProblem
from obl_magic.launch.on_ranks import wanted
from obl_magic.setup.doctor import choose_engine
from obl_magic.world.standby import STANDBY

RANKS = 2

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
        lines += [*_cold(engine, turns), *_standing_by(engine, turns)]
    return lines


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
    """From nothing to ranks that are ready, by hand and by us, and to the first step."""
    hand = f"{engine}: cold, {RANKS} ranks ready, mpirun by hand"
    ours = f"{engine}: cold, {RANKS} ranks ready, obl_magic"
    first = f"{engine}: cold, first step, obl_magic"
    sides: dict[str, Callable[[], float]] = {
        hand: partial(_ready_by_hand, engine),
        ours: partial(_until, ready, engine),
        first: partial(_until, first_step, engine),
    }
    taken = interleaved(sides, turns)
    return [
        *(Line(side, "s", tuple(seconds)) for side, seconds in taken.items()),
        ratio(f"{engine}: ranks ready, obl_magic / by hand", taken[ours], taken[hand], Goal("at most", 1.15)),
    ]


def _standing_by(engine: str, turns: int) -> list[Line]:
    """To the first step where the ranks stood by, against the same function in a process that has run it before."""
    warm, waited = f"{engine}: first step, warm process", f"{engine}: first step, standby of {RANKS} ranks"
    _until(first_step, engine)  # a kernel that has run a cell before; not counted
    sides: dict[str, Callable[[], float]] = {
        warm: _in_a_warm_process,
        waited: partial(_until_on_standby, first_step, engine),
    }
    taken = interleaved(sides, turns)
    more = [there - here for there, here in zip(taken[waited], taken[warm], strict=True)]
    return [
        *(Line(side, "ms", _ms(seconds)) for side, seconds in taken.items()),
        Line(f"{engine}: standby, more than the warm process", "ms", _ms(more), Goal("at most", 300)),
    ]


def _python(program: str) -> float:
    return float(ranks.wait_for([sys.executable, "-c", program], ranks.plain_environment()).split()[-1])


def _ready_by_hand(engine: str) -> float:
    program = READY.format(communicator=COMMUNICATORS[engine])
    began = time.time()
    said = ranks.plain(RANKS, [sys.executable, "-c", program])
    return max(float(word) for word in said.split()) - began


def _until(function: Callable[[], float], engine: str) -> float:
    """Seconds from the call to the time that the last rank's function gives."""
    began = time.time()
    run = obl_magic.run(function, workers=RANKS, engine=engine, quiet=True, timeout=ranks.TIMEOUT_S)
    return float(max(run.values)) - began


def _until_on_standby(function: Callable[[], float], engine: str) -> float:
    if not STANDBY.prepare(wanted(RANKS, engine)):
        raise RuntimeError(f"{RANKS} ranks cannot stand by: there is not enough memory")
    waiting = ranks.standing_by(RANKS)
    seconds = _until(function, engine)
    if STANDBY.ranks or any(rank.is_running() for rank in waiting):
        raise RuntimeError("the standby was not taken")
    return seconds


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
