"""The ``horovod`` engine: Horovod's core operations only.

Its Keras binding is not used: under Keras 3 it is broken in part and silently without effect in part.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import horovod.tensorflow as hvd
import tensorflow as tf


class HorovodCollectives:
    """Collectives by Horovod; NCCL on GPUs where it was built with it (not run on a GPU by us)."""

    name = "horovod"

    def __init__(self) -> None:
        self.rank, self.size = hvd.rank(), hvd.size()
        self.local_rank, self.local_size = hvd.local_rank(), hvd.local_size()
        self._names = itertools.count()

    def allreduce(self, tensors: Sequence[Any]) -> list[Any]:
        tensors = [tf.convert_to_tensor(tensor) for tensor in tensors]
        if not tensors:
            return []
        wide = [tf.cast(t, tf.int32) if t.dtype == tf.bool else t for t in tensors]
        summed = hvd.grouped_allreduce(wide, op=hvd.Sum, name=self._name("allreduce"))
        return [_shaped(tf.cast(s, t.dtype), t) for s, t in zip(summed, tensors, strict=True)]

    def broadcast(self, tensors: Sequence[Any], root: int = 0) -> list[Any]:
        tensors = [tf.convert_to_tensor(tensor) for tensor in tensors]
        return [_shaped(hvd.broadcast(t, root, name=self._name("broadcast")), t) for t in tensors]

    def allgather(self, tensor: Any) -> Any:
        tensor = tf.convert_to_tensor(tensor)
        gathered = hvd.allgather(tensor, name=self._name("allgather"))
        gathered.set_shape([None, *tensor.shape[1:]])
        return gathered

    def allgather_object(self, value: Any) -> list[Any]:
        everyone: list[Any] = hvd.allgather_object(value, name=self._name("object"))
        return everyone

    def barrier(self) -> None:
        hvd.allreduce(tf.zeros([1]), op=hvd.Sum, name=self._name("barrier"))

    def close(self) -> None:
        hvd.shutdown()

    def _name(self, what: str) -> str:
        """A name that is the same on every rank, since every rank makes the same calls in the same order."""
        return f"obl.{what}.{next(self._names)}"


def connect() -> HorovodCollectives:
    """Starts Horovod on this rank."""
    hvd.init()
    return HorovodCollectives()


def _shaped(result: Any, like: Any) -> Any:
    result.set_shape(like.shape)
    return result
