"""Random numbers are one process's: where rows are divided, Keras draws for the whole batch and keeps this rank's rows.

Everything derives from one recorded seed, and generators stand everywhere where one process's stand. What is drawn
for something else than rows (weights, a shuffle) is the same on every rank by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.tensorflow import random as keras_random
from tensorflow.python.framework import random_seed

from obl_magic.worker.frameworks.keras import scope as scopes
from obl_magic.worker.patching import Patches

_BY_SHAPE = ("normal", "uniform", "randint", "truncated_normal")
_NOT_KERAS = (
    "a random operation of TensorFlow's own (tf.random) is traced in a step: it draws the same on every rank, but not "
    "what one process would (to have that, use keras.random with a keras.random.SeedGenerator)"
)


def seed_all(seed: int) -> None:
    """Seeds Python, NumPy and TensorFlow, the same on every rank."""
    keras.utils.set_random_seed(seed % 2**32)


def install(patches: Patches, note: Callable[[str, str], None]) -> None:
    """Makes Keras draw for whole batches.

    Args:
        patches: takes the replacements.
        note: says a sentence about the run.
    """
    for name in _BY_SHAPE:
        patches.replace(keras_random, name, _by_shape)
    patches.replace(keras_random, "dropout", _dropout)

    def get_seed(original: Any) -> Any:
        def noticing(op_seed: Any) -> Any:
            if op_seed is None and not tf.executing_eagerly() and not _prepares_data():
                note("tf-random", _NOT_KERAS)
            return original(op_seed)

        return noticing

    patches.replace(random_seed, "get_seed", get_seed)


def _by_shape(original: Any) -> Any:
    def draw(shape: Any, *args: Any, **kwargs: Any) -> Any:
        rows = _rows_of(shape)
        if rows is None or not all(_is_scalar(value) for value in (*args, *kwargs.values())):
            return original(shape, *args, **kwargs)
        whole, begin, own = rows
        drawn = original([whole, *_dimensions(shape)[1:]], *args, **kwargs)
        return _kept(drawn, begin, own)

    return draw


def _dropout(original: Any) -> Any:
    def dropout(inputs: Any, rate: Any, noise_shape: Any = None, seed: Any = None) -> Any:
        inputs = tf.convert_to_tensor(inputs)
        shape = keras_random._get_concrete_noise_shape(inputs, noise_shape)
        rows = _rows_of(shape)
        if rows is None or rate in (0.0, 1.0):
            return original(inputs, rate, noise_shape, seed)
        whole, begin, own = rows
        ones = tf.ones([whole, *_dimensions(shape)[1:]], inputs.dtype)
        kept = _kept(original(ones, rate, None, seed), begin, own)
        # as TensorFlow does it: scaled first, then chosen
        scaled = inputs * tf.cast(1.0 / (1.0 - rate), inputs.dtype)
        return tf.where(kept != 0, scaled, tf.zeros([], inputs.dtype))

    return dropout


def _rows_of(shape: Any) -> tuple[Any, Any, Any] | None:
    """(rows to draw, index of the first to keep, rows to keep), where a shape begins with the rows of a divided batch.

    A multiple of them counts, too: steps in time or windows that were folded into the first axis.
    """
    scope = scopes.current()
    dimensions = _dimensions(shape)
    if scope is None or not dimensions:
        return None
    own = dimensions[0]
    static = own if isinstance(own, int) else tf.get_static_value(own)
    if (static is None) != (not isinstance(scope.held, int)):
        return None  # one of them is known beforehand, so it is not the other
    if static is not None:
        times = int(static) // scope.held
        fits = times > 0 and int(static) % scope.held == 0
        return (times * scope.total, times * scope.first, int(static)) if fits else None
    own, held = tf.cast(own, tf.int32), tf.cast(scope.held, tf.int32)
    total, first = tf.cast(scope.total, tf.int32), tf.cast(scope.first, tf.int32)
    times = tf.where(own % held == 0, own // held, 0)
    return tf.where(times > 0, times * total, own), times * first, own


def _dimensions(shape: Any) -> list[Any]:
    """A shape's entries, each an int where it is known."""
    if isinstance(shape, tf.TensorShape):
        return list(shape)
    if tf.is_tensor(shape):
        return [
            d if s is None else int(s) for d, s in zip(tf.unstack(shape), _static_entries(shape), strict=True)
        ]
    return list(shape)


def _static_entries(shape: Any) -> list[int | None]:
    known = tf.get_static_value(shape, partial=True)
    return [None] * int(shape.shape[0]) if known is None else list(known)


def _kept(drawn: Any, begin: Any, own: Any) -> Any:
    kept = drawn[begin : begin + own]
    kept.set_shape([own if isinstance(own, int) else None, *drawn.shape[1:]])
    return kept


def _is_scalar(value: Any) -> bool:
    """Whether an argument does not have rows itself."""
    shape = getattr(value, "shape", ())
    return isinstance(value, keras.random.SeedGenerator) or len(shape) == 0


def _prepares_data() -> bool:
    graph = tf.compat.v1.get_default_graph()
    while graph is not None:
        if str(getattr(graph, "name", "")).startswith("Dataset_"):
            return True
        graph = getattr(graph, "outer_graph", None)
    return False
