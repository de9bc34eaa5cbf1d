"""The promise itself: training functions as users write them give on N ranks the numbers of one process.

Each world runs all cases that were asked for in one go; ``-k "mpi and 2"`` or ``-k arrays_shuffled`` asks for fewer.
"""

from __future__ import annotations

import importlib.util

import compare
import pytest
import worlds
from conftest import Outcome

pytestmark = pytest.mark.slow

CASES = worlds.case_names()
ENGINES = ("mpi", "horovod")
SIZES = (2, 3, 4)


@pytest.mark.parametrize("case", CASES)
def test_runs_by_itself(case: str, outcomes: Outcome) -> None:
    """In plain Python, without this package, a case gives the numbers that it gives on one rank."""
    alone, one = _value(outcomes(None), case), _value(outcomes(1), case)
    assert not compare.differences(alone, one)


@pytest.mark.parametrize("workers", SIZES)
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("case", CASES)
def test_same_numbers(case: str, engine: str, workers: int, outcomes: Outcome) -> None:
    """On N ranks a case gives the numbers of one, on every rank."""
    if engine == "horovod" and importlib.util.find_spec("horovod") is None:
        pytest.skip("Horovod is not installed")
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
