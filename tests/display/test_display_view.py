"""What every display says of a run, at every stage of it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from obl_magic.display.run.html import panel_html, still_html
from obl_magic.display.run.view import (
    Lines,
    NoDisplay,
    Pace,
    elapsed,
    number,
    one_line,
    printable,
    rank_names,
    shorten,
    view,
)
from obl_magic.events.event import (
    Ended,
    Event,
    Failed,
    Heartbeat,
    Log,
    Metric,
    Note,
    Progress,
    Result,
    Started,
)
from obl_magic.events.fold import RunState, empty, fold
from obl_magic.rundir.record import RunRecord

HEADER = RunRecord(
    "run-1", "train", "0123456789abcdef", 3, "mpi", "Horovod is not installed", "global", 2, 100.0
)


def folded(*events: Event) -> RunState:
    """The state after some events."""
    state = empty()
    for event in events:
        state = fold(state, event)
    return state


def started(rank: int, engine: str = "mpi") -> Started:
    """A rank is up."""
    return Started(rank, 101.0, 7, "host", "01", engine, rank, 1)


def progress(epoch: int, epochs: int, step: int, steps: int | None, speed: float | None = None) -> Progress:
    """A fit is somewhere."""
    return Progress(0, 102.0, epoch, epochs, step, steps, speed, {}, step)


def failed(rank: int, error: str = "ValueError: boom", where: str = "In [7], line 12") -> Failed:
    """A rank raised."""
    return Failed(rank, 103.0, error, "Traceback ...", where, "")


def test_before_any_rank_is_up_the_run_is_launching_and_nothing_is_made_up() -> None:
    """Unknown things are empty, never zero."""
    shown = view(HEADER, empty(), 101.0)
    assert (shown.status.word, shown.elapsed, shown.ranks) == ("launching", "0:01", "ranks 0-2 starting")
    assert (shown.epoch, shown.step, shown.speed, shown.fraction, shown.metrics) == ("", "", "", None, ())


def test_a_slow_rank_shows_in_who_never_waits_for_the_others() -> None:
    """Ranks that are alike are told together; a run that is over says nothing of it."""
    beats = [
        Heartbeat(rank, 102.0, 9, "In [7], line 3", fitting=True, step_s=step_s, waited=waited)
        for rank, step_s, waited in ((0, 0.01204, 0.41), (1, 0.01198, 0.0), (2, 0.01201, 0.39))
    ]
    state = folded(started(0), started(1), started(2), *beats)
    assert view(HEADER, state, 103.0).ranks == (
        "ranks 0, 2 running at 12 ms a step, 40 % waiting · rank 1 running at 12 ms a step, 0 % waiting"
    )
    assert view(HEADER, fold(state, Ended(-1, 104.0, "interrupted", "")), 105.0).ranks == "ranks 0-2 stopped"


def test_shares_that_follow_the_pace_are_shown_with_it() -> None:
    """In the line of the ranks, and in the panel's."""
    beats = [
        Heartbeat(rank, 102.0, 9, "", fitting=True, step_s=0.01, waited=0.0, share=share)
        for rank, share in ((0, 0.754), (1, 0.246))
    ]
    shown = view(HEADER, folded(started(0), started(1), *beats), 103.0)
    assert shown.ranks.startswith(
        "rank 0 running at 10 ms a step, 0 % waiting, 75 % of a batch · "
        "rank 1 running at 10 ms a step, 0 % waiting, 25 % of a batch"
    )
    assert [pace.share for pace in shown.paces] == ["75 % of a batch", "25 % of a batch"]
    assert "10 ms · 0 % wait · 75 % of a batch" in panel_html(shown)


