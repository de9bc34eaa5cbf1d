"""What is known of a run, as a value and as JSON: the same on both sides, whoever wrote it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obl_magic.errors import Damaged
from obl_magic.rundir import RunDir, StudyDir
from obl_magic.rundir.record import FORMAT, RunRecord, StudyRecord

words = st.text(max_size=8)
records = st.builds(
    RunRecord, id=words, function=words, digest=words, workers=st.none() | st.integers(1, 9), engine=words,
    started_s=st.floats(0, 2e9), lines=st.lists(words, max_size=2).map(tuple), seed=st.integers(0, 9),
    arguments=st.dictionaries(words, words, max_size=2), provided=st.lists(words, max_size=2).map(tuple),
    options=st.dictionaries(words, words | st.integers() | st.booleans() | st.none(), max_size=3),
    captured=st.lists(st.dictionaries(words, words, max_size=2), max_size=2).map(tuple),
    study=st.none() | words, trial=st.none() | st.integers(0, 9), repeat=st.integers(0, 3), draws=st.booleans(),
)  # fmt: skip

FORMAT_1 = {
    "format": 1, "id": "r-1", "function": "train", "digest": "01", "workers": 2, "engine": "mpi",
    "engine_reason": "asked", "arguments": {"lr": "0.1"}, "provided": ["x"], "seed": 3,
    "settings_carried": {}, "generators_carried": {},
    "options": {"workers": 2, "show_ranks": [0], "settings": {"batch": "global", "init_from": "w.npz"}},
    "captured": [{"path": "train -> x", "type_name": "int", "size_bytes": 9, "secret": False}], "capture_s": 0.1,
    "environment": {"python": "3.11"}, "kernel": {"pid": 7}, "lineage": {},
    "header": {
        "run_id": "r-1", "function": "train", "digest": "01", "workers": 2, "engine": "mpi", "engine_reason": "asked",
        "batch": "global", "cores": 2, "started_s": 5.0, "lines": ["a remark"], "folder": ".oblivious/runs/r-1",
    },
}  # fmt: skip
"""As obl_magic wrote it before the records were one value."""


@given(records)
def test_a_record_is_read_as_it_was_written(record: RunRecord) -> None:
    """Through JSON, tuples and all."""
    text = json.dumps(record.in_json)
    assert json.loads(text)["format"] == FORMAT
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(text)
        file.flush()
        assert RunRecord.read(Path(file.name)) == record


def test_a_run_of_the_older_format_is_read(tmp_path: Path) -> None:
    """What stood in its header and in its options is where it belongs now."""
    folder = RunDir(tmp_path)
    folder.write_json(folder.manifest, FORMAT_1)
    record = folder.record()
    assert (record.id, record.started_s, record.batch, record.lines) == ("r-1", 5.0, "global", ("a remark",))
    assert record.settings == {"batch": "global", "init_from": "w.npz"}
    assert record.options == {"workers": 2, "show_ranks": [0]}
    assert record.captured[0]["path"] == "train -> x"
    assert record.kernel == {"pid": 7}


def test_a_study_of_the_older_format_is_read(tmp_path: Path) -> None:
    """Its trials' record stands in it beside its own."""
    told = {
        **FORMAT_1, "kind": "search", "status": "succeeded", "quantity": "loss", "direction": "minimize",
        "asked": {"trials": 3}, "out": "study", "began_s": 4.0, "ended_s": 9.0, "run_header": FORMAT_1["header"],
        "header": {
            "study_id": "r-1", "kind": "search", "function": "train", "digest": "01", "quantity": "loss",
            "direction": "minimize", "wanted": 3, "workers": 4, "workers_per_trial": 2, "worlds": 2, "engine": "mpi",
            "sampler": "tpe", "pruner": "none", "space": ["lr=log(1e-4,1)"], "started_s": 5.0, "folder": "",
            "lines": [],
        },
    }  # fmt: skip
    folder = StudyDir(tmp_path)
    folder.shared.write_json(folder.manifest, told)
    record = folder.record()
    assert isinstance(record, StudyRecord)
    assert (record.kind, record.wanted, record.worlds, record.space) == ("search", 3, 2, ("lr=log(1e-4,1)",))
    assert (record.asked, record.out, record.ended_s, record.repeats) == ({"trials": 3}, "study", 9.0, 1)


@pytest.mark.parametrize("lacks", RunRecord.NEEDED)
def test_a_record_that_lacks_something_is_damaged_and_says_what(tmp_path: Path, lacks: str) -> None:
    """By name."""
    folder = RunDir(tmp_path)
    whole = RunRecord("r", "f", "01", 1, "mpi").in_json
    folder.write_json(folder.manifest, {name: value for name, value in whole.items() if name != lacks})
    with pytest.raises(Damaged, match=f"which is damaged .without {lacks}.;"):
        folder.record()
