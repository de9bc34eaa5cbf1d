"""What a user sees of a search and of an ablation: while they run, afterwards, and however odd they are."""

from __future__ import annotations

import io
import math
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from obl_magic.display.charts.bars import deltas_svg, importances_svg
from obl_magic.display.charts.palette import TRAIN, VALIDATION
from obl_magic.display.charts.scatter import history_svg, slices_svg, spark_svg
from obl_magic.display.notebook import NotebookStudyDisplay, study_still
from obl_magic.display.study.html import study_panel_html, study_still_html
from obl_magic.display.study.text import TextStudyDisplay, study_status_line, study_summary
from obl_magic.display.study.view import (
    LIVE_ROWS,
    STILL_ROWS,
    ComponentRow,
    NoStudyDisplay,
    StudyDisplay,
    StudyState,
    TrialRow,
    component_lines,
    param,
    study_view,
)
from obl_magic.rundir.record import StudyRecord

SEARCH = StudyRecord(
    id="study-1", kind="search", function="train", digest="0123456789abcdef", quantity="val_accuracy",
    direction="maximize", wanted=20, workers=4, workers_per_trial=2, worlds=2, engine="mpi",
    sampler="tpe", pruner="asha", space=("lr=log(1e-4,1e-1)", "units=int(16,128)"),
    started_s=100.0, folder=".oblivious/studies/study-1", lines=("a remark",),
)  # fmt: skip
ABLATION = replace(SEARCH, kind="ablation", sampler="", pruner="", space=("features=age", "layers=conv2"))
COMPONENTS = (
    ComponentRow("gain", "feature", 0.96, 0.01, 0.002, 3, "succeeded", False, 900, 12, 8, interval=0.002),
    ComponentRow("conv2", "layer", 0.89, -0.06, 0.006, 3, "succeeded", False, 700, 13, 7, interval=0.006),
    ComponentRow("broken", "layer", None, None, None, 0, "failed", error="layer 'broken' does not fit"),
    ComponentRow("age", "feature", 0.949, -0.001, 0.004, 3, "succeeded", True, 900, 12, 8, interval=0.004),
    ComponentRow("base", "", 0.95, 0.0, 0.003, 3, "succeeded", None, 1000, 13, 8),
)


def done(number: int, value: float | None, status: str = "succeeded", **others: Any) -> TrialRow:
    """A trial that ended."""
    return TrialRow(
        number, status, value, **{"duration_s": 8.25, "params": {"lr": 0.01, "units": 64}, **others}
    )


def going(number: int, **others: Any) -> TrialRow:
    """A trial on its way."""
    return TrialRow(number, "running", **others)


def state(*rows: TrialRow, **others: Any) -> StudyState:
    """A study two minutes after its beginning."""
    return StudyState(rows=rows, **{"now_s": 220.0, **others})


def many(count: int) -> tuple[TrialRow, ...]:
    """Trials that get better, every tenth failed, every seventh pruned."""
    return tuple(
        done(n, None, "failed", error="ValueError: boom")
        if n % 10 == 9
        else done(
            n,
            n / count,
            "pruned" if n % 7 == 6 else "succeeded",
            params={"lr": 10 ** -(1 + n % 4), "units": n},
        )
        for n in range(count)
    )


def plain(html: str) -> str:
    """The text of a page, as one reads it without styles and pictures."""
    return re.sub(r"\s+", " ", unescape(re.sub(r"<[^>]+>", " ", re.sub(r"<svg.*?</svg>", " ", html))))


