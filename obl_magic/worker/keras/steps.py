"""Runs Keras' train, test and predict steps on this rank's shard. The seams are ``_make_function`` and friends."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import tensorflow as tf
from keras import tree
from keras.src.backend.tensorflow.trainer import TensorFlowTrainer
from keras.src.trainers.trainer import Trainer
from keras.src.utils.python_utils import pythonify_logs

from obl_magic.worker.collectives import Collectives
from obl_magic.worker.keras import metrics as exact
from obl_magic.worker.keras import randomness
from obl_magic.worker.keras import scope as scopes
from obl_magic.worker.keras.foreign import sees_all
from obl_magic.worker.keras.patching import Patches
from obl_magic.worker.keras.same_data import SameData, marked, nothing_read
from obl_magic.worker.keras.shards import Shard, cut
from obl_magic.worker.keras.state import SharedState, variables_of


class ShardedSteps:
    """Replaces how Keras models step, evaluate, predict and read their metrics.

    Args:
        world: the collectives. state: for broadcasting what is built. note: says a sentence about the run.
        before_making: called before a step function is made. same: is told what the steps have read.
    """

    def __init__(
        self,
        world: Collectives,
        state: SharedState,
        note: Callable[[str, str], None],
        before_making: Callable[[], None],
        same: SameData,
    ) -> None:
        self._world, self._state, self._note, self._before_making = world, state, note, before_making
        self._same = same
        self._sources: WeakKeyDictionary[Any, dict[bool, dict[str, Any]]] = WeakKeyDictionary()
        self.made = 0

    def install(self, patches: Patches) -> None:
        """Replaces the methods."""
        patches.replace(TensorFlowTrainer, "_make_function", self._make_function)
        patches.replace(TensorFlowTrainer, "make_predict_function", self._make_predict_function)
        patches.replace(TensorFlowTrainer, "_maybe_symbolic_build", self._build)
        patches.replace(TensorFlowTrainer, "train_on_batch", self._on_batch)
        patches.replace(TensorFlowTrainer, "test_on_batch", self._on_batch)
        patches.replace(Trainer, "_get_metrics_result_or_logs", self._results)
        patches.replace(Trainer, "jit_compile", self._never_jit)
        patches.replace(TensorFlowTrainer, "_aggregate_additional_loss", self._additional_loss)

    def exact_logs(self, model: Any, logs: Any) -> Any:
        """The logs of a step with every metric computed from the states of all ranks; eager."""
        if not isinstance(logs, dict):
            return logs
        with exact.combined(self._world, self._states(model)):
            return _with_results(model, logs, self._sources_of(model))

    def _states(self, model: Any) -> list[Any]:
        """The metric variables that hold this rank's part: the model's, and of what else its steps log."""
        logged = [m for m in self._sources_of(model).values() if not sees_all(m)]
        found = {id(v): v for v in [*exact.states_of(model), *(v for m in logged for v in m.variables)]}
        return list(found.values())

    def _sources_of(self, model: Any) -> dict[str, Any]:
        """Log name -> metric, where a step of the user's logs a metric's result."""
        known = self._sources.get(model, {})
        return {**known.get(True, {}), **known.get(False, {})}

    def _make_function(self, original: Any) -> Any:
        def _make_function(model: Any, step_function: Any) -> Any:
            self.made += 1
            self._before_making()
            return original(model, self._sharded(model, step_function))

        return _make_function

    def _sharded(self, model: Any, step: Any) -> Any:
        training = getattr(step, "__name__", "") == "train_step"
        by_user = getattr(step, "__func__", None) is not TensorFlowTrainer.train_step

        @functools.wraps(step)
        def sharded_step(data: Any) -> Any:
            shard = data if isinstance(data, Shard) else self._cut(data)
            self._same.saw(shard.mark)
            before = {id(v): (v, tf.identity(v.value)) for v in model.metrics_variables}
            with (
                scopes.recording() as results,
                scopes.step_scope(shard.local, shard.total, training, by_user) as scope,
                randomness.operations_differ(self._world.rank),
            ):
                logs = step(shard.data)
            local = [before[id(v)] for v in exact.states_of(model) if id(v) in before]
            exact.take_back(scope.local, local)
            sources = _sources(logs, results)
            self._sources.setdefault(model, {})[training] = sources
            return self._average_others(model, logs, scope, sources)

        return sharded_step

    def _cut(self, data: Any) -> Shard:
        tensors = tree.map_structure(
            lambda x: tf.convert_to_tensor(x) if isinstance(x, np.ndarray) else x, data
        )
        mark = marked(nothing_read(), tensors)
        return cut(tensors, self._world.rank, self._world.size)._replace(mark=mark)

    def _average_others(self, model: Any, logs: Any, scope: scopes.StepScope, sources: dict[str, Any]) -> Any:
        """Averages what a custom step logs over the samples; what is a metric's result is put right when it is read."""
        if not isinstance(logs, dict) or set(logs) == set(model.get_metrics_result()):
            return logs
        others = [name for name in logs if name not in sources and _is_number(logs[name])]
        values = [tf.cast(tf.convert_to_tensor(logs[name]), tf.float32) for name in others]
        summed = self._world.allreduce([tf.math.multiply_no_nan(value, scope.weight) for value in values])
        return {**logs, **dict(zip(others, summed, strict=True))}

    def _make_predict_function(self, original: Any) -> Any:
        def make_predict_function(model: Any, force: bool = False) -> Any:
            if model.predict_function is not None and not force:
                return model.predict_function
            model.predict_function = None
            original(model, force)
            model.predict_function = self._gathered(model.predict_function)
            return model.predict_function

        return make_predict_function

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
        return tree.map_structure(lambda part: self._gather(part[:local]), predict([shard.data]))

    def _gather(self, part: Any) -> Any:
        if isinstance(part, tf.RaggedTensor):
            lengths = [self._world.allgather(level) for level in part.nested_row_lengths()]
            return tf.RaggedTensor.from_nested_row_lengths(self._world.allgather(part.flat_values), lengths)
        return self._world.allgather(part)

    def _build(self, original: Any) -> Any:
        def _maybe_symbolic_build(model: Any, iterator: Any = None, data_batch: Any = None) -> None:
            original(model, iterator=iterator, data_batch=data_batch)
            spec = iterator._distributed_dataset.element_spec.data if iterator is not None else data_batch
            with scopes.entered(scopes.StepScope(1.0, 1.0, training=False, whole=True)):
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
            exact.combine(self._world, self._states(model))
            with exact.holding_the_worlds_state():
                if not isinstance(logs, dict):
                    return original(model, logs)
                return _with_results(model, logs, self._sources_of(model))

        return _get_metrics_result_or_logs

    def _additional_loss(self, original: Any) -> Any:
        """A vector given to ``add_loss`` is summed over the batch: upscaled, since gradients are averaged."""

        def _aggregate_additional_loss(model: Any, loss: Any) -> Any:
            total, scope = original(model, loss), scopes.current()
            if scope is None or len(loss.shape) == 0:
                return total
            return total * tf.cast(scope.upscale, total.dtype)

        return _aggregate_additional_loss

    def _never_jit(self, original: Any) -> Any:
        def set_jit(model: Any, value: Any) -> None:
            if value and value != "auto":
                self._note(
                    "jit", "jit_compile is off in a distributed run: host collectives do not compile with XLA"
                )
            original.fset(model, False)

        return property(lambda model: False, set_jit)


