"""What a user gets when a rank breaks: every way of breaking, at every place, on both engines, each within its time."""

from __future__ import annotations

import os
import re
from pathlib import Path

import breaking
import pytest

import obl_magic
from obl_magic.errors import RankDied

pytestmark = [pytest.mark.slow, pytest.mark.timing]

SAID_WITHIN_S = {"raises": 1.0, "exits": 2.0, "is killed": 2.0, "crashes": 2.0}
"""From the fault to the end of the run, with no process left."""
BUSY_S = 1.0
"""What a machine with more ranks than processors may add."""
HOW = {"exits": "exit code 7", "is killed": "signal 9 (Killed)", "crashes": "signal 11 (Segmentation fault)"}


ALL = [(place, way) for place in breaking.PLACES for way in breaking.WAYS]
SOME = [(place, breaking.WAYS[number % 4]) for number, place in enumerate(breaking.PLACES)]
"""Every place and every way at least once."""


@pytest.mark.parametrize(("place", "way"), ALL if os.environ.get("OBL_FAULTS") == "all" else SOME)
def test_a_rank_that_breaks_is_named_in_time(
    home: Path, engine: str, place: str, way: str, took: dict[tuple[str, str, str], float]
) -> None:
    """Which rank, how, after its last words; the world is gone (the guard of all tests looks for its processes)."""
    args = {"place": place, "way": way, "folder": str(home)}
    with pytest.raises(Exception, match=r"broken on purpose|rank 1 died") as caught:
        obl_magic.run(breaking.train, workers=2, engine=engine, args=args, quiet=True, timeout=120)
    run = caught.value.run
    ended_s = run.ledger.state.ended_s
    seconds = took[engine, way, place] = ended_s - float((home / "broke").read_text())
    assert run.status == "failed"
    assert "about to break" in run.logs(1)
    if way == "raises":
        assert "broken on purpose" in str(caught.value)
        assert re.search(r'breaking\.py"?, line \d+', "\n".join(caught.value.__notes__))
    else:
        assert isinstance(caught.value, RankDied)
        assert f"rank 1 died: {HOW[way]}" in str(caught.value)
        assert "about to break" in str(caught.value)
    assert seconds < SAID_WITHIN_S[way] + BUSY_S
