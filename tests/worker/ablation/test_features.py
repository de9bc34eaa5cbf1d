"""Which features there are in what a dataset_fn returns, and the same data without some of them."""

from __future__ import annotations

import subprocess
import sys
from collections import namedtuple
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from sklearn.datasets import load_breast_cancer, load_iris, load_wine
from sklearn.model_selection import train_test_split

from obl_magic.errors import UsageProblem
from obl_magic.worker.ablation import features

pytestmark = pytest.mark.timing


def table(rows: int = 4) -> pd.DataFrame:
    """People, with their label."""
    return pd.DataFrame({"age": range(rows), "sex": range(rows), "label": range(rows)})


def numbers(rows: int, columns: int = 3) -> np.ndarray:
    """An array whose every value tells its column."""
    return np.tile(np.arange(columns, dtype="float32"), (rows, 1))


def test_a_feature_ablation_with_a_users_dataset_is_not_silently_nothing() -> None:
    """What is missing is the column that was named, and nothing else; the user's table is untouched."""
    data = table()
    less = features.without(data, ["age"])
    assert list(less.columns) == ["sex", "label"]
    assert list(data.columns) == ["age", "sex", "label"]
    assert features.names(data) == ["age", "sex", "label"]
    assert (features.width(data), features.width(less)) == (3, 2)


def test_a_column_goes_from_train_and_test_alike() -> None:
    """Wherever it occurs."""
    train, test = features.without((table(6), table(2)), ["age"])
    assert list(train.columns) == list(test.columns) == ["sex", "label"]
    (x, y), (x_test, _) = features.without(((table(6), [0] * 6), (table(2), [0] * 2)), ["age"])
    assert list(x.columns) == list(x_test.columns) == ["sex", "label"]
    assert y == [0] * 6


def test_a_dict_of_columns_loses_a_key_and_stays_a_dict_of_its_kind() -> None:
    """The user's own dict keeps it."""
    data = {"age": np.arange(3), "sex": np.arange(3), "label": [1, 2, 3]}
    less = features.without(data, ["sex"])
    assert list(less) == ["age", "label"]
    assert less["label"] is data["label"]
    assert "sex" in data
    x, y = features.without(({"age": np.arange(3), "sex": np.arange(3)}, np.arange(3)), ["sex"])
    assert list(x) == ["age"]
    assert y.tolist() == [0, 1, 2]


def test_a_name_is_looked_for_deeper_where_keys_are_parts_or_inputs() -> None:
    """Parts such as train and test are no features, but what they hold has some."""
    data = {"train": table(6), "test": (table(2), np.arange(2))}
    assert features.names(data) == ["age", "sex", "label"]
    less = features.without(data, ["sex"])
    assert list(less["train"].columns) == list(less["test"][0].columns) == ["age", "label"]
    inputs = {"image": np.zeros((2, 4, 4, 1)), "person": {"age": np.zeros(2), "sex": np.zeros(2)}}
    assert features.names(inputs) == ["image", "person", "age", "sex"]
    assert list(features.without(inputs, ["age"])["person"]) == ["sex"]
    assert list(features.without(inputs, ["person"])) == ["image"]


def test_x_and_y_may_be_columns_if_they_are_no_tables() -> None:
    """A point has an x and a y."""
    assert features.names({"x": np.zeros(3), "y": np.zeros(3), "label": np.zeros(3)}) == ["x", "y", "label"]


@pytest.mark.parametrize("keys", [("x", "y", "x_val", "y_val"), ("data", "target", "X", "w")])
def test_a_dict_of_arrays_loses_a_column_of_its_inputs(keys: tuple[str, ...]) -> None:
    """Labels, even one-hot ones of the same width, stay."""
    data = dict(zip(keys, (numbers(5), np.eye(5, 3), numbers(2), np.eye(2, 3)), strict=True))
    less = features.without(data, ["1"])
    assert [less[key].shape[1] for key in keys] == [2, 3, 2, 3]
    assert [data[key].shape[1] for key in keys] == [3] * 4


