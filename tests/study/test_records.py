"""What is kept of trials that have ended."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from obl_magic.errors import SetupProblem
from obl_magic.study.record import Records, TrialRecord, ranked, read

PARAMS = st.dictionaries(
    st.from_regex(r"[a-z]{1,4}", fullmatch=True),
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    max_size=3,
)


def record(number: int, value: float | None = 0.0, status: str = "succeeded", **others: Any) -> TrialRecord:
    """A trial that has ended."""
    asked: dict[str, Any] = {
        "number": number, "run_id": f"s-{number}", "status": status, "value": value, "error": "", "params": {},
        "seed": number, "began_s": 1.0, "ended_s": 3.5, **others,
    }  # fmt: skip
    return TrialRecord(**asked)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PARAMS, min_size=1, max_size=4))
def test_what_was_written_is_read_again(tmp_path: Path, params: list[dict[str, Any]]) -> None:
    """Parameters with their types."""
    path = tmp_path / "trials.jsonl"
    path.unlink(missing_ok=True)
    records = Records(path)
    for number, each in enumerate(params):
        records.add(record(number, params=each, layers=("a", "b"), returned={"loss": 0.0}))
    records.close()
    assert read(path) == records.all
    assert [type(value) for one in read(path) for value in one.params.values()] == [
        type(value) for one in params for value in one.values()
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 0.0, None])
def test_numbers_that_json_lacks_are_kept(tmp_path: Path, value: float | None) -> None:
    """And None stays None."""
    records = Records(tmp_path / "trials.jsonl")
    records.add(record(0, value))
    records.close()
    assert repr(read(tmp_path / "trials.jsonl")[0].value) == repr(value)


def test_half_a_line_is_passed_over(tmp_path: Path) -> None:
    """A kernel was killed while it wrote; what comes later is not glued to it."""
    path = tmp_path / "trials.jsonl"
    first = Records(path)
    first.add(record(0))
    first.close()
    path.write_text(path.read_text() + '{"number": 1, "run_')
    again = Records(path)
    again.add(record(2))
    again.close()
    assert [each.number for each in read(path)] == [0, 2]


def test_a_line_of_a_later_version_is_read(tmp_path: Path) -> None:
    """What it does not know is left."""
    path = tmp_path / "trials.jsonl"
    records = Records(path)
    records.add(record(0))
    records.close()
    path.write_text(path.read_text().replace('{"number"', '{"of_tomorrow": 1, "number"'))
    assert read(path) == [record(0)]


def test_records_come_by_number_and_not_as_they_ended(tmp_path: Path) -> None:
    """A slow trial is written last."""
    records = Records(tmp_path / "trials.jsonl")
    for number in (1, 2, 0):
        records.add(record(number))
    records.close()
    assert [each.number for each in read(tmp_path / "trials.jsonl")] == [0, 1, 2]


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """Before a trial begins."""
    with pytest.raises(SetupProblem, match=r"cannot write the run's folder .*gone.*; do: free or open it"):
        Records(tmp_path / "gone" / "trials.jsonl")


def test_a_duration_is_never_negative() -> None:
    """Where a clock was set back."""
    assert record(0).duration_s == 2.5
    assert record(0, began_s=5.0).duration_s == 0.0


@given(st.lists(st.sampled_from([0.0, 1.0, -1.0, math.inf, math.nan, None]), max_size=8), st.booleans())
def test_the_best_comes_first_and_the_earlier_of_equals(values: list[float | None], largest: bool) -> None:
    """NaN and None are no candidates; a loss that is minimised is never ranked the wrong way round."""
    found = ranked(
        [record(number, value) for number, value in enumerate(values)], "maximize" if largest else "minimize"
    )
    comparable = [
        (value, number) for number, value in enumerate(values) if value is not None and not math.isnan(value)
    ]
    comparable.sort(key=lambda pair: (-pair[0] if largest else pair[0], pair[1]))
    assert [each.number for each in found] == [number for _, number in comparable]


def test_a_pruned_trial_is_never_the_best() -> None:
    """Its value is one on the way."""
    assert [each.number for each in ranked([record(0, 1.0, "pruned"), record(1, 2.0)], "minimize")] == [1]
