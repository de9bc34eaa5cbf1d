"""What a slow rank costs, with equal shares and with shares that follow the ranks' pace.

On two ranks; a row takes two or three times as long on the last one. Rows wait rather than compute, so that neither the
scheduler nor other programs of the machine have a part in it.
"""

from __future__ import annotations

import statistics
import sys
from functools import partial
from pathlib import Path

from ratios import Goal, Line, interleaved

import obl_magic

sys.path.append(str(Path(__file__).parents[1] / "tests"))

import slowed  # the training whose numbers the tests compare

SLOWED = (1, 2, 3)
ENGINES = ("mpi", "horovod")
EPOCHS, COUNTED = 6, 2


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


def _epoch_s(engine: str, slow: int, balanced: bool) -> float:
    args = {"times": float(slow), "epochs": EPOCHS}
    run = obl_magic.run(slowed.fit, workers=2, engine=engine, args=args, balance=balanced, quiet=True)
    took: list[float] = run.value["took"]
    return statistics.median(took[-COUNTED:])
