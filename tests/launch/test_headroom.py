"""More ranks than memory holds: asked about once, then let through."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

import obl_magic
from obl_magic.errors import UsageProblem
from obl_magic.events.event import Heartbeat, Started
from obl_magic.events.fold import RunState, empty, fold
from obl_magic.launch import headroom
from obl_magic.launch.headroom import KERAS_BYTES, PLAIN_BYTES, Headroom
from obl_magic.values import Captured

GB = 10**9


def captured(payload: bytes = b"", digest: str = "d1") -> Captured:
    """A function of that payload."""
    given = {field.name: None for field in dataclasses.fields(Captured)}
    return Captured(**{**given, "payload": payload, "digest": digest})  # type: ignore[arg-type]


def seen(*memory_bytes: int, digest: str = "d1") -> RunState:
    """Ranks that had so much in use, one after the other."""
    state = empty()
    for rank, size in enumerate(memory_bytes):
        state = fold(state, Started(rank, 0.0, 100 + rank, "host", digest, "mpi", rank, len(memory_bytes)))
        state = fold(state, Heartbeat(rank, 1.0, 0, "", memory_bytes=size))
        state = fold(state, Heartbeat(rank, 2.0, 0, "", memory_bytes=size // 2))
    return state


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 2 GB left."""
    monkeypatch.setattr(headroom, "available_bytes", lambda: 2 * GB)


def test_what_does_not_fit_is_asked_about_once(free: None) -> None:
    """With how many fit, and what to do to have it all the same."""
    here = Headroom()
    fits = 2 * GB // KERAS_BYTES
    here.check(captured(b"keras"), fits)
    with pytest.raises(UsageProblem) as asked:
        here.check(captured(b"keras"), 8)
    assert str(asked.value) == (
        "got 8 ranks that take 0.31 GB each (before they hold any data), 2.5 GB in all, with 2.0 GB of memory free; "
        f"expected as many as fit; do: workers={fits}, or the same once more to run it all the same"
    )
    here.check(captured(b"keras"), 8)
    with pytest.raises(UsageProblem):
        here.check(captured(b"keras"), 9)


def test_a_function_without_keras_takes_little(free: None) -> None:
    """Python by itself."""
    here = Headroom()
    here.check(captured(), 2 * GB // PLAIN_BYTES)
    with pytest.raises(UsageProblem):
        here.check(captured(), 2 * GB // PLAIN_BYTES + 1)


def test_the_next_run_knows_what_the_ranks_of_the_last_one_took(free: None) -> None:
    """The most that one of them had in use; of this function, not of another."""
    here = Headroom()
    here.learn(seen(GB // 2, 9 * GB // 10))
    here.check(captured(b"keras"), 2)
    here.check(captured(b"keras", "d2"), 3)
    with pytest.raises(UsageProblem, match=r"3 ranks that take 0.9 GB each \(as the last ones did\)"):
        here.check(captured(b"keras"), 3)


@pytest.mark.slow
def test_ranks_tell_what_they_have_in_use(home: Path) -> None:
    """A gigabyte no other process shares; it is asked about when four of them would not fit."""

    def holds() -> int:
        import time

        import numpy as np

        kept = np.ones(2**28, "float32")
        time.sleep(1.5)
        return len(kept)

    run = obl_magic.run(holds, workers=1, engine="mpi", quiet=True)
    assert 2**30 < run._state.ranks[0].memory_bytes < 2**30 + 2**28
    with pytest.raises(UsageProblem, match="as the last ones did"):
        obl_magic.run(holds, workers=2000, engine="mpi", quiet=True)
    assert len(list((home / "runs").iterdir())) == 1
