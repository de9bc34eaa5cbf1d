"""Large arrays lie beside their pickle, are never copied into it, and come back as memory shared until written to."""

from __future__ import annotations

import mmap
import os
import pickle
import re
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from obl_magic import payload, rundir
from obl_magic.errors import SetupProblem
from obl_magic.payload import LARGE_BYTES, buffers, files
from obl_magic.rundir import RunDir, buffers_of

LARGE = np.arange(LARGE_BYTES // 4, dtype="float64")


@pytest.fixture
def folder(tmp_path: Path) -> RunDir:
    """An empty run folder."""
    return rundir.create(tmp_path)


def beside(value: Any) -> tuple[bytes, list[pickle.PickleBuffer]]:
    """The pickle of a value, and the buffers that lie beside it."""
    large: list[pickle.PickleBuffer] = []
    return payload.dumps(value, large=large), large


def test_a_large_array_is_not_copied() -> None:
    """The buffer beside the pickle is the array's own memory."""
    data, (buffer,) = beside({"x": [LARGE]})
    assert len(data) < 1000
    assert np.shares_memory(np.frombuffer(buffer.raw(), "uint8"), LARGE)
    back = payload.loads(data, [bytearray(buffer.raw())])
    np.testing.assert_array_equal(back["x"][0], LARGE)


def test_small_arrays_stay_in_the_pickle() -> None:
    """A file for each would cost more than it saves."""
    data, large = beside(np.zeros(LARGE_BYTES // 8 - 1))
    assert large == []
    assert payload.loads(data).shape == (LARGE_BYTES // 8 - 1,)


def test_without_a_place_beside_it_a_pickle_holds_everything() -> None:
    """As every pickle does."""
    np.testing.assert_array_equal(payload.loads(payload.dumps(LARGE)), LARGE)


class Tagged(np.ndarray[Any, Any]):
    """A subclass without a recipe of its own."""


TABLE = pd.DataFrame({"a": LARGE, "b": LARGE.astype("int64"), "c": "text"})
RECORDS = np.rec.fromarrays([LARGE, LARGE + 1], names="x,y")


@pytest.mark.parametrize(
    "array",
    [
        LARGE.reshape(2, -1).T,
        LARGE[::2].repeat(4)[::2],
        LARGE.reshape(512, -1)[:, 1:].repeat(3, axis=0)[:, ::-1],
        LARGE.view(Tagged),
        RECORDS,
        TABLE,
        LARGE.astype(">f4"),
        np.array(["some text"] * (LARGE_BYTES // 9)),
        LARGE.astype("datetime64[s]"),
    ],
    ids=["fortran", "strided", "reversed", "subclass", "records", "table", "big endian", "text", "dates"],
)
def test_arrays_of_every_make_lie_beside_and_come_back_the_same(folder: RunDir, array: Any) -> None:
    """Also those that NumPy itself would copy into the pickle."""
    data, large = beside(array)
    assert len(data) < LARGE_BYTES
    assert len(large) >= 1
    files.save(array, folder, folder.value(0))
    back = files.load(folder.value(0))
    assert type(back) is type(array)
    if isinstance(array, pd.DataFrame):
        pd.testing.assert_frame_equal(back, array)
    else:
        assert back.dtype == array.dtype
        np.testing.assert_array_equal(back, array)


def test_a_mapped_array_of_the_users_travels_as_its_contents(folder: RunDir, tmp_path: Path) -> None:
    """``numpy.memmap``: without its file, and without a copy in the pickle."""
    there = np.memmap(tmp_path / "data", "float64", "w+", shape=LARGE.shape)
    there[:] = LARGE
    data, large = beside(there)
    assert (len(data) < 1000, len(large)) == (True, 1)
    files.save(there, folder, folder.value(0))
    back = files.load(folder.value(0))
    back[0] = 5
    assert isinstance(back, np.memmap)
    assert there[0] == 0


def test_an_array_that_may_not_be_written_to_stays_so(folder: RunDir) -> None:
    """And another one can be written to."""
    fixed = LARGE.copy()
    fixed.flags.writeable = False
    files.save([fixed, LARGE], folder, folder.value(0))
    back = files.load(folder.value(0))
    assert [each.flags.writeable for each in back] == [False, True]


def test_arrays_of_objects_travel_in_the_pickle(folder: RunDir) -> None:
    """Their memory means nothing elsewhere."""
    objects = np.array([None, "x"] * LARGE_BYTES, dtype=object)[:LARGE_BYTES]
    assert beside(objects)[1] == []


def test_an_array_that_appears_twice_is_one_array(folder: RunDir) -> None:
    """Written once, and the same object on the other side."""
    assert files.save([LARGE, LARGE], folder, folder.value(0)) < 1.1 * LARGE.nbytes
    first, second = files.load(folder.value(0))
    assert first is second


def test_what_is_written_into_an_array_is_not_written_to_the_file(folder: RunDir) -> None:
    """Each who loads it has pages of his own as soon as he writes."""
    files.save(LARGE, folder, folder.value(0))
    mine, yours = files.load(folder.value(0)), files.load(folder.value(0))
    mine[:] = -1
    np.testing.assert_array_equal(yours, LARGE)
    np.testing.assert_array_equal(files.load(folder.value(0)), LARGE)


def test_memory_outlives_the_file(folder: RunDir) -> None:
    """A value that somebody holds is not lost with the run's folder."""
    files.save(LARGE, folder, folder.value(0))
    back = files.load(folder.value(0))
    buffers_of(folder.value(0)).unlink()
    np.testing.assert_array_equal(back, LARGE)


def test_the_file_of_arrays_is_private(folder: RunDir) -> None:
    """As all files of a run."""
    files.save(LARGE, folder, folder.job)
    assert stat.S_IMODE(buffers_of(folder.job).stat().st_mode) == 0o600
    assert sorted(path.name for path in folder.path.iterdir()) == ["job.bin", "job.pkl"]


def test_tidying_up_removes_a_job_with_its_arrays(folder: RunDir) -> None:
    """They hold the user's data, and a gigabyte a run would fill disks; what a function returned stays."""
    for path in (folder.job, folder.changes, folder.value(0)):
        files.save({"x": LARGE}, folder, path)
    buffers_of(folder.changes).unlink()
    folder.tidy()
    assert sorted(path.name for path in folder.path.iterdir()) == ["value-0.bin", "value-0.pkl"]


def test_a_value_whose_arrays_are_gone_says_so(folder: RunDir) -> None:
    """With the file, and what is left of the run."""
    files.save({"x": LARGE}, folder, folder.value(0))
    buffers_of(folder.value(0)).unlink()
    with pytest.raises(
        SetupProblem,
        match=r"^the large arrays of .*value-0\.pkl are gone with value-0\.bin; "
        r"do: run the function again; function\.py and run\.json beside it say what ran$",
    ):
        files.load(folder.value(0))


def test_a_value_without_large_arrays_is_one_file(folder: RunDir) -> None:
    """An ordinary pickle."""
    files.save({"loss": 0.5}, folder, folder.value(0))
    assert [path.name for path in folder.path.iterdir()] == ["value-0.pkl"]
    assert pickle.loads(folder.value(0).read_bytes()) == {"loss": 0.5}


def test_where_the_pickle_cannot_be_written_no_arrays_stay(folder: RunDir) -> None:
    """A folder in the pickle's place."""
    folder.job.mkdir()
    with pytest.raises(SetupProblem, match=r"cannot write the run's folder .*job\.pkl"):
        files.save(LARGE, folder, folder.job)
    assert [path.name for path in folder.path.iterdir()] == ["job.pkl"]


@given(st.lists(st.binary(max_size=300), max_size=8))
def test_buffers_come_back_in_order_and_aligned(made: list[bytes]) -> None:
    """Of any length, an empty one included."""
    file = b"".join(bytes(part) for part in buffers.parts(map(pickle.PickleBuffer, made)))
    back = buffers.split(file)
    assert [bytes(each) for each in back] == made
    assert len(file) % buffers.ALIGNED == 0
    at = np.frombuffer(file, "uint8").ctypes.data if file else 0
    assert all((np.frombuffer(b, "uint8").ctypes.data - at) % buffers.ALIGNED == 0 for b in back if len(b))


def test_a_file_that_is_cut_short_is_said(tmp_path: Path) -> None:
    """Never a shorter array, nor a signal when its end is touched."""
    whole = b"".join(bytes(part) for part in buffers.parts([pickle.PickleBuffer(LARGE)]))
    (tmp_path / "short").write_bytes(whole[:-64])
    with pytest.raises(ValueError, match=re.escape(f"a buffer of {LARGE.nbytes} bytes is cut short")):
        buffers.mapped(tmp_path / "short")


def test_no_page_is_read_before_it_is_used(folder: RunDir) -> None:
    """Loading maps: a value of gigabytes is there at once."""
    zeros = np.zeros(64 << 20, "uint8")
    files.save(zeros, folder, folder.value(0))
    back = files.load(folder.value(0))
    page = mmap.PAGESIZE
    entry = Path("/proc/self/smaps").read_text().partition(f"{buffers_of(folder.value(0))}\n")[2]
    resident = re.search(r"^Rss: +(\d+) kB", entry, re.M)
    assert resident is not None
    assert int(resident[1]) * 1024 < zeros.nbytes // 2
    assert back[:: 1000 * page].sum() == 0
    assert os.path.exists(buffers_of(folder.value(0)))
