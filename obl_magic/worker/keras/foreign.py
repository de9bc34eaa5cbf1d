"""Losses and metrics that users wrote, which no rule about sums can combine: they are given the whole batch.

A user's ``Metric`` subclass, or a metric or loss function that returns one number for a batch, may do anything with the
rows it gets (a maximum, the root of a mean). It is therefore called with the rows of all ranks, so that every rank
computes what one process would. Keras' own metrics and losses, and functions that return one value per sample, need
no such exchange.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras import tree
from keras.src import backend
from keras.src.losses import loss as keras_loss
from keras.src.losses.loss import Loss
from keras.src.losses.losses import LossFunctionWrapper
from keras.src.metrics.metric import Metric
from keras.src.metrics.reduction_metrics import MeanMetricWrapper

from obl_magic.worker.collectives import Collectives
from obl_magic.worker.keras import scope as scopes
from obl_magic.worker.keras.patching import Patches

OWN = "_obl_sees_all"
_ACROSS_ROWS = (keras.losses.Dice, keras.losses.Tversky, keras.losses.Circle)
"""Keras' own losses whose value for a row depends on the others."""


class ForeignCode:
    """Gives users' own metrics and losses the whole batch.

    Args:
        world: the collectives. patches: takes the replacements, also later ones. note: says a sentence.
    """

    def __init__(self, world: Collectives, patches: Patches, note: Callable[[str, str], None]) -> None:
        self._world, self._patches, self._note = world, patches, note
        self._seen: set[type] = set()

    def install(self) -> None:
        """Replaces what is known by now."""
        self._patches.replace(MeanMetricWrapper, "update_state", self._function_metric)
        self._patches.replace(Loss, "__call__", self._loss)
        self.look_for_metrics()

    def look_for_metrics(self) -> None:
        """Replaces ``update_state`` of Metric subclasses that users have defined since the last look."""
        waiting = [Metric]
        while waiting:
            kind = waiting.pop()
            waiting.extend(kind.__subclasses__())
            if kind not in self._seen and not _is_keras(kind) and "update_state" in vars(kind):
                self._seen.add(kind)
                self._patches.replace(kind, "update_state", self._metric)

    def _metric(self, original: Any) -> Any:
        def update_state(metric: Any, *args: Any, **kwargs: Any) -> Any:
            scope = scopes.current()
            if scope is None or scope.whole:
                return original(metric, *args, **kwargs)
            if not hasattr(metric, OWN):
                object.__setattr__(metric, OWN, True)
            with scopes.entered(scope.of_everyone()):
                return original(metric, *self._everyone(scope, args), **self._everyone(scope, kwargs))

        return update_state

    def _function_metric(self, original: Any) -> Any:
        def update_state(metric: Any, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            scope = scopes.current()
            if scope is None or scope.whole or _is_keras(metric._fn):
                return original(metric, y_true, y_pred, sample_weight)
            if len(metric._fn(y_true, y_pred, **metric._fn_kwargs).shape) != 0:
                return original(metric, y_true, y_pred, sample_weight)
            everyone = self._everyone(scope, (y_true, y_pred, sample_weight))
            object.__setattr__(metric, OWN, True)
            with scopes.entered(scope.of_everyone()):
                return original(metric, *everyone)

        return update_state

    def _loss(self, original: Any) -> Any:
        def __call__(loss: Any, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            scope = scopes.current()
            if scope is None or scope.whole or not _is_foreign_loss(loss):
                return original(loss, y_true, y_pred, sample_weight)
            if not isinstance(loss, _ACROSS_ROWS) and len(_values(loss, y_true, y_pred).shape) != 0:
                return original(loss, y_true, y_pred, sample_weight)
            self._note(
                "whole-batch-loss",
                f"the loss {loss.name} returns one number for a batch: every rank computes it from all ranks' outputs "
                "(one value per sample would spare the exchange)",
            )
            everyone = self._everyone(scope, (y_true, sample_weight))
            with scopes.entered(scope.of_everyone()):
                whole = original(loss, everyone[0], self._with_own_gradient(scope, y_pred), everyone[1])
            share = tf.cast(scope.weight, whole.dtype)
            gradient_part = whole - tf.stop_gradient(whole)
            return tf.stop_gradient(whole) + gradient_part * tf.math.divide_no_nan(tf.ones_like(share), share)

        return __call__

    def _everyone(self, scope: scopes.StepScope, structure: Any) -> Any:
        """All ranks' rows of every tensor, in rank order; a number is averaged over the samples."""

        def gather(leaf: Any) -> Any:
            if leaf is None or not (tf.is_tensor(leaf) or hasattr(leaf, "shape")):
                return leaf
            tensor = tf.convert_to_tensor(leaf)
            if tensor.shape.rank == 0:
                if not tensor.dtype.is_floating:
                    return leaf
                part = tf.math.multiply_no_nan(tensor, tf.cast(scope.weight, tensor.dtype))
                return self._world.allreduce([part])[0]
            gathered = self._world.allgather(tensor[: tf.cast(scope.local, tf.int32)])
            mask = backend.get_keras_mask(leaf)
            if mask is not None:
                backend.set_keras_mask(gathered, mask=gather(mask))
            return gathered

        return tree.map_structure(gather, structure, none_is_leaf=True)

    def _with_own_gradient(self, scope: scopes.StepScope, structure: Any) -> Any:
        """As :meth:`_everyone`, where the gradient flows back to this rank's own rows."""

        def gather(leaf: Any) -> Any:
            rows = tf.cast(scope.local, tf.int32)

            @tf.custom_gradient  # type: ignore[untyped-decorator]
            def everyone(mine: Any) -> Any:
                counts = self._world.allgather(tf.reshape(rows, [1]))
                first = tf.reduce_sum(counts[: self._world.rank])

                def back(upstream: Any) -> Any:
                    own = upstream[first : first + rows]
                    rest = tf.zeros(
                        tf.concat([[tf.shape(mine)[0] - rows], tf.shape(mine)[1:]], 0), mine.dtype
                    )
                    return tf.concat([own, rest], 0)

                return self._world.allgather(mine[:rows]), back

            gathered = everyone(leaf)
            mask = backend.get_keras_mask(leaf)
            if mask is not None:
                backend.set_keras_mask(gathered, mask=self._everyone(scope, mask))
            return gathered

        return tree.map_structure(gather, structure)


def sees_all(metric: Any) -> bool:
    """Whether a metric was given the whole batch, so that every rank already holds the world's state."""
    return hasattr(metric, OWN)


def _is_keras(thing: Any) -> bool:
    return str(getattr(thing, "__module__", "")).split(".")[0] == "keras"


def _is_foreign_loss(loss: Any) -> bool:
    if isinstance(loss, _ACROSS_ROWS):
        return True
    return not _is_keras(loss.fn) if isinstance(loss, LossFunctionWrapper) else not _is_keras(type(loss))


def _values(loss: Any, y_true: Any, y_pred: Any) -> Any:
    """What the loss computes before any reduction."""
    as_dtype = keras_loss.ops.convert_to_tensor
    y_pred = tree.map_structure(lambda x: as_dtype(x, dtype=loss.dtype), y_pred)
    y_true = tree.map_structure(lambda x: as_dtype(x, dtype=loss.dtype), y_true)
    return tf.convert_to_tensor(loss.call(y_true, y_pred))
