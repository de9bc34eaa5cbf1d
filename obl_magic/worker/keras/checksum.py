"""The running check that all ranks hold the same weights: a few numbers a look, compared exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from obl_magic.errors import RanksDiverged
from obl_magic.worker.collectives import Collectives


@tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator]
def _sums(values: list[Any]) -> Any:
    """One 64-bit number per variable, of its bits: equal bits give equal numbers, whatever the order of summation."""
    return tf.stack([_sum_of_bits(value) for value in values])


def _sum_of_bits(value: Any) -> Any:
    if value.dtype.is_floating and value.dtype.size == 4:
        bits = tf.bitcast(value, tf.int32)
    elif value.dtype.is_floating and value.dtype.size == 8:
        bits = tf.bitcast(value, tf.int64)
    elif value.dtype.is_floating:
        bits = tf.bitcast(value, tf.int16)
    else:
        bits = value
    flat = tf.cast(tf.reshape(bits, [-1]), tf.int64)
    return tf.reduce_sum(flat * (tf.range(tf.size(flat), dtype=tf.int64) % 8191 + 1))


class Checksum:
    """Compares the ranks' weights.

    Args:
        world: the collectives; every rank must look at the same steps.
    """

    def __init__(self, world: Collectives) -> None:
        self._world = world
        self._last_equal: int | None = None

    def look(self, variables: Sequence[Any], step: int) -> None:
        """Compares now.

        Args:
            variables: the same on every rank, in the same order. step: the step that was just done.

        Raises:
            RanksDiverged: on every rank, if any two ranks differ.
        """
        if not variables:
            return
        mine = _sums([tf.convert_to_tensor(variable.value) for variable in variables])
        everyone = self._world.allgather(tf.expand_dims(mine, 0)).numpy()
        if (everyone == everyone[0]).all():
            self._last_equal = step
            return
        ranks = [rank for rank in range(self._world.size) if (everyone[rank] != everyone[0]).any()]
        first = int(np.argmax((everyone != everyone[0]).any(axis=0)))
        since = f" (they were equal after step {self._last_equal})" if self._last_equal else ""
        raise RanksDiverged(
            step, f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))} against rank 0, "
            f"first in {_name(variables[first])}{since}",
        )  # fmt: skip


def _name(variable: Any) -> str:
    return str(getattr(variable, "path", None) or getattr(variable, "name", "a variable"))
