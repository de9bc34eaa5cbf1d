"""A rank whose memory runs out: told as the exception that it is, or as the death of that rank; nothing is left.

A rank that the kernel's own out-of-memory killer ends is killed by signal 9, as in ``test_faults.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import filling
import pytest

import obl_magic
from obl_magic.errors import RankDied, RunStalled

pytestmark = [pytest.mark.slow, pytest.mark.timing]

SAID_WITHIN_S = 1.0
BUSY_S = 1.0
"""What a machine with more ranks than processors may add."""


def ended_after_s(error: BaseException, home: Path) -> float:
    """Seconds from what broke to the end of the run."""
    ended_s: float = error.run.ledger.state.ended_s  # type: ignore[attr-defined]
    return ended_s - float((home / "broke").read_text())


@pytest.fixture(autouse=True)
def _functions_are_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """They lie in the first folder that Python looks in, as beside a notebook."""
    monkeypatch.setattr(sys, "path", [str(Path(filling.__file__).parent), *sys.path])


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (filling.one_large_array, "Unable to allocate 2.00 GiB"),
        (filling.a_hoard_in_reach_of_the_traceback, "MemoryError"),
    ],
)
def test_memory_that_is_not_there_is_an_exception_of_the_cell(
    home: Path, function: Callable[..., None], said: str
) -> None:
    """With the line that asked for it, although what filled the memory is still held by the traceback."""
    with pytest.raises(MemoryError, match=said) as caught:
        obl_magic.run(function, workers=2, engine="mpi", args={"folder": str(home)}, quiet=True, timeout=60)
    assert caught.value.__notes__[0].startswith("rank 1 raised at filling.py, line ")
    assert ended_after_s(caught.value, home) < SAID_WITHIN_S + BUSY_S
    assert "before it was full" in caught.value.run.logs(1)  # type: ignore[attr-defined]


def test_a_tensor_too_large_is_tensorflows_own_exception(home: Path) -> None:
    """In the middle of a fit, with the other rank in a collective."""
    with pytest.raises(Exception, match=r"OOM when allocating tensor with shape\[268435456\]") as caught:
        obl_magic.run(filling.one_large_tensor, workers=2, args={"folder": str(home)}, quiet=True, timeout=90)
    assert type(caught.value).__name__ == "ResourceExhaustedError"
    assert "rank 1 raised at filling.py, line " in caught.value.__notes__[0]
    assert ended_after_s(caught.value, home) < SAID_WITHIN_S + BUSY_S


def test_a_rank_without_a_byte_left_is_told_one_way_or_the_other(home: Path) -> None:
    """Not even MPI's threads have memory then: the rank raises if it still can, else it is named as dead, or stands."""
    args = {"folder": str(home)}
    with pytest.raises((MemoryError, obl_magic.errors.RunFailed)) as caught:
        obl_magic.run(
            filling.to_the_last_byte,
            workers=2,
            engine="mpi",
            args=args,
            quiet=True,
            stall_timeout=15,
            timeout=60,
        )
    if isinstance(caught.value, RunStalled):
        assert "rank 1: " in str(caught.value)
        return
    if isinstance(caught.value, RankDied):
        assert str(caught.value).startswith("rank 1 died: signal ")
        assert "before it was full" in str(caught.value)
    else:
        assert caught.value.__notes__[0].startswith("rank 1 raised at filling.py, line ")
    assert caught.value.run.status == "failed"  # type: ignore[union-attr]
    assert ended_after_s(caught.value, home) < 2.0 + BUSY_S
