"""The promise itself: training functions as users write them give on N ranks the numbers of one process.

Every case runs in one world at least, a dozen in every one; ``OBL_PARITY=all`` compares all of them everywhere. Each
world runs its cases in one go; ``-k "mpi and 2"`` or ``-k arrays_shuffled`` asks for fewer.
"""

from __future__ import annotations

import os

import compare
import pytest
import worlds
from conftest import Outcome

pytestmark = pytest.mark.slow

THEMES = worlds.themes()
CASES = worlds.case_names()
WORLDS = [(engine, workers) for engine in ("mpi", "horovod") for workers in (2, 3, 4)]
TURNS = (
    *(("mpi", 2), ("horovod", 3), ("horovod", 2), ("mpi", 3), ("mpi", 4)),
    *(("horovod", 2), ("mpi", 3), ("mpi", 2), ("horovod", 3), ("horovod", 4)),
)
"""The worlds that the cases of a theme meet in turn; four ranks, the slowest, half as often as two and three."""

PINNED = {"earlier_cells": ("horovod", 2)}
"""Themes whose cases need a run of their own, so they meet one world together."""

EVERYWHERE = (
    "arrays_in_order_last_batch_of_one",
    "dataset_reshuffled_each_epoch",
    "generator_that_ends",
    "fewer_samples_than_ranks",
    "loss_mean_over_the_weights",
    "train_step_of_the_guide",
    "embedding_with_sparse_gradients",
    "f1_and_top_k",
    "early_stopping",
    "retrieval_with_in_batch_negatives",
    "l2_by_hand_in_the_step",
    "loop_counting_what_is_right_by_hand",
    "dropout_of_inputs_with_a_seed",
    "batch_normalization_in_a_loop_by_hand",
)
"""Cases that every test run compares in every world, and on one rank."""


def _worlds_of(case: str) -> list[tuple[str, int]]:
    if case in EVERYWHERE or os.environ.get("OBL_PARITY") == "all":
        return WORLDS
    return [COVERING[case]]


def _covering() -> dict[str, tuple[str, int]]:
    """One world for each case: a theme's cases take turns, and each theme begins somewhere else."""
    found = {}
    for first, (theme, names) in enumerate(sorted(THEMES.items())):
        for number, name in enumerate(names):
            found[name] = PINNED.get(theme) or TURNS[(3 * first + number) % len(TURNS)]
    return found


COVERING = _covering()
ON_ONE_RANK = CASES if os.environ.get("OBL_PARITY") == "all" else EVERYWHERE


def test_every_case_is_compared_somewhere() -> None:
    """Each case has a world, each theme meets every world, and a renamed case is not dropped in silence."""
    assert set(COVERING) == set(CASES)
    assert set(EVERYWHERE) <= set(CASES)
    assert len(CASES) == len(set(CASES))
    for theme, names in THEMES.items():
        assert theme in PINNED or {COVERING[name] for name in names} == set(WORLDS), theme


@pytest.mark.parametrize("case", ON_ONE_RANK)
def test_one_rank_changes_nothing(case: str, outcomes: Outcome) -> None:
    """On one rank a case gives the numbers that it gives in plain Python, without this package."""
    assert not compare.differences(_value(outcomes(None), case), _value(outcomes(1), case))


@pytest.mark.parametrize(
    ("engine", "workers", "case"), [(*world, case) for case in CASES for world in _worlds_of(case)]
)
def test_same_numbers(case: str, engine: str, workers: int, outcomes: Outcome) -> None:
    """On N ranks a case gives the numbers of plain Python, on every rank."""
    expected = _value(outcomes(None), case)
    world = outcomes(workers, engine)
    first = _value(world, case)
    assert not compare.differences(expected, first)
    for rank in range(1, workers):
        assert not compare.differences(first, _value(world, case, rank)), f"rank {rank} differs from rank 0"


def _value(world: worlds.Outcomes, case: str, rank: int = 0) -> dict[str, object]:
    if case in world.died:
        pytest.fail(f"the world ended in the middle of {case}:\n{world.died[case]}", pytrace=False)
    outcome = world.by_case[case][rank]
    if "error" in outcome:
        pytest.fail(f"{case} failed on rank {rank}:\n{outcome['traceback']}", pytrace=False)
    return outcome["value"]
