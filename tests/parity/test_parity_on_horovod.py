"""As :mod:`test_parity`, with the engine ``horovod``: a file of its own, so that both run at a time."""

from __future__ import annotations

import pytest
from comparing import on, same_numbers
from conftest import Outcome

pytestmark = pytest.mark.slow

ENGINE = "horovod"


@pytest.mark.parametrize(("workers", "case"), on(ENGINE))
def test_same_numbers(case: str, workers: int, outcomes: Outcome) -> None:
    """On N ranks a case gives the numbers of plain Python, on every rank."""
    same_numbers(case, ENGINE, workers, outcomes)
