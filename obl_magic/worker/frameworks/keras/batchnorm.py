"""Batch normalisation over the global batch: moments, gradients and moving statistics of all ranks together.

The mean is taken first, the variance around it (two passes, as one process does). Each rank back-propagates a
gradient that enters the sum over ranks with a weight ``v`` (its share ``w`` of the batch in Keras' own steps, one in
a shared call); a moment that all ranks share, each with its share ``w``, therefore passes back ``w_r sum_q(v_q g_q) /
v_r``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from obl_magic.worker.engines.collectives import Collectives
from obl_magic.worker.frameworks.keras import scope as scopes
from obl_magic.worker.patching import Patches


def install(patches: Patches, world: Collectives, every_layer: bool) -> None:
    """Replaces how batch normalisation takes moments in a training step.

    Args:
        patches: takes the replacement.
        world: the collectives.
        every_layer: all layers; else only those made with ``synchronized=True``, where Keras itself asks for
            it.
    """

    def make(original: Any) -> Any:
        def _moments(layer: Any, inputs: Any, mask: Any) -> Any:
            scope = scopes.current()
            if scope is None or not scope.training or not (every_layer or layer.synchronized):
                return original(layer, inputs, mask)
            return _global_moments(world, scope, layer, inputs, mask)

        return _moments

    patches.replace(keras.layers.BatchNormalization, "_moments", make)


def _global_moments(world: Collectives, scope: scopes.RowScope, layer: Any, inputs: Any, mask: Any) -> Any:
    axes = list(layer._reduction_axes)
    if mask is None:
        weight = scope.weight

        def mean_of(values: Any) -> Any:
            return ops.mean(values, axis=axes)
    else:
        valid = ops.cast(ops.broadcast_to(ops.expand_dims(mask, -1), ops.shape(inputs)), inputs.dtype)
        count = ops.sum(valid, axis=axes)[0]
        here = tf.where(tf.convert_to_tensor(scope.local) > 0, tf.cast(count, tf.float32), 0.0)
        (everywhere,) = world.allreduce([here])
        weight = tf.math.divide_no_nan(here, everywhere)

        def mean_of(values: Any) -> Any:
            return ops.sum(values * valid, axis=axes) / (count + keras.backend.epsilon())

    shared = _shared(world, weight, scope.gradient_weight)
    mean = shared(mean_of(inputs))
    centred = inputs - ops.reshape(mean, _broadcastable(inputs, axes))
    return mean, shared(mean_of(ops.square(centred)))


def _shared(world: Collectives, weight: Any, share: Any) -> Callable[[Any], Any]:
    """The weighted mean over ranks of a local mean, with the gradient described above.

    Args:
        world: the collectives.
        weight: this rank's weight in the mean.
        share: with which its gradients will be weighted.
    """

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def mean_over_ranks(local: Any) -> Any:
        factor = tf.cast(weight, local.dtype)
        (total,) = world.allreduce([tf.math.multiply_no_nan(local, factor)])

        def back(upstream: Any) -> Any:
            part = tf.cast(share, upstream.dtype)
            (everyone,) = world.allreduce([tf.math.multiply_no_nan(upstream, part)])
            return tf.math.divide_no_nan(everyone * factor, part)

        return total, back

    return mean_over_ranks


def _broadcastable(inputs: Any, axes: list[int]) -> list[int]:
    return [1 if axis in axes else int(inputs.shape[axis]) for axis in range(len(inputs.shape))]
