"""Worlds that are ended in the middle of a long epoch and go on there: the numbers stay, and little is done twice."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import inside
import numpy as np
import pytest

import obl_magic
from obl_magic.errors import UsageProblem

pytestmark = [pytest.mark.slow, pytest.mark.timing]

KINDS = ("arrays", "tf.data", "PyDataset", "own step")
ENDED_AFTER = 35
"""Steps of the second epoch."""


def _alone(kind: str, folder: str) -> dict[str, Any]:
    """In plain Python, in a process of its own, whose seeds are not this one's."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(inside.long_epochs, kind, folder, 0.0).result()


def _steps(home: Path) -> list[tuple[int, int]]:
    path = home / "steps"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(epoch), int(step)) for epoch, step in (line.split() for line in lines)]


def _until_step(run: obl_magic.Run, home: Path, wanted: tuple[int, int]) -> None:
    ends = time.monotonic() + 120
    while wanted not in _steps(home):
        assert run.status == "running", run.error
        assert time.monotonic() < ends
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("kind", "engine", "workers", "least"),
    [
        ("arrays", "mpi", 3, 2),
        ("arrays", "horovod", 2, 2),
        ("tf.data", "mpi", 2, 1),
        ("PyDataset", "mpi", 2, 2),
        ("own step", "mpi", 2, 2),
    ],
)
def test_a_world_that_is_lost_in_a_long_epoch_goes_on_inside_it(
    home: Path, tmp_path_factory: pytest.TempPathFactory, kind: str, engine: str, workers: int, least: int
) -> None:
    """On fewer ranks, too: weights, history and the callbacks' own counts are the undisturbed ones."""
    expected = _alone(kind, str(tmp_path_factory.mktemp("alone")))
    run = obl_magic.run(
        inside.long_epochs,
        workers=workers,
        engine=engine,
        args={"kind": kind, "folder": str(home)},
        retries=1,
        min_workers=least,
        checkpoint_every=0.5,
        background=True,
        quiet=True,
    )
    _until_step(run, home, (1, ENDED_AFTER))
    before = len(_steps(home))
    os.kill(run.ledger.state.ranks[workers - 1].pid, signal.SIGKILL)
    run.wait(240)
    assert run.status == "succeeded", run.error
    for mine, theirs in zip(run.value["weights"], expected["weights"], strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-4)
    for name, values in expected["history"].items():
        np.testing.assert_allclose(run.value["history"][name], values, atol=1e-4, err_msg=name)
    assert run.value["counts"] == [inside.STEPS, inside.STEPS]
    again = _steps(home)[before:]
    at = next(index for index, step in enumerate(again) if step[1] < inside.STEPS - 1)
    assert again[at][0] == 1, "it did the first epoch again"
    assert again[-1] == (1, inside.STEPS - 1)
    assert len(_steps(home)) < 2 * inside.STEPS + ENDED_AFTER, (
        "it did the second epoch again from its beginning"
    )


def test_epochs_of_unknown_length_are_kept_whole_and_that_is_said(home: Path) -> None:
    """A generator tells only at its end that it has come to it."""

    def train() -> None:
        import keras
        import numpy as np

        def rows() -> Any:
            for at in range(30):
                time.sleep(0.05)
                yield np.full((4, 2), at, "float32"), np.zeros((4, 1), "float32")

        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        model.fit(rows(), verbose=0)

    run = obl_magic.run(train, workers=2, engine="mpi", checkpoint_every="0.2s", quiet=True)
    assert any(
        "kept after whole epochs only: how long an epoch is, is not known" in note for note in run.notes
    )


@pytest.mark.parametrize("given", ["soon", "5 days", -1, 0, "0m"])
def test_a_time_that_is_none_is_refused(given: Any) -> None:
    """Before anything is started."""
    with pytest.raises(UsageProblem, match="expected seconds, or a time like 30s, 5m, 1h"):
        obl_magic.run(inside.long_epochs, workers=2, checkpoint_every=given)
