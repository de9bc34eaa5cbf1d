"""The promise itself: training functions as users write them give on N ranks the numbers of one process.

Each world runs all cases that were asked for in one go; ``-k "mpi and 2"`` or ``-k arrays_shuffled`` asks for fewer.
"""

from __future__ import annotations

import os

import compare
import pytest
import worlds
from conftest import Outcome

pytestmark = pytest.mark.slow

ENGINES = ("mpi", "horovod")
SIZES = (2, 3, 4)
CASES = worlds.case_names()
EVERYWHERE = (
    "arrays_shuffled",
    "arrays_in_order_last_batch_of_one",
    "pandas_table",
    "sample_weights",
    "class_weights",
    "dataset_reshuffled_each_epoch",
    "dataset_repeated_with_steps",
    "dataset_from_generator",
    "dataset_of_ragged_rows",
    "dataset_of_sparse_rows",
    "pydataset_with_workers",
    "generator_that_ends",
    "evaluate_and_predict_odd_sizes",
    "batch_by_batch",
    "fewer_samples_than_ranks",
    "loss_summed",
    "loss_mean_over_the_weights",
    "loss_mean_over_weights_that_are_often_zero",
    "masked_average_pooling",
    "two_outputs_with_different_denominators",
    "loss_class",
    "own_compute_loss",
    "activity_regularizer",
    "train_step_of_the_guide",
    "clipped_by_hand_in_the_train_step",
    "gradient_accumulation",
    "scaled_loss",
    "embedding_with_sparse_gradients",
    "layer_without_gradient",
    "curves_under_areas",
    "f1_and_top_k",
    "metric_class",
    "largest_error",
    "weighted_metrics",
    "early_stopping",
    "checkpoint_in_a_temporary_folder",
    "csv_log_read_back",
    "callback_reading_every_batch",
    "terminate_on_nan",
    "swap_of_averaged_weights",
)
"""Cases that every test run compares in every world."""

ALSO = (
    "nested_inputs",
    "validation_split",
    "several_steps_per_execution",
    "train_step_with_own_mean",
    "two_optimizers_in_one_step",
    "masked_next_token",
    "precision_and_recall",
    "callback_changing_rate_and_weights",
    "backup_and_restore",
    "saved_and_loaded_under_one_name",
    "subclassed_and_built_lazily",
    "loop_by_hand_over_arrays",
)
"""Cases that ``OBL_PARITY=more`` compares in one world; ``all`` compares all there are in every one."""

ELSEWHERE = ("horovod", 2)
"""Where."""


def _worlds_of(case: str) -> list[tuple[str, int]]:
    if case in EVERYWHERE or os.environ.get("OBL_PARITY") == "all":
        return [(engine, workers) for engine in ENGINES for workers in SIZES]
    return [ELSEWHERE] if case in ALSO and os.environ.get("OBL_PARITY") == "more" else []


def test_the_cases_that_are_compared_everywhere_exist() -> None:
    """A renamed case is not dropped in silence."""
    assert {*EVERYWHERE, *ALSO} <= set(CASES)
    assert len(EVERYWHERE) >= 40


@pytest.mark.parametrize("case", EVERYWHERE)
def test_runs_by_itself(case: str, outcomes: Outcome) -> None:
    """In plain Python, without this package, a case gives the numbers that it gives on one rank."""
    alone, one = _value(outcomes(None), case), _value(outcomes(1), case)
    assert not compare.differences(alone, one)


@pytest.mark.parametrize(
    ("engine", "workers", "case"), [(*world, case) for case in CASES for world in _worlds_of(case)]
)
def test_same_numbers(case: str, engine: str, workers: int, outcomes: Outcome) -> None:
    """On N ranks a case gives the numbers of one, on every rank."""
    world = outcomes(workers, engine)
    expected, first = _value(outcomes(1), case), _value(world, case)
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
