"""Two ranks on one host: obl_magic, the same network distributed by hand, and the machine's own limit.

The limit is two ranks with a processor each that train on half a batch and never communicate: no distribution can be
faster than that.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Callable, Collection
from functools import partial
from pathlib import Path

import ranks
import workloads
from ratios import Goal, Line, interleaved, ratio

import obl_magic

RANKS = 2
HANDWRITTEN = Path(__file__).with_name("handwritten.py")

LIMIT, ONE = "limit", "obl_magic, one rank"
PLAIN, SET = "by hand, as documented", "by hand, well set"
HOROVOD, MPI = "obl_magic, horovod", "obl_magic, mpi"


def measure(quick: bool, only: Collection[str] = workloads.WORKLOADS) -> list[Line]:
    """Samples/s of every side of every workload, and as shares of the limit."""
    lines = []
    for workload in only:
        about = workloads.WORKLOADS[workload]
        epochs = 3
        sides: dict[str, Callable[[], dict[int, float]]] = {
            LIMIT: partial(by_hand, workload, epochs, "limit"),
            PLAIN: partial(by_hand, workload, epochs, "plain"),
            SET: partial(by_hand, workload, epochs, "set"),
            HOROVOD: partial(oblivious, workload, epochs, RANKS, "horovod"),
            MPI: partial(oblivious, workload, epochs, RANKS, "mpi"),
            ONE: partial(oblivious, workload, epochs, 1, "horovod"),
        }
        taken = interleaved(sides, repetitions=1 if quick else 5)
        for batch in about.steps:
            of = {side: tuple(speeds[batch] for speeds in turns) for side, turns in taken.items()}
            what = f"{about.what}, batch {batch}"
            lines.append(Line(f"{what}: {LIMIT}", "samples/s", of[LIMIT]))
            for side in (ONE, PLAIN, SET):
                lines.append(ratio(f"  {side} / {LIMIT}", of[side], of[LIMIT]))
            for side in (HOROVOD, MPI):
                lines.append(ratio(f"  {side} / {LIMIT}", of[side], of[LIMIT], Goal("at least", about.goal)))
            best = tuple(max(pair) for pair in zip(of[HOROVOD], of[MPI], strict=True))
            lines.append(
                ratio(f"  obl_magic, the faster engine / {SET}", best, of[SET], Goal("at least", 1.0))
            )
    return lines


def by_hand(workload: str, epochs: int, how: str, n: int = RANKS) -> dict[int, float]:
    """Samples/s of a workload by batch size, on so many ranks that exchange as ``handwritten`` says, or not at all."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "speeds.json")
        program = [sys.executable, str(HANDWRITTEN), str(target), workload, str(epochs), how]
        if how == "plain":
            ranks.plain(n, program)
        else:
            ranks.tuned(n, [*program, *map(str, ranks.tuned_threads(n))])
        return {int(batch): float(speed) for batch, speed in json.loads(target.read_text()).items()}


def oblivious(workload: str, epochs: int, workers: int, engine: str) -> dict[int, float]:
    """Samples/s of a workload by batch size."""
    run = obl_magic.run(
        workloads.train, workers=workers, engine=engine, args={"workload": workload, "epochs": epochs}, quiet=True,
        timeout=ranks.TIMEOUT_S,
    )  # fmt: skip
    speeds: dict[int, float] = run.value
    return speeds
