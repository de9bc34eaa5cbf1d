"""Shards what ``fit``, ``evaluate`` and ``predict`` iterate over. The seam is Keras' own epoch iterator.

Every input kind becomes a ``tf.data.Dataset`` of global batches there; each rank keeps its rows of each batch.
Arrays are cut before they are gathered, so a rank reads only its own rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from keras import tree
from keras.src.backend.tensorflow import trainer as tf_trainer
from keras.src.trainers.data_adapters import array_slicing
from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter

from obl_magic.worker.keras.patching import Patches
from obl_magic.worker.keras.shards import Shard, cut, cut_indices


def install(patches: Patches, rank: int, size: int) -> None:
    """Makes every epoch iterator yield this rank's :class:`Shard` of each global batch."""

    def make(original: Any) -> Any:
        def __init__(self: Any, distribute_strategy: Any = None, *args: Any, **kwargs: Any) -> None:
            original(self, distribute_strategy, *args, **kwargs)
            self._distributed_dataset = sharded(self.data_adapter, self._distributed_dataset, rank, size)

        return __init__

    patches.replace(tf_trainer.TFEpochIterator, "__init__", make)


def sharded(adapter: Any, dataset: Any, rank: int, size: int) -> Any:
    """The dataset of this rank's shards of the global batches that ``adapter`` makes."""
    if isinstance(adapter, ArrayDataAdapter):
        return _sharded_arrays(adapter, rank, size)
    return shard_batches(dataset, rank, size)


def shard_batches(dataset: Any, rank: int, size: int) -> Any:
    """Cuts each batch of a ``tf.data.Dataset`` of global batches; keeps its order the same on every rank."""
    options = tf.data.Options()
    options.deterministic = True

    def of_tuple(*batch: Any) -> Shard:
        return cut(batch, rank, size)

    def of_structure(batch: Any) -> Shard:
        return cut(batch, rank, size)

    unpacks = type(dataset.element_spec) is tuple
    return dataset.with_options(options).map(of_tuple if unpacks else of_structure)


def _sharded_arrays(adapter: Any, rank: int, size: int) -> Any:
    """Keras' own order of sample indices (same shuffle, same seed), cut by rank, then gathered.

    The indices come from Keras' adapter itself, fed with the numbers 0..n-1 instead of the data.
    """
    numbers = ArrayDataAdapter(
        np.arange(adapter._num_samples, dtype=np.int64),
        batch_size=adapter._batch_size,
        shuffle=adapter._shuffle,
    ).get_tf_dataset()
    inputs = tree.lists_to_tuples(
        array_slicing.convert_to_sliceable(adapter._inputs, target_backend="tensorflow")
    )

    def mine(*numbers_of_batch: Any) -> tuple[Any, Any, Any]:
        return cut_indices(numbers_of_batch[0], rank, size)

    def gather(cut_numbers: tuple[Any, Any, Any], data: Any) -> Shard:
        local, total, rows = cut_numbers

        def take(leaf: Any) -> Any:
            if isinstance(leaf, array_slicing.TensorflowSparseWrapper):
                return array_slicing.slice_tensorflow_sparse_wrapper(leaf, rows)
            if isinstance(leaf, (list, tuple, dict)):
                return None
            return tf.gather(leaf, rows, axis=0) if tf.is_tensor(leaf) else leaf

        return Shard(local, total, tree.traverse(take, data))

    whole = tf.data.Dataset.from_tensors(inputs).repeat()
    dataset = tf.data.Dataset.zip((numbers.map(mine), whole)).map(gather, num_parallel_calls=tf.data.AUTOTUNE)
    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    if adapter._shuffle:
        options.experimental_external_state_policy = tf.data.experimental.ExternalStatePolicy.IGNORE
    return dataset.with_options(options).prefetch(tf.data.AUTOTUNE)