class Screen:
    """One output of a notebook."""

    def __init__(self) -> None:
        self.shown: list[dict[str, str]] = []

    def show(self, bundle: dict[str, str]) -> Screen:
        """A new output."""
        assert not self.shown, "a second output was made"
        self.shown.append(bundle)
        return self

    def update(self, obj: dict[str, str], **kwargs: Any) -> None:
        """The output is replaced."""
        assert kwargs == {"raw": True}
        self.shown.append(obj)


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_running_search_tells_how_far_it_is_and_what_is_best() -> None:
    """Title, counts, worlds, the best with its parameters, and the trials on their way."""
    row = going(
        3, value=0.8, where="epoch 3/10", duration_s=5.0, curve=((1, 0.5), (2, 0.7)), params={"lr": 0.1}
    )
    now = state(done(0, 0.7), done(1, 0.9), done(2, None, "failed"), row, busy=(0.923, 0.81))
    said = plain(study_panel_html(study_view(SEARCH, now)))
    for part in (
        "train search of 'val_accuracy' ↑ ● running 2:00",
        "2 worlds of 2 workers · mpi · TPE sampler · ASHA pruner · sha256 0123456789ab",
        "3/20 trials · 1 running · 1 failed · worlds busy 92 %, 81 %",
        "best val_accuracy 0.9000 trial 1 lr=0.01 units=64",
        "● 3 0.8000 epoch 3/10 5.0 s lr=0.1",
        "a remark",
    ):
        assert part in said
    line = study_status_line(study_view(SEARCH, now))
    assert "15% · 3/20 trials" in line
    assert "best 0.9000 (trial 1)" in line
    assert "● 3 epoch 3/10 0.8000 ▁█" in line


@pytest.mark.parametrize(("direction", "best", "order"), [("maximize", 2, "2 4 1"), ("minimize", 1, "1 2 4")])
def test_the_best_trial_is_the_best_by_direction_and_the_earliest_of_equals(
    direction: str, best: int, order: str
) -> None:
    """Neither a pruned trial nor one without a number can be best."""
    rows = (
        done(0, 5.0, "pruned"),
        done(1, 0.0),
        done(2, 2.0),
        done(3, math.nan),
        done(4, 2.0),
        done(5, -9.0, "pruned"),
    )
    shown = study_view(replace(SEARCH, direction=direction), state(*rows))
    assert shown.best_of == f"trial {best}"
    assert [line.name for line in shown.trials if line.best] == [f"{best}"]
    assert " ".join(line.name for line in shown.trials[:3]) == order


def test_a_study_that_has_only_begun_makes_nothing_up() -> None:
    """No best, no table, no picture; the number of wanted trials is known."""
    shown = study_view(SEARCH, state(now_s=101.0))
    assert (shown.counts, shown.best, shown.trials, shown.running) == ("0/20 trials", "", (), ())
    html = study_still_html(SEARCH, state(now_s=101.0))
    assert "<svg" not in html
    assert "<table" not in html
    assert "no trial succeeded" not in html


def test_where_the_number_of_trials_is_open_no_share_is_shown() -> None:
    """Nothing is said of how much is left."""
    shown = study_view(replace(SEARCH, wanted=None), state(done(0, 1.0)))
    assert (shown.counts, shown.shares) == ("1 trial", None)
    assert "%" not in study_status_line(shown)


@pytest.mark.parametrize("busy", [(0.5,), (0.1, 2.0, 0.3, math.nan, -1.0, 0.2)])
def test_the_busy_share_is_told_short(busy: tuple[float, ...]) -> None:
    """One world by itself, many as a range; what is no share is left out."""
    said = study_view(SEARCH, state(busy=busy)).busy
    assert said == ("busy 50 %" if len(busy) == 1 else "worlds busy 0–100 %")


def test_a_failed_trial_is_shown_with_its_error_beside_the_best() -> None:
    """Its error stands on one line, in the table and in the text."""
    now = state(done(0, 0.5), done(1, None, "failed", error="ValueError:\n  boom"), status="succeeded")
    still = study_still(SEARCH, now)
    assert "✗ 1 – 8.2 s 0.01 64 ValueError: boom" in plain(still["text/html"])
    assert re.search(r"✗ +1 +– .* failed ValueError: boom", still["text/plain"])


