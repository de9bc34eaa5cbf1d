"""Runs Keras' train, test and predict steps over the ranks. The seams are ``_make_function`` and friends.

A step with Keras' own code only is given this rank's rows, and what depends on all rows is put right. A step with
code of the user's is given the whole batch, and the calls of models in it are shared.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import keras
import numpy as np
import tensorflow as tf
from keras import tree
from keras.src.backend.tensorflow.trainer import TensorFlowTrainer, TFEpochIterator
from keras.src.trainers.compile_utils import CompileLoss
from keras.src.trainers.trainer import Trainer
from keras.src.utils.python_utils import pythonify_logs

from obl_magic.worker.engines.collectives import Collectives
from obl_magic.worker.frameworks.keras import metrics as exact
from obl_magic.worker.frameworks.keras import scope as scopes
from obl_magic.worker.frameworks.keras import user_code
from obl_magic.worker.frameworks.keras.data import whole_batches
from obl_magic.worker.frameworks.keras.model_calls import ModelCalls
from obl_magic.worker.frameworks.keras.plans import has_rows
from obl_magic.worker.frameworks.keras.same_data import SameData, marked, nothing_read
from obl_magic.worker.frameworks.keras.shards import Shard, cut, own, whole
from obl_magic.worker.frameworks.keras.state import SharedState, variables_of
from obl_magic.worker.patching import Patches

_CALLS_ARE_SHARED = (
    "the calls of {model} are shared over the ranks, rather than the data, since its steps hold more than Keras' own "
    "code ({why}): outside the calls every rank has the whole batch"
)


class SharedSteps:
    """Replaces how Keras models step, evaluate, predict and read their metrics.

    Args:
        world: the collectives.
        state: for broadcasting what is built.
        calls: the model calls.
        note: says a sentence about the run.
        same: is told what the steps have read.
    """

    def __init__(
        self,
        world: Collectives,
        state: SharedState,
        calls: ModelCalls,
        note: Callable[[str, str], None],
        same: SameData,
    ) -> None:
        self._world, self._state, self._calls, self._note = world, state, calls, note
        self._same = same
        self._by_calls: WeakKeyDictionary[Any, bool] = WeakKeyDictionary()
        self._whole_next = False
        self.made = 0

    def install(self, patches: Patches) -> None:
        """Replaces the methods."""
        patches.replace(TensorFlowTrainer, "_make_function", self._make_function)
        patches.replace(TensorFlowTrainer, "make_predict_function", self._make_predict_function)
        patches.replace(TensorFlowTrainer, "_maybe_symbolic_build", self._build)
        patches.replace(TensorFlowTrainer, "train_on_batch", self._on_batch)
        patches.replace(TensorFlowTrainer, "test_on_batch", self._on_batch)
        patches.replace(TensorFlowTrainer, "predict", self._predict)
        patches.replace(TFEpochIterator, "__init__", self._iterator)
        patches.replace(Trainer, "_get_metrics_result_or_logs", self._results)
        patches.replace(Trainer, "jit_compile", self._never_jit)
        patches.replace(CompileLoss, "call", self._as_traced)

    def exact_logs(self, model: Any, logs: Any) -> Any:
        """The logs of a step with every metric computed from the states of all ranks; eager."""
        if not isinstance(logs, dict) or self._shares_calls(model):
            return logs
        with exact.combined(self._world, model.metrics_variables):
            return _with_results(model, logs)

    def counts_apart(self, model: Any) -> list[Any]:
        """The metric variables in which each rank counts its own rows only; all ranks' sum is one process's."""
        apart = self._world.size > 1 and not self._shares_calls(model)
        return list(model.metrics_variables) if apart else []

    def _shares_calls(self, model: Any) -> bool:
        """Whether a model's steps are given whole batches; decided when its functions are made."""
        return self._by_calls.get(model, False)

    def _decide(self, model: Any) -> bool:
        """Decides it anew; a function that was made for the other way is made again."""
        why = user_code.reasons(model)
        if bool(why) != self._by_calls.get(model):
            model.train_function = model.test_function = model.predict_function = None
            self._by_calls[model] = bool(why)
        if why:
            self._note(
                f"calls:{model.name}", _CALLS_ARE_SHARED.format(model=model.name, why=user_code.told(why))
            )
        return bool(why)

    def _make_function(self, original: Any) -> Any:
        def _make_function(model: Any, step_function: Any) -> Any:
            self.made += 1
            if not self._decide(model):
                return original(model, self._sharded(model, step_function))
            return _Proving(original(model, self._whole(step_function)), self._calls, not model.run_eagerly)

        return _make_function

    def _sharded(self, model: Any, step: Any) -> Any:
        training = getattr(step, "__name__", "") == "train_step"

        @functools.wraps(step)
        def sharded_step(data: Any) -> Any:
            shard = data if isinstance(data, Shard) else self._cut(data)
            self._same.saw(shard.mark)
            before = [(v, tf.identity(v.value)) for v in model.metrics_variables]
            with scopes.entered(_scope_of(shard, training)) as scope:
                logs = step(shard.data)
            exact.take_back(scope.local, before)
            return logs

        return sharded_step

    def _whole(self, step: Any) -> Any:
        """A step that is given the data of a whole batch."""

        @functools.wraps(step)
        def whole_step(data: Any) -> Any:
            shard = _whole_shard(data)
            self._same.saw(shard.mark)
            return tf.nest.map_structure(_read, step(shard.data))

        return whole_step

    def _data_of(self, batches: list[Any]) -> list[Any]:
        shards = [_whole_shard(batch) for batch in batches]
        for shard in shards:
            self._same.saw(shard.mark)
        return [shard.data for shard in shards]

    def _cut(self, data: Any) -> Shard:
        tensors = _tensors(data)
        mark = marked(nothing_read(), tensors)
        return cut(tensors, self._world.rank, self._world.size)._replace(mark=mark)

    def _make_predict_function(self, original: Any) -> Any:
        def make_predict_function(model: Any, force: bool = False) -> Any:
            if model.predict_function is not None and not force:
                return model.predict_function
            shares_calls = self._decide(model)
            model.predict_function = None
            original(model, force)
            shared = _Proving(model.predict_function, self._calls, not model.run_eagerly, self._data_of)
            model.predict_function = shared if shares_calls else self._gathered(model.predict_function)
            return model.predict_function

        return make_predict_function

    def _predict(self, original: Any) -> Any:
        """Lets the data of a prediction come whole where the model's calls are shared."""

        @functools.wraps(original)
        def predict(model: Any, *args: Any, **kwargs: Any) -> Any:
            self._whole_next = self._decide(model)
            return original(model, *args, **kwargs)

        return predict

    def _iterator(self, original: Any) -> Any:
        def __init__(iterator: Any, *args: Any, **kwargs: Any) -> None:
            original(iterator, *args, **kwargs)
            if self._whole_next:
                self._whole_next = False
                whole_batches(iterator)

        return __init__

    def _gathered(self, predict: Any) -> Any:
        """Predicts this rank's rows of each batch and gathers everyone's: the whole, in order, everywhere."""

        def predict_function(batches: list[Any]) -> Any:
            outputs = [self._predict_one(predict, batch) for batch in batches]
            return (
                outputs[0]
                if len(outputs) == 1
                else tree.map_structure(lambda *parts: tf.concat(parts, 0), *outputs)
            )

        return predict_function

    def _predict_one(self, predict: Any, batch: Any) -> Any:
        shard = batch if isinstance(batch, Shard) else self._cut(batch)
        self._same.saw(shard.mark)
        local = int(shard.local)
        with scopes.entered(_scope_of(shard, training=False)):
            predicted = predict([shard.data])
        return tree.map_structure(lambda part: self._gather(part[:local]), predicted)

    def _gather(self, part: Any) -> Any:
        if isinstance(part, tf.RaggedTensor):
            lengths = [self._world.allgather(level) for level in part.nested_row_lengths()]
            return tf.RaggedTensor.from_nested_row_lengths(self._world.allgather(part.flat_values), lengths)
        return self._world.allgather(part)

    def _build(self, original: Any) -> Any:
        def _maybe_symbolic_build(model: Any, iterator: Any = None, data_batch: Any = None) -> None:
            original(model, iterator=iterator, data_batch=data_batch)
            if self._decide(model) and iterator is not None:
                whole_batches(iterator)
            spec = iterator._distributed_dataset.element_spec.data if iterator is not None else data_batch
            with scopes.entered(scopes.WHOLE):
                build_if_possible(model, spec)
            self._state.broadcast_new(variables_of(model))

        return _maybe_symbolic_build

    def _on_batch(self, original: Any) -> Any:
        @functools.wraps(original)
        def on_batch(model: Any, *args: Any, return_dict: bool = False, **kwargs: Any) -> Any:
            logs = self.exact_logs(model, original(model, *args, return_dict=True, **kwargs))
            logs = pythonify_logs(logs)
            return logs if return_dict else model._flatten_metrics_in_order(logs)

        return on_batch

    def _results(self, original: Any) -> Any:
        def _get_metrics_result_or_logs(model: Any, logs: Any) -> Any:
            exact.combine(self._world, self.counts_apart(model))
            return original(model, logs)

        return _get_metrics_result_or_logs

    def _as_traced(self, original: Any) -> Any:
        """Means of an output's loss weigh a batch by its rows only where these are known while a step is traced."""

        @functools.wraps(original)
        def call(losses: Any, *args: Any, **kwargs: Any) -> Any:
            with contextlib.ExitStack() as kept:
                for tracker in losses.metrics if self._calls.rows_are_unknown else ():
                    tracker.update_state = functools.partial(_unweighted, tracker)
                    kept.callback(delattr, tracker, "update_state")
                return original(losses, *args, **kwargs)

        return call

    def _never_jit(self, original: Any) -> Any:
        def set_jit(model: Any, value: Any) -> None:
            if value and value != "auto":
                self._note(
                    "jit", "jit_compile is off in a distributed run: host collectives do not compile with XLA"
                )
            original.fset(model, False)

        return property(lambda model: False, set_jit)


