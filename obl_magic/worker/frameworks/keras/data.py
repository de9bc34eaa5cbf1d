"""Shards what ``fit``, ``evaluate`` and ``predict`` iterate over. The seam is Keras' own epoch iterator.

Every input kind becomes a ``tf.data.Dataset`` of global batches there; each rank keeps its rows of each batch, or all
of them where a step asks for whole batches.
Arrays are cut before they are gathered, so a rank reads only its own rows.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from keras import tree
from keras.src.backend.tensorflow import trainer as tf_trainer
from keras.src.trainers.data_adapters import array_slicing
from keras.src.trainers.data_adapters.array_data_adapter import ArrayDataAdapter
from keras.src.trainers.data_adapters.tf_dataset_adapter import TFDatasetAdapter

from obl_magic.errors import NotOblivious
from obl_magic.worker.engines.collectives import Collectives
from obl_magic.worker.frameworks.keras.balance import READ_AHEAD, Shares
from obl_magic.worker.frameworks.keras.borrowing import owns_memory
from obl_magic.worker.frameworks.keras.same_data import batches_before, marking
from obl_magic.worker.frameworks.keras.shards import Shard, cut, held, own, whole
from obl_magic.worker.patching import Patches

SharesOf = Callable[..., tuple[Any, Any]]
"""Gives first row and row after the last of a rank's share, of the rows of a batch and its ``number``."""

_LOOKED_AT = 1 << 19
"""Elements of an array that are compared between ranks, spread over all its rows."""
_WEIGHTS = 10_007
_ROUNDING = 1e-5
"""Relative: what hosts of different kinds may make of one number."""

READS_ALL = (
    "a {kind} is read by every rank, which keeps its own rows of each batch: right, but reading is not shared "
    "(arrays are cut before they are read)"
)


def install(patches: Patches, world: Collectives, batch: str, note: Callable[[str, str], None]) -> None:
    """Makes every epoch iterator yield this rank's :class:`Shard` of each global batch.

    Args:
        patches: takes the replacement.
        world: the collectives.
        batch: ``global``, or ``per-worker``: ``size`` of the code's batches make a global one.
        note: says a sentence about the run.
    """
    rank, size = world.rank, world.size

    def make(original: Any) -> Any:
        def __init__(self: Any, distribute_strategy: Any = None, *args: Any, **kwargs: Any) -> None:
            original(self, distribute_strategy, *args, **kwargs)
            adapter, batches = self.data_adapter, self._distributed_dataset
            self.obl_shares = shares = Shares(world)
            if isinstance(adapter, ArrayDataAdapter):
                _check_same(world, adapter)
                if batch == "per-worker":
                    _widen(adapter, size)
                    self._num_batches = adapter.num_batches
                self._distributed_dataset = _sharded_arrays(adapter, batches, shares.bounds)
                self._obl_whole = functools.partial(_sharded_arrays, adapter, batches, _all)
                return
            kind = type(adapter).__name__.removesuffix("Adapter")
            note("reads-all", READS_ALL.format(kind={"TFDataset": "tf.data.Dataset"}.get(kind, kind)))
            if batch == "per-worker":
                self.data_adapter = _Grouped(adapter, joined(batches, size))
                self._num_batches = self.data_adapter.num_batches
                batches = self.data_adapter.get_tf_dataset()
            self._distributed_dataset = shard_batches(batches, rank, size, shares.bounds)
            self._obl_whole = functools.partial(unsharded, batches)

        return __init__

    def begins(original: Any) -> Any:
        def _get_iterator(self: Any) -> Any:
            if self.obl_shares is not None:
                self.obl_shares.begin()
            return original(self)

        return _get_iterator

    patches.replace(tf_trainer.TFEpochIterator, "__init__", make)
    patches.replace(tf_trainer.TFEpochIterator, "_get_iterator", begins)


def whole_batches(iterator: Any) -> None:
    """Makes an epoch iterator yield the whole of each global batch, as a :class:`Shard` of which every row counts.

    Args:
        iterator: Keras' epoch iterator, before it is iterated.
    """
    iterator._distributed_dataset, iterator.obl_shares = iterator._obl_whole(), None


