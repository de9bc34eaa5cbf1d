"""All ranks read the same data, or the run is refused with what to seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import read_otherwise
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

import obl_magic
from obl_magic.worker.frameworks.keras.borrowing import owns_memory
from obl_magic.worker.frameworks.keras.same_data import marked, nothing_read

pytestmark = pytest.mark.slow

WORLDS = [(2, "mpi"), (3, "mpi"), (2, "horovod")]


@pytest.mark.parametrize(("workers", "engine"), WORLDS)
def test_ranks_that_read_other_data_are_refused(home: Path, workers: int, engine: str) -> None:
    """Whatever kind of input it is, whatever reads it, on every rank, with the cure."""
    run = obl_magic.run(read_otherwise.refusals, workers=workers, engine=engine, quiet=True, timeout=600)
    for said in run.values:
        for function in read_otherwise.REFUSED:
            assert said[function.__name__].startswith("NotOblivious: the ranks "), (function, said)
            assert "numpy.random.default_rng(0)" in said[function.__name__]
        assert "the PyDataset has given" in said["unseeded_pydataset"]
        assert "different numbers of rows (20, 5)" in said["parts_of_unequal_rows"]


@pytest.mark.parametrize(("workers", "engine"), WORLDS)
def test_ranks_that_read_the_same_are_not(
    workers: int, engine: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Order asked for or not, caches and saved datasets: one process's numbers."""
    (tmp_path / "alone").mkdir()
    monkeypatch.chdir(tmp_path / "alone")
    alone = read_otherwise.same_in_unusual_ways()
    (tmp_path / "ranks").mkdir()
    monkeypatch.chdir(tmp_path / "ranks")
    run = obl_magic.run(
        read_otherwise.same_in_unusual_ways, workers=workers, engine=engine, quiet=True, timeout=600
    )
    for value in run.values:
        for kind, numbers in alone.items():
            assert value[kind] == pytest.approx(numbers, rel=1e-5), kind


def test_ranks_that_draw_in_parallel_threads_read_the_same(home: Path) -> None:
    """Alone each run has other numbers then; here one element comes after the other, and a note says so."""
    run = obl_magic.run(
        read_otherwise.augmented_in_parallel, workers=3, engine="mpi", quiet=True, timeout=600
    )
    assert run.values[0] == run.values[1] == run.values[2]
    assert sum("takes one element after the other" in note for note in run.notes) == 1


def mark(*batches: Any) -> tuple[int, int, float]:
    """Of batches one after another."""
    found = nothing_read()
    for batch in batches:
        found = marked(found, batch)
    count, exact, near = found.numpy()
    return int(count), int(exact), float(np.int64(near).view(np.float64))


@given(st.integers(1, 3000), st.sampled_from(["int32", "uint8", "bool", "int64", "uint16"]), st.data())
@settings(max_examples=30, deadline=None)
def test_equal_batches_have_equal_marks_and_others_do_not(n: int, dtype: str, data: st.DataObject) -> None:
    """Of every type that is compared exactly, as far as the elements that are looked at."""
    batch = np.arange(n).astype(dtype)
    assert mark(batch[:, None]) == mark(batch[:, None])
    place = data.draw(st.integers(0, min(n, 500) - 1)) if n < 1024 else 0
    other = batch.copy()
    other[place] = not other[place] if dtype == "bool" else other[place] + 1
    assert mark(tf.constant(other[:, None])) != mark(tf.constant(batch[:, None]))


def test_marks_know_the_order_of_batches() -> None:
    """The same batches in another order are other data."""
    one, two = tf.constant([1.0, 2.0]), tf.constant([-5.0, 2.5])
    assert mark(one, two)[2] != pytest.approx(mark(two, one)[2], abs=1e-3)
    one, two = tf.constant(["a"]), tf.constant(["b"])
    assert mark(one, two) != mark(two, one)


def test_what_hosts_round_differently_is_the_same() -> None:
    """A last digit is no other sample; one other row is."""
    rows = tf.constant(np.random.default_rng(0).normal(size=(64, 784)), tf.float32)
    assert mark(rows)[2] == pytest.approx(mark(rows * (1 + 1e-6))[2], abs=1e-5)
    other = tf.concat([rows[:5], rows[6:7], rows[6:]], 0)
    assert abs(mark(rows)[2] - mark(other)[2]) > 1e-4


def test_ragged_sparse_and_missing_parts_are_marked() -> None:
    """A structure's every leaf counts."""
    ragged = tf.ragged.constant([[1, 2], [3]])
    assert mark({"a": ragged, "b": None}) != mark({"a": tf.ragged.constant([[1], [2, 3]]), "b": None})
    assert mark(tf.sparse.from_dense([[0, 1]])) != mark(tf.sparse.from_dense([[1, 0]]))


@pytest.mark.parametrize(
    ("owned", "dataset"),
    [
        (True, lambda: tf.data.Dataset.range(9).batch(3).prefetch(1)),
        (True, lambda: tf.data.Dataset.from_generator(lambda: iter([1.0]), tf.float32).batch(3)),
        (True, lambda: tf.data.Dataset.range(9).batch(3).map(lambda x: x + 1, num_parallel_calls=2).repeat().take(2)),
        (False, lambda: tf.data.Dataset.from_generator(lambda: iter([[1.0]]), output_signature=tf.TensorSpec([1]))),
        (False, lambda: tf.data.Dataset.range(9).batch(3).map(lambda x: tf.numpy_function(lambda x: x, [x], x.dtype))),
        (False, lambda: tf.data.Dataset.range(9).flat_map(tf.data.Dataset.from_tensors)),
    ],
)  # fmt: skip
def test_what_python_lends_is_known(owned: bool, dataset: Any) -> None:
    """Batches made by TensorFlow are its own; what comes out of Python after that is not."""
    assert owns_memory(dataset()) is owned
