"""Whether all ranks read the same data: a mark of the global batches that each has read so far, compared now and then.

A mark is made inside the pipeline, of some elements of every leaf of every batch, before a rank's rows are cut out. It
is compared after the first batch of each pass over data, and when the ranks look anyway. Floating-point numbers are
compared by weighted sums with a tolerance, since hosts may round differently; all else exactly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import tensorflow as tf
from keras import tree
from keras.src.backend.tensorflow.trainer import TensorFlowTrainer, TFEpochIterator
from keras.src.callbacks.callback_list import CallbackList

from obl_magic.errors import NotOblivious
from obl_magic.worker.engines.collectives import Collectives
from obl_magic.worker.frameworks.keras.shards import unequal_rows
from obl_magic.worker.patching import Patches

_SAMPLED = 512
"""Elements of a leaf that go into a mark, at least if it has so many, and less than twice as many."""
_WEIGHTS = np.random.default_rng(20).uniform(-1, 1, 2 * _SAMPLED)
_NEAR = 1e-5
"""What rounding may change of one batch's number, which is between -1 and 1 a leaf."""
_FACTOR = 6364136223846793005
_CURE = (
    "seed what splits, draws or shuffles it: numpy.random.default_rng(0), random_state=0, dataset.shuffle(n, seed=0); "
    "a PyDataset with workers draws by its index: numpy.random.default_rng(index)"
)
_UNEQUAL = (
    "the parts of one batch have different numbers of rows ({rows}), so it is not known which rows belong together",
    "make batches in which every part has one row a sample (tf.RaggedTensor or padding for parts of varying length)",
)


class SameData:
    """Compares what the ranks read.

    Args:
        world: the collectives; every rank must compare at the same steps.
    """

    def __init__(self, world: Collectives) -> None:
        self._world = world
        with tf.device("/CPU:0"):
            self._mark = tf.Variable(nothing_read(), trainable=False, name="obl_read")
        self._source = "data"
        self._first = False

    def install(self, patches: Patches) -> None:
        """Compares after the first batch of each pass, and when evaluations, predictions and epochs end."""
        patches.replace(TFEpochIterator, "_get_iterator", self._get_iterator)
        patches.replace(TFEpochIterator, "catch_stop_iteration", self._catch)
        for hook in ("on_train_batch_end", "on_test_batch_end", "on_predict_batch_end"):
            patches.replace(CallbackList, hook, self._after_the_first)
        for hook in ("on_epoch_end", "on_test_end", "on_predict_end"):
            patches.replace(CallbackList, hook, self._at_the_end)
        for name in ("train_on_batch", "test_on_batch", "predict_on_batch"):
            patches.replace(TensorFlowTrainer, name, self._on_batch)

    def saw(self, mark: Any) -> None:
        """Remembers the mark of the batch that is being worked on; also inside traced steps."""
        if mark is not None:
            self._mark.assign(mark)

    def compare(self) -> None:
        """Compares what was read up to now.

        Raises:
            NotOblivious: on every rank, if any two ranks read other data.
        """
        everyone = self._world.allgather(self._mark[None, :]).numpy()
        ranks = [rank for rank, mark in enumerate(everyone) if not _same(mark, everyone[0])]
        if ranks:
            named = f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
            raise NotOblivious(
                f"the ranks read different data: by batch {max(everyone[:, 0])} {self._source} has given "
                f"{named} other rows than rank 0, so some samples would be seen twice and others never",
                _CURE,
            )

    def _get_iterator(self, original: Any) -> Any:
        def _get_iterator(iterator: Any) -> Any:
            self._first, self._source = True, source_of(iterator.data_adapter)
            return original(iterator)

        return _get_iterator

    def _after_the_first(self, original: Any) -> Any:
        def on_batch_end(callbacks: Any, batch: int, logs: Any = None) -> None:
            if self._first:
                self._first = False
                self.compare()
            original(callbacks, batch, logs)

        return on_batch_end

    def _at_the_end(self, original: Any) -> Any:
        def on_end(callbacks: Any, *args: Any, **kwargs: Any) -> None:
            self.compare()
            original(callbacks, *args, **kwargs)

        return on_end

    def _on_batch(self, original: Any) -> Any:
        def on_batch(model: Any, *args: Any, **kwargs: Any) -> Any:
            self._source = f"{original.__name__}'s argument"
            with refusing_unequal_rows():
                found = original(model, *args, **kwargs)
            self.compare()
            return found

        return on_batch

    def _catch(self, original: Any) -> Any:
        @contextmanager
        def catch_stop_iteration(iterator: Any) -> Iterator[None]:
            with refusing_unequal_rows(), original(iterator):
                yield

        return catch_stop_iteration


