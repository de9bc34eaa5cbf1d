"""Folding events into a run's state: pure, monotone, first cause first."""

from __future__ import annotations

from functools import reduce

from hypothesis import given
from hypothesis import strategies as st
from rows import metric_rows

from obl_magic.events.event import (
    Ended,
    Event,
    Failed,
    Heartbeat,
    Launched,
    Log,
    Metric,
    Note,
    Progress,
    Result,
    Started,
)
from obl_magic.events.fold import TAIL_LINES, RunState, empty, fold

ranks = st.integers(0, 5)
times = st.floats(0, 1e9)
words = st.sampled_from(["a", "b", "c"])
values = st.dictionaries(words, st.floats(allow_nan=False), min_size=1, max_size=3)
any_event: st.SearchStrategy[Event] = st.one_of(
    st.builds(Started, ranks, times, st.integers(1, 9), words, words, words, ranks, ranks),
    st.builds(Progress, ranks, times, ranks, ranks, ranks, st.none(), st.none(), values, ranks),
    st.builds(Metric, ranks, times, values, st.none(), st.none()),
    st.builds(Log, st.integers(-1, 5), times, words, st.text("ab \n\r", max_size=90)),
    st.builds(Note, ranks, times, words, words),
    st.builds(Heartbeat, ranks, times, ranks, words),
    st.builds(Result, ranks, times, words, ranks, st.none() | times),
    st.builds(Failed, ranks, times, words, words, words, words),
)
histories = st.lists(any_event, max_size=30)


def folded(events: list[Event]) -> RunState:
    """The state after these events."""
    return reduce(fold, events, empty())


@given(histories)
def test_nothing_that_is_known_is_forgotten(history: list[Event]) -> None:
    """Ranks, metrics, notes, failures and results only grow, and a run runs until it is ended."""
    state = empty()
    for event in history:
        later = fold(state, event)
        assert set(state.ranks) <= set(later.ranks)
        assert set(state.latest or {}) <= set(later.latest or {})
        assert later.notes[: len(state.notes)] == state.notes
        assert later.failures[: len(state.failures)] == state.failures
        assert set(state.results or {}) <= set(later.results or {})
        assert later.status == "running"
        state = later


@given(histories)
def test_failures_are_in_the_order_of_their_arrival(history: list[Event]) -> None:
    """The first cause stays the first."""
    assert list(folded(history).failures) == [event for event in history if isinstance(event, Failed)]


@given(histories)
def test_every_result_is_known_by_its_rank(history: list[Event]) -> None:
    """The newest file of each rank that returned, and of no other."""
    told = {event.rank: event.file for event in history if isinstance(event, Result)}
    assert (folded(history).results or {}) == told


@given(histories)
def test_the_tail_is_the_last_lines_of_each_rank(history: list[Event]) -> None:
    """At most twenty, none empty, newest last; carriage returns end a line as well."""
    state = folded(history)
    for rank, known in state.ranks.items():
        said = [event.text for event in history if isinstance(event, Log) and event.rank == rank]
        lines = [line for text in said for line in text.replace("\r", "\n").split("\n") if line.strip()]
        assert list(known.tail) == lines[-TAIL_LINES:]


@given(histories, histories)
def test_the_state_depends_on_the_events_alone(before: list[Event], after: list[Event]) -> None:
    """Folding twice gives the same, and folding on changes no earlier state."""
    state = folded(before)
    again = folded(before)
    reduce(fold, after, state)
    assert state == again


def test_a_note_is_said_once() -> None:
    """Every rank says it; the user reads it once, and another sentence under the same code too."""
    notes = [Note(rank, 1.0 + rank, "sharded", "data") for rank in range(3)]
    assert folded([*notes, Note(0, 5.0, "not sharded", "data")]).notes == (
        notes[0],
        Note(0, 5.0, "not sharded", "data"),
    )


def test_a_run_begins_with_its_first_event_and_ends_with_its_end() -> None:
    """Times are those of the events; no clock is read."""
    state = folded([Launched(-1, 5.0, 2), Log(0, 6.0, "stdout", "x\n"), Ended(-1, 9.0, "failed", "boom")])
    assert (state.started_s, state.ended_s, state.status, state.error) == (5.0, 9.0, "failed", "boom")


def test_a_world_is_ready_when_its_last_rank_is() -> None:
    """Whatever the order in which their words arrive."""
    started = [
        Started(rank, time_s, 10 + rank, "host", "d", "mpi", rank, 1) for rank, time_s in ((1, 8.0), (0, 7.0))
    ]
    state = folded(list(started))
    assert (state.ready_s, state.engine, state.ranks[1].pid, state.ranks[0].state) == (
        8.0,
        "mpi",
        11,
        "running",
    )


def test_one_metric_event_is_one_row_a_name() -> None:
    """In the order of its names."""
    rows = metric_rows(Metric(1, 2.0, {"loss": 0.5, "acc": 0.0}, 3, 4))
    assert [(r.time_s, r.rank, r.epoch, r.step, r.name, r.value) for r in rows] == [
        (2.0, 1, 4, 3, "loss", 0.5),
        (2.0, 1, 4, 3, "acc", 0.0),
    ]
