"""Makes every Keras loss reduction exact on uneven shards: numerators are local, denominators global.

Gradients are averaged over ranks with weights ``local/total`` (samples). A reduction whose own denominator is
something else (a mask, the sum of sample weights, nothing at all for ``"sum"``) is corrected here, in the
loss, so that this weighted average is exactly the single process's loss. Regularisers, the same everywhere,
then count once by themselves.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from keras import ops
from keras.src.losses import loss as keras_loss

from obl_magic.worker.engines.collectives import Collectives
from obl_magic.worker.frameworks.keras import scope as scopes
from obl_magic.worker.patching import Patches


def install(patches: Patches, world: Collectives) -> None:
    """Corrects the value of every ``keras.losses.Loss`` inside a sharded step."""

    def make(original: Any) -> Any:
        def reduce_weighted_values(
            values: Any, sample_weight: Any = None, mask: Any = None, reduction: Any = "sum_over_batch_size",
            dtype: Any = None,
        ) -> Any:  # fmt: skip
            loss = original(values, sample_weight=sample_weight, mask=mask, reduction=reduction, dtype=dtype)
            scope = scopes.current()
            if scope is None or scope.in_call or reduction in (None, "none") or len(loss.shape) != 0:
                return loss
            if tuple(ops.convert_to_tensor(values).shape) == ():
                return loss
            return loss * tf.cast(
                _correction(scope, world, values, sample_weight, mask, reduction), loss.dtype
            )

        return reduce_weighted_values

    patches.replace(keras_loss, "reduce_weighted_values", make)


def _correction(
    scope: scopes.RowScope, world: Collectives, values: Any, weight: Any, mask: Any, kind: str
) -> Any:
    """The factor from the local reduction to this rank's part of the global one, in units of the local mean."""
    if kind == "sum":
        return scope.upscale
    denominator = _denominator(values, weight, mask, kind)
    if denominator is None:
        return 1.0
    mine = tf.where(
        tf.convert_to_tensor(scope.local) > 0, tf.stop_gradient(tf.cast(denominator, tf.float32)), 0.0
    )
    (everyone,) = world.allreduce([mine])
    return tf.math.divide_no_nan(mine, everyone) * scope.upscale


def _denominator(values: Any, weight: Any, mask: Any, kind: str) -> Any:
    """What the local reduction divided by, where that is not proportional to the number of samples; else None."""
    if kind == "mean_with_sample_weight":
        merged = keras_loss.apply_mask(weight, mask, dtype="float32", reduction=kind)
        if merged is None:
            return None
        values, merged = keras_loss.squeeze_or_expand_to_same_rank(values, ops.cast(merged, "float32"))
        return ops.sum(merged)
    return None if mask is None else ops.sum(ops.cast(mask, "float32"))
