"""Runs that are asked to stop, and runs that lose a rank: on real ranks."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import below
import lasting
import numpy as np
import pytest

import obl_magic
from obl_magic.errors import RunFailed, UsageProblem
from obl_magic.runs.run import Run

pytestmark = [pytest.mark.slow, pytest.mark.timing]


def under_way(run: Run, steps: int = 8, within_s: float = 90) -> Run:
    """The run, as soon as it has done some steps."""
    deadline = time.monotonic() + within_s
    while run.status == "running" and time.monotonic() < deadline:
        if any(rank.step >= steps for rank in run.ledger.state.ranks.values()):
            return run
        time.sleep(0.02)
    raise AssertionError(f"no {steps} steps: {run.status} {run.error}")


def test_a_fit_that_is_asked_to_stop_does_so_at_a_step_and_its_model_is_kept(home: Path, engine: str) -> None:
    """Partial metrics and the last weights, on no rank a collective left open."""
    args = {"seconds": 0.01}
    run = under_way(
        obl_magic.run(lasting.steps_of, workers=2, engine=engine, args=args, background=True, quiet=True)
    )
    began = time.monotonic()
    run.stop()
    assert time.monotonic() - began < 5
    assert run.status == "interrupted"
    assert [layer.shape for layer in run.value.get_weights()] == [(64, 24), (24,), (24, 10), (10,)]
    assert run.values[1] is None
    assert len(run.metrics)
    assert isinstance(run.error, KeyboardInterrupt)


def test_a_function_that_catches_the_interrupt_returns_what_it_likes(home: Path) -> None:
    """As it would in the kernel."""
    run = under_way(
        obl_magic.run(lasting.saves_when_interrupted, workers=2, engine="mpi", background=True, quiet=True)
    )
    run.stop()
    assert (run.status, run.values) == ("interrupted", ["caught", "caught"])


def test_a_step_that_takes_too_long_is_not_waited_for(home: Path) -> None:
    """Three seconds, then the world is ended; asked twice, at once."""
    args = {"seconds": 60}
    run = obl_magic.run(lasting.steps_of, workers=2, engine="mpi", args=args, background=True, quiet=True)
    under_way(run, steps=1)
    began = time.monotonic()
    run._live._stopping.press()
    run.stop()
    assert time.monotonic() - began < 2
    assert run.status == "interrupted"
    assert run.value is None


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict:
    """What the function gives where nobody dies."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("undisturbed")
        patch.setenv("OBLIVIOUS_HOME", str(folder))
        patch.chdir(folder)
        run = obl_magic.run(
            lasting.two_fits, workers=2, engine="horovod", args={"folder": str(folder)}, quiet=True
        )
        return {**run.value, "log": (folder / "log-2.csv").read_text()}


