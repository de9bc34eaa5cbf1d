"""The file of a model's weights: a NumPy archive with a page about itself. Imports no framework, holds no pickle.

``numpy.load(path, allow_pickle=False)`` opens it, too: ``arr_0``, ``arr_1``, … are the arrays in the model's order, and
``about.json`` says what they are. An array of a type that NumPy itself lacks (bfloat16, float8) lies there as its
bytes, in one more axis, and the page has the type's name.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from obl_magic.errors import SetupProblem
from obl_magic.rundir import RunDir

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ABOUT = "about.json"
_USER_DEFINED = 2
"""NumPy's ``dtype.isbuiltin`` of types that other packages add to it."""


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """The weights of a model at one moment.

    Attributes:
        names: the variables' paths in the model, in its order; other processes may number layers otherwise.
        arrays: their values.
        epoch: 1-based, after which they were taken, or None.
        value: of the quantity they were kept for, or None.
        label: what the user calls their source, e.g. a run's id.
    """

    names: tuple[str, ...]
    arrays: tuple[NDArray[Any], ...] = field(repr=False)
    epoch: int | None = None
    value: float | None = None
    label: str = ""

    @property
    def size_bytes(self) -> int:
        """What the arrays weigh, in bytes."""
        return sum(array.nbytes for array in self.arrays)


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says about its weights; see :class:`Weights`.

    Attributes:
        names: of the variables.
        shapes: of the arrays, in that order; a type by its name.
        dtypes: of the arrays, in that order; a type by its name.
        epoch: as in :class:`Weights`.
        value: as in :class:`Weights`.
        label: as in :class:`Weights`.
    """

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[str, ...]
    epoch: int | None = None
    value: float | None = None
    label: str = ""


def of_model(model: Any, epoch: int | None = None, value: float | None = None, label: str = "") -> Weights:
    """A copy of a Keras model's weights: trained and not, without random generators, metrics and optimizer."""
    import numpy

    arrays = tuple(numpy.array(variable.numpy()) for variable in model.weights)
    return Weights(names_of(model), arrays, epoch, value, label)


def names_of(model: Any) -> tuple[str, ...]:
    """The paths of a Keras model's weights inside it, in its order: ``dense/kernel``."""
    return tuple(variable.path.removeprefix(f"{model.name}/") for variable in model.weights)


def save(weights: Weights, folder: RunDir, path: Path) -> None:
    """Writes weights down so that no reader sees half of them; the arrays go to the disk from where they lie.

    Args:
        weights: which.
        folder: of the run.
        path: the file's place in it.

    Raises:
        SetupProblem: the folder cannot be written.
    """
    folder.write_parts(path, _pieces(weights))


def header(path: str | Path) -> Header:
    """What a file says about its weights, which are not read.

    Raises:
        SetupProblem: there are no weights.
    """
    with _readable(path), zipfile.ZipFile(path) as archive:
        return _header(archive.read(_ABOUT))


def load(path: str | Path) -> Weights:
    """The weights that :func:`save` wrote. Nothing in the file is run.

    Raises:
        SetupProblem: there are none, they were damaged, or are of a type that no installed package knows.
    """
    import numpy

    about = header(path)
    with _readable(path), numpy.load(path, allow_pickle=False) as archive:
        stored = [archive[f"arr_{number}"] for number in range(len(about.names))]
    arrays = (_as_they_were(*kept) for kept in zip(stored, about.dtypes, about.shapes, strict=True))
    return Weights(about.names, tuple(arrays), about.epoch, about.value, about.label)


@contextmanager
def _readable(path: str | Path) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or "it is cut short"
        raise SetupProblem(
            f"cannot read the weights in {path} ({reason})",
            "name a run that kept its weights, or leave out --init-from",
        ) from error


def _header(text: bytes) -> Header:
    about = json.loads(text)
    return Header(
        tuple(about["names"]),
        tuple(tuple(shape) for shape in about["shapes"]),
        tuple(about["dtypes"]),
        about["epoch"],
        about["value"],
        about["label"],
    )


class _Pieces:
    """A file without a place: what is written waits, uncopied, until it is taken."""

    def __init__(self) -> None:
        self._waiting: list[bytes | memoryview] = []

    def write(self, data: bytes | memoryview) -> int:
        self._waiting.append(data)
        return len(data)

    def flush(self) -> None:
        """Nothing is held back."""

    def taken(self) -> list[bytes | memoryview]:
        taken, self._waiting = self._waiting, []
        return taken


def _pieces(weights: Weights) -> Iterator[bytes | memoryview]:
    """The bytes of the archive, one array after the other."""
    import numpy

    about = Header(
        weights.names,
        tuple(array.shape for array in weights.arrays),
        tuple(array.dtype.name for array in weights.arrays),
        weights.epoch,
        weights.value,
        weights.label,
    )
    file: Any = _Pieces()
    with zipfile.ZipFile(file, "w") as archive:
        with _entry(archive, _ABOUT) as entry:
            entry.write(json.dumps(asdict(about)).encode())
        for number, array in enumerate(weights.arrays):
            plain = _plain(array)
            with _entry(archive, f"arr_{number}.npy") as entry:
                numpy.lib.format.write_array_header_2_0(
                    entry, numpy.lib.format.header_data_from_array_1_0(plain)
                )
                entry.write(plain.reshape(-1).view(numpy.uint8).data)
            yield from file.taken()
    yield from file.taken()


def _entry(archive: zipfile.ZipFile, name: str) -> Any:
    info = zipfile.ZipInfo(name)  # without the time: the same weights are the same bytes
    info.external_attr = 0o600 << 16
    return archive.open(info, "w", force_zip64=True)


def _plain(array: NDArray[Any]) -> NDArray[Any]:
    """An array in C order, of a type that NumPy's own format can name."""
    import numpy

    plain = numpy.ascontiguousarray(array).reshape(array.shape)
    if plain.dtype.isbuiltin != _USER_DEFINED:
        return plain
    return plain.reshape(-1).view(numpy.uint8).reshape(*plain.shape, plain.dtype.itemsize)


def _as_they_were(stored: NDArray[Any], dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    return stored if stored.dtype.name == dtype else stored.reshape(-1).view(_dtype(dtype)).reshape(shape)


def _dtype(name: str) -> Any:
    import numpy

    try:
        import ml_dtypes

        return numpy.dtype(getattr(ml_dtypes, name))
    except (ImportError, AttributeError):
        raise SetupProblem(
            f"the weights are of type {name}, which NumPy does not know here",
            "python -m pip install ml_dtypes",
        ) from None