def _check_same(world: Collectives, adapter: Any) -> None:
    """Raises NotOblivious on every rank unless all hold the same arrays, as far as some MB of each tell."""
    everyone = world.allgather_object(_fingerprint(adapter))
    if not all(_agree(everyone[0], other) for other in everyone):
        raise NotOblivious(
            "the ranks hold different data, so some samples would be seen twice and others never",
            "seed what splits or draws it: numpy.random.default_rng(0), random_state=0",
        )


def _agree(mine: tuple[int, list[float]], other: tuple[int, list[float]]) -> bool:
    near = (abs(a - b) <= 1.0 for a, b in zip(mine[1], other[1], strict=False))
    return mine[0] == other[0] and len(mine[1]) == len(other[1]) and all(near)


def _fingerprint(adapter: Any) -> tuple[int, list[float]]:
    """Of the arrays of an adapter: a number of all that is exact, and one of each that hosts may have rounded."""
    found, rounded = 0, []
    for leaf in tree.flatten(adapter._inputs):
        some = _some_rows(leaf, adapter._num_samples)
        found = zlib.crc32(
            f"{tuple(getattr(leaf, 'shape', ()))} {getattr(leaf, 'dtype', '')}".encode(), found
        )
        if some is None:
            continue
        if some.dtype.kind == "f":
            rounded.append(_in_tolerances(some))
        elif some.dtype == object:
            found = zlib.crc32(repr(some.tolist()).encode(), found)
        else:
            found = zlib.crc32(np.ascontiguousarray(some).view(np.uint8).data if some.size else b"", found)
    return found, rounded


def _in_tolerances(some: Any) -> float:
    """A weighted mean of numbers, in units of what rounding may change of it."""
    values = np.nan_to_num(np.asarray(some, np.float64).ravel(), nan=1.0, posinf=2.0, neginf=-2.0)
    if not values.size:
        return 0.0
    weights = np.random.default_rng(20).uniform(-1, 1, _WEIGHTS)
    weighted = values * np.resize(weights, values.shape)
    mean = weighted.sum() / max(float(np.abs(values).sum()), np.finfo(np.float64).tiny)
    return float(mean * np.sqrt(values.size) / _ROUNDING)