def test_failures_are_seen_even_among_many_better_trials() -> None:
    """A fifth of the rows is theirs, the latest first."""
    rows = (*(done(n, float(n)) for n in range(50)), *(done(n, None, "failed") for n in range(50, 60)))
    trials = study_view(SEARCH, state(*rows)).trials
    assert [line.name for line in trials[-3:]] == ["59", "58", "57"]
    assert [line.name for line in trials[:2]] == ["49", "48"]
    assert len(trials) == LIVE_ROWS


def test_a_search_without_a_single_success_says_so() -> None:
    """Not while it runs: it may still come."""
    row = done(0, None, "failed", error="boom")
    assert "no trial succeeded" not in study_summary(SEARCH, state(row))
    for text in study_still(SEARCH, state(row, status="failed")).values():
        assert "no trial succeeded" in text
        assert "boom" in text


def test_what_ran_when_the_study_was_interrupted_is_interrupted() -> None:
    """No trial is left running."""
    shown = study_view(SEARCH, state(done(0, 0.5), going(1), going(2), status="interrupted"))
    assert shown.counts == "3/20 trials · 2 interrupted"
    assert shown.running == ()
    assert [line.mark.word for line in shown.trials] == ["succeeded", "interrupted", "interrupted"]


def test_a_thousand_trials_take_no_more_room_than_sixty() -> None:
    """The rest is counted; every trial is still a dot of the picture."""
    now = state(*many(1000), status="succeeded")
    bundle = study_still(SEARCH, now)
    assert "… and 940 more in study.trials" in bundle["text/html"]
    assert "… and 940 more in study.trials" in bundle["text/plain"]
    assert bundle["text/plain"].count("\n") < STILL_ROWS + 12
    assert len(bundle["text/html"]) < 200_000
    assert len(study_view(SEARCH, now).trials) == LIVE_ROWS
    assert len(re.findall("h0", history_svg(SEARCH, now))) == sum(
        row.status == "succeeded" for row in now.rows
    )


def test_dots_are_thinned_where_there_are_very_many() -> None:
    """The file does not grow with the search."""
    few, more = (history_svg(SEARCH, state(*many(count))) for count in (4000, 20000))
    assert len(more) < 1.3 * len(few)


def test_many_parameters_and_many_running_trials_are_counted_not_shown() -> None:
    """Six columns, eight trials on their way; of the others the number."""
    wide = {f"p{n}": n for n in range(9)}
    now = state(done(0, 1.0, params=wide), *(going(n) for n in range(1, 21)))
    html = plain(study_panel_html(study_view(SEARCH, now)))
    assert "3 more parameters in study.trials" in html
    assert "and 12 more running" in html
    assert "p5 " in html
    assert "p6 " not in html


def test_unknown_values_are_dashes_and_odd_values_are_said() -> None:
    """None is –, NaN is nan and infinity inf; a parameter that a trial lacks is – too."""
    now = state(done(0, None), done(1, math.nan, duration_s=None), done(2, math.inf, params={"other": "x"}))
    lines = {line.name: line for line in study_view(SEARCH, now).trials}
    assert (lines["0"].value, lines["1"].value, lines["2"].value) == ("–", "nan", "inf")
    assert lines["1"].duration == "–"
    assert lines["2"].params == ("–", "–", "x")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.00123456, "0.001235"), (64, "64"), (True, "True"), (None, "None"), ("relu", "relu"), ((1, 2), "(1, 2)"),
        (10**400, ">1e308"), (math.nan, "nan"), ("x" * 50, "xxxxxxxxxxxx…xxxxxxxxxxx"),
    ],
)  # fmt: skip
def test_a_parameter_is_short_and_readable(value: object, text: str) -> None:
    """Numbers to four digits, the rest as Python writes it."""
    assert param(value) == text


def test_an_ablation_shows_its_base_first_then_what_harms_most() -> None:
    """Failed components come last, with their error; a gain comes after every harm."""
    lines = component_lines(ABLATION, COMPONENTS)
    assert [line.name for line in lines] == ["base", "conv2", "age", "gain", "broken"]
    assert [line.delta for line in lines] == ["", "-0.0600", "-0.0010", "+0.0100", "–"]
    assert [line.harm for line in lines] == [False, True, True, False, False]
    lower = component_lines(replace(ABLATION, direction="minimize"), COMPONENTS)
    assert [line.name for line in lower] == ["base", "gain", "age", "conv2", "broken"]


