"""The comparison before a training, as a line of text and as one panel."""

from __future__ import annotations

from typing import Any

from obl_magic.display.notebook import NotebookVerification
from obl_magic.display.verifying import VerifyDisplay
from obl_magic.events.event import Ended, Heartbeat
from obl_magic.events.fold import empty, fold
from obl_magic.rundir.record import RunRecord


class Handle:
    """Keeps what was shown in one output."""

    def __init__(self) -> None:
        self.shown: list[dict[str, str]] = []

    def show(self, bundle: dict[str, str]) -> Handle:
        """A new output."""
        self.shown.append(bundle)
        return self

    def update(self, obj: dict[str, str], **_: Any) -> None:
        """The same output."""
        self.shown.append(obj)


def header(began_s: float) -> RunRecord:
    """A run that began then."""
    return RunRecord(
        id="a-run", function="train", digest="d" * 64, workers=2, engine="mpi", started_s=began_s
    )


def stepped(step: int) -> Any:
    """Rank 0 has made so many steps."""
    return fold(empty(), Heartbeat(0, 1.0, step, step, "", False, True))


def walk(display: VerifyDisplay) -> None:
    """Both runs and the report."""
    display.plan(3, (1, 2))
    display.begin(header(100.0))
    display.update(stepped(2), (), 101.0)
    display.end(fold(stepped(3), Ended(-1, 104.0, "succeeded", "")), (), 104.0)
    display.begin(header(104.0))
    display.update(stepped(1), (), 106.0)
    display.end(fold(stepped(3), Ended(-1, 109.0, "succeeded", "")), (), 109.0)
    display.verdict("the same numbers", "<b>the same numbers</b>")


def test_a_panel_says_which_run_is_under_way_and_at_which_step_until_the_report_takes_its_place() -> None:
    """One output from begin to end."""
    handle = Handle()
    walk(NotebookVerification(handle.show))
    said = [bundle["text/plain"] for bundle in handle.shown]
    assert "train verifying: 1 rank: step 2/3 0:01 → 2 ranks" in said
    assert "train verifying: 1 rank: 3 steps 4.0 s ✓ → 2 ranks: step 1/3 0:02" in said
    assert handle.shown[-1] == {"text/html": "<b>the same numbers</b>", "text/plain": "the same numbers"}
    assert "the first 3 steps on one rank and on 2" in handle.shown[0]["text/html"]


def test_a_terminal_gets_one_line_and_the_report(capsys: Any) -> None:
    """Not a line a step."""
    walk(VerifyDisplay())
    assert capsys.readouterr().out.splitlines() == [
        "train verifying: 1 rank: step 0/3 0:00 → 2 ranks",
        "the same numbers",
    ]
