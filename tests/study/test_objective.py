"""Which number of a trial is wanted."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obl_magic.errors import UsageProblem
from obl_magic.events.event import Metric, Result
from obl_magic.events.fold import RunState, empty, fold_all
from obl_magic.study.objective import Objective, checked_objective
from obl_magic.worker.execute import short

NUMBERS = st.floats(allow_nan=False) | st.integers(-(2**60), 2**60) | st.booleans()


def ended(value: Any = None, **reported: float) -> RunState:
    """A trial that reported these numbers, and returned that."""
    said = [Metric(0, 1.0, {name: number}, 0, None) for name, number in reported.items()]
    return fold_all(empty(), [*said, Result(0, 2.0, "", 0, None, short(value))])


@given(NUMBERS)
def test_a_returned_key_is_the_value_whatever_it_is(number: float) -> None:
    """Zero and False are values as others are."""
    assert Objective("loss", "minimize").of(ended({"loss": number})) == float(number)


@given(NUMBERS)
def test_a_bare_number_is_called_value(number: float) -> None:
    """Also 0.0."""
    assert Objective("value", "minimize").of(ended(number)) == float(number)


def test_what_is_returned_goes_before_what_was_reported() -> None:
    """A returned text of that name is no number; then the reported one is meant."""
    objective = Objective("loss", "minimize")
    assert objective.of(ended({"loss": 0.0}, loss=5.0)) == 0.0
    assert objective.of(ended({"loss": "low"}, loss=5.0)) == 5.0
    assert objective.of(ended(None, loss=5.0)) == 5.0


def test_the_last_reported_value_counts() -> None:
    """Not the best, not the first."""
    curve = [
        Metric(0, float(step), {"loss": value}, step, None) for step, value in enumerate((3.0, 0.5, 2.0))
    ]
    assert Objective("loss", "minimize").of(fold_all(empty(), curve)) == 2.0


@pytest.mark.parametrize("value", [None, {"other": 1.0}, "text", [1.0], {"loss": None}])
def test_where_there_is_none_there_is_none(value: Any) -> None:
    """It is not taken for a zero."""
    assert Objective("loss", "minimize").of(ended(value)) is None


def test_a_nan_is_a_problem_and_infinity_is_none() -> None:
    """An infinite loss is the worst there is; NaN compares with nothing."""
    objective = Objective("loss", "minimize")
    assert objective.problem(math.nan) == "loss is nan"
    assert objective.problem(math.inf) == ""


def test_a_name_that_nobody_produced_is_told_with_those_there_are() -> None:
    """Returned and reported ones, and an option that works."""
    problem = Objective("acc", "maximize").nobody_produced(ended({"accuracy": 1.0, "note": "x"}, loss=2.0))
    assert str(problem) == (
        "got --maximize acc, which the function neither returns nor reports; expected one of accuracy, loss; "
        "do: --maximize accuracy"
    )


def test_a_function_that_says_nothing_is_told_what_to_return() -> None:
    """There is no name to offer."""
    assert str(Objective("acc", "maximize").nobody_produced(ended(None))) == (
        "got --maximize acc, which the function neither returns nor reports; expected a function that returns a number "
        "or a dict, or reports one; do: return {'acc': ...}"
    )


@pytest.mark.parametrize(
    ("maximize", "minimize", "sentence"),
    [
        (
            None,
            None,
            "got neither maximize nor minimize; expected the one quantity to compare; do: --maximize",
        ),
        ("a", "b", "got both maximize and minimize; expected the one quantity to compare; do: --maximize"),
        ("", None, "got maximize=''; expected the name of a number; do: --maximize val_accuracy"),
        (None, 3, "got minimize=3; expected the name of a number; do: --maximize val_accuracy"),
    ],
)
def test_one_quantity_is_named(maximize: Any, minimize: Any, sentence: str) -> None:
    """In one direction."""
    with pytest.raises(UsageProblem) as caught:
        checked_objective(maximize, minimize)
    assert str(caught.value).startswith(sentence)


def test_the_direction_is_the_option() -> None:
    """One of the two."""
    assert checked_objective("a", None) == Objective("a", "maximize")
    assert checked_objective(None, "b") == Objective("b", "minimize")
