"""Reporting by hand: numbers inside a run, nothing outside of it."""

from __future__ import annotations

import contextlib
import math
import threading

import numpy as np
import pytest

import obl_magic
from obl_magic.events.event import Event, Metric, Note
from obl_magic.worker.report import Pruned, Reporter, current, report, reporting


def test_outside_a_run_report_is_a_no_op() -> None:
    """The function runs anywhere, whatever it reports."""
    assert current() is None
    report(loss=1.0, step=3)
    obl_magic.report(loss=object())


def test_inside_a_run_every_kind_of_number_is_one() -> None:
    """Python's, NumPy's and arrays of one number; NaN too."""
    said: list[Event] = []
    with reporting(Reporter(said.append, 2)):
        report(step=np.int64(7), epoch=2, a=1, b=np.float32(0.5), c=np.array(2.0), d=True, e=math.nan)
    (metric,) = said
    assert isinstance(metric, Metric)
    assert (metric.rank, metric.step, metric.epoch) == (2, 7, 2)
    assert [type(value) for value in metric.values.values()] == [float] * 5
    assert list(metric.values.values())[:4] == [1.0, 0.5, 2.0, 1.0]


def test_names_may_be_anything() -> None:
    """As keyword arguments they need not be identifiers."""
    said: list[Event] = []
    with reporting(Reporter(said.append, 0)):
        report(**{"val loss/é": 1.0})
    assert isinstance(said[0], Metric)
    assert said[0].values == {"val loss/é": 1.0}


@pytest.mark.parametrize("value", ["high", None, [1, 2], 1j])
def test_what_is_no_number_is_refused_with_the_call_that_works(value: object) -> None:
    """Inside a run, naming the metric and the type."""
    with (
        reporting(Reporter(lambda event: None, 0)),
        pytest.raises(
            TypeError, match=r"report\(\) got loss=\w+; expected a number; do: report\(loss=float\(\.\.\.\)\)"
        ),
    ):
        report(loss=value)


def test_nothing_reported_is_nothing_said() -> None:
    """A step alone is no metric."""
    said: list[Event] = []
    Reporter(said.append, 0)(step=3)
    assert said == []


def test_the_reporter_before_is_back_after_an_error() -> None:
    """Runs in a kernel may follow each other and fail."""
    outer, inner = Reporter(lambda event: None, 0), Reporter(lambda event: None, 1)
    with reporting(outer):
        with contextlib.suppress(ValueError), reporting(inner):
            assert current() is inner
            raise ValueError("boom")
        assert current() is outer
    assert current() is None


def test_a_note_carries_its_code_and_the_first_step_is_remembered_once() -> None:
    """What was made distributed, and when training began."""
    said: list[Event] = []
    reporter = Reporter(said.append, 1)
    reporter.note("data", "sharded")
    reporter.stepped(1)
    first = reporter.first_step_s
    reporter.stepped(5)
    assert isinstance(said[0], Note)
    assert (said[0].code, said[0].text, reporter.steps) == ("data", "sharded", 5)
    assert reporter.first_step_s == first is not None


def test_the_wanted_quantity_is_judged_and_nothing_else() -> None:
    """By the step that was reported, or counted where there is none; a verdict ends the function as no error does."""
    asked: list[tuple[int, float]] = []
    events: list[Event] = []
    reporter = Reporter(events.append, 0)

    def ask(step: int, value: float) -> bool:
        asked.append((step, value))
        return value > 2

    reporter.asks("loss", ask)
    reporter(loss=1.0)
    reporter(other=5.0)
    reporter(loss=0.5, step=7)
    reporter(loss=0.25, epoch=9)
    with pytest.raises(Pruned):
        reporter(loss=3.0)
    assert not issubclass(Pruned, Exception)
    assert asked == [(1, 1.0), (7, 0.5), (9, 0.25), (4, 3.0)]
    assert len(events) == 5


def test_a_thread_that_outlives_its_job_reports_into_no_other() -> None:
    """Nor does a thread that it starts in turn; the job under way says that there was one."""
    first: list[Event] = []
    second: list[Event] = []
    go, done = threading.Event(), threading.Event()

    def late() -> None:
        go.wait(60)
        report(loss=-1.0)
        child = threading.Thread(target=report, kwargs={"loss": -2.0})
        child.start()
        child.join(60)
        done.set()

    earlier = Reporter(first.append, 0)
    with reporting(earlier):
        threading.Thread(target=late, daemon=True).start()
        report(loss=1.0)
    earlier.over()
    with reporting(Reporter(second.append, 0)):
        go.set()
        assert done.wait(60)
        report(loss=2.0)
    assert [event.values for event in first if isinstance(event, Metric)] == [{"loss": 1.0}]
    assert [event.values for event in second if isinstance(event, Metric)] == [{"loss": 2.0}]
    (note,) = [event for event in second if isinstance(event, Note)]
    assert note.code == "left-over-thread"
    assert "which count for no trial any more" in note.text


def test_a_thread_of_a_job_under_way_reports_into_it() -> None:
    """As long as the job lasts, a thread is as good as the function itself."""
    said: list[Event] = []
    with reporting(Reporter(said.append, 0)):
        thread = threading.Thread(target=report, kwargs={"loss": 1.0})
        thread.start()
        thread.join(60)
    assert [event.values for event in said if isinstance(event, Metric)] == [{"loss": 1.0}]


def test_a_reporter_whose_job_is_over_is_not_heard() -> None:
    """Whoever has kept it."""
    said: list[Event] = []
    reporter = Reporter(said.append, 0)
    reporter.over()
    reporter(loss=1.0)
    reporter.note("a", "b")
    assert said == []
