"""Loops by hand that say what they remember go on after a rank was lost: the numbers stay, no epoch is done again."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import by_hand
import numpy as np
import pytest

import obl_magic

pytestmark = [pytest.mark.slow, pytest.mark.timing]


def _alone(**args: Any) -> dict[str, Any]:
    """In plain Python, in a process of its own, whose seeds are not this one's."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(by_hand.loop, **args).result()


def _disturbed(home: Path, engine: str, workers: int, **args: Any) -> obl_magic.Run:
    """A run that loses its last rank once."""
    given = {"folder": str(home), "kills": True, **args}
    run = obl_magic.run(
        by_hand.loop,
        workers=workers,
        engine=engine,
        args=given,
        retries=1,
        min_workers=1,
        quiet=True,
        timeout=240,
    )
    assert (home / "killed").exists()
    return run


def _as_alone(run: obl_magic.Run, alone: dict[str, Any]) -> None:
    for value in run.values:
        for mine, theirs in zip(value["weights"], alone["weights"], strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-4)
        np.testing.assert_allclose(value["losses"], alone["losses"], atol=1e-4)
        assert value["best"].keys() == alone["best"].keys()


@pytest.mark.parametrize(
    ("data", "engine", "workers"),
    [("shuffled once", "mpi", 2), ("anew", "horovod", 2), ("permuted", "mpi", 3)],
)
def test_a_loop_goes_on_at_the_epoch_in_which_it_was_lost(
    home: Path, data: str, engine: str, workers: int
) -> None:
    """Weights, lists, dicts, metrics, generators of all kinds and the order of its data are those of one process."""
    alone = _alone(data=data)
    run = _disturbed(home, engine, workers, data=data)
    _as_alone(run, alone)
    assert alone["trained"] == list(range(by_hand.EPOCHS))
    assert run.value["trained"] == list(range(by_hand.KILLED_IN, by_hand.EPOCHS))


@pytest.mark.parametrize(
    ("args", "why"),
    [
        ({"when": "end"}, "it is first called when training has begun"),
        ({"data": "iterator"}, "an iterator that was made before it goes on inside the loop"),
        ({"data": "repeated"}, "its data repeat a shuffled dataset"),
    ],
)
def test_a_loop_that_cannot_be_led_begins_anew_and_that_is_said(
    home: Path, args: dict[str, Any], why: str
) -> None:
    """All its epochs are done again, so that the numbers are right."""
    run = _disturbed(home, "mpi", 2, **args)
    assert any("begins anew after a restart" in note and why in note for note in run.notes), run.notes
    assert run.value["trained"] == list(range(by_hand.EPOCHS))
    _as_alone(run, _alone(**args))