def test_a_dict_of_parts_loses_a_column_in_each() -> None:
    """Whatever the parts hold."""
    data = {"train": (numbers(5), np.eye(5, 3)), "test": {"x": numbers(2), "labels": np.eye(2, 3)}}
    less = features.without(data, ["1"])
    assert [part.shape[1] for part in less["train"]] == [2, 3]
    assert {key: part.shape[1] for key, part in less["test"].items()} == {"x": 2, "labels": 3}


X, Y = numbers(6), np.eye(6, 3)
X_TEST, Y_TEST = numbers(2), np.eye(2, 3)
STRUCTURES: dict[str, tuple[Any, set[int]]] = {
    "x, y": ((X, Y), {0}),
    "[x, y]": ([X, Y], {0}),
    "x, y, weights": ((X, Y, np.ones(6)), {0}),
    "x, 1-D y": ((X, np.arange(6)), {0}),
    "keras": ((X, Y, X_TEST, Y_TEST), {0, 2}),
    "scikit-learn": ((X, X_TEST, Y, Y_TEST), {0, 1}),
    "scikit-learn, 1-D y": ((X, X_TEST, np.arange(6), np.arange(2)), {0, 1}),
    "scikit-learn, halves": ((X, numbers(6), np.arange(6), np.arange(6)), {0, 1}),
    "keras, halves": ((X, np.arange(6), numbers(6), np.arange(6)), {0, 2}),
    "three of each": ((X, X_TEST, numbers(3), Y, Y_TEST, np.eye(3)), {0, 1, 2}),
    "three pairs": ((X, Y, X_TEST, Y_TEST, numbers(3), np.eye(3)), {0, 2, 4}),
    "lists of labels": ((X, [0] * 6, X_TEST, [0] * 2), {0, 2}),
    "train, test": ((X, X_TEST), {0, 1}),
    "keras, all of one shape": ((X, Y, numbers(6), Y), {0, 2}),
    "four parts": ((X, X_TEST, numbers(3), numbers(5)), {0, 1, 2, 3}),
    "alone": ((X,), {0}),
}


@pytest.mark.parametrize("structure", STRUCTURES)
def test_of_plain_arrays_the_inputs_lose_a_column_and_the_labels_none(structure: str) -> None:
    """Also where labels are one-hot and as wide as the inputs."""
    data, inputs = STRUCTURES[structure]
    assert features.names(data) == [0, 1, 2]
    less = features.without(data, [1])
    assert type(less) is type(data)
    for i, (old, new) in enumerate(zip(data, less, strict=True)):
        if i in inputs:
            assert new[0].tolist() == [0, 2], i
        else:
            assert new is old, i


def test_nested_pairs_of_arrays_lose_a_column_in_both() -> None:
    """As Keras' own datasets are returned."""
    (x, y), (x_test, y_test) = features.without(((X, Y), (X_TEST, Y_TEST)), ["-1"])
    assert x[0].tolist() == x_test[0].tolist() == [0, 1]
    assert y.shape[1] == y_test.shape[1] == 3


def test_several_inputs_lose_the_column_where_they_are_as_wide_as_the_first() -> None:
    """A column's number means nothing in an input of another width."""
    (left, right, other), y = features.without(((X, numbers(6), numbers(6, 5)), np.arange(6)), [0])
    assert (left.shape, right.shape, other.shape, y.shape) == ((6, 2), (6, 2), (6, 5), (6,))
    less = features.without({"x_train": X, "features": numbers(6, 5)}, [0])
    assert (less["x_train"].shape, less["features"].shape) == ((6, 2), (6, 5))


def test_a_named_tuple_stays_one() -> None:
    """A function that reads .x goes on reading it."""
    data = namedtuple("Data", "x y")(X, Y)
    less = features.without(data, ["0"])
    assert less.x.shape == (6, 2)
    assert less.y is Y


def test_of_images_a_feature_is_a_channel() -> None:
    """The last axis, whatever the others are."""
    x, _ = features.without((np.zeros((5, 8, 8, 3)), np.zeros(5)), ["2"])
    assert x.shape == (5, 8, 8, 2)