def test_a_feature_may_be_called_base() -> None:
    """Only the row of no ablated kind is the base run."""
    rows = (ComponentRow("base", "feature", 0.5, -0.4), ComponentRow("base", "base", 0.9, 0.0))
    assert [line.base for line in component_lines(ABLATION, rows)] == [True, False]


def test_the_ablations_table_has_what_is_known() -> None:
    """Numbers, chance, errors; a count that nobody knows has no column."""
    still = study_still(ABLATION, state(components=COMPONENTS, status="succeeded"))
    html = plain(still["text/html"])
    for part in (
        "component kind val_accuracy delta ± std repeats parameters inputs layers status",
        "base 0.9500 0.0030 3 1,000 13 8 ✓",
        "conv2 layer 0.8900 -0.0600 0.0060 3 700 13 7 ✓",
        "age feature 0.9490 -0.0010 0.0040 3 900 12 8 ✓ not clear (3 repeats)",
        "broken layer – – – 0 – – – ✗ failed layer 'broken' does not fit",
        "base val_accuracy 0.9500",
    ):
        assert part in html
    text = still["text/plain"]
    assert re.search(r"conv2 .*██████████│", text)
    assert re.search(r"age .*░│ +not clear", text)
    assert re.search(r"gain .*│██", text)
    bare = tuple(replace(row, parameters=None, inputs=None, layers=None) for row in COMPONENTS)
    assert "parameters" not in study_summary(ABLATION, state(components=bare))


def test_the_bars_of_harm_and_gain_have_their_sides_and_colours() -> None:
    """What may be chance is pale; the sentence says it all to who sees no picture."""
    svg = deltas_svg(ABLATION, component_lines(ABLATION, COMPONENTS))
    root = ET.fromstring(svg)
    bars = [piece.attrib for piece in root if piece.tag.endswith("rect")]
    assert [bar["fill"] for bar in bars] == [VALIDATION, VALIDATION, TRAIN]
    assert ["fill-opacity" in bar for bar in bars] == [False, True, False]
    ends = [float(bar["x"]) + float(bar["width"]) for bar in bars]
    assert ends[0] == pytest.approx(float(bars[2]["x"]), abs=1)
    assert "← worse without it" in svg
    assert "better without it →" in svg
    falling = replace(ABLATION, direction="minimize")
    assert "worse without it →" in deltas_svg(falling, component_lines(falling, COMPONENTS))
    assert root.attrib["aria-label"] == (
        "Change of val_accuracy without each component: conv2 -0.0600 ± 0.0060 clear, "
        "age -0.0010 ± 0.0040 not clear (3 repeats), gain +0.0100 ± 0.0020 clear, broken failed."
    )


def test_an_ablation_whose_deltas_are_unknown_has_no_picture() -> None:
    """Nor has one whose deltas are no numbers."""
    rows = (ComponentRow("a", "layer", delta=math.nan), ComponentRow("base", "", 1.0, 0.0))
    assert deltas_svg(ABLATION, component_lines(ABLATION, rows)) == ""
    assert deltas_svg(ABLATION, ()) == ""


def test_the_history_marks_what_was_pruned_and_what_has_no_value() -> None:
    """The line of the best so far never gets worse, and its end is told."""
    rows = (done(0, 0.5), done(1, 0.9), done(2, 0.7), done(3, 0.4, "pruned"), done(4, None, "failed"))
    svg = history_svg(SEARCH, state(*rows))
    for part in (
        "best 0.9000",
        "◇ 1 pruned",
        "✗ 1 no value",
        'of 5 trials by number, the best 0.9000 of trial 1."',
    ):
        assert part in svg
    line = re.search(rf'd="(M[^"]*)" fill="none" stroke="{VALIDATION}"', svg)
    assert line is not None
    assert re.fullmatch(r"M[\d.]+,[\d.]+H[\d.]+V[\d.]+H318", line[1])


