"""Whose rows are whose where ranks differ in pace: each rank's share of a batch follows it.

A slow rank keeps all others waiting at every step, and uneven shares give the same numbers as even ones. So ranks
compare, when they look anyway, how long each was busy rather than waiting, and agree on other shares. Pipelines read
ahead: new shares hold from a batch on that no rank can have cut yet.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from obl_magic.worker.engines.collectives import Collectives
from obl_magic.worker.report import Reporter

READ_AHEAD = 2
"""Batches that are cut at a time, and as many that wait to be used."""
MARGIN = 3 * READ_AHEAD + 2
"""Batches after which new shares hold: more than any rank is ahead."""
SCALE = 1000
"""Shares are told in thousandths."""
_LEAST_OF_EQUAL = 0.05
"""Of an equal share: what the slowest rank keeps."""
_STEPS = 4
"""In a stretch by which ranks are judged, at least."""


_BETTER = 0.98
"""Of what a step took before: what it takes at most with shares that are kept."""
_RESTS = 20
"""Stretches for which nothing is tried after shares that made no step shorter."""


class _Patience(NamedTuple):
    """When shares follow: after so many stretches in a row in which one rank was so much busier than the mean."""

    over: float
    stretch_s: float
    times: int


_SOON = _Patience(1.05, 1.0, 1)
_LONG = _Patience(1.1, 3.0, 3)
"""Where nobody asked, or where other shares mean that a step is traced anew."""

FOLLOWS = (
    "ranks differ in pace, so their shares of each batch follow it (first {shares}): the numbers stay the same, and "
    "nobody waits for the slowest; --no-balance keeps the shares equal"
)


class Shares:
    """The ranks' shares of the batches that one pipeline cuts: up to one of its batches, and from there on.

    Args:
        world: the collectives, whose parts they begin with.
    """

    def __init__(self, world: Collectives) -> None:
        self._world = world
        with tf.device("/CPU:0"):
            self._rows = tf.Variable([self._row(0)] * 2, trainable=False, dtype=tf.int64, name="obl_shares")

    def bounds(self, total: Any, number: Any) -> tuple[Any, Any]:
        """First row and row after the last of this rank's share; operations of a pipeline.

        Args:
            total: int64 scalar, the batch's rows.
            number: int64 scalar, of the batch in its pipeline, from 0.
        """
        rows = self._rows.read_value()
        row = tf.gather(rows, tf.cast(number >= rows[1, 0], tf.int32))
        _, whole, edges = tf.split(row, (1, 1, 2))
        first, last = tf.unstack(total * edges // whole)
        return first, last

    def begin(self) -> None:
        """The pipeline begins anew, with the world's parts."""
        self._rows.assign([self._row(0)] * 2)

    def turn(self, number: int) -> None:
        """From the batch of this number on, which no rank has cut yet, they are the world's parts."""
        self._rows.assign([self._rows[1], self._row(number)])

    def _row(self, number: int) -> list[int]:
        """(first batch, sum of the parts, where this rank's part begins and where it ends, in their sum)."""
        parts, rank = self._world.parts, self._world.rank
        return [number, sum(parts), sum(parts[:rank]), sum(parts[: rank + 1])]


