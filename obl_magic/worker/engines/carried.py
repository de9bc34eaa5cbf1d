"""What an exchange carries, as numbers that ranks can compare: known when a function is traced, else when it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

ANY = -1
"""In place of the length of an axis that may differ between ranks."""


def dtypes_of(tensors: Sequence[Any]) -> tuple[str, ...]:
    """The tensors' types by name."""
    return tuple(tensor.dtype.name for tensor in tensors)


def shapes_of(tensors: Sequence[Any], rows_differ: bool = False) -> Any:
    """The tensors' shapes one after another, each as its number of axes and their lengths.

    Args:
        tensors: eager or symbolic.
        rows_differ: their first axis may differ between ranks.

    Returns:
        A tuple of integers where every shape is known by now, else an int64 vector that has them when it is run.
    """
    if all(tensor.shape[1 if rows_differ else 0 :].is_fully_defined() for tensor in tensors):
        found: list[int] = []
        for tensor in tensors:
            lengths = tensor.shape.as_list()
            found += [len(lengths), *([ANY, *lengths[1:]] if rows_differ else lengths)]
        return tuple(found)
    return tf.concat([_shape_when_run(tensor, rows_differ) for tensor in tensors], axis=0)


def _shape_when_run(tensor: Any, rows_differ: bool) -> Any:
    lengths = tf.shape(tensor, out_type=tf.int64)
    if rows_differ:
        lengths = tf.concat([tf.constant([ANY], tf.int64), lengths[1:]], axis=0)
    return tf.concat([tf.cast(tf.shape(lengths), tf.int64), lengths], axis=0)
