"""Two ranks on one host: obl_magic against the same network distributed by hand, plain and well set."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cnn
import ranks
from ratios import Goal, Line, interleaved, ratio

import obl_magic

BATCHES = (64, 256)
RANKS = 2
HANDWRITTEN = Path(__file__).with_name("handwritten.py")

PLAIN, TUNED = "by hand, plain mpirun", "by hand, our settings"
HOROVOD, MPI, ONE = "obl_magic, horovod", "obl_magic, mpi", "obl_magic, one rank"


def measure(quick: bool) -> list[Line]:
    """Samples/s of every side, and the ratios that have goals."""
    samples, epochs = (3200, 3) if quick else (6400, 10)
    sides: dict[str, Callable[[], dict[int, float]]] = {
        PLAIN: partial(_by_hand, samples, epochs, tuned=False),
        TUNED: partial(_by_hand, samples, epochs, tuned=True),
        HOROVOD: partial(_oblivious, samples, epochs, RANKS, "horovod"),
        MPI: partial(_oblivious, samples, epochs, RANKS, "mpi"),
        ONE: partial(_oblivious, samples, epochs, 1, "horovod"),
    }
    taken = interleaved(sides, repetitions=1 if quick else 3)
    lines = []
    for batch in BATCHES:
        of = {side: tuple(speeds[batch] for speeds in turns) for side, turns in taken.items()}
        lines += [Line(f"batch {batch}: {side}", "samples/s", values) for side, values in of.items()]
        lines += [
            ratio(f"batch {batch}: {HOROVOD} / {PLAIN}", of[HOROVOD], of[PLAIN], Goal("at least", 1.4)),
            ratio(f"batch {batch}: {HOROVOD} / {TUNED}", of[HOROVOD], of[TUNED], Goal("at least", 0.97)),
            ratio(f"batch {batch}: {MPI} / {TUNED}", of[MPI], of[TUNED]),
            ratio(f"batch {batch}: {HOROVOD} / {ONE}", of[HOROVOD], of[ONE]),
        ]
    return lines


def _by_hand(samples: int, epochs: int, *, tuned: bool) -> dict[int, float]:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "speeds.json")
        batches = ",".join(map(str, BATCHES))
        program = [sys.executable, str(HANDWRITTEN), str(target), str(samples), str(epochs), batches]
        if tuned:
            ranks.tuned(RANKS, [*program, *map(str, ranks.tuned_threads(RANKS))])
        else:
            ranks.plain(RANKS, program)
        return {int(batch): float(speed) for batch, speed in json.loads(target.read_text()).items()}


def _oblivious(samples: int, epochs: int, workers: int, engine: str) -> dict[int, float]:
    args = {"samples": samples, "epochs": epochs, "batches": BATCHES}
    run = obl_magic.run(
        cnn.train, workers=workers, engine=engine, args=args, quiet=True, timeout=ranks.TIMEOUT_S
    )
    speeds: dict[int, float] = run.value
    return speeds
