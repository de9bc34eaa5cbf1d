"""Hand-written training loops: batches that come from ``dataset_fn`` are cut over the ranks as they are iterated.

While such a loop runs, a Keras loss called in it gives the whole world's value (its gradient stays local), and a
Keras metric's ``result()`` combines the ranks' states. Batches that the loop makes by itself are seen by every rank:
right, but not distributed, and the run says so.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from obl_magic.worker.collectives import Collectives
from obl_magic.worker.keras import data, metrics
from obl_magic.worker.keras import scope as scopes
from obl_magic.worker.keras.patching import Patches
from obl_magic.worker.keras.shards import Shard

_Dataset = tf.data.Dataset


class HandLoops:
    """Makes hand-written loops over data from ``dataset_fn`` oblivious.

    Args:
        world: the collectives. note: says a sentence about the run. between: called before each batch.
    """

    def __init__(
        self, world: Collectives, note: Callable[[str, str], None], between: Callable[[], None]
    ) -> None:
        self._world, self._note, self._between = world, note, between
        self._from_users: weakref.WeakSet[Any] = weakref.WeakSet()
        self._local = tf.Variable(1.0, trainable=False, name="obl_local")
        self._total = tf.Variable(float(world.size), trainable=False, name="obl_total")
        self.iterated = 0

    def install(self, patches: Patches) -> None:
        """Replaces iteration over datasets, and what losses and metrics say inside such a loop."""
        patches.replace(_Dataset, "__iter__", self._iter)
        patches.replace(keras.losses.Loss, "__call__", self._loss)
        for owner in _with_own(keras.metrics.Metric, "result"):
            patches.replace(owner, "result", self._result)

    def wrapped(self, dataset_fn: Callable[..., Any]) -> Callable[..., Any]:
        """``dataset_fn``, whose datasets and generators will be cut over the ranks."""

        def oblivious_dataset_fn(*args: Any, **kwargs: Any) -> Any:
            return self._mark(dataset_fn(*args, **kwargs))

        oblivious_dataset_fn.__name__ = getattr(dataset_fn, "__name__", "dataset_fn")
        return oblivious_dataset_fn

    def scope(self) -> scopes.StepScope | None:
        """The scope of the batch that a hand-written loop is at, or None if no such loop has begun."""
        return scopes.StepScope(self._local, self._total, True, by_user=True) if self.iterated else None

    def _mark(self, made: Any) -> Any:
        if isinstance(made, _Dataset):
            self._from_users.add(made)
            return made
        if isinstance(made, (tuple, list)) and not hasattr(made, "_fields"):
            return type(made)(self._mark(item) for item in made)
        if isinstance(made, dict):
            return {name: self._mark(item) for name, item in made.items()}
        if isinstance(made, (np.ndarray, tf.Tensor)):
            self._note(
                "every-rank-sees-all",
                "dataset_fn returned arrays: a fit shards them, but a loop that batches them by itself sees all "
                "of them on every rank (to share the work, return a tf.data.Dataset of batches)",
            )
        return made

    def _iter(self, original: Any) -> Any:
        def __iter__(dataset: Any) -> Any:
            if not tf.executing_eagerly() or not self._is_users(dataset):
                return original(dataset)
            self.iterated += 1
            shards = data.shard_batches(dataset, self._world.rank, self._world.size)
            return self._batches(original(shards))

        return __iter__

    def _batches(self, shards: Any) -> Iterator[Any]:
        try:
            for shard in shards:
                self._between()
                self._local.assign(tf.cast(shard.local, tf.float32))
                self._total.assign(tf.cast(shard.total, tf.float32))
                yield shard.data
        finally:
            self._local.assign(1.0)
            self._total.assign(float(self._world.size))

    def _is_users(self, dataset: Any) -> bool:
        """Whether a dataset, or one that it is made of, came from ``dataset_fn``; a fit's own shards did not."""
        if any(isinstance(spec, Shard) for spec in [getattr(dataset, "element_spec", None)]):
            return False
        waiting = [dataset]
        while waiting:
            one = waiting.pop()
            if one in self._from_users:
                return True
            waiting.extend(one._inputs())
        return False

    def _loss(self, original: Any) -> Any:
        def __call__(loss: Any, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            hand = None if scopes.current() is not None else self.scope()
            if hand is None:
                return original(loss, y_true, y_pred, sample_weight)
            with scopes.entered(hand):
                local = original(loss, y_true, y_pred, sample_weight)
            if len(local.shape) != 0:
                return local
            (everywhere,) = self._world.allreduce(
                [tf.math.multiply_no_nan(local, tf.cast(hand.weight, local.dtype))]
            )
            return local + tf.stop_gradient(everywhere - local)

        return __call__

    def _result(self, original: Any) -> Any:
        def result(metric: Any, *args: Any, **kwargs: Any) -> Any:
            outside = scopes.current() is None and not metrics.combining()
            if not (self.iterated and outside and tf.executing_eagerly()):
                return original(metric, *args, **kwargs)
            with metrics.combined(self._world, metric.variables):
                return original(metric, *args, **kwargs)

        return result


def _with_own(base: Any, name: str) -> list[Any]:
    """A class and all its known subclasses that define ``name`` themselves."""
    found, waiting = [], [base]
    while waiting:
        one = waiting.pop()
        waiting.extend(one.__subclasses__())
        if name in vars(one) and one not in found:
            found.append(one)
    return found
