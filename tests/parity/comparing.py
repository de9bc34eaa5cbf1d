"""Which worlds each case meets, and how its numbers are compared there: shared by the tests of both engines."""

from __future__ import annotations

import os
from typing import Any

import compare
import pytest
import worlds
from conftest import Outcome

THEMES = worlds.themes()
CASES = worlds.case_names()
WORLDS = [(engine, workers) for engine in ("mpi", "horovod") for workers in (2, 3, 4)]
TURNS = (
    *(("mpi", 2), ("horovod", 3), ("horovod", 2), ("mpi", 3), ("mpi", 2), ("horovod", 2), ("mpi", 4)),
    *(("mpi", 2), ("horovod", 2), ("mpi", 3), ("mpi", 2), ("horovod", 3), ("horovod", 2), ("horovod", 4)),
)
"""The worlds that the cases of a theme meet in turn: the more ranks, the slower, and the less often."""
SIZES = (("horovod", 2), ("mpi", 3), ("mpi", 4))
"""The worlds of those cases that are compared on every number of ranks."""

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
"""Cases that are compared on every number of ranks, one included."""


def worlds_of(case: str) -> list[tuple[str, int]]:
    """The worlds that a case meets in this run of the tests."""
    if os.environ.get("OBL_PARITY") == "all":
        return WORLDS
    return list(SIZES) if case in EVERYWHERE else [COVERING[case]]


def covering() -> dict[str, tuple[str, int]]:
    """One world for each case: a theme's cases take turns, and each theme begins somewhere else."""
    found = {}
    for first, (theme, names) in enumerate(sorted(THEMES.items())):
        for number, name in enumerate(names):
            found[name] = PINNED.get(theme) or TURNS[(3 * first + number) % len(TURNS)]
    return found


COVERING = covering()
ON_ONE_RANK = CASES if os.environ.get("OBL_PARITY") == "all" else EVERYWHERE


def on(engine: str) -> list[tuple[int, str]]:
    """(ranks, case) of all comparisons with this engine."""
    return [(workers, case) for case in CASES for name, workers in worlds_of(case) if name == engine]


def same_numbers(case: str, engine: str, workers: int, outcomes: Outcome) -> None:
    """Fails unless a case gives the numbers of plain Python, on every rank."""
    expected = value(outcomes(None), case)
    world = outcomes(workers, engine)
    first = value(world, case)
    assert not compare.differences(expected, first)
    for rank in range(1, workers):
        assert not compare.differences(first, value(world, case, rank)), f"rank {rank} differs from rank 0"


def value(world: worlds.Outcomes, case: str, rank: int = 0) -> dict[str, Any]:
    """What a case gave on a rank; fails where it gave nothing."""
    if case in world.died:
        pytest.fail(f"the world ended in the middle of {case}:\n{world.died[case]}", pytrace=False)
    outcome = world.by_case[case][rank]
    if "error" in outcome:
        pytest.fail(f"{case} failed on rank {rank}:\n{outcome['traceback']}", pytrace=False)
    return outcome["value"]
