"""What the ranks share: it is known by the objects themselves, never by a number that another may get."""

from __future__ import annotations

import gc
import weakref

import pytest

from obl_magic.worker.engines.collectives import connect
from obl_magic.worker.frameworks.keras.state import SharedState

pytestmark = pytest.mark.slow


class Optimizer:
    """Stands for one; only its identity matters here."""


def test_an_optimizer_whose_variables_are_compared_at_the_end_is_held() -> None:
    """Else the next one might get its id on some ranks and not on others, and they would compare different lists."""
    state = SharedState(connect("alone"))
    optimizer = Optimizer()
    seen = weakref.ref(optimizer)
    state.trains(optimizer, [])
    del optimizer
    gc.collect()
    assert seen() is not None
