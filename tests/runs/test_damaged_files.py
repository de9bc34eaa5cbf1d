"""Damaged, older and foreign files: the healthy rest is shown, and the damaged one is named."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from pathlib import Path

import pytest

import obl_magic
from obl_magic.errors import Damaged
from obl_magic.notebook.attach import attach
from obl_magic.notebook.commands import runs_table
from obl_magic.runs.leftovers import remove_leftovers
from obl_magic.runs.owner import this_process
from obl_magic.runs.run import Run
from obl_magic.study.find import open_results

DAMAGE = {
    "empty": (lambda text: "", "empty"),
    "half": (lambda text: text[: len(text) // 2], "no JSON"),
    "zeros": (lambda text: "\0" * len(text), "no JSON"),
    "a list": (lambda text: "[1, 2]", "no record"),
    "a missing key": (
        lambda text: json.dumps({k: v for k, v in json.loads(text).items() if k != "digest"}),
        "without digest",
    ),
}


def train(lr: float = 0.1) -> float:
    """A function to run."""
    return lr


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_record_is_named_beside_the_healthy_ones(home: Path, damage: str) -> None:
    """In the table, and in a sentence where it is asked for."""
    change, why = DAMAGE[damage]
    bad, good = obl_magic.run(train, quiet=True), obl_magic.run(train, quiet=True)
    record = bad.dir / "run.json"
    record.write_text(change(record.read_text()))
    table = runs_table().set_index("run")
    assert table.loc[good.id, "status"] == "succeeded"
    assert table.loc[bad.id, "status"] == f"damaged: {record}, which is damaged ({why})"
    for use in (Run.open, lambda name: obl_magic.run(train, params=name, quiet=True)):
        with pytest.raises(Damaged, match=re.escape(f"run.json, which is damaged ({why})")):
            use(bad.id)
    with pytest.raises(Damaged, match=f"do: rm -r {bad.dir}, if nothing in it is wanted any more"):
        attach(bad.id)
    assert Run.open(good.id).value == 0.1
    assert obl_magic.run(train, params=good.id, quiet=True).value == 0.1


def test_a_record_of_a_newer_version_is_not_misread(home: Path) -> None:
    """Its format stands in it; one from before there was a format is read."""
    new, old = obl_magic.run(train, quiet=True), obl_magic.run(train, quiet=True)
    told = json.loads((new.dir / "run.json").read_text())
    assert told["format"] == 2
    (new.dir / "run.json").write_text(json.dumps({**told, "format": 3}))
    told = json.loads((old.dir / "run.json").read_text())
    del told["format"]
    (old.dir / "run.json").write_text(json.dumps(told))
    with pytest.raises(Damaged, match=r"of format 3, which a newer obl_magic has written; expected format 2"):
        Run.open(new.id)
    assert "of format 3" in runs_table().set_index("run").loc[new.id, "status"]
    assert Run.open(old.id).value == 0.1


def test_a_damaged_search_is_named_beside_the_healthy_ones(home: Path) -> None:
    """``best`` means the newest that can be read."""
    good = obl_magic.search(train, "lr=float(0,1)", trials=2, maximize="value", quiet=True)
    bad = obl_magic.search(train, "lr=float(0,1)", trials=1, maximize="value", quiet=True, out="named")
    bad.folder.manifest.write_text("{")
    table = runs_table().set_index("run")
    assert table.loc[good.id, "status"] == "succeeded"
    assert table.loc[bad.id, "status"].startswith("damaged: ")
    with pytest.raises(Damaged, match="no JSON"):
        open_results(bad.id)
    with pytest.raises(Damaged, match="no JSON"):
        obl_magic.search(train, resume=bad.id, trials=2, quiet=True)
    assert obl_magic.run(train, params="best", quiet=True).value == good.best.value


@pytest.mark.parametrize("damage", [b"\0" * 512 + b"\n", b"not json\n", b'{"kind": "unheard of"}\n'])
def test_damage_in_a_log_costs_its_line_and_is_said(home: Path, damage: bytes) -> None:
    """The run keeps its status, its value and the rest of its numbers."""
    run = obl_magic.run(train, quiet=True)
    log = run.dir / "events.jsonl"
    first, rest = log.read_bytes().split(b"\n", 1)
    log.write_bytes(first + b"\n" + damage + rest)
    again = Run.open(run.id)
    assert again.status == "succeeded"
    assert again.value == 0.1
    assert again.notes == ["1 damaged line of events.jsonl left out; the rest is shown"]


def test_a_log_without_anything_is_that_of_a_run_that_failed(home: Path) -> None:
    """Nobody runs it, and nothing says how it ended."""
    run = obl_magic.run(train, quiet=True)
    (run.dir / "events.jsonl").write_bytes(b"")
    (run.dir / "summary.json").unlink()
    record = json.loads((run.dir / "run.json").read_text())
    (run.dir / "run.json").write_text(json.dumps({**record, "kernel": None}))
    assert runs_table().set_index("run").loc[run.id, "status"] == "failed"


def test_a_thousand_runs_are_listed_in_a_second(home: Path) -> None:
    """Ten of them have reported a hundred thousand numbers each; none of these is read."""
    runs_table()  # imports pandas
    model = obl_magic.run(train, quiet=True)
    metric = '{"kind":"metric","rank":0,"time_s":1.0,"values":{"loss":0.5},"step":1,"epoch":1}\n'
    for number in range(1000):
        folder = home / "runs" / f"20200101-{number:06d}-{number:06x}"
        shutil.copytree(model.dir, folder)
        if number < 10:
            with open(folder / "events.jsonl", "a") as log:
                log.write(metric * 100_000)
    began = time.perf_counter()
    table = runs_table()
    seconds = time.perf_counter() - began
    assert len(table) == 1001
    assert set(table["status"]) == {"succeeded"}
    assert seconds < 1.0


def test_runs_of_one_second_are_listed_newest_first(home: Path) -> None:
    """By when they were written down, which their ids do not tell."""
    made = [obl_magic.run(train, quiet=True).id for _ in range(5)]
    assert list(runs_table()["run"]) == made[::-1]


def test_a_search_elsewhere_lives_while_one_of_its_trials_does(home: Path) -> None:
    """On another machine a trial may take an hour; neither its arrays are removed nor is it called over."""
    study = obl_magic.search(train, "lr=float(0,1)", trials=1, maximize="value", quiet=True)
    folder = study.folder
    elsewhere = {**this_process(), "host": "elsewhere", "boot_id": "another"}
    told = {**folder.record().in_json, "status": "running", "kernel": elsewhere}
    folder.shared.write_json(folder.manifest, told)
    (folder.path / "job.bin").write_bytes(b"arrays")
    folder.trial(0).changes.write_bytes(b"arguments")
    for log in folder.logs:
        os.utime(log, (0, 0))
    folder.trial(0).events.touch()
    remove_leftovers()
    assert (folder.path / "job.bin").exists()
    assert folder.trial(0).changes.exists()
    assert open_results(folder.id).status == "running"
    os.utime(folder.trial(0).events, (0, 0))
    assert open_results(folder.id).status == "interrupted"
    remove_leftovers()
    assert not (folder.path / "job.bin").exists()
    assert not folder.trial(0).changes.exists()