class _Proving:
    """A step function that runs eagerly at its calls 1, 2, 4, 8, …, so that the model calls in it can prove themselves.

    Args:
        function: as Keras made it.
        calls: the model calls.
        traced: it is, but for the calls named.
        of: what the function is given of its argument.
    """

    def __init__(
        self, function: Any, calls: ModelCalls, traced: bool, of: Callable[[Any], Any] = lambda data: data
    ) -> None:
        self._function, self._calls, self._traced, self._of = function, calls, traced, of
        self._made = 0

    def __call__(self, data: Any) -> Any:
        self._made += 1
        if not self._calls.proves or self._made & (self._made - 1):
            return self._function(self._of(data))
        traced = self._traced and not tf.config.functions_run_eagerly()
        with self._calls.proving(rows_are_unknown=traced and _has_unknown_rows(data)):
            return self._function(self._of(data))


def _has_unknown_rows(batches: Any) -> bool:
    """Whether batches of an iterator may differ in their number of rows."""
    leaves = tree.flatten(getattr(batches, "element_spec", None))
    return any(
        isinstance(leaf, tf.TensorSpec) and leaf.shape.rank and leaf.shape[0] is None for leaf in leaves
    )


def _unweighted(tracker: Any, values: Any, sample_weight: Any = None) -> Any:
    return type(tracker).update_state(tracker, values)


