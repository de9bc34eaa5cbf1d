# ruff: noqa: D103
"""Which of a notebook's objects a function has changed: named if it did, and only then."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

from obl_magic.worker.changed_objects import WHOLE_BYTES, ChangedObjects, sentence

numbers: list[float] = [1.0, float("nan")]
table: dict[str, Any] = {"a": [1, 2], "b": {"c": np.zeros(3)}}
array = np.zeros((4, 3))
large = np.zeros(WHOLE_BYTES)
strided = np.zeros((3000, 3000))[:, ::2]
frame = pd.DataFrame({"a": [1.0, 2.0], "b": ["x", "y"]})
names = {"a"}
count = 0


class Thing:
    """One of the user's own."""

    made = 0

    def __init__(self) -> None:
        self.parts = [1]


thing = Thing()


def fills() -> None:
    numbers.append(2.0)


def sets_deep() -> None:
    table["b"]["c"][1] = 1


def writes() -> None:
    array[0] = 1


def writes_a_large_one() -> None:
    large[:] += 1


def writes_a_strided_one() -> None:
    strided[:] = 1


def adds_a_column() -> None:
    frame["c"] = 1


def changes_a_cell() -> None:
    frame.loc[1, "b"] = "z"


def adds_a_name() -> None:
    names.add("b")


def counts() -> None:
    global count
    count += 1


def makes_a_global() -> None:
    global made_here
    made_here = [1]  # type: ignore[name-defined]


def changes_its_own() -> None:
    thing.parts.append(2)


def changes_its_class() -> None:
    Thing.made += 1


def fills_by_a_helper() -> None:
    fills()


def keeps() -> tuple[Any, ...]:
    own = [*numbers, count]
    own.append(sum(table["a"]) + array.sum() + large[0] + strided[0, 0] + len(frame) + len(names))
    return own, thing.parts, Thing.made


@pytest.mark.parametrize(
    ("function", "named"),
    [
        (fills, "numbers"), (sets_deep, "table"), (writes, "array"), (writes_a_large_one, "large"),
        (writes_a_strided_one, "strided"), (adds_a_column, "frame"), (changes_a_cell, "frame"),
        (adds_a_name, "names"), (counts, "count"), (makes_a_global, "made_here"), (changes_its_own, "thing"),
        (changes_its_class, "made"), (fills_by_a_helper, "numbers"),
    ],
)  # fmt: skip
def test_what_was_changed_is_named(function: Callable[[], None], named: str) -> None:
    """Whatever kind it is of, and however it is reached."""
    looked = ChangedObjects(function, {})
    function()
    assert looked.names(None) == (named,)


def test_what_was_only_read_is_not_named() -> None:
    """A list of NaNs is the same list, and the function's own objects are its own."""
    looked = ChangedObjects(keeps, {})
    returned = keeps()
    assert looked.names(returned) == ()


def test_arguments_count_as_the_notebooks() -> None:
    """They came from a cell, like everything else."""

    def train(history: list[int], model: Any = None) -> None:
        history.append(1)

    given: list[int] = []
    looked = ChangedObjects(train, {"history": given})
    train(given)
    assert looked.names(None) == ("history",)


@pytest.mark.parametrize("back", [lambda: numbers, lambda: {"n": numbers}, lambda: (1, [numbers])])
def test_what_is_returned_is_on_its_way_back(back: Callable[[], Any]) -> None:
    """Who returns what was changed has taken the way out already."""

    def train() -> Any:
        numbers.append(1.0)

    looked = ChangedObjects(train, {})
    train()
    assert looked.names(back()) == ()


def test_objects_that_refuse_to_be_looked_at_are_passed_over() -> None:
    """Looking never raises, whatever an object does."""

    class Hostile(dict):  # type: ignore[type-arg]
        def items(self) -> Any:
            raise RuntimeError("no")

        def __eq__(self, other: object) -> bool:
            raise RuntimeError("no")

        __hash__ = None  # type: ignore[assignment]

    hostile, own = Hostile(a=1), [1]

    def train() -> None:
        hostile["b"] = 2
        own.append(2)

    looked = ChangedObjects(train, {})
    train()
    assert looked.names(hostile) == ("own",)


def test_looking_at_much_takes_little_time() -> None:
    """Of very many objects some are looked at, of very large ones some places."""
    huge = [np.zeros(20_000_000) for _ in range(3)]
    many = {str(number): list(range(50)) for number in range(200_000)}

    def train() -> None:
        huge[0][:] = 1
        many["0"].append(1)

    began = time.process_time()
    looked = ChangedObjects(train, {})
    assert time.process_time() - began < 1
    train()
    assert set(looked.names(None)) == {"huge", "many"}


def test_the_sentence_names_them_and_the_way_out() -> None:
    """One line, however many there are."""
    assert sentence(("history",)) == (
        "the function changed history on the ranks only: the notebook's own stay as they were; "
        "to have it as changed, return it"
    )
    assert "a, b, c, d, e and 2 more on the ranks only" in sentence(tuple("abcdefg"))
