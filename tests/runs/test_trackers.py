"""Numbers for TensorBoard and MLflow, read back by TensorBoard's own server and MLflow's own client."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import obl_magic
from obl_magic import report
from obl_magic.errors import SetupProblem


def train(lr=0.1, act="relu", password="hunter2"):
    """Three epochs of a number."""
    for epoch in range(3):
        report(loss=lr * (3 - epoch), epoch=epoch + 1)
    return {"loss": lr}


@contextmanager
def tensorboard(folder: Path) -> Iterator[str]:
    """TensorBoard's server on loopback over a folder; its address."""
    asked = ["--logdir", str(folder), "--port", "0", "--host", "127.0.0.1", "--load_fast", "false"]
    process = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", *asked],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"http://127.0.0.1:\d+/", line):
                yield found[0]
                return
        raise AssertionError("TensorBoard did not start")
    finally:
        process.kill()
        process.communicate()


def asked(url: str, body: dict[str, Any]) -> Any:
    """The answer to a question in JSON."""
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def session_groups(address: str, wanted: int) -> list[Any]:
    """What TensorBoard's HParams shows, once it has read as many sessions."""
    statuses = ["STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING", "STATUS_UNKNOWN"]
    until = time.monotonic() + 40
    while True:
        body = {
            "experimentName": "",
            "allowedStatuses": statuses,
            "colParams": [],
            "startIndex": 0,
            "sliceSize": 50,
        }
        groups = asked(f"{address}data/plugin/hparams/session_groups", body).get("sessionGroups", [])
        if len(groups) >= wanted or time.monotonic() > until:
            return list(groups)
        time.sleep(0.3)


@pytest.mark.slow
def test_tensorboard_shows_a_runs_and_a_searchs_parameters_and_curves(tmp_path, monkeypatch) -> None:
    """Live files, read by TensorBoard's own server."""
    monkeypatch.setenv("OBLIVIOUS_HOME", str(tmp_path / "home"))
    board = tmp_path / "board"
    run = obl_magic.run(train, args={"act": "tanh", "password": "s3cr3t"}, quiet=True, tensorboard=str(board))
    found = obl_magic.search(
        train,
        "lr=log(1e-4,1e-1)",
        trials=2,
        minimize="loss",
        sampler="random",
        quiet=True,
        tensorboard=str(board),
    )
    assert b"s3cr3t" not in b"".join(path.read_bytes() for path in board.rglob("events*"))
    with tensorboard(board) as address:
        groups = session_groups(address, 3)
        assert len(groups) == 3
        rates = sorted(group["hparams"]["lr"] for group in groups if "lr" in group["hparams"])
        assert rates == pytest.approx(sorted(found.trials["lr"]))
        (alone,) = (group for group in groups if group["hparams"].get("act") == "tanh")
        assert alone["sessions"][0]["status"] == "STATUS_SUCCESS"
        with urllib.request.urlopen(f"{address}data/plugin/scalars/scalars?run={run.id}&tag=loss") as answer:
            points = json.load(answer)
    assert [point[1] for point in points] == [1, 2, 3]
    assert [point[2] for point in points] == pytest.approx([0.3, 0.2, 0.1])


@pytest.mark.slow
def test_tensorboard_shows_what_an_ablation_left_out(tmp_path, monkeypatch) -> None:
    """The component is a hyperparameter of its session."""
    monkeypatch.setenv("OBLIVIOUS_HOME", str(tmp_path / "home"))

    def flagged(bias=True):
        return {"score": 1.0 if bias else 0.5}

    obl_magic.ablate(flagged, "flags=bias", maximize="score", quiet=True, tensorboard=str(tmp_path / "board"))
    with tensorboard(tmp_path / "board") as address:
        groups = session_groups(address, 2)
    assert {group["hparams"]["without"] for group in groups} == {"base", "bias"}


def test_without_tensorboard_nothing_is_started_and_the_sentence_says_what_to_do(monkeypatch) -> None:
    """Refused before a run has a folder."""
    monkeypatch.setattr("obl_magic.runs.tensorboard.find_spec", lambda name: None)
    with pytest.raises(SetupProblem, match="pip install tensorboard"):
        obl_magic.run(train, quiet=True, tensorboard="board")


def test_mlflow_has_the_parameters_the_curve_and_the_source(tmp_path, monkeypatch) -> None:
    """All of it, and no secret."""
    monkeypatch.setenv("OBLIVIOUS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client = pytest.importorskip("mlflow").MlflowClient
    store = (tmp_path / "mlruns").as_uri()
    run = obl_magic.run(train, args={"lr": 0.5, "password": "s3cr3t"}, quiet=True)
    kept = client(store).get_run(run.to_mlflow(tracking_uri=store))
    assert kept.info.status == "FINISHED"
    assert kept.data.params["lr"] == "0.5"
    assert "s3cr3t" not in str(kept.data.params)
    assert kept.data.tags["obl_magic.digest"] == run.digest
    assert [each.value for each in client(store).get_metric_history(kept.info.run_id, "loss")] == [
        1.5,
        1.0,
        0.5,
    ]
    assert [each.path for each in client(store).list_artifacts(kept.info.run_id)] == [
        run.ledger.folder.source.name
    ]


def test_without_mlflow_the_sentence_says_what_to_do(tmp_path, monkeypatch) -> None:
    """One sentence."""
    monkeypatch.setenv("OBLIVIOUS_HOME", str(tmp_path / "home"))
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    monkeypatch.setitem(sys.modules, "mlflow.entities", None)
    run = obl_magic.run(train, quiet=True)
    with pytest.raises(SetupProblem, match="pip install mlflow"):
        run.to_mlflow()


def test_a_folder_that_cannot_be_written_is_said_before_anything_starts(home: Path) -> None:
    """A file lies there; nothing of the run is left."""
    (home / "logs").write_text("mine")
    with pytest.raises(SetupProblem) as caught:
        obl_magic.run(train, tensorboard=str(home / "logs"), quiet=True)
    assert str(caught.value) == (
        f"--tensorboard {home / 'logs'} cannot be written (File exists); "
        "do: name a folder that you can write, as --tensorboard logs"
    )
    assert [path.name for path in home.iterdir()] == ["logs"]


def test_a_disk_that_fills_up_costs_the_run_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorBoard gets no more numbers, which the run says; its own record has them all."""
    from obl_magic.runs.tensorboard import Board

    write = Board._write

    def full(board: Board, time_s: float, step: int, **what: Any) -> None:
        if step >= 2:
            raise OSError(28, "No space left on device")
        write(board, time_s, step, **what)

    monkeypatch.setattr(Board, "_write", full)
    run = obl_magic.run(train, tensorboard=str(home / "logs"), quiet=True)
    said = "TensorBoard has the numbers up to here: its file can be written no more (No space left on device)"
    assert run.notes.count(said) == 1
    assert len(run.metrics) == 3
