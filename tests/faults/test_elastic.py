"""Worlds that lose ranks and go on with what is left, or are moved to another size: the numbers stay."""

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
from obl_magic.errors import UsageProblem
from obl_magic.runs.run import Run

pytestmark = [pytest.mark.slow, pytest.mark.timing]

SEEDS = range(10 if os.environ.get("OBL_FAULTS") == "all" else 1)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    """The weights of one process."""
    return weights(tmp_path_factory)


def _is_as(run: Run, undisturbed: list[np.ndarray]) -> None:
    run.wait(240)
    assert run.status == "succeeded", run.error
    for mine, theirs in zip(run.value["weights"], undisturbed, strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-4)


def _until_stepped(run: Run, steps: int, after: int = 0) -> None:
    """Waits until so many steps were done, in a world that came after so many others."""
    deadline = time.monotonic() + 120
    while run.status == "running" and time.monotonic() < deadline:
        state = run.ledger.state
        if len(state.worlds) > after and state.progress and state.progress.stepped >= steps:
            return
        time.sleep(0.005)
    raise AssertionError(f"{run.status} with {run.ledger.state.progress}")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_world_goes_on_without_the_rank_that_it_lost(
    home: Path, undisturbed: list[np.ndarray], seed: int
) -> None:
    """Three ranks become two, whichever is killed, and whenever."""
    draw = random.Random(seed)
    args = {"folder": str(home)}
    run = obl_magic.run(
        lasting.two_fits,
        workers=3,
        args=args,
        retries=2,
        min_workers=2,
        background=True,
        quiet=True,
        engine="mpi",
    )
    _until_stepped(run, draw.randrange(1, 24))
    os.kill(run.ledger.state.ranks[draw.randrange(3)].pid, signal.SIGKILL)
    _is_as(run, undisturbed)
    assert run.ledger.state.workers == 2
    assert [world["workers"] for world in run.worlds] == [3, 2]
    assert any("from where it was kept last, on 2 ranks" in note for note in run.notes)
    assert len(run.values) == 2


def test_a_run_moves_to_other_sizes(home: Path, undisturbed: list[np.ndarray]) -> None:
    """From two ranks to three, and to one."""
    args = {"folder": str(home)}
    run = obl_magic.run(
        lasting.two_fits, workers=2, args=args, retries=1, background=True, quiet=True, engine="mpi"
    )
    for worlds, workers in enumerate((3, 1)):
        _until_stepped(run, 1, after=worlds)
        run.scale(workers)
    _is_as(run, undisturbed)
    assert [world["workers"] for world in run.worlds] == [2, 3, 1]
    assert run.ledger.state.restarts == 0
    with pytest.raises(UsageProblem, match="which is over"):
        run.scale(2)


def test_a_run_without_restarts_moves_at_the_end_of_its_epoch(
    home: Path, undisturbed: list[np.ndarray]
) -> None:
    """It is kept for that, whatever it costs."""
    run = obl_magic.run(
        lasting.two_fits, workers=2, args={"folder": str(home)}, background=True, quiet=True, engine="mpi"
    )
    _until_stepped(run, 1)
    run.scale(1)
    _is_as(run, undisturbed)
    assert [world["workers"] for world in run.worlds] == [2, 1]


def test_without_least_number_a_restart_is_as_large_as_before(
    home: Path, undisturbed: list[np.ndarray]
) -> None:
    """Nobody said that fewer will do."""
    args = {"folder": str(home)}
    run = obl_magic.run(
        lasting.two_fits, workers=2, args=args, retries=1, background=True, quiet=True, engine="mpi"
    )
    _until_stepped(run, 9)
    os.kill(run.ledger.state.ranks[1].pid, signal.SIGKILL)
    _is_as(run, undisturbed)
    assert [world["workers"] for world in run.worlds] == [2, 2]


@pytest.mark.parametrize("options", [{"min_workers": 2}, {"retries": 1, "min_workers": 3}])
def test_a_least_number_needs_restarts_and_as_many_workers(options: dict[str, int]) -> None:
    """Before anything is started."""
    with pytest.raises(UsageProblem, match="min_workers"):
        obl_magic.run(lasting.two_fits, workers=2, **options)  # type: ignore[arg-type]
