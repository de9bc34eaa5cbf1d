"""Shows a run again, live: its event log is the truth, whoever writes it. Starts nothing, ends nothing."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable

from obl_magic.display.choose import current_cell, show_still, show_study, showing, showing_study
from obl_magic.display.run.view import Display
from obl_magic.display.study.view import StudyDisplay
from obl_magic.errors import UsageProblem
from obl_magic.events.event import STARTUP, Event, Log
from obl_magic.rundir import RunDir, existing, readable
from obl_magic.runs.owner import is_gone
from obl_magic.runs.run import LIVE, Run
from obl_magic.study.ablation_result import AblationResult
from obl_magic.study.find import open_results
from obl_magic.study.search_result import Study

EARLIER_LINES = 20
"""How many of rank 0's last lines are shown of a run that is under way."""
SHOW_EVERY_S = 0.1


def attach(name: str | None = None, display: Display | None = None) -> Run:
    """Shows a run until it has ended, or the still of one that has. Interrupting detaches; the run continues.

    Args:
        name: the run, as for :meth:`Run.open`; by default the newest that is under way, else the newest.
        display: where to show it; by default the notebook or the terminal.

    Returns:
        The run.

    Raises:
        UsageProblem: there is no such run, or none at all.
    """
    read = Run.open(_newest() if name is None else name)
    events = read.ledger.catch_up()
    if read.status != "running":
        show_still(read.record, read.ledger.state, read.ledger.rows)
    elif not _follow(read, events, display or showing()):
        read = Run.open(read.ledger.folder)  # the interrupt may have come between reading and folding
    found = LIVE.get(read.id) or read
    if read.status != "running":
        found.wait()  # what is on disk is known here a moment later
    found.shown_in = current_cell()
    return found


def attach_study(name: str, display: StudyDisplay | None = None) -> Study | AblationResult:
    """As :func:`attach`, for a search or an ablation.

    Args:
        name: the study, as for :func:`obl_magic.study.find.open_results`.
        display: where to show it.

    Raises:
        UsageProblem: there is no such study.
    """
    study = open_results(name)
    if study.status != "running":
        show_study(study.record, study.shown())
    else:
        shown = display or showing_study()
        shown.begin(study.record)
        try:
            while study.status == "running":
                shown.update(study.shown())
                time.sleep(SHOW_EVERY_S)
            shown.end(study.shown())
        except KeyboardInterrupt:  # detaches
            shown.end(study.shown())
    study.shown_in = current_cell()
    return study


def _newest() -> RunDir:
    """The newest run under way, else the newest."""
    folders = existing()[::-1]
    if not folders:
        raise UsageProblem(
            "attach where there is no run yet",
            "a run beside this notebook or in OBLIVIOUS_HOME",
            "%%oblivious --workers 2",
        )
    for folder in folders:
        if not _is_left_alone(folder) and Run.open(folder).status == "running":
            return folder
    return folders[0]


def _is_left_alone(folder: RunDir) -> bool:
    """Whether nobody can be running it any more; known without reading its events."""
    record = readable(folder)
    return is_gone(record.kernel if record else None, folder.logs)


def _follow(run: Run, before: Iterable[Event], shown: Display) -> bool:
    """Shows a run from now on, until it has ended or the user interrupts; whether it has ended."""
    ledger, ranks = run.ledger, tuple(run.record.options.get("show_ranks") or ())
    many, open_line = len(ranks) > 1, False
    try:
        shown.begin(run.record)
        for log in _last_lines(before):
            shown.text(log.rank, log.stream, log.text, many)
            open_line = not log.text.endswith("\n")
        while True:
            shown.update(ledger.state, ledger.rows, time.time())
            if ledger.state.ended_s is not None:
                break
            time.sleep(SHOW_EVERY_S)
            for event in ledger.catch_up():
                if isinstance(event, Log) and event.stream != STARTUP and event.rank in ranks:
                    shown.text(event.rank, event.stream, event.text, many)
                    open_line = not event.text.endswith("\n")
    except KeyboardInterrupt:
        said = f"detached; run {run.id} goes on (to see it again: %oblivious attach {run.id})\n"
        shown.text(0, "stdout", "\n" + said if open_line else said, False)
        return False
    shown.end(ledger.state, ledger.rows, time.time())
    return True


def _last_lines(events: Iterable[Event]) -> list[Log]:
    """What rank 0 printed last, whole lines of each stream as they came."""
    lines: deque[Log] = deque(maxlen=EARLIER_LINES)
    for event in events:
        if not isinstance(event, Log) or event.rank != 0 or event.stream == STARTUP:
            continue
        for text in event.text.splitlines(keepends=True):
            last = lines[-1] if lines else None
            if last and last.stream == event.stream and not last.text.endswith("\n"):
                kept = "" if last.text.endswith("\r") and text != "\n" else last.text  # a line drawn again
                lines[-1] = Log(0, event.time_s, event.stream, kept + text)
            else:
                lines.append(Log(0, event.time_s, event.stream, text))
    return list(lines)
