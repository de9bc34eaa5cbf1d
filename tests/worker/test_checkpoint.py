"""``obl_magic.checkpoint`` outside a run, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

import obl_magic


def test_outside_a_run_it_does_nothing() -> None:
    """Whatever it is given, so a loop that has it runs anywhere."""
    assert obl_magic.checkpoint() == 0
    assert obl_magic.checkpoint(object(), [1], {"a": 1}) == 0


def test_a_function_that_does_not_go_on_begins_at_its_first_epoch(home: Path) -> None:
    """There is nothing to go on with, in the kernel either."""

    def count() -> list[int]:
        return [obl_magic.checkpoint([1]) for _ in range(3)]

    assert obl_magic.run(count, quiet=True).value[0] == 0


@pytest.mark.slow
def test_what_cannot_be_kept_is_refused_by_name(home: Path) -> None:
    """Before the loop begins, with what can be."""

    def train() -> None:
        import keras

        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        obl_magic.checkpoint(model, "epoch 1")

    with pytest.raises(
        Exception, match=r"got obl_magic.checkpoint\(str\); expected models, optimizers, metrics, "
    ) as caught:
        obl_magic.run(train, workers=2, engine="mpi", quiet=True)
    assert "do: obl_magic.checkpoint(model, optimizer, history)" in str(caught.value)