def test_one_exploded_trial_does_not_flatten_the_history() -> None:
    """It lies at the worse edge; the others keep their distances."""
    header = replace(SEARCH, direction="minimize")
    rows = [done(n, 1.0 + n / 20) for n in range(20)]
    heights = [
        float(y) for y in re.findall(r"M[\d.]+,([\d.]+)h0", history_svg(header, state(*rows, done(20, 1e12))))
    ]
    assert heights[20] == 32
    assert heights[0] - heights[19] > 20


def test_importances_are_ranked_and_drawn() -> None:
    """The most important is first; what is no number is left out."""
    now = state(done(0, 1.0), importances={"units": 0.25, "lr": 0.75, "odd": math.nan})
    root = ET.fromstring(importances_svg(now))
    assert root.attrib["aria-label"] == "Importance of parameters: lr 0.75, units 0.25"
    assert [float(piece.attrib["width"]) for piece in root if piece.tag.endswith("rect")] == [110.0, 36.7]
    assert re.search(r"lr +█{12} +0.75\n +units +█{4} +0.25", study_summary(SEARCH, now))
    assert importances_svg(state()) == ""


def test_a_slice_is_drawn_for_each_numeric_parameter_the_most_important_first() -> None:
    """A rate's axis is logarithmic, a word has no axis, and more than four are too many."""
    rows = [
        done(n, n / 9, params={"units": n, "lr": 10.0 ** -(n % 5), "act": "relu", "flag": True, "same": 1})
        for n in range(10)
    ]
    now = state(*rows, importances={"lr": 0.9})
    first, second = slices_svg(SEARCH, now)
    assert "lr (log)" in first
    assert 'aria-label="val_accuracy over units, 10 trials."' in second
    wide = [done(n, float(n), params={f"p{at}": n for at in range(9)}) for n in range(5)]
    assert len(slices_svg(SEARCH, state(*wide))) == 4


def test_a_curve_without_a_course_has_no_picture() -> None:
    """One point, or none that has a place, is no curve."""
    lines = study_view(
        SEARCH, state(going(0, curve=((1, 1.0),)), going(1, curve=((1, math.nan), (2, 1.0))))
    ).running
    assert [spark_svg(line.curve) for line in lines if line.curve] == ["", ""]


def test_names_and_errors_are_escaped() -> None:
    """Whatever they hold, it is text."""
    evil = "<img src=x onerror=alert(1)>\"'"
    header = replace(SEARCH, function=evil, quantity=evil, space=(evil,), lines=(evil,), folder=evil, id=evil)
    rows = [done(n, float(n), params={evil: n, "s": evil}, label=evil) for n in range(4)]
    rows += [done(4, None, "failed", error=evil), going(5, label=evil, where=evil)]
    components = (ComponentRow(evil, evil, 1.0, 0.5, status=evil, error=evil),)
    for kind in ("search", "ablation"):
        named = replace(header, kind=kind)
        for status in ("running", "succeeded"):
            now = state(*rows, components=components, importances={evil: 1.0}, status=status)
            checked(study_panel_html(study_view(named, now)))
            html = study_still_html(named, now)
            checked(html)
            assert "<img" not in html
            assert "&lt;img" in html


def test_a_log_gets_one_line_for_each_trial_that_ended_and_no_returns() -> None:
    """However often the same state is shown; the summary comes at the end."""
    out = io.StringIO()
    display = TextStudyDisplay(out)
    display.begin(SEARCH)
    now = state(done(0, 0.5), going(1))
    display.update(now)
    display.update(now)
    failed = replace(now, rows=(done(0, 0.5), done(1, None, "failed", error="boom", duration_s=None)))
    display.end(replace(failed, status="succeeded"))
    lines = out.getvalue().split("\n")
    assert lines[0].startswith("train · search of 'val_accuracy' ↑ · 2 worlds of 2 workers · mpi")
    assert lines[1] == "note: a remark"
    assert lines[2] == "✓ trial 0 succeeded · val_accuracy 0.5000 · 8.2 s · lr=0.01 units=64"
    assert lines[3] == "✗ trial 1 failed · lr=0.01 units=64 · boom"
    assert lines[4].startswith("✓ train succeeded in 2:00")
    assert "\r" not in out.getvalue()


