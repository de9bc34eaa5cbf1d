"""What a user waits for: the import, the extension, the first training step of a cold world of two ranks."""

from __future__ import annotations

import sys
import time

import ranks
from ratios import Goal, Line, interleaved, ratio

import obl_magic

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
    """Milliseconds of the imports, seconds of the launches, and the launches' ratio."""
    imports = interleaved(
        {"import obl_magic": lambda: _python(IMPORT), "%load_ext obl_magic": lambda: _python(LOAD_EXT)},
        repetitions=3 if quick else 7,
    )
    first, bare = f"{RANKS} ranks, cold: obl_magic's first step", f"{RANKS} ranks, cold: import tensorflow"
    launches = interleaved({bare: _import_tensorflow, first: _first_step}, repetitions=2 if quick else 5)
    return [
        Line("import obl_magic", "ms", _ms(imports["import obl_magic"]), Goal("at most", 100)),
        Line("%load_ext obl_magic", "ms", _ms(imports["%load_ext obl_magic"]), Goal("at most", 300)),
        Line(bare, "s", tuple(launches[bare])),
        Line(first, "s", tuple(launches[first])),
        ratio("first step / import tensorflow", launches[first], launches[bare]),
    ]


def _python(program: str) -> float:
    return float(ranks.wait_for([sys.executable, "-c", program], ranks.plain_environment()).split()[-1])


def _import_tensorflow() -> float:
    began = time.perf_counter()
    ranks.tuned(RANKS, [sys.executable, "-c", "import tensorflow"])
    return time.perf_counter() - began


def _first_step() -> float:
    began = time.time()
    run = obl_magic.run(first_step, workers=RANKS, quiet=True, timeout=ranks.TIMEOUT_S)
    return max(run.values) - began


def _ms(seconds: list[float]) -> tuple[float, ...]:
    return tuple(1000 * value for value in seconds)
