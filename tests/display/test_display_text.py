"""A run in a terminal and in a log file."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace

import pytest
from rows import metric_rows

from obl_magic.display.run.text import TextDisplay, clip, columns, summary
from obl_magic.events.event import Ended, Event, Failed, Metric, Note, Progress, Started
from obl_magic.events.fold import MetricRow, RunState, empty, fold
from obl_magic.rundir.record import RunRecord

HEADER = RunRecord(
    "run-1",
    "train",
    "0123456789abcdef",
    2,
    "mpi",
    "",
    "global",
    2,
    100.0,
    ("large capture: x",),
    ".obl/run-1",
)


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        """It is."""
        return True


def screen(written: str) -> list[str]:
    """What a terminal shows after some text: returns go to column 0, text overwrites."""
    lines = []
    for line in written.split("\n"):
        shown: list[str] = []
        for piece in line.split("\r"):
            shown[: len(piece)] = piece
        lines.append("".join(shown).rstrip())
    return lines


def training(epochs: int) -> Iterator[Event]:
    """The events of a fit, one step an epoch."""
    yield Started(0, 100.5, 1, "host", "01", "mpi", 0, 1)
    for epoch in range(1, epochs + 1):
        logs = {"loss": 1 / epoch}
        yield Progress(0, 100.0 + epoch, epoch, epochs, 1, 1, 640.0, logs, epoch)
        yield Metric(0, 100.0 + epoch, {**logs, "val_loss": 2 / epoch}, epoch, epoch)


def play(
    display: TextDisplay, events: Iterator[Event], gap_s: float = 1.0
) -> tuple[RunState, list[MetricRow]]:
    """Shows events one after the other on a virtual clock."""
    state, rows, now_s = empty(), [], 100.0
    for event in events:
        state, now_s = fold(state, event), now_s + gap_s
        rows += metric_rows(event) if isinstance(event, Metric) else []
        display.update(state, [], now_s)
    return state, rows


def test_a_terminal_keeps_one_status_line_and_prints_stay_above_it() -> None:
    """After the run the screen holds the prints and the summary, no rest of the status line."""
    out = Terminal()
    display = TextDisplay(out, out, width=lambda: 60)
    display.begin(HEADER)
    state, rows = play(display, training(2))
    display.text(0, "stdout", "hello\n", False)
    display.update(state, [], 200.0)
    display.text(0, "stderr", "careful\n", False)
    state = fold(state, Ended(-1, 183.0, "succeeded", ""))
    display.end(state, rows, 184.0)
    shown = screen(out.getvalue())
    assert shown[:5] == [
        "train · 2 workers · mpi · global batch · sha256 0123456789ab",
        "note: large capture: x",
        "hello",
        "careful",
        "✓ train succeeded in 1:23 · 2 workers · mpi · global batch · sha256 0123456789ab",
    ]


@pytest.mark.parametrize("width", [1, 2, 10, 40, 79])
def test_the_status_line_is_never_wider_than_the_terminal(width: int) -> None:
    """Wide characters count twice."""
    out = Terminal()
    display = TextDisplay(out, out, width=lambda: width)
    display.begin(replace(HEADER, function="訓練" * 20, lines=()))
    before = len(out.getvalue())
    play(display, training(3))
    assert all(columns(piece) < width or not piece for piece in out.getvalue()[before:].split("\r"))


def test_the_status_line_is_rewritten_four_times_a_second_at_most() -> None:
    """A thousand updates in ten seconds draw forty lines."""
    out = Terminal()
    display = TextDisplay(out, out, width=lambda: 80)
    display.begin(HEADER)
    before = out.getvalue().count("\r")
    for tick in range(1280):
        display.update(empty(), [], 100.0 + tick / 128)
    assert out.getvalue().count("\r") - before == 40


def test_a_line_that_the_user_left_open_is_not_overwritten() -> None:
    """The user's own progress bar owns the last line until it ends."""
    out = Terminal()
    display = TextDisplay(out, out, width=lambda: 80)
    display.begin(HEADER)
    display.text(0, "stdout", "\rmine 10%", False)
    display.update(empty(), [], 105.0)
    display.text(0, "stdout", "\rmine 20%", False)
    assert out.getvalue().endswith("\rmine 10%\rmine 20%")
    display.end(fold(empty(), Ended(-1, 106.0, "succeeded", "")), [], 106.0)
    assert "mine 20%" in screen(out.getvalue())