def _whole_shard(data: Any) -> Shard:
    """A batch that is given to a step by the user, as the epoch iterators give theirs."""
    if isinstance(data, Shard):
        return data
    tensors = _tensors(data)
    return whole(tree.map_structure(own, tensors))._replace(mark=marked(nothing_read(), tensors))


def _read(value: Any) -> Any:
    """What a variable holds, as a traced step would return it; anything else as it is."""
    return tf.convert_to_tensor(value) if isinstance(value, (tf.Variable, keras.Variable)) else value


def _tensors(data: Any) -> Any:
    return tree.map_structure(lambda x: tf.convert_to_tensor(x) if isinstance(x, np.ndarray) else x, data)


def _scope_of(shard: Shard, training: bool) -> scopes.RowScope:
    local, total = tf.cast(shard.local, tf.int32), tf.cast(shard.total, tf.int32)
    first = tf.cast(shard.first, tf.int32)
    static = [leaf.shape[0] for leaf in tree.flatten(shard.data) if has_rows(leaf)][:1]
    held = static[0] if static and static[0] is not None else tf.maximum(local, 1)
    return scopes.RowScope(first, local, total, held, in_call=False, training=training)


def _with_results(model: Any, logs: dict[str, Any]) -> dict[str, Any]:
    """Logs with the results of the model's metrics as they stand."""
    results = model.get_metrics_result()
    return {name: results.get(name, value) for name, value in logs.items()}


def build_if_possible(model: Any, spec: Any) -> None:
    """Builds model, losses, metrics and optimizer before the first step, from the shapes of a batch.

    A model that only its own training step can build is left to it; its variables are then broadcast when the
    optimizer first sees them.
    """
    leaves = [leaf for leaf in tree.flatten(spec) if leaf is not None]
    if not all(isinstance(leaf, (tf.TensorSpec, tf.Tensor, np.ndarray)) for leaf in leaves):
        return
    if any(isinstance(leaf, tf.TensorSpec) and leaf.shape.rank is None for leaf in leaves):
        return
    try:
        _as_keras_builds(
            model, lambda: model._symbolic_build(data_batch=tree.map_structure(_any_batch, spec))
        )
    except Exception:
        return


def _as_keras_builds(model: Any, build: Callable[[], None]) -> None:
    """Builds while a function is traced, as Keras does unless it runs eagerly; what building assigns is then lost."""
    if model.run_eagerly or tf.config.functions_run_eagerly():
        build()
    else:
        tf.function(build, autograph=False).get_concrete_function()


def _any_batch(leaf: Any) -> Any:
    if leaf is None:
        return None
    shape = [None, *list(leaf.shape)[1:]] if len(leaf.shape) else []
    return tf.TensorSpec(shape, leaf.dtype)