def test_a_fit_shows_where_it_is_in_epochs_steps_and_the_whole() -> None:
    """The fraction is over all epochs, not over this one."""
    shown = view(HEADER, folded(started(0), progress(3, 5, 120, 480, 12345.6)), 183.0)
    assert (shown.status.word, shown.elapsed) == ("running", "1:23")
    assert (shown.epoch, shown.step, shown.speed) == ("3/5", "120/480", "12,346 samples/s")
    assert shown.fraction == pytest.approx(2.25 / 5)


@pytest.mark.parametrize(
    ("where", "fraction", "step"),
    [
        (progress(2, 4, 17, None), 0.25, "17"),
        (progress(1, 2, 0, 0), 0.0, "0/0"),
        (progress(1, 0, 0, 0), None, "0/0"),
        (progress(9, 4, 99, 10), 1.0, "99/10"),
        (progress(0, 4, 0, 10), 0.0, "0/10"),
    ],
)
def test_unknown_or_odd_counts_never_break_the_bar(
    where: Progress, fraction: float | None, step: str
) -> None:
    """Unknown steps, no steps, more than there should be: the fraction stays between 0 and 1."""
    shown = view(HEADER, folded(where), 103.0)
    assert (shown.fraction, shown.step) == (fraction, step)


@pytest.mark.parametrize("speed", [None, 0.0, -1.0, math.nan, math.inf])
def test_a_speed_that_is_none_is_left_out(speed: float | None) -> None:
    """No run goes at nan samples a second."""
    assert view(HEADER, folded(progress(1, 1, 1, 1, speed)), 103.0).speed == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.123456, "0.1235"),
        (12.3456, "12.35"),
        (0.99996, "1.000"),
        (9.99999, "10.00"),
        (1234.56, "1,235"),
        (-0.5, "-0.5000"),
        (123456.0, "123,456"),
        (0.0, "0"),
        (-0.0, "0"),
        (1.2344e-7, "1.234e-07"),
        (1e30, "1.000e+30"),
        (math.nan, "nan"),
        (-math.inf, "-inf"),
        (True, "1.000"),
        (10**400, ">1e308"),
        ("seven", "seven"),
    ],
)
def test_numbers_have_four_significant_digits(value: float, text: str) -> None:
    """Large and small alike; what is no number stays what it is."""
    assert number(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (83.9, "1:23"), (7500, "2:05:00"), (-5, "0:00"), (math.nan, "0:00")]
)
def test_durations_read_like_a_clock(seconds: float, text: str) -> None:
    """A clock set back shows zero."""
    assert elapsed(seconds) == text


def test_a_short_run_that_is_over_says_its_tenths() -> None:
    """0:00 would say nothing of a run of 0.4 s."""
    assert (elapsed(0.42, precise=True), elapsed(59.96, precise=True)) == ("0.4 s", "0:59")


@pytest.mark.parametrize(
    ("ranks", "text"),
    [
        ([1], "rank 1"),
        ([0, 1], "ranks 0, 1"),
        ([3, 0, 1, 2], "ranks 0-3"),
        ([0, 2, 4, 5, 6, 7], "ranks 0, 2, 4-7"),
        ([-1], "launcher"),
        ([-1, 0], "launcher, rank 0"),
        (range(512), "ranks 0-511"),
    ],
)
def test_ranks_are_named_shortly(ranks: list[int], text: str) -> None:
    """Three neighbours or more become a span."""
    assert rank_names(ranks) == text


def test_ranks_are_grouped_by_what_they_do() -> None:
    """Each group once, also with more ranks than fit on a line."""
    state = folded(*(started(rank) for rank in range(9)), Result(4, 104.0, "v", 1, None))
    shown = view(replace(HEADER, workers=12), state, 105.0)
    assert shown.ranks == "ranks 0-3, 5-8 running · rank 4 returned · ranks 9-11 starting"


def test_in_the_kernel_there_is_no_talk_of_ranks_or_batches() -> None:
    """A plain call has no world to speak of."""
    shown = view(replace(HEADER, workers=None), folded(started(0, engine="")), 105.0)
    assert (shown.world, shown.ranks, shown.batch) == ("in the kernel", "", "")


