"""Events as JSON lines: what goes out comes back, whatever the numbers and the names."""

from __future__ import annotations

import json
import math
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obl_magic.events import event as events
from obl_magic.events.event import Event, Log, Metric, from_json, to_json

anything = st.text(st.characters(exclude_categories=()), max_size=30)
numbers = st.floats(allow_nan=True, allow_infinity=True)
odd_names = st.one_of(st.sampled_from(["~", "nan", "kind", "", "rank", "loss\nx", "é", "inf"]), anything)
named = st.dictionaries(odd_names, numbers, max_size=4)
BY_TYPE: dict[str, st.SearchStrategy[Any]] = {
    "int": st.integers(-(2**60), 2**60),
    "float": numbers,
    "str": anything,
    "bool": st.booleans(),
    "int | None": st.none() | st.integers(-(2**60), 2**60),
    "float | None": st.none() | numbers,
    "dict[str, float]": named,
    "dict[str, str]": st.dictionaries(odd_names, anything, max_size=4),
    "dict[str, Any]": st.dictionaries(
        odd_names, st.none() | st.booleans() | st.integers() | numbers | odd_names
    ),
    "list[str]": st.lists(anything, max_size=4),
}


def every(kind: type[Event]) -> st.SearchStrategy[Event]:
    """Any event of one kind."""
    return st.builds(kind, **{field.name: BY_TYPE[str(field.type)] for field in fields(kind)})


def alike(one: Any, other: Any) -> bool:
    """Equality for which NaN is NaN and 1 is not 1.0."""
    if isinstance(one, dict):
        return list(one) == list(other) and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, float) and math.isnan(one):
        return isinstance(other, float) and math.isnan(other)
    return type(one) is type(other) and bool(one == other)


@pytest.mark.parametrize("kind", events.KINDS.values(), ids=events.KINDS)
def test_every_kind_comes_back_as_it_was(kind: type[Event]) -> None:
    """NaN, infinities, line ends, lone surrogates and metrics called ``~`` or ``nan`` included."""

    @given(every(kind))
    def round_trip(event: Event) -> None:
        back = from_json(to_json(event))
        assert type(back) is kind
        assert all(alike(getattr(event, f.name), getattr(back, f.name)) for f in fields(kind))

    round_trip()


@given(st.one_of(*map(every, events.KINDS.values())))
def test_a_line_is_plain_ascii_json_that_any_reader_can_parse(event: Event) -> None:
    """No newline, no control character, no bare NaN: jq and every frame can carry it."""
    line = to_json(event)
    assert line.isascii()
    assert line.isprintable()
    json.loads(line, parse_constant=pytest.fail)


def test_kinds_are_told_apart_by_their_own_names() -> None:
    """A kind is its class's, and the table forgets no class."""
    assert {kind.__name__.lower() for kind in Event.__subclasses__()} == set(events.KINDS)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{}",
        "[]",
        "3",
        "null",
        '{"kind":"nobody"}',
        '{"kind":"log"}',
        '{"kind":"log","rank":0',
        "\x00",
        '{"kind":[]}',
    ],
)
def test_what_is_no_event_is_a_value_error(line: str) -> None:
    """Never another exception, whatever a torn or foreign line holds."""
    with pytest.raises(ValueError, match=r"not an event|Expecting"):
        from_json(line)


def test_a_field_of_a_later_version_is_ignored() -> None:
    """An older kernel reads what a newer rank says."""
    line = to_json(Log(0, 1.0, "stdout", "hello\n"))
    assert from_json(line[:-1] + ',"colour":"red"}') == Log(0, 1.0, "stdout", "hello\n")


def test_a_metric_that_is_not_a_number_is_one_again() -> None:
    """Readers of other languages see the word; ours see the float."""
    metric = Metric(1, 2.0, {"loss": math.nan, "gain": -math.inf}, None, None)
    back = from_json(to_json(metric))
    assert isinstance(back, Metric)
    assert math.isnan(back.values["loss"])
    assert back.values["gain"] == -math.inf
