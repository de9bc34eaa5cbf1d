"""The panel in a notebook: what it shows, how often, and what stays."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from rows import metric_rows

from obl_magic.display.notebook import NotebookDisplay, in_notebook
from obl_magic.display.run.html import panel_html, still_html
from obl_magic.display.run.view import view
from obl_magic.events.event import Ended, Event, Failed, Metric, Progress, Started
from obl_magic.events.fold import MetricRow, RunState, empty, fold
from obl_magic.rundir.record import RunRecord

pytestmark = pytest.mark.timing

HEADER = RunRecord("run-1", "train", "0123456789abcdef", 3, "mpi", "", "global", 2, 100.0, (), ".obl/run-1")
SAFE_TAGS = {
    *("div", "span", "table", "thead", "tbody", "tr", "th", "td", "pre", "details", "summary"),
    *("svg", "text", "line", "polyline", "circle"),
}


class Reader(HTMLParser):
    """Collects the tags, the attributes and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Notes the tag and its attributes."""
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        """Notes the text."""
        self.text += data


class Output:
    """Stands in for one output of a cell; remembers every picture of it."""

    def __init__(self) -> None:
        self.shown: list[dict[str, str]] = []

    def show(self, bundle: dict[str, str]) -> Output:
        """The first picture."""
        assert not self.shown, "a second output was made"
        self.shown.append(bundle)
        return self

    def update(self, obj: dict[str, str], **kwargs: Any) -> None:
        """Another picture in the same place."""
        assert kwargs == {"raw": True}
        self.shown.append(obj)


def folded(*events: Event) -> tuple[RunState, list[MetricRow]]:
    """The state and the rows after some events."""
    state, rows = empty(), []
    for event in events:
        state = fold(state, event)
        rows += metric_rows(event) if isinstance(event, Metric) else []
    return state, rows


UP = [Started(rank, 101.0, 1, "host", "01", "mpi", rank, 1) for rank in range(3)]
FIT = [
    Metric(0, 101.0 + epoch, {"loss": 1 / epoch, "val_loss": 2 / epoch}, epoch, epoch) for epoch in (1, 2, 3)
]


def test_the_panel_is_one_output_redrawn_four_times_a_second_at_most() -> None:
    """A virtual clock: 1,280 updates in ten seconds, each different."""
    output = Output()
    display = NotebookDisplay(output.show)
    display.begin(HEADER)
    for tick in range(1280):
        state, _ = folded(*UP, Progress(0, 102.0, 1, 1, tick, 1280, None, {}, tick))
        display.update(state, [], 100.0 + tick / 128)
    assert len(output.shown) == 1 + 40


def test_a_panel_that_would_look_the_same_is_not_sent_again() -> None:
    """While nothing happens only the seconds change."""
    output = Output()
    display = NotebookDisplay(output.show)
    display.begin(HEADER)
    for tick in range(40):
        display.update(empty(), [], 100.0 + tick / 4)
    assert len(output.shown) == 10


def test_the_end_leaves_the_still_in_the_panels_place() -> None:
    """The last picture is the still, however soon it comes after the last update."""
    output = Output()
    display = NotebookDisplay(output.show)
    display.begin(HEADER)
    state, rows = folded(*UP, *FIT, Ended(-1, 183.0, "succeeded", ""))
    display.update(state, [], 183.0)
    display.end(state, rows, 183.0)
    assert output.shown[-1]["text/html"] == still_html(HEADER, state, rows)
    assert "✓ train succeeded in 1:23" in output.shown[-1]["text/plain"]


def test_prints_go_to_the_cells_own_streams(capsys: pytest.CaptureFixture[str]) -> None:
    """As written, and to the stream they were written to."""
    display = NotebookDisplay(Output().show)
    display.text(0, "stdout", "10%\r20%", False)
    display.text(0, "stderr", "careful\n", False)
    assert capsys.readouterr() == ("10%\r20%", "careful\n")


def test_the_still_says_all_that_is_known() -> None:
    """Name, status in words and as a symbol, time, world, digest, values, best epoch, place."""
    state, rows = folded(*UP, *FIT, Ended(-1, 183.0, "succeeded", ""))
    text = Reader(still_html(replace(HEADER, lines=("oversubscribed",)), state, rows)).text
    for words in ("train", "✓ succeeded in", "1:23", "3 workers", "mpi", "0123456789ab", "oversubscribed"):
        assert words in text
    for words in ("val_loss", "0.3333", "epoch 3", ".obl/run-1"):
        assert words in text
    assert "<svg" in still_html(HEADER, state, rows)


def test_a_still_of_a_failure_begins_with_the_first_cause() -> None:
    """The cause, its place and its traceback; the other ranks on one line."""
    failure = Failed(1, 103.0, "ValueError: boom", "In [7], line 12, in train", "In [7], line 12", "")
    state, rows = folded(*UP, *FIT, failure, Ended(-1, 104.0, "failed", "ValueError: boom"))
    text = Reader(still_html(HEADER, state, rows)).text
    order = [
        text.index(words)
        for words in ("✗ failed after", "rank 1: ValueError: boom", "ranks 0, 2: stopped", "loss")
    ]
    assert order == sorted(order)


def test_a_still_of_a_run_on_its_way_shows_how_far_it_is() -> None:
    """A Run in the background displays itself at any time."""
    state, rows = folded(*UP, Progress(0, 102.0, 1, 2, 5, 10, None, {}, 5), *FIT)
    text = Reader(still_html(HEADER, state, rows)).text
    assert "running" in text
    assert "25 %" in text
    assert "0:04" in text


def test_what_users_named_cannot_become_markup() -> None:
    """Every string from outside is text; mathematics is not typeset either."""
    evil = "<script>alert('$x$')</script>\"&amp;"
    header = RunRecord(evil, evil, evil, 3, evil, evil, evil, 2, 0.0, (evil,), evil)
    failure = Failed(1, 3.0, evil, evil, evil, "")
    rows = [Metric(0, 1.0 + at, {evil: at, "val_" + evil: at}, at, at) for at in (1, 2)]
    state, table = folded(*UP, *rows, failure, Ended(-1, 4.0, evil, evil))
    for page in (still_html(header, state, table), panel_html(view(header, state, 5.0))):
        reader = Reader(page)
        assert reader.tags <= SAFE_TAGS
        assert "mathjax_ignore" in page
        assert evil in reader.text


def test_pages_need_nothing_but_themselves() -> None:
    """No identifiers, no classes but MathJax's, no handlers, nothing loaded."""
    state, rows = folded(*UP, *FIT, Ended(-1, 183.0, "succeeded", ""))
    attributes = Reader(still_html(HEADER, state, rows)).attributes
    assert not {name for name in attributes if name.startswith("on") or name in ("id", "href", "src")}


def test_this_test_is_no_notebook() -> None:
    """Without a kernel a panel has nowhere to be shown."""
    assert not in_notebook()
