"""The running check that all ranks hold the same weights: a number a variable and look, compared exactly.

Between two looks every rank remembers a number of a few elements of each variable after each step, which is sent
only when the weights are found to differ: then it tells the step at which they began to.
"""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from obl_magic.errors import RanksDiverged
from obl_magic.worker.engines.collectives import Collectives

_CHEAP_SHARE = 0.003
"""Of the length of a step, that remembering may cost."""

_GLIMPSED = 16
"""Elements of a variable that are looked at after a step."""


def number(variable: Any) -> int:
    """A number of the bits of a variable's value: equal bits, equal numbers; computed on the host."""
    return _number(_elements(variable))


def _elements(variable: Any) -> Any:
    """A variable's value as a row; on a CPU without a copy."""
    value = variable.value if isinstance(variable, keras.Variable) else variable
    return np.asarray(tf.convert_to_tensor(value)).reshape(-1)


def _number(elements: Any, begin: int = 0) -> int:
    return zlib.crc32(np.ascontiguousarray(elements).view(np.uint8).data, begin) if elements.size else begin


def _glimpse(variables: Sequence[Any]) -> int:
    """A number of a few elements of each variable."""
    found = 0
    for variable in variables:
        elements = _elements(variable)
        found = _number(elements[:: max(1, elements.size // _GLIMPSED)], found)
    return found


class Checksum:
    """Compares the ranks' weights.

    Args:
        world: the collectives; every rank must look at the same steps.
    """

    def __init__(self, world: Collectives) -> None:
        self._world = world
        self._last_equal: int | None = None
        self._trace: dict[int, int] = {}
        self._cost_s = 0.0
        self._every = 1

    def remember(self, model: Any, step: int) -> None:
        """Keeps what is needed to name this step, should the ranks be found to differ; sends nothing."""
        if step % self._every:
            return
        began = time.perf_counter()
        self._trace[step] = _glimpse(model.trainable_variables)
        self._cost_s = time.perf_counter() - began

    def adapt(self, step_s: float) -> None:
        """Remembers every step, or every so many where steps are so short that it would cost a share of them."""
        self._every = max(1, math.ceil(self._cost_s / (_CHEAP_SHARE * max(step_s, 1e-6))))

    def look(self, variables: Sequence[Any], step: int) -> None:
        """Compares now.

        Args:
            variables: the same on every rank, in the same order.
            step: the step that was just done.

        Raises:
            RanksDiverged: on every rank, if any two ranks differ.
        """
        if not variables:
            return
        mine = tf.constant([[number(variable) for variable in variables]], tf.int64)
        everyone = self._world.allgather(mine).numpy()
        if (everyone == everyone[0]).all():
            self._last_equal = step
            self._trace.clear()
            return
        ranks = [rank for rank in range(self._world.size) if (everyone[rank] != everyone[0]).any()]
        named = _name(variables[int(np.argmax((everyone != everyone[0]).any(axis=0)))])
        since = f" (they were equal after step {self._last_equal})" if self._last_equal else ""
        raise RanksDiverged(
            self._first_step(step),
            f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))} against rank 0, "
            f"first in {named}{since}",
        )

    def _first_step(self, step: int) -> int:
        """The first remembered step after which ranks differed; the one of the look if no remembered one does."""
        traces = self._world.allgather_object(self._trace)
        common = set(traces[0]).intersection(*traces)
        return min((s for s in common if any(t[s] != traces[0][s] for t in traces)), default=step)


def _name(variable: Any) -> str:
    return str(getattr(variable, "path", None) or getattr(variable, "name", "a variable"))