class Balance:
    """Measures the ranks' paces in a fit, and makes their shares follow them as long as steps get shorter by it.

    Args:
        world: the collectives, whose parts it sets.
        reporter: is told this rank's share, and why.
        asked: shares follow soon, and small differences, too; None: where ranks differ much for long; False: never.
    """

    def __init__(self, world: Collectives, reporter: Reporter, asked: bool | None) -> None:
        self._world, self._reporter = world, reporter
        self._works = world.size > 1 and asked is not False
        self._soon = asked is True
        self._uneven = self._settled = self._rests = 0
        self._before: tuple[tuple[int, ...], float] | None = None
        self._began: tuple[float, float] | None = None
        self._noted = False
        self.begin()

    def begin(self) -> None:
        """A fit begins."""
        self._settled, self._before = 0, None
        self._forget()

    def resume(self) -> None:
        """What follows belongs to a step."""
        self._began = time.perf_counter(), self._world.waited_s

    def pause(self, steps: int) -> None:
        """So many steps are done; what follows belongs to none."""
        if self._began is None:
            return
        (then_s, waited_s), self._began = self._began, None
        spent_s = time.perf_counter() - then_s
        self._spent_s += spent_s
        self._busy_s += max(0.0, spent_s - (self._world.waited_s - waited_s))
        self._steps += steps

    def measured(self) -> tuple[int, int]:
        """Microseconds in which this rank was busy, and those in which it was in steps."""
        return round(1e6 * self._busy_s), round(1e6 * self._spent_s)

    def compare(self, everyone: Sequence[tuple[int, int]], model: Any, data: Any, stepped: int) -> None:
        """Looks at what all ranks have measured; all ranks do so after the same step.

        Args:
            everyone: of each rank, what :meth:`measured` gave.
            model: that is fitted.
            data: Keras' epoch iterator, or None.
            stepped: steps of the fit so far.
        """
        if not self._works or data is None:
            return
        if stepped < max(self._settled, 2):  # built and traced, or other shares are still in use
            self._forget()
            return
        over, stretch_s, times = _SOON if self._soon and data.obl_shares is not None else _LONG
        if everyone[0][1] < 1e6 * stretch_s or self._steps < _STEPS:
            return
        busy = [max(1, busy_us) for busy_us, _ in everyone]
        step_us = everyone[0][1] / self._steps
        self._forget()
        (parts, before_us), self._before = self._before or ((), step_us), None
        if parts and step_us > _BETTER * before_us:  # who was busy was not so with its rows
            self._rests = _RESTS
            self._follow(parts, model, data, stepped)
            return
        self._rests = max(0, self._rests - 1)
        self._uneven = self._uneven + 1 if max(busy) * len(busy) > over * sum(busy) else 0
        if self._uneven >= times and not self._rests:
            self._uneven, self._soon = 0, True
            self._before = self._world.parts, step_us
            self._follow(following(self._world.parts, busy), model, data, stepped)

    def _follow(self, parts: tuple[int, ...], model: Any, data: Any, stepped: int) -> None:
        self._world.parts = parts
        self._settled = stepped + 2 * MARGIN + data.steps_per_execution
        if data.obl_shares is not None:
            data.obl_shares.turn(data._steps_seen + MARGIN)
        else:  # its calls are shared, as they were traced
            model.make_train_function(force=True)
        self._reporter.share = parts[self._world.rank] / sum(parts)
        if not self._noted:
            self._noted = True
            shares = ", ".join(f"rank {rank} {part / SCALE:.0%}" for rank, part in enumerate(parts))
            self._reporter.note("balance", FOLLOWS.format(shares=shares))

    def _forget(self) -> None:
        """What was measured so far does not count."""
        self._busy_s = self._spent_s = 0.0
        self._steps = 0


def following(parts: Sequence[int], busy: Sequence[float]) -> tuple[int, ...]:
    """Shares with which all ranks would be busy for equally long, in thousandths.

    Args:
        parts: what each rank has now, of their sum.
        busy: how long each was busy with it, in any unit, more than 0.
    """
    pace = np.asarray(parts, np.float64) / np.asarray(busy, np.float64)
    wished = np.maximum(pace / pace.sum(), _LEAST_OF_EQUAL / len(parts))
    exact = SCALE * wished / wished.sum()
    whole = np.maximum(np.floor(exact), 1).astype(int)
    for rank in np.argsort(np.floor(exact) - exact, kind="stable")[: max(0, SCALE - int(whole.sum()))]:
        whole[rank] += 1
    whole[int(np.argmax(whole))] += SCALE - int(whole.sum())
    return tuple(int(part) for part in whole)
