"""Values as files of a run and back: the pickle, and beside it one file for the large buffers of its arrays."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from obl_magic import payload
from obl_magic.errors import SetupProblem
from obl_magic.payload import buffers
from obl_magic.rundir import RunDir, buffers_of


def save(value: Any, folder: RunDir, path: Path, by_value: Iterable[ModuleType] = ()) -> int:
    """Writes a value down; its arrays go straight from their own memory to the disk.

    Args:
        value: anything picklable.
        folder: of the run.
        path: the pickle's place in it.
        by_value: see :func:`obl_magic.payload.dumps`.

    Returns:
        What was written, in bytes.

    Raises:
        SetupProblem: the folder cannot be written.
        Exception: whatever the pickler raises.
    """
    large: list[pickle.PickleBuffer] = []
    data = payload.dumps(value, by_value, large)
    if large:
        folder.write_parts(buffers_of(path), buffers.parts(large))
    try:
        folder.write_bytes(path, data)
    except SetupProblem:
        buffers_of(path).unlink(missing_ok=True)
        raise
    return len(data) + sum(buffer.raw().nbytes for buffer in large)


def load(path: Path) -> Any:
    """A value that :func:`save` wrote; its arrays are mapped, not read. Runs the pickle: see the trust boundary.

    Raises:
        SetupProblem: its arrays were removed.
    """
    beside = buffers_of(path)
    try:
        return payload.loads(path.read_bytes(), buffers.mapped(beside) if beside.exists() else ())
    except pickle.UnpicklingError as error:
        if beside.exists() or "out-of-band" not in str(error):
            raise
        raise SetupProblem(
            f"the large arrays of {path} are gone with {beside.name}",
            "run the function again; function.py and run.json beside it say what ran",
        ) from error