def test_a_terminal_has_one_line_rewritten_and_the_summary_in_its_place() -> None:
    """At most four times a second, never wider than the terminal, and nothing of it is left."""
    out = Terminal()
    display = TextStudyDisplay(out, width=lambda: 40)
    display.begin(SEARCH)
    before = out.getvalue()
    display.update(state(going(0), now_s=200.0))
    display.update(state(going(0), now_s=200.1))
    display.update(state(done(0, 0.5), now_s=200.3))
    drawn = out.getvalue()[len(before) :]
    assert drawn.count("\r") == 2
    assert "\n" not in drawn
    assert all(len(line) <= 39 for line in drawn.split("\r"))
    display.end(state(done(0, 0.5), status="succeeded"))
    end = out.getvalue()[len(before) + len(drawn) :]
    assert re.match(r"\r {39}\r✓ train succeeded", end)


def test_a_terminal_without_unicode_gets_question_marks_not_an_error() -> None:
    """The study goes on."""
    raw = io.BytesIO()
    display = TextStudyDisplay(io.TextIOWrapper(raw, encoding="ascii", write_through=True))
    display.begin(SEARCH)
    display.end(state(done(0, 0.5), status="succeeded"))
    assert b"? train succeeded in 2:00" in raw.getvalue()


def test_a_notebook_has_one_output_replaced_when_it_looks_different() -> None:
    """Four times a second at most; the still is what stays."""
    screen = Screen()
    display = NotebookStudyDisplay(screen.show)
    display.begin(SEARCH)
    display.update(state(going(0), now_s=200.0))
    display.update(state(done(0, 0.5), now_s=200.1))
    assert len(screen.shown) == 2
    display.update(state(going(0), now_s=200.5))
    assert len(screen.shown) == 2
    display.update(state(done(0, 0.5), now_s=200.9))
    assert len(screen.shown) == 3
    end = state(done(0, 0.5), status="succeeded")
    display.end(end)
    assert screen.shown[-1] == study_still(SEARCH, end)
    assert all(set(bundle) == {"text/html", "text/plain"} for bundle in screen.shown)


def test_the_quiet_display_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    """Every display may be told the same; this one says nothing."""
    displays: list[StudyDisplay] = [
        NoStudyDisplay(),
        TextStudyDisplay(io.StringIO()),
        NotebookStudyDisplay(Screen().show),
    ]
    for display in displays:
        display.begin(SEARCH)
        display.update(state(going(0)))
        display.end(state(done(0, 1.0), status="succeeded"))
    assert capsys.readouterr() == ("", "")


TAGS = {
    *("div", "span", "details", "summary", "table", "thead", "tbody", "tr", "th", "td"),
    *("svg", "text", "line", "polyline", "circle", "path", "rect"),
}
ATTRIBUTES = {
    "class", "style", "title", "colspan", "xmlns", "width", "height", "viewbox", "role", "aria-label", "x", "y",
    "fill", "fill-opacity", "font-size", "font-weight", "text-anchor", "x1", "x2", "y1", "y2", "stroke", "d", "rx",
    "stroke-width", "stroke-opacity", "stroke-dasharray", "points", "stroke-linejoin", "stroke-linecap", "cx", "cy",
    "r",
}  # fmt: skip


