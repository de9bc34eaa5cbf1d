"""The promise itself: training functions as users write them give on N ranks the numbers of one process.

Every case runs in one world at least, a dozen in worlds of every size; ``OBL_PARITY=all`` compares all of them in every
world, of both engines. Each world runs its cases in one go; ``-k "mpi and 2"`` asks for fewer.
"""

from __future__ import annotations

import compare
import pytest
from comparing import (
    CASES,
    COVERING,
    EVERYWHERE,
    ON_ONE_RANK,
    PINNED,
    THEMES,
    WORLDS,
    on,
    same_numbers,
    value,
)
from conftest import Outcome

pytestmark = pytest.mark.slow


def test_every_case_is_compared_somewhere() -> None:
    """Each case has a world, each theme meets both engines on two and three ranks, and no renamed case is dropped."""
    assert set(COVERING) == set(CASES)
    assert set(EVERYWHERE) <= set(CASES)
    assert len(CASES) == len(set(CASES))
    for theme, names in THEMES.items():
        assert theme in PINNED or {COVERING[name] for name in names} >= set(WORLDS[:2] + WORLDS[3:5]), theme
    assert set(COVERING.values()) == set(WORLDS)


@pytest.mark.parametrize("case", ON_ONE_RANK)
def test_one_rank_changes_nothing(case: str, outcomes: Outcome) -> None:
    """On one rank a case gives the numbers that it gives in plain Python, without this package."""
    assert not compare.differences(value(outcomes(None), case), value(outcomes(1), case))


@pytest.mark.parametrize(("workers", "case"), on("mpi"))
def test_same_numbers(case: str, workers: int, outcomes: Outcome) -> None:
    """On N ranks a case gives the numbers of plain Python, on every rank; here with the engine ``mpi``."""
    same_numbers(case, "mpi", workers, outcomes)