@pytest.mark.parametrize("kind", ["csr", "csc", "coo"])
def test_a_sparse_matrix_loses_a_column_and_keeps_its_format(kind: str) -> None:
    """It is not made dense."""
    less, _ = features.without((sparse.coo_matrix(X).asformat(kind), np.arange(6)), ["1"])
    assert less.format == kind
    assert less.toarray()[0].tolist() == [0, 2]


def test_a_structured_array_loses_a_field() -> None:
    """And its bytes."""
    data = np.zeros(3, dtype=[("age", "f8"), ("sex", "i4")])
    less = features.without(data, ["age"])
    assert less.dtype.names == ("sex",)
    assert less.dtype.itemsize == 4


def test_a_bunch_has_the_names_that_scikit_learn_gives_it() -> None:
    """By name or by number; the names that are left fit the columns that are left."""
    data = load_wine()
    for feature in ("malic_acid", "1", 1, -12):
        less = features.without(data, [feature])
        assert less.data.shape == (178, 12)
        assert "malic_acid" not in less.feature_names
        assert len(less.feature_names) == 12
        assert less.target is data.target
    assert data.data.shape == (178, 13)
    assert len(data.feature_names) == 13


def test_names_that_are_an_array_stay_one() -> None:
    """As some of scikit-learn's loaders have them."""
    less = features.without(load_breast_cancer(), ["mean radius"])
    assert less.feature_names.shape == (29,)
    assert less.feature_names[0] == "mean texture"
    assert less.data.shape == (569, 29)


def test_a_bunch_of_tables_loses_the_column_in_each() -> None:
    """Also in the frame that holds everything."""
    less = features.without(load_iris(as_frame=True), ["sepal width (cm)"])
    assert "sepal width (cm)" not in [*less.data.columns, *less.frame.columns, *less.feature_names]
    assert "target" in less.frame.columns


def test_a_split_of_scikit_learn_is_understood() -> None:
    """In its own order: x, x, y, y."""
    data = load_iris()
    x, x_test, y, y_test = features.without(train_test_split(data.data, data.target, random_state=0), ["0"])
    assert (x.shape, x_test.shape, y.shape, y_test.shape) == ((112, 3), (38, 3), (112,), (38,))
    assert np.array_equal(x[:, 0], train_test_split(data.data, random_state=0)[0][:, 1])


def test_digits_are_a_position_only_where_no_column_is_called_so() -> None:
    """Negative ones count from the end."""
    data = pd.DataFrame({"a": [1], "1": [2], "c": [3]})
    assert list(features.without(data, ["1"]).columns) == ["a", "c"]
    assert list(features.without(data, ["0"]).columns) == ["1", "c"]
    assert list(features.without(data, ["-1"]).columns) == ["a", "1"]
    numbered = pd.DataFrame(np.zeros((2, 3)), columns=[10, 20, 1])
    assert list(features.without(numbered, ["1"]).columns) == [10, 20]
    assert list(features.without(numbered, ["20"]).columns) == [10, 1]


def test_an_unknown_feature_is_refused_with_those_there_are_and_the_nearest() -> None:
    """So that a slip of the pen costs one line."""
    with pytest.raises(
        UsageProblem, match=r"got features=agee; expected one of age, sex, label; do: features=age$"
    ):
        features.without(table(), ["agee"])
    with pytest.raises(UsageProblem, match="got features=3; expected one of 0, 1, 2; do: features="):
        features.without((X, Y), ["3"])
    with pytest.raises(UsageProblem, match=r"expected one of 0, 1, .*, 19, … and 10 more; do:"):
        features.without(np.zeros((2, 30)), ["age"])


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (None, "a NoneType"),
        (np.zeros(4), "a ndarray"),
        ((np.zeros(4), np.zeros(4)), "a tuple of ndarray, ndarray"),
        ((), "a tuple of nothing"),
        ({"batch": 32}, "a dict"),
        ({"data": ["a text"], "target": [0], "feature_names": None}, "a dict"),
        ((n for n in range(3)), "a generator"),
        (([1, 2], ["a", "b"]), "a tuple of list, list"),
    ],
)
def test_data_without_features_is_refused(data: Any, told: str) -> None:
    """With what it was, and what would have some."""
    assert features.names(data) == []
    assert features.width(data) is None
    with pytest.raises(
        UsageProblem,
        match=f"got dataset_fn returned {told}; expected data with named or numbered features; do: return",
    ):
        features.without(data, ["age"])