def test_a_log_file_gets_one_line_an_epoch_and_no_returns() -> None:
    """Also when updates come faster than four a second."""
    out = io.StringIO()
    display = TextDisplay(out, out)
    display.begin(HEADER)
    state, rows = play(display, training(3), gap_s=0.01)
    display.end(fold(state, Ended(-1, 104.0, "succeeded", "")), rows, 104.0)
    lines = out.getvalue().split("\n")
    assert [line for line in lines if line.startswith("epoch")] == [
        "epoch 1/3 · 0:00 · loss 1.000 · val_loss 2.000 · 640 samples/s",
        "epoch 2/3 · 0:00 · loss 0.5000 · val_loss 1.000 · 640 samples/s",
        "epoch 3/3 · 0:04 · loss 0.3333 · val_loss 0.6667 · 640 samples/s",
    ]
    assert "\r" not in out.getvalue()


def test_an_epochs_line_has_that_epochs_values_even_if_seen_late() -> None:
    """The next epoch's running loss is not the last epoch's, but its validation is."""
    out = io.StringIO()
    display = TextDisplay(out, out)
    display.begin(HEADER)
    first = fold(empty(), Progress(0, 101.0, 1, 2, 9, 9, None, {"loss": 0.5}, 9))
    display.update(first, [], 101.0)
    late = fold(
        fold(first, Metric(0, 102.0, {"val_loss": 0.7}, 9, 1)),
        Progress(0, 103.0, 2, 2, 1, 9, None, {"loss": 0.1}, 10),
    )
    display.update(late, [], 103.0)
    assert "epoch 1/2 · 0:03 · loss 0.5000 · val_loss 0.7000\n" in out.getvalue()


def test_the_summary_is_aligned_and_complete() -> None:
    """How it went, the table, the notes, where it lies."""
    state, rows = empty(), []
    for event in (
        *training(3),
        Note(0, 103.0, "nothing was distributed", "n"),
        Ended(-1, 183.0, "succeeded", ""),
    ):
        state = fold(state, event)
        rows += metric_rows(event) if isinstance(event, Metric) else []
    assert summary(HEADER, state, rows).split("\n") == [
        "✓ train succeeded in 1:23 · 2 workers · mpi · global batch · sha256 0123456789ab",
        "              last    best  at",
        "  loss      0.3333  0.3333  epoch 3  █▃▁",
        "  val_loss  0.6667  0.6667  epoch 3  █▃▁",
        "  note: nothing was distributed",
        "  run run-1 in .obl/run-1",
    ]


def test_the_summary_of_a_failure_begins_with_the_first_cause() -> None:
    """Cause, place, and one line for the others."""
    state = empty()
    for event in (
        *(Started(rank, 100.5, 1, "host", "01", "mpi", rank, 1) for rank in range(2)),
        Failed(1, 103.0, "ValueError: boom", "Traceback ...", "In [7], line 12", ""),
        Ended(-1, 103.5, "failed", "ValueError: boom"),
    ):
        state = fold(state, event)
    assert summary(HEADER, state, []).split("\n")[:4] == [
        "✗ train failed after 3.5 s · 2 workers · mpi · global batch · sha256 0123456789ab",
        "  rank 1: ValueError: boom",
        "  at In [7], line 12",
        "  rank 0: stopped",
    ]


def test_a_terminal_without_unicode_gets_question_marks_not_an_error() -> None:
    """A run does not die of its tick."""
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    display = TextDisplay(out, out)
    display.begin(HEADER)
    display.text(0, "stdout", "é\ud800\n", False)
    display.end(fold(empty(), Ended(-1, 101.0, "succeeded", "")), [], 101.0)
    assert b"? train succeeded in 1.0 s" in out.buffer.getvalue()  # type: ignore[attr-defined]


def test_clipping_counts_columns() -> None:
    """A wide character that would stick out is left out whole."""
    assert [clip("訓練中", width) for width in (6, 5, 4, 1, 0, -1)] == ["訓練中", "訓練…", "訓…", "…", "", ""]