def test_more_ranks_than_cores_is_visible() -> None:
    """The cores are named only where they are too few."""
    assert view(HEADER, empty(), 100.0).world == "3 workers on 2 cores"
    assert view(replace(HEADER, workers=1), empty(), 100.0).world == "1 worker"


def test_the_reason_stays_with_the_engine_that_was_chosen() -> None:
    """If the ranks say another engine, the reason is not theirs."""
    assert view(HEADER, folded(started(0)), 101.0).engine == "mpi (Horovod is not installed)"
    assert view(HEADER, folded(started(0, engine="horovod")), 101.0).engine == "horovod"


def test_the_first_cause_comes_first_and_the_others_are_one_line() -> None:
    """Ranks that were stopped because of it are not causes."""
    state = folded(*map(started, range(3)), failed(1), Ended(-1, 104.0, "failed", "ValueError: boom"))
    failure = view(HEADER, state, 999.0).failure
    assert failure is not None
    assert (failure.cause, failure.where) == ("rank 1: ValueError: boom", "In [7], line 12")
    assert failure.others == "ranks 0, 2: stopped"


def test_ranks_that_failed_with_it_say_their_error_shortly() -> None:
    """The second failure is folded into the line of the others."""
    state = folded(
        *map(started, range(4)), failed(2), failed(0, "MPIError: gone"), Ended(-1, 104.0, "failed", "")
    )
    failure = view(replace(HEADER, workers=4), state, 999.0).failure
    assert failure is not None
    assert failure.others == "rank 0: MPIError: gone · ranks 1, 3: stopped"


def test_the_conductor_decides_which_failure_was_first() -> None:
    """What it wrote into the end of the run wins over the order of arrival."""
    state = folded(
        failed(0, "MPIError: gone"), failed(1), Ended(-1, 104.0, "failed", "rank 1: ValueError: boom")
    )
    failure = view(HEADER, state, 999.0).failure
    assert failure is not None
    assert failure.cause == "rank 1: ValueError: boom"


def test_an_end_without_a_rank_to_blame_says_its_error() -> None:
    """A deadline is nobody's exception."""
    state = folded(started(0), Ended(-1, 104.0, "timed out", "no end after 5 s"))
    failure = view(HEADER, state, 999.0).failure
    assert failure is not None
    assert (failure.cause, failure.others) == ("no end after 5 s", "ranks 0-2: stopped")


def test_a_failure_that_a_retry_made_good_is_a_note() -> None:
    """A run that succeeded does not look failed."""
    state = folded(started(1), failed(1), started(1))
    assert view(HEADER, state, 105.0).failure is None
    over = view(HEADER, fold(state, Ended(-1, 106.0, "succeeded", "")), 107.0)
    assert over.failure is None
    assert over.notes == ("an earlier attempt failed: rank 1: ValueError: boom",)


def test_after_the_end_time_stands_still() -> None:
    """The clock of a run that is over is the time of its end."""
    state = folded(started(0), Ended(-1, 150.0, "interrupted", ""))
    assert view(HEADER, state, 9999.0).elapsed == "50.0 s"


def test_notes_and_remarks_are_kept_apart_and_bounded() -> None:
    """A function that says the same kind of thing a hundred times does not fill the notebook."""
    state = folded(*(Note(0, 101.0, f"sentence {number}", "code") for number in range(100)))
    shown = view(replace(HEADER, lines=("credentials: API_KEY",)), state, 105.0)
    assert shown.remarks == ("credentials: API_KEY",)
    assert (len(shown.notes), shown.notes[-1]) == (21, "and 80 more notes")


def test_text_from_outside_is_made_printable() -> None:
    """Terminal colours, control characters and lone surrogates do not reach any output."""
    assert one_line("a\x1b[31mred\x1b[0m\n b\x00\ud800") == "ared b\ufffd\ufffd"
    assert printable("a\tb\r\nc") == "a   b\nc"