def test_taking_all_features_away_is_refused() -> None:
    """Nothing would be left to learn from."""
    with pytest.raises(
        UsageProblem, match="got features=0, 1, 2; expected some feature that is left; do: take away"
    ):
        features.without((X, Y), ["0", "1", "2"])


def test_a_table_alone_holds_its_label() -> None:
    """Beside a label it does not."""
    assert features.labelled_within(table())
    assert features.labelled_within((table(6), table(2)))
    assert features.labelled_within({"train": table(6), "test": table(2)})
    assert not features.labelled_within((table(), np.arange(4)))
    assert not features.labelled_within((X, Y))


@given(
    columns=st.integers(2, 8),
    gone=st.sets(st.integers(-8, 7), min_size=1, max_size=3),
    dims=st.lists(st.integers(1, 3), max_size=2),
    as_text=st.booleans(),
)
def test_what_is_left_of_an_array_is_every_other_column(
    columns: int, gone: set[int], dims: list[int], as_text: bool
) -> None:
    """Whatever its other axes, however the columns are numbered."""
    x = np.broadcast_to(np.arange(columns), (4, *dims, columns))
    wanted = [str(one) if as_text else one for one in gone]
    left = [i for i in range(columns) if i not in gone and i - columns not in gone]
    if not left or any(not -columns <= one < columns for one in gone):
        with pytest.raises(UsageProblem):
            features.without((x, np.zeros(4)), wanted)
        return
    less, _ = features.without((x, np.zeros(4)), wanted)
    assert less.shape == (4, *dims, len(left))
    assert less.reshape(-1, len(left))[0].tolist() == left


@given(st.lists(st.text(max_size=4), min_size=2, max_size=6, unique=True), st.data())
def test_columns_of_any_name_can_be_taken_away(names: list[str], data: st.DataObject) -> None:
    """Empty names, digits and hostile ones included."""
    name = data.draw(st.sampled_from(names))
    less = features.without(pd.DataFrame(np.zeros((2, len(names))), columns=names), [name])
    assert list(less.columns) == [one for one in names if one != name]


