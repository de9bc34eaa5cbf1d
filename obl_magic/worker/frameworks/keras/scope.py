"""What code knows of the rows it is given: which are this rank's, how many there are in all.

The scope is a Python-level context around a traced or eager step, or around one call of a model; its numbers are
integers or integer tensors. Where there is no scope, tensors are the whole batch's, and model calls may be shared.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import tensorflow as tf


@dataclass(frozen=True, slots=True)
class RowScope:
    """This rank's rows of a batch.

    Attributes:
        first: index of this rank's first row (0 for a stand-in).
        local: rows of this rank that count.
        total: of all.
        held: rows that this rank has, an int where shapes tell (a stand-in is held, but does not count).
        in_call: inside a shared model call, whose gradients are averaged over ranks; else inside one of Keras'
            own steps, whose gradients are weighted with each rank's share of the batch.
        training: whether weights are being updated.
        whole: every rank has all rows, and calls inside are not shared.
    """

    first: Any
    local: Any
    total: Any
    held: Any
    in_call: bool
    training: bool
    whole: bool = False

    @property
    def weight(self) -> Any:
        """This rank's share of the batch, ``local / total``, float32; the shares of all ranks sum to one."""
        return tf.cast(self.local, tf.float32) / tf.cast(self.total, tf.float32)

    @property
    def upscale(self) -> Any:
        """``total / local``, float32; for a stand-in (``local == 0``) a finite number whose product is discarded."""
        return tf.cast(self.total, tf.float32) / tf.maximum(tf.cast(self.local, tf.float32), 1.0)

    @property
    def gradient_weight(self) -> Any:
        """The factor with which this rank's gradients enter the sum over ranks, up to a constant of all ranks."""
        return tf.constant(1.0) if self.in_call else self.weight


WHOLE = RowScope(0, 1, 1, 1, in_call=False, training=False, whole=True)
"""Every rank has all rows, and no call inside is shared: proofs, building, what one rank does by itself."""

_stack: list[RowScope] = []


def current() -> RowScope | None:
    """The innermost scope in which rows are divided, or None where code has the whole batch."""
    return _stack[-1] if _stack and not _stack[-1].whole else None


def may_share() -> bool:
    """Whether a model call here may be shared: it is in no step of Keras' own, in no shared call, in nothing whole."""
    return not _stack


@contextmanager
def entered(scope: RowScope) -> Iterator[RowScope]:
    """Makes ``scope`` the innermost one."""
    _stack.append(scope)
    try:
        yield scope
    finally:
        _stack.pop()


@contextmanager
def fresh() -> Iterator[None]:
    """Within it there is no scope: a step begins."""
    before = _stack[:]
    _stack.clear()
    try:
        yield
    finally:
        _stack[:] = before