def _some_rows(leaf: Any, samples: int) -> Any:
    """Some rows of an array, tensor or table as NumPy; None for what has no such rows (sparse matrices)."""
    columns = (
        int(np.prod([dim or 1 for dim in leaf.shape[1:]], dtype=np.int64)) if hasattr(leaf, "shape") else 1
    )
    wanted = max(64, _LOOKED_AT // max(1, columns))
    rows = slice(None) if samples <= wanted else np.linspace(0, samples - 1, wanted, dtype=np.int64)
    if isinstance(leaf, np.ndarray):
        return leaf[rows]
    if isinstance(leaf, tf.Tensor):
        return (leaf if samples <= wanted else tf.gather(leaf, rows)).numpy()
    return leaf.iloc[rows].to_numpy() if hasattr(leaf, "iloc") else None


def _widen(adapter: Any, size: int) -> None:
    """Makes an array adapter count global batches of ``size`` of the code's batches each."""
    adapter._obl_batch_size = adapter._batch_size
    adapter._batch_size *= size
    adapter._size = -(-adapter._num_samples // adapter._batch_size)
    adapter._partial_batch_size = adapter._num_samples % adapter._batch_size


class _Grouped(TFDatasetAdapter):
    """An adapter whose batches are several of another's, which is still told when epochs begin and end."""

    def __init__(self, inner: Any, dataset: Any) -> None:
        super().__init__(dataset)
        self._inner = inner

    def on_epoch_begin(self) -> None:
        self._inner.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self._inner.on_epoch_end()


def joined(dataset: Any, size: int) -> Any:
    """Each ``size`` batches in a row joined to one; the last one may be of fewer."""
    spec = dataset.element_spec
    empty = tree.map_structure(_no_rows, spec)
    unpacks = type(spec) is tuple

    def join(state: Any, batch: Any) -> Any:
        return tree.map_structure(lambda a, b: tf.concat([a, b], axis=0), state, batch)

    def of_window(*window: Any) -> Any:
        batches = tf.data.Dataset.zip(window if unpacks else window[0])
        return batches.reduce(empty, join)

    return dataset.window(size).map(of_window)


def _no_rows(spec: Any) -> Any:
    if isinstance(spec, tf.RaggedTensorSpec):
        return tf.RaggedTensor.from_row_splits(
            tf.zeros([0], spec.dtype), tf.zeros([1], spec.row_splits_dtype)
        )
    if not isinstance(spec, tf.TensorSpec) or spec.shape.rank is None or None in list(spec.shape)[1:]:
        raise NotOblivious(
            f"batch=per-worker cannot join batches of {spec}",
            "give the dataset's elements known shapes, or use the global batch",
        )
    return tf.zeros([0, *list(spec.shape)[1:]], spec.dtype)


def shard_batches(dataset: Any, rank: int, size: int, shares: SharesOf) -> Any:
    """Cuts each batch of a ``tf.data.Dataset`` of global batches; keeps its order the same on every rank."""
    owned = owns_memory(dataset)

    def make(batch: Any, mark: Any) -> Shard:
        mine = functools.partial(shares, number=batches_before(mark))
        return cut(batch, rank, size, owned, mine)._replace(mark=mark)

    return marking(_in_order(dataset), make)


def unsharded(dataset: Any) -> Any:
    """Each batch of a ``tf.data.Dataset`` whole, in memory that a step may slice without harm to a user's arrays."""
    owned = owns_memory(dataset)

    def make(batch: Any, mark: Any) -> Shard:
        return whole(batch if owned else tree.map_structure(own, batch))._replace(mark=mark)

    return marking(_in_order(dataset), make)


def _in_order(dataset: Any) -> Any:
    options = tf.data.Options()
    options.deterministic = True
    options.experimental_optimization.inject_prefetch = False  # shares change while it is read
    return dataset.with_options(options)


def _sharded_arrays(adapter: Any, dataset: Any, shares: SharesOf) -> Any:
    """Keras' own order of sample indices (same shuffle, same seed), cut by rank, then gathered."""
    inputs = tree.lists_to_tuples(
        array_slicing.convert_to_sliceable(adapter._inputs, target_backend="tensorflow")
    )

    def gather(drawn: Any, data: Any) -> Shard:
        numbers, mark = drawn
        total = tf.size(numbers, out_type=tf.int64)
        begin, end, local = held(*shares(total, batches_before(mark)), total)
        rows = numbers[begin:end]

        def take(leaf: Any) -> Any:
            if isinstance(leaf, array_slicing.TensorflowSparseWrapper):
                return array_slicing.slice_tensorflow_sparse_wrapper(leaf, rows)
            if isinstance(leaf, (list, tuple, dict)):
                return None
            return tf.gather(leaf, rows, axis=0) if tf.is_tensor(leaf) else leaf

        first, local, total = (tf.cast(number, tf.int32) for number in (begin, local, total))
        return Shard(first, local, total, tree.traverse(take, data), mark)

    everything = tf.data.Dataset.from_tensors(inputs).repeat()
    numbers = marking(_indices(adapter, dataset), lambda rows, mark: (rows, mark))
    as_it_is = tf.autograph.experimental.do_not_convert(gather)  # no tensor decides in it: saves 100 ms
    shards = tf.data.Dataset.zip((numbers, everything)).map(as_it_is, num_parallel_calls=READ_AHEAD)
    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    if adapter._shuffle:
        options.experimental_external_state_policy = tf.data.experimental.ExternalStatePolicy.IGNORE
    return shards.with_options(options).prefetch(READ_AHEAD)


def _all(total: Any, number: Any) -> tuple[Any, Any]:
    """The share of a rank that has every row."""
    return tf.zeros_like(total), total


def _indices(adapter: Any, dataset: Any) -> Any:
    """The dataset of batches of sample indices inside the one that Keras made of arrays.

    Keras zips it with the arrays. Should it be built otherwise one day, an adapter fed with the numbers 0..n-1 in
    place of the data gives the same order; that costs a second pipeline per fit. A per-worker batch is wider than
    Keras knows, so it takes that way too.
    """
    inner = dataset
    while inner is not None and type(inner).__name__ != "_ZipDataset":
        inner = getattr(inner, "_input_dataset", None)
    parts = getattr(inner, "_datasets", None)
    if parts is not None and adapter._batch_size == getattr(adapter, "_obl_batch_size", adapter._batch_size):
        return parts[0]
    numbers = np.arange(adapter._num_samples, dtype=np.int64)
    made = ArrayDataAdapter(
        numbers, batch_size=adapter._batch_size, shuffle=adapter._shuffle
    ).get_tf_dataset()
    return made.map(lambda rows: rows)