def test_long_names_lose_their_middle() -> None:
    """Beginning and end tell names apart."""
    assert shorten("a" * 30 + "b" * 30, 11) == "aaaaa…bbbbb"
    assert shorten("short", 11) == "short"


def test_newest_values_are_shown_in_the_order_they_appeared() -> None:
    """NaN is a value like others."""
    state = folded(
        Metric(0, 101.0, {"loss": math.nan, "accuracy": 0.5}, 1, 1), Metric(0, 102.0, {"lr": 1e-5}, 2, 1)
    )
    figures = [(figure.name, figure.text) for figure in view(HEADER, state, 103.0).metrics]
    assert figures == [("loss", "nan"), ("accuracy", "0.5000"), ("lr", "1.000e-05")]


def test_the_pace_is_four_a_second_by_the_time_it_is_told() -> None:
    """A virtual clock of 100 ticks in a second lets four through."""
    pace = Pace()
    assert sum(pace.due(1000 + tick / 128) for tick in range(128)) == 4


def test_a_clock_set_back_does_not_freeze_the_display() -> None:
    """After a step back the next drawing is due at once."""
    pace = Pace()
    assert [pace.due(100.0), pace.due(40.0), pace.due(40.1)] == [True, True, False]


def test_one_ranks_text_is_written_as_it_is() -> None:
    """No prefix, no added line end, returns untouched."""
    lines = Lines()
    assert (
        "".join(lines.feed(0, "stdout", piece, False) for piece in ("a", "\rb", "\r\n", "c")) == "a\rb\r\nc"
    )


def test_many_ranks_text_has_its_rank_before_each_line() -> None:
    """Parts of lines are prefixed once; a redrawn line again, since a return wiped the prefix."""
    lines = Lines()
    pieces = ["one\ntw", "o\n\n", "10%\r20%\r", "\n"]
    written = "".join(lines.feed(1, "stdout", piece, True) for piece in pieces)
    assert written == "[rank 1] one\n[rank 1] two\n[rank 1] \n[rank 1] 10%\r[rank 1] 20%\r\n"


def test_an_open_line_is_closed_before_another_rank_writes() -> None:
    """Two ranks never share a line."""
    lines = Lines()
    written = [lines.feed(rank, "stdout", text, True) for rank, text in [(0, "ab"), (1, "cd\n"), (0, "ef\n")]]
    assert "".join(written) == "[rank 0] ab\n[rank 1] cd\n[rank 0] ef\n"


def test_quiet_is_quiet(capsys: pytest.CaptureFixture[str]) -> None:
    """The quiet display writes nothing, whatever happens."""
    display = NoDisplay()
    display.begin(HEADER)
    display.text(0, "stdout", "hello\n", False)
    display.update(empty(), [], 1.0)
    display.end(empty(), [], 2.0)
    assert capsys.readouterr() == ("", "")


def test_what_each_rank_printed_last_is_seen_live_and_opens_in_the_still() -> None:
    """Its last line while it runs, one line high; five of each in the still; without what is the same in every run."""
    noise = "I0000 00:00:1.5 7 port.cc:153] oneDNN\n"
    state = folded(
        *(Log(rank, 101.0, "stdout", f"{noise}<b>\n" + "a\n" * 4 + f"of {rank}\n") for rank in (0, 1))
    )
    shown = view(HEADER, state, 102.0)
    assert shown.tails == (("rank 0", (*"aaaa", "of 0")), ("rank 1", (*"aaaa", "of 1")))
    panel = panel_html(shown)
    assert "of 0" in panel
    assert "of 1" in panel
    assert panel.count("height:20px") == still_html(HEADER, state, ()).count("height:20px")
    still = still_html(HEADER, state, ())
    assert "last lines of rank 1" in still
    assert "oneDNN" not in still
