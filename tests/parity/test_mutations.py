"""The suite is worth what it notices: each fault, put into the adapter on purpose, must show in its numbers."""

from __future__ import annotations

from pathlib import Path

import compare
import pytest
import worlds
from conftest import Outcome
from mutations import SLUGS

pytestmark = pytest.mark.slow

WORKERS = 3
IN_ORDER = ("arrays_in_order_last_batch_of_one", "dataset_batched")
"""Cases that no seed of a rank's own may change."""
DRAWS = "pydataset_drawing_by_its_index"
HANDFUL = (
    *IN_ORDER,
    "arrays_shuffled",
    "loss_summed",
    "masked_next_token",
    "precision_and_recall",
    "curves_under_areas",
    "train_step_with_own_mean",
    "fewer_samples_than_ranks",
    "retrieval_with_in_batch_negatives",
    "mean_of_the_batch_taken_away",
    "dropout_of_inputs_with_a_seed",
    "slices_of_ones_own_array_in_a_pydataset",
    DRAWS,
)
AT_LEAST = {
    "nothing reduced": {"arrays_shuffled", "dataset_batched", "train_step_with_own_mean"},
    "averaged, not weighted": {"arrays_in_order_last_batch_of_one", "fewer_samples_than_ranks"},
    "gathered without gradient": {"retrieval_with_in_batch_negatives", "train_step_with_own_mean"},
    "parts added twice": {"retrieval_with_in_batch_negatives", "train_step_with_own_mean"},
    "every proof agrees": {"mean_of_the_batch_taken_away"},
    "noise of each rank's own": {"dropout_of_inputs_with_a_seed"},
    "slices borrow memory": {"slices_of_ones_own_array_in_a_pydataset"},
    "nothing sharded": {"arrays_shuffled", "loss_summed", "precision_and_recall"},
    "nothing sharded, but averaged": {"precision_and_recall"},
    "nothing broadcast": {"arrays_in_order_last_batch_of_one", "dataset_batched"},
    "metrics not combined": {"arrays_shuffled", "curves_under_areas", "precision_and_recall"},
    "denominators local": {"loss_summed", "masked_next_token"},
    "stand-ins counted": {"fewer_samples_than_ranks"},
}


@pytest.fixture(scope="module")
def broken(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> worlds.Outcomes:
    """All faults of this session one after the other in one world, each with the cases that must notice it."""
    asked = {
        getattr(item, "callspec", None) and item.callspec.params.get("slug") for item in request.session.items
    }  # type: ignore[attr-defined]
    faulty = [
        f"{case}@{slug}" for slug, fault in SLUGS.items() if slug in asked for case in sorted(AT_LEAST[fault])
    ]
    return worlds.run(tmp_path_factory.mktemp("faults"), faulty, WORKERS)


@pytest.mark.parametrize("slug", SLUGS)
def test_notices(slug: str, outcomes: Outcome, broken: worlds.Outcomes) -> None:
    """A broken adapter does not pass."""
    cases = AT_LEAST[SLUGS[slug]]
    got = worlds.Outcomes(
        {case: broken.by_case.get(f"{case}@{slug}", {}) for case in cases},
        {case: said for case in cases if (said := broken.died.get(f"{case}@{slug}"))},
    )
    assert _noticed(outcomes(None), got) == cases


def test_weights_are_rank_0s(outcomes: Outcome, tmp_path: Path) -> None:
    """Ranks that draw other initial weights train the same model all the same."""
    drawn = worlds.run(tmp_path, list(IN_ORDER), WORKERS, mutation="seeds differ")
    assert not _noticed(outcomes(None), drawn)


@pytest.mark.parametrize("fault", ["nothing reduced", "nothing broadcast"])
def test_running_checksum_notices(fault: str, tmp_path: Path) -> None:
    """Where ranks come to hold different weights, the run itself fails and names it."""
    broken = worlds.run(tmp_path, [IN_ORDER[1]], WORKERS, mutation=fault)
    errors = [outcome.get("error", "") for outcome in broken.by_case[IN_ORDER[1]].values()]
    assert all(error.startswith("RanksDiverged") for error in errors), errors


def test_other_data_on_a_rank_is_refused(tmp_path: Path) -> None:
    """Where ranks read other rows, no rank trains on them: the run says so by name."""
    differ = worlds.run(tmp_path, [DRAWS], WORKERS, mutation="data differ")
    errors = [outcome.get("error", "") for outcome in differ.by_case[DRAWS].values()]
    assert all(error.startswith("NotOblivious: the ranks read different data") for error in errors), errors


def test_notices_other_data(outcomes: Outcome, tmp_path: Path) -> None:
    """Were they not compared, the numbers would be others."""
    unseen = worlds.run(tmp_path, [DRAWS], WORKERS, mutation="data differ, unseen")
    assert _noticed(outcomes(None), unseen) == {DRAWS}


def _noticed(expected: worlds.Outcomes, got: worlds.Outcomes) -> set[str]:
    """The cases whose numbers differ on any rank, or that failed."""
    noticed = set(got.died)
    for case, by_rank in got.by_case.items():
        right = expected.by_case[case][0]["value"]
        if any("error" in one or compare.differences(right, one["value"]) for one in by_rank.values()):
            noticed.add(case)
    return noticed
