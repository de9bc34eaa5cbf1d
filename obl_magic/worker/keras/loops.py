"""Hand-written training loops: batches that come from ``dataset_fn`` are cut over the ranks as they are iterated.

Once a function has got such data, code outside Keras' own steps runs in a scope whose numbers follow the batch that the
loop is at: gradients are weighted, a Keras loss gives the whole world's value (its gradient stays local), and a Keras
metric's ``result()`` combines what the ranks have counted. Outside a batch, and for data that the loop makes by
itself, every rank sees everything: right, but not shared, and the run says so.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from obl_magic.worker.collectives import Collectives
from obl_magic.worker.keras import data, metrics
from obl_magic.worker.keras import scope as scopes
from obl_magic.worker.keras.foreign import sees_all
from obl_magic.worker.keras.patching import Patches
from obl_magic.worker.keras.shards import Shard

_Dataset = tf.data.Dataset
_COUNTED = "_obl_counted_by_hand"
_ADAPTS = ("Normalization", "Discretization", "TextVectorization", "StringLookup", "IntegerLookup")
_ALL_ROWS = (
    "dataset_fn returned {what}: a fit shards it, but a loop that goes through it by itself sees all of it on every "
    "rank (to share the work, return a tf.data.Dataset that ends with .batch(...))"
)


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
        self._total = tf.Variable(1.0, trainable=False, name="obl_total")
        self._share = tf.Variable(1.0 / world.size, trainable=False, name="obl_share")
        self._scope = scopes.StepScope(self._local, self._total, True, by_user=True, share=self._share)
        self._marked = self._updating = False
        self._depth = self._adapting = 0
        self.iterated = 0

    def install(self, patches: Patches) -> None:
        """Replaces iteration over datasets, and what losses and metrics do outside Keras' own steps."""
        patches.replace(_Dataset, "__iter__", self._iter)
        patches.replace(keras.losses.Loss, "__call__", self._loss)
        for owner in _with_own(keras.metrics.Metric, "result"):
            patches.replace(owner, "result", self._result)
        for owner in _with_own(keras.metrics.Metric, "update_state"):
            patches.replace(owner, "update_state", self._update)
        for name in _ADAPTS:
            patches.replace(getattr(keras.layers, name), "adapt", self._adapt)
        patches.replace(scopes, "outside_steps", lambda original: self.scope)

    def wrapped(self, dataset_fn: Callable[..., Any]) -> Callable[..., Any]:
        """``dataset_fn``, whose datasets will be cut over the ranks where they are iterated."""

        def oblivious_dataset_fn(*args: Any, **kwargs: Any) -> Any:
            return self._mark(dataset_fn(*args, **kwargs))

        oblivious_dataset_fn.__name__ = getattr(dataset_fn, "__name__", "dataset_fn")
        return oblivious_dataset_fn

    def scope(self) -> scopes.StepScope | None:
        """The scope of code outside Keras' steps, or None if the function got no data from ``dataset_fn``."""
        if not self._marked:
            return None
        return self._scope if self._depth else self._scope.of_everyone()

    def _mark(self, made: Any) -> Any:
        if isinstance(made, _Dataset):
            self._from_users.add(made)
            self._marked = True
        elif isinstance(made, (tuple, list)) and not hasattr(made, "_fields"):
            return type(made)(self._mark(item) for item in made)
        elif isinstance(made, dict):
            return {name: self._mark(item) for name, item in made.items()}
        elif isinstance(made, (np.ndarray, tf.Tensor)) and np.ndim(made):
            self._note("every-rank-sees-all", _ALL_ROWS.format(what="arrays"))
        elif hasattr(made, "__next__"):
            self._note("every-rank-sees-all", _ALL_ROWS.format(what="a generator"))
        return made

    def _iter(self, original: Any) -> Any:
        def __iter__(dataset: Any) -> Any:
            in_main = threading.current_thread() is threading.main_thread()
            if self._adapting or not in_main or not tf.executing_eagerly() or not self._is_users(dataset):
                return original(dataset)
            if not _makes_batches(dataset):
                self._note("every-rank-sees-all", _ALL_ROWS.format(what="a dataset without batches"))
                return original(dataset)
            self.iterated += 1
            self._note(
                "hand-loop",
                "a loop over dataset_fn's batches sees, on each rank, that rank's rows of each batch",
            )
            return self._batches(original(data.shard_batches(dataset, self._world.rank, self._world.size)))

        return __iter__

    def _batches(self, shards: Any) -> Iterator[Any]:
        outer = [float(v.numpy()) for v in (self._local, self._total, self._share)]
        self._depth += 1
        try:
            for shard in shards:
                self._between()
                local, total = float(shard.local), float(shard.total)
                self._at(local, total, local / total)
                yield shard.data
        finally:
            self._depth -= 1
            self._at(*outer)

    def _at(self, local: float, total: float, share: float) -> None:
        self._local.assign(local)
        self._total.assign(total)
        self._share.assign(share)

    def _is_users(self, dataset: Any) -> bool:
        """Whether a dataset, or one that it is made of, came from ``dataset_fn``; a fit's own shards did not."""
        if isinstance(getattr(dataset, "element_spec", None), Shard):
            return False
        return any(one in self._from_users for one in _made_of(dataset))

    def _adapt(self, original: Any) -> Any:
        """Preprocessing layers learn from all rows, on every rank."""

        def adapt(layer: Any, *args: Any, **kwargs: Any) -> Any:
            self._adapting += 1
            try:
                return original(layer, *args, **kwargs)
            finally:
                self._adapting -= 1

        return adapt

    def _loss(self, original: Any) -> Any:
        def __call__(loss: Any, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
            hand = None if scopes.in_step() else self.scope()
            local = original(loss, y_true, y_pred, sample_weight)
            if hand is None or len(local.shape) != 0:
                return local
            (everywhere,) = self._world.allreduce(
                [tf.math.multiply_no_nan(local, tf.cast(hand.weight, local.dtype))]
            )
            return local + tf.stop_gradient(everywhere - local)

        return __call__

    def _update(self, original: Any) -> Any:
        """Counts a metric outside Keras' steps: a stand-in's rows are taken back."""

        def update_state(metric: Any, *args: Any, **kwargs: Any) -> Any:
            if scopes.in_step() or not self._marked or self._updating:
                return original(metric, *args, **kwargs)
            self._updating = True
            try:
                if not self._depth:
                    if hasattr(metric, _COUNTED) and tf.executing_eagerly() and not metrics.counted(metric):
                        object.__delattr__(metric, _COUNTED)
                    with scopes.entered(self._scope.of_everyone()):
                        return original(metric, *args, **kwargs)
                object.__setattr__(metric, _COUNTED, True)
                before = [(variable, tf.identity(variable.value)) for variable in metric.variables]
                found = original(metric, *args, **kwargs)
                metrics.take_back(self._local, before)
                return found
            finally:
                self._updating = False

        return update_state

    def _result(self, original: Any) -> Any:
        def result(metric: Any, *args: Any, **kwargs: Any) -> Any:
            by_hand = hasattr(metric, _COUNTED) and not sees_all(metric)
            if scopes.in_step() or metrics.combining() or not by_hand or not tf.executing_eagerly():
                found = original(metric, *args, **kwargs)
                scopes.record(found, metric)
                return found
            with metrics.combined(self._world, metric.variables):
                return original(metric, *args, **kwargs)

        return result


def _made_of(dataset: Any) -> Iterator[Any]:
    """A dataset and all that it is made of."""
    waiting = [dataset]
    while waiting:
        one = waiting.pop()
        yield one
        waiting.extend(one._inputs())


def _makes_batches(dataset: Any) -> bool:
    """Whether the elements of a dataset are batches, as far as how it was made tells."""
    for one in _made_of(dataset):
        kind = type(one).__name__
        if "Unbatch" in kind:
            return False
        if "Batch" in kind:
            return True
    return False


def _with_own(base: Any, name: str) -> list[Any]:
    """A class and all its known subclasses that define ``name`` themselves."""
    found: list[Any] = []
    waiting = [base]
    while waiting:
        one = waiting.pop()
        waiting.extend(one.__subclasses__())
        if name in vars(one) and one not in found:
            found.append(one)
    return found
