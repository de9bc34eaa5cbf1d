"""Keeps the ranks' variables equal: rank 0's at the start, averaged moving statistics, agreement on decisions."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf

from obl_magic.worker.engines.collectives import Collectives
from obl_magic.worker.frameworks.keras import checksum

_OPTIMIZERS_KEPT = 4


class SharedState:
    """Broadcasts variables once, when they are first seen, and again when asked.

    Args:
        world: the collectives; every rank must call the methods in the same order.
    """

    def __init__(self, world: Collectives) -> None:
        self._world = world
        self._known: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        self._trained: dict[int, tuple[Any, list[Any]]] = {}
        self._late: list[Any] = []

    def broadcast(self, variables: Iterable[Any]) -> None:
        """Gives every rank rank 0's values, eagerly (also while a function is being traced)."""
        unique = _unique(variables)
        if not unique:
            return
        with tf.init_scope():
            values = self._world.broadcast([_value(variable) for variable in unique])
            for variable, value in zip(unique, values, strict=True):
                variable.assign(value)
        self._known.update({id(variable): variable for variable in unique})

    def broadcast_late(self) -> None:
        """Broadcasts what was made while a function was traced, now that it has values."""
        if self._late:
            self.broadcast_new(())

    def broadcast_new(self, variables: Iterable[Any]) -> None:
        """As :meth:`broadcast`, for those that were never broadcast.

        A variable made while a function is traced has no value yet; it follows with the next call.
        """
        new = [v for v in _unique([*self._late, *variables]) if self._known.get(id(v)) is not v]
        self._late = [v for v in new if not _has_value(v)]
        late = {id(v) for v in self._late}
        self.broadcast(v for v in new if id(v) not in late)

    def agree(self, variables: Iterable[Any], *numbers: int) -> list[tuple[int, ...]]:
        """Gives every rank rank 0's values where any rank's differ; eager, in one exchange when all are equal.

        Args:
            variables: the same on every rank, in the same order.
            numbers: of this rank, told to all.

        Returns:
            Every rank's numbers.
        """
        unique = _unique(variables)
        mine = [*numbers, *(checksum.number(variable) for variable in unique)]
        everyone = self._world.allgather(tf.constant([mine], tf.int64)).numpy()
        differs = (everyone != everyone[0]).any(axis=0)[len(numbers) :]
        self.broadcast(variable for variable, differ in zip(unique, differs, strict=True) if differ)
        self._known.update({id(variable): variable for variable in unique})
        return [tuple(row[: len(numbers)]) for row in everyone.tolist()]

    def trains(self, optimizer: Any, variables: Iterable[Any]) -> None:
        """Remembers what the last optimizers train, for the final comparison."""
        self._trained.pop(id(optimizer), None)
        mine = [v for v in variables if isinstance(v, keras.Variable)]
        self._trained[id(optimizer)] = (
            optimizer,
            mine,
        )  # held, or the next one might have its id, on some ranks
        while len(self._trained) > _OPTIMIZERS_KEPT:
            self._trained.pop(next(iter(self._trained)))

    def trained(self) -> list[Any]:
        """What the last optimizers train."""
        return _unique(variable for _, variables in self._trained.values() for variable in variables)

    def average(self, variables: Sequence[Any]) -> None:
        """Replaces floating-point variables by their mean over the ranks, eagerly."""
        floating = [v for v in variables if tf.as_dtype(v.dtype).is_floating]
        if floating:
            sums = self._world.allreduce([_value(variable) for variable in floating])
            for variable, total in zip(floating, sums, strict=True):
                variable.assign(total / self._world.size)

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank; eager."""
        (votes,) = self._world.allreduce([tf.constant([1.0 if flag else 0.0])])
        return bool(votes[0] > 0)


def variables_of(model: Any) -> list[Any]:
    """What a model and its optimizer hold."""
    return [*model.variables, *(model.optimizer.variables if model.optimizer else ())]


def moving_statistics(model: Any) -> list[Any]:
    """Non-trainable floating-point variables that training changes: batch normalisation's and their like."""
    frozen = [v for v in model.non_trainable_variables if tf.as_dtype(v.dtype).is_floating]
    weights = {id(v) for layer in model._flatten_layers() for v in layer._trainable_variables}
    return [v for v in frozen if id(v) not in weights]


def normalises_batches(model: Any) -> list[str]:
    """Names of the model's layers whose training statistics are those of the local shard."""
    return [
        layer.name
        for layer in model._flatten_layers()
        if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
    ]


def _has_value(variable: Any) -> bool:
    value = variable.value if isinstance(variable, keras.Variable) else variable
    with tf.init_scope():
        return bool(value.is_initialized()) if hasattr(value, "is_initialized") else True


def _value(variable: Any) -> Any:
    return tf.convert_to_tensor(variable.value if isinstance(variable, keras.Variable) else variable)


def _unique(variables: Iterable[Any]) -> list[Any]:
    seen: dict[int, Any] = {}
    for variable in variables:
        seen.setdefault(id(variable), variable)
    return list(seen.values())
