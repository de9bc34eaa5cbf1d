"""Learning rates for per-worker batches: scaled with the world's size, warmed up over the first epochs.

Source: Goyal et al., "Accurate, Large Minibatch SGD: Training ImageNet in 1 Hour", 2017 (arXiv:1706.02677): when the
global batch is k times larger, multiply the learning rate by k, and grow it gradually from its unscaled value over
the first epochs. The factor is applied inside ``Optimizer.apply`` only, so that the code, its schedules and its
callbacks read and set the learning rate they know.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf
from keras.src.optimizers.base_optimizer import BaseOptimizer

from obl_magic.values import LR_SCALES
from obl_magic.worker.patching import Patches


class ScaledRate:
    """The factor on every optimizer's learning rate.

    Args:
        scale: ``none``, ``linear`` or ``sqrt``.
        size: ranks in the world.
        warmup_epochs: epochs over which the factor grows from 1; 0 for none.
    """

    def __init__(self, scale: str, size: int, warmup_epochs: int) -> None:
        self._full = LR_SCALES[scale](size)
        self._warmup_epochs = warmup_epochs
        self._factor = tf.Variable(
            1.0 if warmup_epochs else self._full, trainable=False, name="obl_rate_factor"
        )

    def install(self, patches: Patches, applying: Callable[[], bool]) -> None:
        """Scales the learning rate where an optimizer applies it.

        Args:
            patches: takes the replacement.
            applying: whether an ``apply`` is under way.
        """

        def make(original: Any) -> Any:
            def _get_current_learning_rate(optimizer: Any) -> Any:
                rate = original(optimizer)
                if not applying():
                    return rate
                return tf.cast(tf.convert_to_tensor(rate), tf.float32) * self._factor

            return _get_current_learning_rate

        if self._full != 1.0:
            patches.replace(BaseOptimizer, "_get_current_learning_rate", make)

    def at(self, epoch: int, step: int, steps: int | None) -> None:
        """Sets the factor for the step that comes next.

        Args:
            epoch: 0-based.
            step: steps done in this epoch.
            steps: steps per epoch, or None while unknown.
        """
        if self._full == 1.0 or not self._warmup_epochs:
            return
        done = (epoch + (step / steps if steps else 0.0)) / self._warmup_epochs
        self._factor.assign(1.0 + (self._full - 1.0) * min(1.0, done))
