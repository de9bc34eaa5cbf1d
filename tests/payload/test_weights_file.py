"""The file of a model's weights: what is written is what is read, by NumPy too, and nothing in it is run."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from obl_magic.errors import SetupProblem
from obl_magic.payload.weights_file import Weights, header, load, of_model, save
from obl_magic.rundir import RunDir

DTYPES = [
    *("float16", "float32", "float64", "int8", "uint8", "int64", "bool", ">f4"),
    *(ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.int4),
]
VALUES = st.none() | st.floats()
SHAPES = arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)


def written(folder: Path, weights: Weights) -> Path:
    """A file of these weights."""
    path = RunDir.at(folder).weights
    save(weights, RunDir.at(folder), path)
    return path


@given(
    shapes=st.lists(SHAPES, max_size=4), dtype=st.sampled_from(DTYPES),
    epoch=st.none() | st.integers(1, 10**6), value=VALUES, label=st.text(),
)  # fmt: skip
def test_weights_come_back_bit_by_bit(
    tmp_path_factory: pytest.TempPathFactory,
    shapes: list[tuple[int, ...]],
    dtype: object,
    epoch: int | None,
    value: float | None,
    label: str,
) -> None:
    """Of every type and shape, those that NumPy lacks among them; and so does what is said about them."""
    made = tuple(np.arange(math.prod(shape)).reshape(shape).astype(dtype) for shape in shapes)
    names = tuple(f"dense_{number}/kernel" for number in range(len(made)))
    path = written(tmp_path_factory.mktemp("w"), Weights(names, made, epoch, value, label))
    kept = load(path)
    assert (kept.names, kept.epoch, kept.label) == (names, epoch, label)
    assert repr(kept.value) == repr(value)
    for array, before in zip(kept.arrays, made, strict=True):
        assert array.shape == before.shape
        assert array.dtype == before.dtype
        assert array.tobytes() == before.tobytes()


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_arrays_that_are_not_in_one_piece_are_written_as_they_look(
    tmp_path: Path, order: str, dtype: object
) -> None:
    """Every other column of a larger array, and columns first."""
    array = np.asarray(np.arange(24).reshape(4, 6), dtype, order=order)[:, ::2]
    (kept,) = load(written(tmp_path, Weights(("a",), (array,)))).arrays
    assert kept.astype("f4").tolist() == array.astype("f4").tolist()


def test_numpy_itself_opens_the_file_without_a_pickle(tmp_path: Path) -> None:
    """The arrays under the names that savez gives them, and the page as text."""
    path = written(tmp_path, Weights(("a", "b"), (np.eye(3), np.zeros((0, 2), "int8")), 7, 0.5, "run"))
    with np.load(path, allow_pickle=False) as archive:
        assert archive["arr_0"].tolist() == np.eye(3).tolist()
        assert archive["arr_1"].shape == (0, 2)
        assert b'"epoch": 7' in archive["about.json"]


def test_the_header_says_what_there_is_without_reading_it(tmp_path: Path) -> None:
    """Even where the arrays themselves are damaged, which only reading them notices."""
    array = np.full((64, 32), 1.5, "float32")
    path = written(tmp_path, Weights(("dense/kernel",), (array,), 3, 0.25, "trial 4"))
    data = bytearray(path.read_bytes())
    data[data.index(array.tobytes()) + 5] ^= 1
    path.write_bytes(data)
    found = header(path)
    assert (found.names, found.shapes, found.dtypes) == (("dense/kernel",), ((64, 32),), ("float32",))
    assert (found.epoch, found.value, found.label) == (3, 0.25, "trial 4")
    with pytest.raises(SetupProblem, match=r"cannot read the weights in .*weights.npz \(Bad CRC-32"):
        load(path)


def test_the_same_weights_are_the_same_bytes(tmp_path: Path) -> None:
    """No time of day is in the file."""
    weights = Weights(("a",), (np.eye(2),), 1)
    assert written(tmp_path, weights).read_bytes() == written(tmp_path, weights).read_bytes()


def test_a_large_array_is_not_copied_to_be_written(tmp_path: Path) -> None:
    """What reaches the disk is the array's own memory."""
    array, pieces = np.ones((1 << 18,), "float32"), []

    class Watched(RunDir):
        def write_parts(self, path: Path, parts: object) -> None:
            pieces.extend(parts)  # type: ignore[call-overload]

    save(Weights(("a",), (array,)), Watched(tmp_path), tmp_path / "weights.npz")
    large = [np.frombuffer(piece, "u1") for piece in pieces if len(piece) >= array.nbytes]
    assert [np.shares_memory(piece, array) for piece in large] == [True]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file or directory"),
        (b"", "File is not a zip file"),
        (b"cut short", "File is not a zip file"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path: Path, content: bytes | None, reason: str) -> None:
    """With its place, the reason, and the way out."""
    path = tmp_path / "weights.npz"
    if content is not None:
        path.write_bytes(content)
    for read in (header, load):
        with pytest.raises(SetupProblem) as caught:
            read(path)
        assert str(caught.value) == (
            f"cannot read the weights in {path} ({reason}); "
            "do: name a run that kept its weights, or leave out --init-from"
        )