class Checker(HTMLParser):
    """Refuses every element and attribute that is not known to be harmless, and those left open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in TAGS, tag
        assert {name for name, _ in attrs} <= ATTRIBUTES, attrs
        if not self.get_starttag_text().endswith("/>"):  # type: ignore[union-attr]
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def checked(html: str) -> None:
    """The page is well formed and harmless, and each picture is XML with numbers for places and a sentence."""
    checker = Checker()
    checker.feed(html)
    checker.close()
    assert checker.open == []
    for svg in re.findall(r"<svg.*?</svg>", html, re.DOTALL):
        root = ET.fromstring(svg)
        assert root.attrib["aria-label"]
        for piece in root.iter():
            drawn = " ".join(
                piece.attrib.get(name, "") for name in ("d", "points", "x", "y", "width", "cx", "cy")
            )
            assert "nan" not in drawn
            assert "inf" not in drawn


words = st.one_of(
    st.text(max_size=30), st.sampled_from(["", "base", "lr", "<b>&\"'", "a\nb", "\x1b[31m", "\ud800", "\x00"])
)
numbers = st.one_of(
    st.floats(),
    st.sampled_from([0.0, -0.0, 5e-324, 1e-320, 1e99, -1e99, 1e308]),
    st.integers(-(10**20), 10**20),
)
maybe = st.none() | numbers
counts = st.none() | st.integers(-2, 10**9)
statuses = st.sampled_from(["waiting", "running", "succeeded", "failed", "pruned", "interrupted"])
params = st.dictionaries(
    st.sampled_from(["lr", "units", "act"]) | words,
    maybe | words | st.booleans() | st.lists(words),
    max_size=8,
)
trials = st.builds(
    TrialRow, st.integers(-1, 10**6), statuses, maybe, maybe, words, params,
    st.lists(st.tuples(st.integers(-5, 10**9), numbers), max_size=5).map(tuple), words, words,
)  # fmt: skip
components = st.builds(
    ComponentRow, words, st.sampled_from(["feature", "layer", "group", "base", ""]) | words, maybe, maybe, maybe,
    st.integers(-1, 99), statuses | words, st.none() | st.booleans(), counts, counts, counts, words,
)  # fmt: skip
headers = st.builds(
    StudyRecord, id=words, kind=st.sampled_from(["search", "ablation"]), function=words, digest=words, quantity=words,
    direction=st.sampled_from(["maximize", "minimize"]), wanted=counts, workers=counts,
    workers_per_trial=st.integers(0, 99), worlds=st.integers(0, 99), engine=words, sampler=words, pruner=words,
    space=st.lists(words, max_size=3).map(tuple), started_s=st.floats(-1e9, 1e12), folder=words,
    lines=st.lists(words, max_size=2).map(tuple),
)  # fmt: skip
states = st.builds(
    StudyState, st.lists(trials, max_size=25).map(tuple), st.lists(components, max_size=8).map(tuple),
    st.dictionaries(words, numbers, max_size=5), st.lists(st.floats(), max_size=6).map(tuple),
    st.sampled_from(["running", "succeeded", "interrupted", "failed"]), st.floats(-1e9, 1e12),
)  # fmt: skip


@settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=200)
@given(headers, states)
def test_no_study_breaks_its_display(header: StudyRecord, now: StudyState) -> None:
    """Any study, on its way or over, renders, harmless and well formed, and prints without control characters."""
    shown = study_view(header, now)
    checked(study_panel_html(shown))
    still = study_still(header, now)
    checked(still["text/html"])
    assert "\n" not in study_status_line(shown)
    for text in (study_status_line(shown), still["text/plain"]):
        assert text.replace("\n", "").isprintable()
        text.encode()


@settings(deadline=None, suppress_health_check=list(HealthCheck), max_examples=60)
@given(headers, st.lists(states, max_size=4))
def test_no_study_breaks_the_terminal(header: StudyRecord, course: list[StudyState]) -> None:
    """In a terminal and in a log, each state may follow any other."""
    for out in (Terminal(), io.StringIO()):
        display = TextStudyDisplay(out, width=lambda: 20)
        display.begin(header)
        for now in course:
            display.update(now)
        display.end(StudyState(status="succeeded"))
        assert out.getvalue().endswith("\n")
