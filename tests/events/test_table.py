"""The table of metrics: rows in order of arrival, small in memory, readable while it grows."""

from __future__ import annotations

import math
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import metric_rows

from obl_magic.display.charts.curves import curves
from obl_magic.events.event import Event, Heartbeat, Log, Metric, Note, Progress, Started
from obl_magic.events.fold import empty, fold, fold_all
from obl_magic.events.table import MetricTable

whole = st.none() | st.integers(-(2**63) + 1, 2**63 - 1)
ranks = st.integers(-1, 3)
times = st.floats(0, 2e9)
names = st.sampled_from(["loss", "val_loss", "batch_loss", "größe"])
metrics = st.builds(Metric, ranks, times, st.dictionaries(names, st.floats(allow_nan=False)), whole, whole)
others: st.SearchStrategy[Event] = st.one_of(
    st.builds(Log, ranks, times, st.sampled_from(["stdout", "startup"]), st.text(max_size=20)),
    st.builds(Note, ranks, times, st.text(max_size=5), st.text(max_size=5)),
    st.builds(Heartbeat, ranks, times, st.integers(0, 9), st.just("In [1], line 2"), st.integers(0, 3)),
    st.builds(
        Progress, ranks, times, st.integers(1, 3), st.just(3), st.integers(1, 9), st.just(9), st.none(),
        st.dictionaries(names, st.floats(0, 1)), st.integers(0, 30),
    ),
    st.builds(Started, ranks, times, st.just(7), st.just("host"), st.just("d"), st.just("mpi"), st.just(0), st.just(1)),
)  # fmt: skip


def table(*events: Metric) -> MetricTable:
    """A table of these events' rows."""
    made = MetricTable()
    for event in events:
        made.add(event)
    return made


@given(st.lists(metrics, max_size=20))
def test_a_table_holds_the_rows_of_all_events(events: list[Metric]) -> None:
    """As a list of them would, by position, by slice and one after another."""
    expected = [row for event in events for row in metric_rows(event)]
    made = table(*events)
    assert list(made) == expected
    assert len(made) == len(expected)
    assert made[1:5] == expected[1:5]
    if expected:
        assert (made[0], made[-1]) == (expected[0], expected[-1])


def test_a_row_that_there_is_not_is_an_index_error() -> None:
    """As of any sequence."""
    with pytest.raises(IndexError):
        table()[0]


def test_nan_and_infinity_are_values() -> None:
    """As others."""
    values = table(Metric(0, 0.0, {"a": math.nan, "b": math.inf}, None, None)).values
    assert math.isnan(values[0])
    assert values[1] == math.inf


@given(st.lists(metrics, max_size=20))
def test_rows_are_kept_by_name(events: list[Metric]) -> None:
    """The others' are left out; the table itself stays."""
    made = table(*events)
    before = list(made)
    assert list(made.kept(lambda name: name != "loss")) == [row for row in before if row.name != "loss"]
    assert list(made.kept(lambda name: True)) == before == list(made)


def test_a_table_grows_while_a_copy_of_it_is_read() -> None:
    """What was kept stays as it was."""
    made = table(Metric(0, 0.0, {"a": 1.0}, None, None))
    kept = made.kept(lambda name: True)
    view = memoryview(kept.values)
    made.add(Metric(0, 1.0, {"b": 2.0}, None, None))
    assert (len(kept), kept.names, len(made), list(view)) == (1, ["a"], 2, [1.0])


def test_a_row_takes_some_forty_bytes() -> None:
    """So that a million of them are no burden."""
    made = table(*(Metric(0, float(at), {"loss": float(at)}, at, None) for at in range(10_000)))
    columns = (made.time_s, made.ranks, made.epochs, made.steps, made.codes, made.values)
    assert sum(map(sys.getsizeof, columns)) < 50 * len(made)


@given(st.lists(metrics, max_size=20))
def test_a_course_is_what_the_lowest_rank_said(events: list[Metric]) -> None:
    """The same curves are drawn from a table as from its rows."""
    made = table(*events)
    assert curves(made) == curves(list(made))


@given(st.lists(metrics | others, max_size=30))
def test_folding_many_events_is_folding_one_after_another(events: list[Event]) -> None:
    """Metrics that follow each other are only taken in together because it is cheaper."""
    state = empty()
    for event in events:
        state = fold(state, event)
    assert fold_all(empty(), events) == state
    middle = len(events) // 2
    assert fold_all(fold_all(empty(), events[:middle]), events[middle:]) == state