def source_of(adapter: Any) -> str:
    """What the user calls what an adapter reads: "the PyDataset", "the generator"."""
    kind = type(getattr(adapter, "_inner", adapter)).__name__.removesuffix("Adapter")
    names = {"TFDataset": "tf.data.Dataset", "GeneratorData": "generator", "ArrayData": "arrays' order"}
    return f"the {names.get(kind, kind)}"


def nothing_read() -> Any:
    """The mark before the first batch: batches read, a number of all that is exact, the bits of one that is near."""
    return tf.zeros([3], tf.int64)


def batches_before(mark: Any) -> Any:
    """How many batches came before the one of this mark; int64 scalar."""
    return mark[0] - 1


def marking(dataset: Any, make: Callable[[Any, Any], Any]) -> Any:
    """A dataset of ``make(batch, mark)`` for each batch of another, with the mark of all batches up to it."""

    def step(mark: Any, batch: Any) -> Any:
        mark = marked(mark, batch)
        return mark, make(batch, mark)

    return dataset.scan(nothing_read(), tf.autograph.experimental.do_not_convert(step))


def marked(mark: Any, data: Any) -> Any:
    """The mark of one more batch, any structure of tensors.

    Args:
        mark: int64, shape [3]: of the batches before.
        data: the batch.
    """
    exact: list[Any] = []
    near: list[Any] = []
    for place, leaf in enumerate(_tensors(data)):
        some, size = _some(leaf)
        if leaf.dtype.is_floating:
            near.append(_near(some) / (1 + place % 5))
            number = tf.reshape(size, [1])
        else:
            number = tf.bitcast(tf.fingerprint(some), tf.int64) + size
        exact.append(number if not exact else number * _odd(place))
    new = tf.concat([[1], tf.add_n(exact) if exact else [0], [0]], 0)
    mark = mark * tf.constant([1, _FACTOR, 1], tf.int64) + tf.cast(new, tf.int64)
    if not near:
        return mark
    order = 1.0 + tf.cast(mark[0] % 7, tf.float64) / 7.0  # batches in another order are other data
    sum_of_all = tf.bitcast(mark[2:], tf.float64) + order * tf.add_n(near)
    return tf.concat([mark[:2], tf.bitcast(sum_of_all, tf.int64)], 0)


def _odd(place: int) -> Any:
    """An odd number, other for each place."""
    return tf.constant((_FACTOR * (2 * place + 1) + 2**63) % 2**64 - 2**63, tf.int64)


def _tensors(data: Any) -> Iterator[Any]:
    """The dense tensors that hold what a structure holds."""
    for leaf in tree.flatten(data):
        if isinstance(leaf, tf.RaggedTensor):
            yield leaf.flat_values
            yield from leaf.nested_row_splits
        elif isinstance(leaf, tf.SparseTensor):
            yield leaf.values
            yield leaf.indices
        elif tf.is_tensor(leaf) and leaf.dtype not in (tf.variant, tf.resource):
            yield leaf


def _some(leaf: Any) -> tuple[Any, Any]:
    """Some elements from all over a tensor, as one row, and how many it has; an odd step meets every column.

    As few operations as there can be: TensorFlow optimizes them anew for every pass over the data.
    """
    row = tf.reshape(leaf, [1, -1])
    known = leaf.shape.num_elements()
    size = tf.size(leaf, out_type=tf.int64) if known is None else tf.constant(known, tf.int64)
    every = tf.bitwise.bitwise_or(size // _SAMPLED, 1) if known is None else known // _SAMPLED | 1
    return (row if known is not None and every == 1 else row[:, ::every]), size


def _near(some: Any) -> Any:
    """A number between -1 and 1 that a little rounding changes little."""
    values = tf.cast(some, tf.float64)
    values = tf.where(tf.math.is_finite(values), values, 1.0)
    weights = tf.constant(_WEIGHTS)[: tf.size(values)]
    return tf.math.divide_no_nan(tf.reduce_sum(values * weights), tf.reduce_sum(tf.abs(values)))


def _same(mark: Any, other: Any) -> bool:
    near, others = np.asarray([mark[2], other[2]], np.int64).view(np.float64)
    return bool((mark[:2] == other[:2]).all() and abs(near - others) <= _NEAR * max(1, int(mark[0])))


@contextmanager
def refusing_unequal_rows() -> Iterator[None]:
    """Says in a user's words that a batch could not be cut.

    Raises:
        NotOblivious: the parts of a batch have different numbers of rows.
    """
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        rows = unequal_rows(error)
        if not rows:
            raise
        what, cure = _UNEQUAL
        raise NotOblivious(what.format(rows=", ".join(map(str, rows))), cure) from None
