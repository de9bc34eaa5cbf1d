"""Ranks killed at random moments of a training that may restart: every one ends with the undisturbed weights."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import lasting
import numpy as np
import pytest
from undisturbed import weights

import obl_magic
from obl_magic.runs.run import Run

pytestmark = [pytest.mark.slow, pytest.mark.timing]

SEEDS = range(10 if os.environ.get("OBL_FAULTS") == "all" else 1)
WORKERS = 4
STEPS = 4 * 8
"""Of each of the function's two fits."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    """The weights where nobody is killed."""
    return weights(tmp_path_factory, workers=WORKERS, engine="mpi")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_rank_killed_at_a_random_moment_changes_nothing(
    home: Path, undisturbed: list[np.ndarray], seed: int
) -> None:
    """While it comes up, in the middle of a step, between two fits: whenever."""
    draw = random.Random(seed)
    args = {"folder": str(home)}
    run = obl_magic.run(
        lasting.two_fits, workers=WORKERS, engine="mpi", args=args, retries=4, background=True, quiet=True
    )
    for _ in range(draw.choice([1, 2])):
        _kill_one(run, draw)
    run.wait(240)
    assert run.status == "succeeded", run.error
    for mine, theirs in zip(run.value["weights"], undisturbed, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)


def _kill_one(run: Run, draw: random.Random) -> None:
    """Kills a random rank after a random number of steps, or as soon as it is up."""
    step, rank = draw.randrange(STEPS), draw.randrange(WORKERS)
    restarts = run.ledger.state.restarts
    deadline = time.monotonic() + 120
    while run.status == "running" and time.monotonic() < deadline:
        state = run.ledger.state
        up = state.ranks.get(rank)
        if up is not None and up.pid and (step == 0 or (state.progress and state.progress.stepped >= step)):
            os.kill(up.pid, signal.SIGKILL)
            break
        time.sleep(0.005)
    while run.status == "running" and run.ledger.state.restarts == restarts and time.monotonic() < deadline:
        time.sleep(0.01)