def test_an_archive_of_somebody_elses_is_refused(tmp_path: Path) -> None:
    """It has no page about itself."""
    np.savez(tmp_path / "weights.npz", np.eye(2))
    with pytest.raises(SetupProblem, match=r"There is no item named 'about.json' in the archive"):
        load(tmp_path / "weights.npz")


def test_objects_are_neither_written_nor_read(tmp_path: Path) -> None:
    """They would be a pickle, and a pickle is a program."""
    with pytest.raises(TypeError, match=r"Cannot change data-type for (array of references|object array)"):
        written(tmp_path, Weights(("a",), (np.array([print]),)))
    assert list(tmp_path.iterdir()) == []
    about = {"names": ["a"], "shapes": [[1]], "dtypes": ["object"], "epoch": 1, "value": 1.0, "label": ""}
    with zipfile.ZipFile(tmp_path / "weights.npz", "w") as archive:
        archive.writestr("about.json", json.dumps(about))
        with archive.open("arr_0.npy", "w") as entry:
            np.lib.format.write_array(entry, np.array([print]), allow_pickle=True)
    with pytest.raises(SetupProblem, match="Object arrays cannot be loaded when allow_pickle=False"):
        load(tmp_path / "weights.npz")


def test_a_type_that_no_package_here_knows_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the package that brings such types; the header needs none."""
    path = written(tmp_path, Weights(("a",), (np.ones(3, ml_dtypes.bfloat16),)))
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    assert header(path).dtypes == ("bfloat16",)
    with pytest.raises(SetupProblem) as caught:
        load(path)
    assert str(caught.value) == (
        "the weights are of type bfloat16, which NumPy does not know here; do: python -m pip install ml_dtypes"
    )


def test_weights_of_anything_like_a_model_are_copied() -> None:
    """What the model does afterwards does not change them."""

    class Variable:
        path = "mine/dense/kernel"
        value = np.zeros(2)

        def numpy(self) -> object:
            return self.value

    class Model:
        name = "mine"
        weights = (Variable(),)

    taken = of_model(Model(), 2, 0.5, "run")
    Variable.value += 1
    assert taken.names == ("dense/kernel",)
    assert taken.arrays[0].tolist() == [0, 0]
    assert (taken.epoch, taken.value, taken.label, taken.size_bytes) == (2, 0.5, "run", 16)


def test_importing_it_brings_no_framework_and_no_numpy() -> None:
    """The notebook's own process reads headers without paying for either."""
    program = (
        "import sys, obl_magic.payload.weights_file; "
        "print({'numpy', 'keras', 'tensorflow', 'ml_dtypes'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "set()"
