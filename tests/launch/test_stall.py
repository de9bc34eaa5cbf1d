"""Which rank holds up a world: from its events alone, and on real ranks with real faults."""

from __future__ import annotations

import pytest
from stalling import (
    hangs_in_c,
    loops_for_ever,
    returns_early,
    stopped_by_a_signal,
    waits_in_a_generator,
)

import obl_magic
from obl_magic.errors import NotOblivious, RunStalled
from obl_magic.events.event import Event, Heartbeat, Log, Progress, Result, Started
from obl_magic.events.fold import RunState, empty, fold
from obl_magic.launch import stall

pytestmark = pytest.mark.timing


def state(*events: Event) -> RunState:
    """All folded."""
    folded = empty()
    for event in events:
        folded = fold(folded, event)
    return folded


def lookout(*events: Event, ranks: int = 2, until_s: float = 10) -> tuple[stall.Lookout, RunState]:
    """One that has seen each event at its time, and looks once more."""
    looks, seen = stall.Lookout(ranks, 0.0), empty()
    for event in sorted(events, key=lambda each: each.time_s):
        seen = fold(seen, event)
        looks.look(seen, event.time_s)
    looks.look(seen, until_s)
    return looks, seen


def culprit(*events: Event, ranks: int = 2) -> str:
    """Who is named at second 10."""
    looks, seen = lookout(*events, ranks=ranks)
    return looks.culprit(seen)


def up(rank: int, at: float = 0.0) -> Started:
    """A rank that came up."""
    return Started(rank, at, 100 + rank, "host", "digest", "mpi", rank, 1)


def beat(rank: int, at: float, step: int = 3, where: str = "In [7], line 2", **more: object) -> Heartbeat:
    """A sign of life."""
    return Heartbeat(rank, at, step, where, **more)  # type: ignore[arg-type]


def test_the_rank_that_runs_python_is_named_before_those_that_wait() -> None:
    """With its line and step, and where the others wait."""
    said = culprit(
        up(0), up(1), up(2),
        beat(0, 9, 4, "In [7], line 9", waits=True), beat(1, 9), beat(2, 9, 4, "In [7], line 9", waits=True), ranks=3,
    )  # fmt: skip
    assert said == (
        "rank 1: busy at In [7], line 2 after step 3; ranks 0, 2: waiting at In [7], line 9 after step 4"
    )


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([up(0), beat(0, 9, waits=True)], "rank 1: did not come up; rank 0: waiting at"),
        ([up(0), up(1), beat(0, 9, waits=True), beat(1, 2)], "rank 1: no sign of life for 8 s, last seen at In"),
        (
            [up(0), up(1), beat(0, 9, waits=True), Result(1, 5, "value-1.pkl", 3, None)],
            "rank 1: returned; rank 0: waiting",
        ),
        (
            [up(0), up(1), beat(0, 9, 5, waits=True), beat(1, 9, 4, waits=True)],
            "rank 1: waiting at In [7], line 2 after step 4; rank 0: waiting at In [7], line 2 after step 5",
        ),
        ([up(0), up(1), beat(0, 9, waits=True), beat(1, 9, waits=True)], "ranks 0, 1: waiting at In"),
        ([up(0), up(1), beat(0, 9, 0, "", waits=True), beat(1, 9, 0, "")], "rank 1: busy outside the cell; rank 0"),
    ],
)  # fmt: skip
def test_whoever_keeps_the_others_waiting_is_named_first(events: list[Event], said: str) -> None:
    """Not up, silent, returned, at a lower step, or all alike."""
    assert culprit(*events).startswith(said)


def test_only_what_gets_further_counts_as_progress() -> None:
    """Steps, numbers and returns do; a heartbeat that says the same, or words beside steps, do not."""
    begun = [up(0), up(1), Progress(0, 4, 1, 2, 3, 8, None, {}, 3), beat(0, 5, ticks=1)]
    assert lookout(*begun)[0].still_s == 5
    assert lookout(*begun, beat(0, 8, ticks=1), beat(1, 8, ticks=0))[0].still_s == 5
    assert lookout(*begun, Log(1, 9, "stdout", "still here\n"))[0].still_s == 5
    assert lookout(*begun, beat(1, 8, ticks=2))[0].still_s == 2
    assert lookout(up(0), Log(0, 9, "stdout", "no steps, but words\n"))[0].still_s == 1


def test_ranks_whose_clock_is_another_are_judged_by_ours() -> None:
    """A clock that is set back an hour while they train makes no stall, and one set forward hides none."""
    for step_s in (-3600, 3600):
        looks, seen = stall.Lookout(1, 0.0), empty()
        for at in range(1, 9):
            seen = fold(seen, Progress(0, at + step_s * (at > 4), 1, at, 8, 8, None, {}, at))
            looks.look(seen, at)
        assert looks.still_s == 0
        looks.look(seen, 20)
        assert looks.still_s == 12


def test_slow_ranks_show_in_their_step_time_and_in_who_never_waits() -> None:
    """Per rank, as soon as it has said so."""
    seen = state(up(0), up(1), beat(0, 9, step_s=0.02, waited=0.6), beat(1, 9, step_s=0.02, waited=0.0))
    assert {rank: (of.step_s, of.waited) for rank, of in seen.ranks.items()} == {
        0: (0.02, 0.6),
        1: (0.02, 0.0),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    ("engine", "function", "said"),
    [
        ("horovod", loops_for_ever, r"rank 1: busy at stalling.py, line \d+ after step 3; rank 0: waiting at stalling"),
        ("mpi", stopped_by_a_signal, r"rank 1: no sign of life for \d+ s, last seen at .*; rank 0: waiting at stall"),
        ("mpi", hangs_in_c, r"rank 1: no sign of life for \d+ s, last seen at .*; rank 0: waiting at stalling.py"),
        ("mpi", waits_in_a_generator, r"rank 1: busy at stalling.py, line \d+ .*; rank 0: waiting at stalling"),
    ],
)  # fmt: skip
def test_a_rank_that_stalls_is_named_with_its_line(
    home: None, engine: str, function: object, said: str
) -> None:
    """After the deadline the run is over, says who and where, and has everyone's stacks."""
    with pytest.raises(RunStalled, match=said) as caught:
        obl_magic.run(function, workers=2, engine=engine, stall_timeout=4, quiet=True, timeout=120)  # type: ignore[arg-type]
    run = caught.value.run
    assert run.status == "stalled"
    if "all stacks" in str(caught.value):
        assert "stalling.py" in (run.dir / "stacks-0.txt").read_text()


EARLY = (
    r"rank 1(: returned; rank 0: waiting| has returned, but rank 0 waits for it) at stalling"
    r"|rank 0 was about to .* \(stalling.py, line \d+: .*\), rank 1 to end its function"
)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["mpi", "horovod"])
def test_a_rank_that_returns_early_is_named(home: None, engine: str) -> None:
    """It is compared with the others as it ends, unless they have not yet come to where they would meet it."""
    with pytest.raises((RunStalled, NotOblivious), match=EARLY):
        obl_magic.run(returns_early, workers=2, engine=engine, stall_timeout=4, quiet=True, timeout=120)