def test_neither_framework_nor_pandas_is_imported_for_plain_arrays() -> None:
    """A scikit-learn function never pays for TensorFlow."""
    program = (
        "import sys, numpy as np; from obl_magic.worker.ablation import apply, features; "
        "features.without((np.zeros((3, 2)), np.zeros(3)), ['0']); "
        "assert not {'tensorflow', 'keras', 'pandas', 'scipy', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


# --- batches


@pytest.fixture(scope="module")
def tf() -> Any:
    """TensorFlow."""
    return pytest.importorskip("tensorflow")


@pytest.mark.slow
def test_a_tensor_loses_a_column(tf: Any) -> None:
    """As an array does."""
    x, y = features.without((tf.constant(X), tf.constant(Y)), ["1"])
    assert x.numpy()[0].tolist() == [0, 2]
    assert y.shape == (6, 3)


@pytest.mark.slow
@pytest.mark.parametrize("batch", [None, 4])
@pytest.mark.parametrize("kind", ["x", "x, y", "x, y, w", "columns", "columns, y"])
def test_a_tf_dataset_yields_elements_without_the_feature(tf: Any, kind: str, batch: int | None) -> None:
    """Batched or not; its cardinality stays known."""
    columns = {"age": np.arange(6.0), "sex": np.arange(6.0)}
    content = {
        "x": X,
        "x, y": (X, Y),
        "x, y, w": (X, Y, np.ones(6)),
        "columns": columns,
        "columns, y": (columns, Y),
    }[kind]
    data = tf.data.Dataset.from_tensor_slices(content)
    data = data.batch(batch) if batch else data
    named = kind.startswith("columns")
    assert features.names(data) == (["age", "sex"] if named else [0, 1, 2])
    less = features.without(data, ["age" if named else "1"])
    assert less.cardinality() == data.cardinality()
    element = next(iter(less))
    first = element[0] if isinstance(element, tuple) else element
    assert isinstance(element, tuple) == (", " in kind)
    if named:
        assert list(first) == ["sex"]
    else:
        assert np.reshape(first, (-1, 2))[0].tolist() == [0, 2]
    assert features.width(less) == features.width(data) - 1


@pytest.mark.slow
def test_train_and_validation_datasets_both_lose_it(tf: Any) -> None:
    """And what is no data stays beside them."""
    made = [tf.data.Dataset.from_tensor_slices((x, y)).batch(2) for x, y in ((X, Y), (X_TEST, Y_TEST))]
    train, val, names = features.without((*made, ["a", "b"]), ["0"])
    assert train.element_spec[0].shape[-1] == val.element_spec[0].shape[-1] == 2
    assert names == ["a", "b"]
    one, info = features.without((made[0], {"classes": 3}), ["0"])
    assert one.element_spec[0].shape[-1] == 2
    assert info == {"classes": 3}
    assert features.without({"train": made[0], "classes": 3}, ["0"])["train"].element_spec[0].shape[-1] == 2


@pytest.mark.slow
def test_a_tf_dataset_without_a_known_width_is_refused(tf: Any) -> None:
    """A batch of single numbers has no columns."""
    anything = tf.data.Dataset.from_generator(lambda: iter([1]), output_signature=tf.TensorSpec(None))
    for data in (tf.data.Dataset.from_tensor_slices((np.arange(6), Y)).batch(2), anything):
        with pytest.raises(UsageProblem, match="expected data with named or numbered features"):
            features.without(data, ["0"])


@pytest.mark.slow
def test_a_dataset_of_columns_alone_holds_its_label(tf: Any) -> None:
    """Beside a label it does not."""
    data = tf.data.Dataset.from_tensor_slices({"age": np.arange(6), "label": np.arange(6)})
    assert features.labelled_within(data)
    assert not features.labelled_within(data.map(lambda row: (row, row["label"])))


@pytest.mark.slow
def test_a_py_dataset_yields_batches_without_the_feature(tf: Any) -> None:
    """It stays the user's own otherwise: length, workers, ends of epochs, attributes; and it can be pickled."""
    import keras

    from obl_magic import payload

    class Mine(keras.utils.PyDataset):
        ends, begins, reads, colour = 0, 0, 0, "red"

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Any:
            self.reads += 1
            return X[index * 3 : index * 3 + 3], Y[index * 3 : index * 3 + 3]

        def on_epoch_begin(self) -> None:
            self.begins += 1

        def on_epoch_end(self) -> None:
            self.ends += 1

    data = Mine(workers=2, max_queue_size=3)
    assert features.names(data) == [0, 1, 2]
    assert not features.labelled_within(data)
    less = features.without(data, ["1"])
    assert data.reads == 1
    assert isinstance(less, keras.utils.PyDataset)
    assert (len(less), less.num_batches, less.workers, less.max_queue_size) == (2, 2, 2, 3)
    assert less.use_multiprocessing is False
    assert less.colour == "red"
    assert [less[i][0].shape for i in range(2)] == [(3, 2), (3, 2)]
    assert less[0][1].shape == (3, 3)
    less.on_epoch_begin()
    less.on_epoch_end()
    assert (data.begins, data.ends) == (1, 1)
    again = payload.loads(payload.dumps(less, large=[]), [])
    assert again[0][0].shape == (3, 2)
    with pytest.raises(AttributeError, match="size"):
        _ = less.size
    data.__class__.__getitem__ = lambda self, index: np.zeros(3)
    with pytest.raises(UsageProblem, match="dataset_fn returned a Mine"):
        features.without(Mine(), ["0"])
