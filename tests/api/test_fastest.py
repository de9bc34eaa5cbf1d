"""``--workers auto``: on how many ranks a function is fastest, measured on some of its steps."""

from __future__ import annotations

from pathlib import Path

import pytest

import obl_magic
from obl_magic.api.fastest import Fastest
from obl_magic.errors import UsageProblem

pytestmark = [pytest.mark.slow, pytest.mark.timing]


def _small(epochs: int = 60) -> list[float]:
    import keras
    import numpy as np

    x = np.random.RandomState(0).rand(640, 12).astype("float32")
    model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(14, "tanh"), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    losses: list[float] = model.fit(x, x[:, :1], batch_size=16, epochs=epochs, verbose=0).history["loss"]
    return losses


def _plain() -> int:
    return 7


def test_a_model_of_two_hundred_parameters_runs_on_one_rank(home: Path) -> None:
    """Two take longer for each step; it says so, and knows it when more are asked for later."""
    run = obl_magic.run(_small, workers="auto", engine="mpi", quiet=True)  # type: ignore[arg-type]
    assert run.status == "succeeded"
    assert run.workers == 1
    (said,) = [note for note in run.notes if note.startswith("workers=auto took 1 (1 rank ")]
    assert "ms a step, 2 ranks " in said
    assert len(list((home / "runs").iterdir())) == 1  # what was measured is not kept
    two = obl_magic.run(_small, workers=2, engine="mpi", quiet=True)
    assert any("2 ranks are slower than one here" in note for note in two.notes)
    assert two.value == pytest.approx(run.value, abs=1e-5)


def test_two_ranks_that_turned_out_slower_than_the_kernel_are_told_so(home: Path) -> None:
    """Nobody needs to have asked for ``auto``; other arguments are another call."""
    for workers in (None, 2):
        run = obl_magic.run(_small, workers=workers, engine="mpi", quiet=True, args={"epochs": 200})
        assert not [note for note in run.notes if "slower" in note]
    again = obl_magic.run(_small, workers=2, engine="mpi", quiet=True, args={"epochs": 200})
    (said,) = [note for note in again.notes if "2 ranks are slower than one here (1 rank " in note]
    assert said.endswith("; do: --workers auto")
    other = obl_magic.run(_small, workers=2, engine="mpi", quiet=True, args={"epochs": 2})
    assert not [note for note in other.notes if "slower" in note]


def test_a_function_without_steps_runs_on_one_rank(home: Path) -> None:
    """There is nothing to measure, and it says so."""
    run = obl_magic.run(_plain, workers="auto", quiet=True)  # type: ignore[arg-type]
    assert (run.value, run.workers) == (7, 1)
    assert "workers=auto: no steps of a fit to measure, so it runs on 1 rank" in run.notes


def test_what_the_function_raises_is_raised(home: Path) -> None:
    """While it is measured, as it would be later."""

    def wrong() -> None:
        raise ValueError("no good")

    with pytest.raises(ValueError, match="no good"):
        obl_magic.run(wrong, workers="auto", quiet=True)  # type: ignore[arg-type]


def test_studies_take_numbers_only() -> None:
    """Their ranks are those of all trials."""
    with pytest.raises(UsageProblem, match="workers='auto'"):
        obl_magic.search(_plain, space={"a": (0, 1)}, minimize="value", workers="auto")  # type: ignore[arg-type]


def test_the_figures_read_as_a_sentence() -> None:
    """In the order of the sizes."""
    assert Fastest(2, {1: 0.023, 4: 0.02, 2: 0.0131}).told == (
        "workers=auto took 2 (1 rank 23 ms a step, 2 ranks 13.1 ms, 4 ranks 20 ms)"
    )