def test_a_killed_rank_costs_no_epoch_and_changes_no_number(home: Path, undisturbed: dict) -> None:
    """Killed in the first fit and in the second: curves, weights, callbacks' memory and logs as if nothing had been."""
    args = {"folder": str(home), "killed_at": [(1, 2), (2, 1)]}
    run = obl_magic.run(lasting.two_fits, workers=2, engine="horovod", args=args, retries=2, quiet=True)
    right = undisturbed
    assert run.value["seen"] == right["seen"]
    for mine, theirs in zip(run.value["curves"], right["curves"], strict=True):
        assert list(mine) == list(theirs)
        for name in theirs:
            np.testing.assert_allclose(mine[name], theirs[name], rtol=1e-5, err_msg=name)
    for mine, theirs in zip(run.value["weights"], right["weights"], strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
    assert (home / "log-2.csv").read_text().count("\n") == right["log"].count("\n")
    assert sum("restarted after a failure (rank 1 died: signal 9" in note for note in run.notes) == 2
    epochs = run.metrics.query("name == 'loss'")
    assert list(epochs["epoch"]) == [1, 2, 3, 4, 1, 2, 3, 4]


def test_a_run_that_died_is_gone_on_with_by_hand(home: Path, undisturbed: dict) -> None:
    """A new run, which says whose epochs it has."""
    args = {"folder": str(home), "killed_at": [(1, 3), (2, 2)]}
    with pytest.raises(obl_magic.errors.RankDied) as caught:
        obl_magic.run(lasting.two_fits, workers=2, engine="horovod", args=args, retries=1, quiet=True)
    earlier = caught.value.run.id
    run = obl_magic.run(lasting.two_fits, workers=2, engine="horovod", args=args, resume=earlier, quiet=True)
    for mine, theirs in zip(run.value["weights"], undisturbed["weights"], strict=True):
        np.testing.assert_allclose(mine, theirs, atol=1e-5)
    assert f"goes on from run {earlier}" in run.notes


def test_a_failure_that_comes_again_is_told_after_the_last_try(home: Path) -> None:
    """Each try is on record."""
    with pytest.raises(OSError, match="no such luck") as caught:
        obl_magic.run(lasting.raises_always, workers=2, engine="mpi", retries=1, quiet=True)
    assert (
        sum("restarted after a failure (OSError: no such luck)" in note for note in caught.value.run.notes)
        == 1
    )


def test_a_run_that_kept_nothing_cannot_be_gone_on_with(home: Path) -> None:
    """Said before anything is started; no empty run is left behind."""
    with pytest.raises(OSError, match="no such luck") as caught:
        obl_magic.run(lasting.raises_always, workers=1, quiet=True)
    with pytest.raises(UsageProblem, match=r"got resume=.* \(a run that has kept no epoch\)"):
        obl_magic.run(lasting.raises_always, workers=1, resume=caught.value.run.id, quiet=True)
    assert len(list((home / "runs").iterdir())) == 1


class Slow:
    """Takes long to pickle, and sends an interrupt meanwhile."""

    pickled = 0

    def __init__(self, nth: int) -> None:
        self.nth = nth

    def __reduce__(self) -> tuple[type, tuple[int]]:
        type(self).pickled += 1
        if type(self).pickled == self.nth:
            os.kill(os.getpid(), signal.SIGINT)
            never = threading.Event()
            assert not never.wait(20), "the interrupt was held back"
        return int, (self.nth,)


def gives_back(value: object = None) -> object:
    """Returns what it was given."""
    return value


@pytest.mark.parametrize("nth", [1, 2, 3], ids=["captured", "described", "written down"])
def test_an_interrupt_while_a_large_argument_is_pickled_is_one_at_once(
    home: Path, monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    """Before anything is started; a run whose folder was there already is over, as interrupted."""
    monkeypatch.setattr(Slow, "pickled", 0)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        obl_magic.run(gives_back, workers=2, engine="mpi", args={"value": Slow(nth)}, quiet=True)
    assert Slow.pickled == nth
    assert time.monotonic() - began < 5
    assert [obl_magic.Run.open(folder.name).status for folder in (home / "runs").glob("*")] in (
        [], ["interrupted"],
    )  # fmt: skip


def interrupt_when(line: str, home: Path) -> threading.Thread:
    """Interrupts this process as soon as rank 0 of its only run has printed ``line``."""

    def look() -> None:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            if any(line in log.read_text() for log in (home / "runs").glob("*/rank-0.log")):
                os.kill(os.getpid(), signal.SIGINT)
                return
            time.sleep(0.01)

    thread = threading.Thread(target=look)
    thread.start()
    return thread


@pytest.mark.parametrize(
    "function",
    [lasting.alone_in_a_reduction, lasting.computes_in_c, lasting.forks_and_waits, lasting.imports_for_ever],
)
def test_an_interrupt_ends_a_run_wherever_its_ranks_are(
    home: Path, engine: str, function: Callable[[], None]
) -> None:
    """In a collective whose other rank never comes, in TensorFlow's C code, in a child, in an import."""
    thread = interrupt_when("now", home)
    with pytest.raises(KeyboardInterrupt) as caught:
        obl_magic.run(function, workers=2, engine=engine, quiet=True, timeout=120)
    thread.join()
    run = caught.value.run  # type: ignore[attr-defined]
    assert run.status == "interrupted"
    assert time.time() - run.ledger.state.ended_s < 1
    said_s = float(run.logs(0).split("now ")[1].split()[0])
    assert run.ledger.state.ended_s - said_s < 5


def test_a_fault_of_ours_ends_the_run_by_name(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for the run is told, and its world is gone."""

    def broken(watched: Any) -> str:
        raise AttributeError("no such thing")

    monkeypatch.setattr("obl_magic.launch.watch.Watched._stalled", broken)
    with pytest.raises(RunFailed, match=r"obl_magic itself failed: AttributeError: no such thing"):
        obl_magic.run(lasting.steps_of, workers=2, engine="mpi", args={"seconds": 60}, quiet=True)
    assert below.worlds() == []
