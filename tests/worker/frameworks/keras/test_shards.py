"""Shards: each sample once, in order, evenly; a stand-in where there is nothing."""

from __future__ import annotations

from typing import Any

import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from obl_magic.worker.frameworks.keras.shards import Shard, bounds, cut

pytestmark = pytest.mark.slow

samples = st.integers(1, 70)
sizes = st.integers(1, 9)
KINDS = ("dense", "matrix", "text", "ragged", "ragged32", "sparse")


def batch(kind: str, n: int) -> Any:
    """``n`` samples whose content is their own number."""
    numbers = tf.range(n, dtype=tf.int64)
    match kind:
        case "dense":
            return numbers
        case "matrix":
            return tf.reshape(tf.repeat(numbers, 6), [n, 2, 3])
        case "text":
            return tf.strings.as_string(numbers)
        case "ragged":
            return tf.RaggedTensor.from_row_lengths(tf.repeat(numbers, numbers % 3), numbers % 3)
        case "ragged32":
            lengths = tf.cast(numbers % 3, tf.int32)
            return tf.RaggedTensor.from_row_lengths(tf.repeat(numbers, lengths), lengths)
        case _:
            return tf.sparse.from_dense(tf.one_hot(numbers, n + 1, on_value=5, off_value=0))


def content(data: Any) -> list[Any]:
    """The samples of a batch as Python values."""
    if isinstance(data, tf.SparseTensor):
        return tf.sparse.to_dense(data).numpy().tolist()
    return data.to_list() if isinstance(data, tf.RaggedTensor) else data.numpy().tolist()


def shards(data: Any, size: int) -> list[Shard]:
    """The shards of all ranks."""
    return [cut(data, rank, size) for rank in range(size)]


def counted(cuts: list[Shard]) -> list[int]:
    """How many samples each rank has."""
    return [int(shard.local) for shard in cuts]


@pytest.mark.parametrize("kind", KINDS)
def test_every_sample_is_in_exactly_one_shard_in_order(kind: str) -> None:
    """Whatever the number of samples and ranks: the shards one after another are the batch."""

    @given(samples, sizes)
    def whole(n: int, size: int) -> None:
        data = batch(kind, n)
        cuts = shards(data, size)
        assert {int(shard.total) for shard in cuts} == {n}
        assert [row for shard in cuts if shard.local for row in content(shard.data)] == content(data)
        assert sum(counted(cuts)) == n
        assert max(counted(cuts)) - min(counted(cuts)) <= 1

    whole()


@pytest.mark.parametrize("kind", KINDS)
def test_a_rank_without_samples_holds_one_that_does_not_count(kind: str) -> None:
    """The mean of nothing is NaN: no layer ever sees an empty batch."""
    data = batch(kind, 2)
    idle = [shard for shard in shards(data, 5) if shard.local == 0]
    assert len(idle) == 3
    for shard in idle:
        assert content(shard.data) == content(data)[:1]
        assert int(shard.total) == 2


@given(samples, sizes)
def test_bounds_are_the_same_for_numbers_and_tensors(n: int, size: int) -> None:
    """The host and the graph agree on whose a row is."""
    for rank in range(size):
        first, last = bounds(tf.constant(n, tf.int64), rank, (1,) * size)
        assert (int(first), int(last)) == bounds(n, rank, (1,) * size)


@given(samples, sizes)
def test_a_structure_is_cut_alike_in_all_its_parts(n: int, size: int) -> None:
    """Dictionaries, lists and tuples keep their form; what has no samples stays as it is."""
    for rank in range(size):
        structure = (
            {"a": batch("dense", n), "b": [batch("matrix", n), batch("ragged", n)]},
            None,
            tf.constant(7.0),
        )
        shard = cut(structure, rank, size)
        (features, nothing, scalar) = shard.data
        rows = content(features["a"])
        assert content(features["b"][0]) == [[[row] * 3] * 2 for row in rows]
        assert content(features["b"][1]) == [[row] * (row % 3) for row in rows]
        assert nothing is None
        assert float(scalar) == 7.0
        assert len(rows) == max(1, int(shard.local))


def test_a_scalar_before_the_samples_does_not_count_as_samples() -> None:
    """The number of samples is read from the first part that has any."""
    shard = cut({"a": tf.constant(3.0), "b": tf.range(4)}, 1, 2)
    assert (int(shard.local), content(shard.data["b"])) == (2, [2, 3])


def test_a_batch_without_samples_axis_is_everybodys() -> None:
    """Each rank counts it as one of as many as there are ranks."""
    for data in (tf.constant(3.0), None, (None, {"x": tf.constant(1)})):
        shard = cut(data, 1, 3)
        assert (int(shard.local), int(shard.total)) == (1, 3)
        assert shard.data is data


def test_numbers_of_samples_have_one_type() -> None:
    """They are added up over the ranks."""
    for kind in KINDS:
        shard = cut(batch(kind, 5), 0, 2)
        assert shard.local.dtype == shard.total.dtype == tf.int32
    assert cut(tf.constant(1.0), 0, 2).total.dtype == tf.int32


@pytest.mark.parametrize("spec", [[None], [None, 2], None], ids=["rows unknown", "matrix", "axes unknown"])
def test_one_trace_cuts_batches_of_every_size(spec: list[int | None] | None) -> None:
    """Within a dataset's function, where the number of rows is not known; the last batch may be smaller."""

    @tf.function(input_signature=[tf.TensorSpec(spec, tf.int64)])
    def last_of_three(data: Any) -> Any:
        return cut(data, 2, 3)

    for n in (9, 4, 1):
        data = batch("dense", n) if spec != [None, 2] else tf.repeat(batch("dense", n)[:, None], 2, 1)
        shard = last_of_three(data)
        assert content(shard.data) == content(data)[n * 2 // 3 :]


def test_a_dataset_of_ragged_and_sparse_batches_is_cut() -> None:
    """As ``Dataset.map`` calls it."""
    data = tf.data.Dataset.from_tensors((batch("ragged", 7), batch("sparse", 7)))
    parts = [next(iter(data.map(lambda *both, rank=rank: cut(both, rank, 3)))) for rank in range(3)]
    assert counted(parts) == [2, 2, 3]
    assert [row for part in parts for row in content(part.data[0])] == content(batch("ragged", 7))
    assert [row for part in parts for row in content(part.data[1])] == content(batch("sparse", 7))
