"""How long a rank spends reducing gradients with the others: which rank is slow shows in who never waits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf


class WaitClock:
    """Adds up the seconds between a rank's gradients being ready and their sums being there."""

    def __init__(self) -> None:
        with tf.device("CPU:0"):
            self._total_s = tf.Variable(0.0, trainable=False, dtype=tf.float64, name="obl_waited_s")

    @property
    def total_s(self) -> float:
        """Seconds so far; from any thread."""
        return float(self._total_s.numpy())

    def timed(self, call: Callable[[Sequence[Any]], list[Any]], tensors: Sequence[Any]) -> list[Any]:
        """Makes the call; eager or traced."""
        if not tensors:
            return call(tensors)
        with tf.control_dependencies(tensors):
            began = tf.timestamp()
        done = call(tensors)
        with tf.control_dependencies(done):
            self._total_s.assign_add(tf.timestamp() - began)
        return done
