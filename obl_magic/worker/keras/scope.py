"""What a step knows of its shard: how many samples are here, how many in the whole world.

The scope is a Python-level context around a traced or eager step; its numbers are tensors of that step.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf


@dataclass(frozen=True, slots=True)
class StepScope:
    """The shard of the step being run or traced.

    Attributes:
        local: float32 scalar, samples of this rank that count. total: float32 scalar, of the world.
        training: whether weights are being updated.
        whole: the code inside sees the rows of all ranks, so that nothing in it needs weighting.
        by_user: the step is the user's own code, which may do anything with gradients before applying them.
        share: this rank's weight where it is not ``local / total``, or None.
    """

    local: Any
    total: Any
    training: bool
    whole: bool = False
    by_user: bool = False
    share: Any = None

    @property
    def weight(self) -> Any:
        """This rank's share of the global batch, ``local / total``; the shares of all ranks sum to one."""
        return self.local / self.total if self.share is None else tf.convert_to_tensor(self.share)

    @property
    def upscale(self) -> Any:
        """``total / local``; for a stand-in (``local == 0``) a finite number whose product is discarded."""
        return self.total / tf.maximum(self.local, 1.0)

    def of_everyone(self) -> StepScope:
        """The scope for code that is given all ranks' rows."""
        return replace(self, whole=True)


_stack: list[StepScope] = []
_records: list[dict[int, tuple[Any, Any]]] = []


def outside_steps() -> StepScope | None:
    """The scope of code outside Keras' own steps; replaced while hand-written loops are made oblivious."""
    return None


def current() -> StepScope | None:
    """The innermost scope, or None where nothing is sharded."""
    return _stack[-1] if _stack else outside_steps()


def in_step() -> bool:
    """Whether this is inside one of Keras' own steps, or a scope was entered."""
    return bool(_stack)


@contextmanager
def recording() -> Iterator[dict[int, tuple[Any, Any]]]:
    """Within it, results of metrics are remembered: id of the result -> (the result, the metric)."""
    found: dict[int, tuple[Any, Any]] = {}
    _records.append(found)
    try:
        yield found
    finally:
        _records.pop()


def record(result: Any, metric: Any) -> None:
    """Remembers whose result this is."""
    if _records:
        _records[-1][id(result)] = (result, metric)


@contextmanager
def step_scope(local: Any, total: Any, training: bool, by_user: bool = False) -> Iterator[StepScope]:
    """Enters the scope of one step."""
    local, total = tf.cast(local, tf.float32), tf.cast(total, tf.float32)
    with entered(StepScope(local, total, training, by_user=by_user)) as scope:
        yield scope


@contextmanager
def entered(scope: StepScope) -> Iterator[StepScope]:
    """Makes ``scope`` the innermost one."""
    _stack.append(scope)
    try:
        yield scope
    finally:
        _stack.pop()