def _with_results(model: Any, logs: dict[str, Any], sources: dict[str, Any]) -> dict[str, Any]:
    """Logs with the results of the model's metrics as they stand; what no metric has counted stays."""
    results, counted = model.get_metrics_result(), exact.updated(model)
    whole = set(logs) == set(results)

    def put(name: str, value: Any) -> Any:
        if isinstance(value, dict):
            return {inner: put(inner, number) for inner, number in value.items()}
        if name in sources:
            return sources[name].result()
        return results[name] if name in results and (whole or name in counted) else value

    return {name: put(name, value) for name, value in logs.items()}


def _sources(logs: Any, results: dict[int, tuple[Any, Any]]) -> dict[str, Any]:
    """Log name -> the metric whose result it is."""
    if not isinstance(logs, dict):
        return {}
    return {name: results[id(value)][1] for name, value in logs.items() if id(value) in results}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) or (tf.is_tensor(value) and value.dtype.is_floating)


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
        model._symbolic_build(data_batch=tree.map_structure(_any_batch, spec))
    except Exception:
        return


def _any_batch(leaf: Any) -> Any:
    if leaf is None:
        return None
    shape = [None, *list(leaf.shape)[1:]] if len(leaf.shape) else []
    return tf.TensorSpec(shape, leaf.dtype)
