"""No run, however odd, breaks its display: any sequence of events renders, and always escaped."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rows import metric_rows

from obl_magic.display.run.html import panel_html, still_html
from obl_magic.display.run.text import epoch_line, status_line, summary
from obl_magic.display.run.view import view
from obl_magic.events.event import Ended, Failed, Heartbeat, Log, Metric, Note, Progress, Result, Started
from obl_magic.events.fold import empty, fold
from obl_magic.rundir.record import RunRecord

SAFE_TAGS = {
    *("div", "span", "table", "thead", "tbody", "tr", "th", "td", "pre", "details", "summary"),
    *("svg", "text", "line", "polyline", "circle"),
}
SAFE_ATTRIBUTES = {
    *(
        "class",
        "style",
        "title",
        "xmlns",
        "width",
        "height",
        "viewbox",
        "role",
        "aria-label",
        "x",
        "y",
        "fill",
    ),
    *(
        "fill-opacity",
        "font-size",
        "font-weight",
        "text-anchor",
        "x1",
        "x2",
        "y1",
        "y2",
        "stroke",
        "stroke-width",
    ),
    *("points", "stroke-linejoin", "stroke-linecap", "cx", "cy", "r"),
}

words = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        ["", "loss", "val_loss", "<img src=x onerror=alert(1)>", "\"' style='x", "a\nb", "\x1b[31m", "\ud800"]
    ),
)
numbers = st.one_of(
    st.floats(), st.sampled_from([0.0, -0.0, 1e-320, 1e308, -1e308]), st.integers(-(10**20), 10**20)
)
ranks = st.integers(-1, 9)
times = st.floats(-1e9, 1e12)
counts = st.integers(-2, 10**7)
maybe = st.one_of(st.none(), counts)
values = st.dictionaries(words, numbers, max_size=5)
events = st.one_of(
    st.builds(Started, ranks, times, counts, words, words, words, ranks, counts),
    st.builds(Progress, ranks, times, counts, counts, counts, maybe, st.none() | numbers, values, counts),
    st.builds(Metric, ranks, times, values, maybe, maybe),
    st.builds(Log, ranks, times, st.sampled_from(["stdout", "stderr"]), words),
    st.builds(Note, ranks, times, words, words),
    st.builds(Heartbeat, ranks, times, counts, words),
    st.builds(Result, ranks, times, words, counts, st.none() | times),
    st.builds(Failed, ranks, times, words, words, words, words),
    st.builds(
        Ended, ranks, times, st.sampled_from(["succeeded", "failed", "stalled", "timed out"]) | words, words
    ),
)
headers = st.builds(
    RunRecord, words, words, words, st.none() | st.integers(-1, 12), words, words, words, counts, times,
    st.lists(words, max_size=3).map(tuple), words,
)  # fmt: skip


class Strict(HTMLParser):
    """Fails on a tag or an attribute that no layout of ours writes, and on unbalanced tags."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Only tags and attributes of ours."""
        assert tag in SAFE_TAGS
        assert {name for name, _ in attrs} <= SAFE_ATTRIBUTES
        self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """The same for tags that close themselves."""
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        """In the order they were opened."""
        assert self.open.pop() == tag


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(headers, st.lists(events, max_size=12), times)
def test_any_sequence_of_events_renders_and_is_escaped(
    header: RunRecord, sequence: list, now_s: float
) -> None:  # type: ignore[type-arg]
    """The view, the text and the HTML of every state: no error, only our markup, storable as UTF-8."""
    state, rows = empty(), []
    for event in sequence:
        state = fold(state, event)
        rows += metric_rows(event) if isinstance(event, Metric) else []
    shown = view(header, state, now_s)
    assert shown.fraction is None or 0 <= shown.fraction <= 1
    for page in (panel_html(shown), still_html(header, state, rows), still_html(header, state, rows, now_s)):
        Strict(page)
        page.encode("utf-8")
    for text in (status_line(shown), epoch_line(shown)):
        assert text.isprintable()
    summary(header, state, rows).encode("utf-8")
