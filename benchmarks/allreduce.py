"""Sums of gradients by our engines against MPI's own allreduce of as many numbers, as the OSU benchmarks time it.

Ours takes eight tensors inside a traced function, as a step does; MPI's takes one array that is where it wants it.
``mpirun -n 2 python allreduce.py TARGET.json ENGINE TURNS`` is one side's program.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ranks
from ratios import Goal, Line, ratio

RANKS = 2
SIZES = {"10 k": 10_000, "100 k": 100_000, "1 M": 1_000_000, "10 M": 10_000_000, "50 M": 50_000_000}
TENSORS = 8
ENGINES = ("mpi", "horovod")


def measure(quick: bool) -> list[Line]:
    """Gigabytes a second of MPI alone, and ours as shares of it."""
    lines = []
    for engine in ENGINES:
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder, "seconds.json")
            ranks.tuned(RANKS, [sys.executable, __file__, str(target), engine, "2" if quick else "5"])
            seconds = json.loads(target.read_text())
        for name, taken in seconds.items():
            gigabytes = 4e-9 * SIZES[name]
            if engine == ENGINES[0]:
                rates = tuple(gigabytes / each for each in taken["alone"])
                lines.append(Line(f"MPI's allreduce of {name} numbers, {RANKS} ranks", "GB/s", rates))
            what = f"{name} numbers: {engine} / MPI alone"
            lines.append(ratio(what, taken["alone"], taken["ours"], Goal("at least", 0.7)))
    return lines


def main(target: Path, engine: str, turns: int) -> None:
    """Times both sides in turns; rank 0 writes the seconds of each."""
    import numpy as np
    import tensorflow as tf
    from mpi4py import MPI

    from obl_magic.worker.engines.collectives import connect

    tf.config.threading.set_intra_op_parallelism_threads(1)
    collectives, comm, found = connect(engine), MPI.COMM_WORLD, {}
    for name, numbers in SIZES.items():
        array = np.ones(numbers, np.float32)
        tensors = tf.split(tf.ones([numbers]), TENSORS)

        @tf.function
        def summed(tensors: Any) -> Any:
            return collectives.allreduce(tensors)

        times = max(3, min(200, 20_000_000 // numbers))
        sides: dict[str, Callable[[], Any]] = {
            "alone": lambda array=array: comm.Allreduce(MPI.IN_PLACE, array),
            "ours": lambda tensors=tensors, summed=summed: summed(tensors),
        }  # fmt: skip
        taken: dict[str, list[float]] = {side: [] for side in sides}
        for turn in range(turns + 1):
            for side, reduce in sides.items():
                array[:] = 1
                spans = []
                for _ in range(times):
                    comm.Barrier()
                    began = time.perf_counter()
                    reduce()
                    spans.append(time.perf_counter() - began)
                if turn:
                    taken[side].append(statistics.median(spans))
        found[name] = taken
    if comm.Get_rank() == 0:
        target.write_text(json.dumps(found))
    collectives.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
