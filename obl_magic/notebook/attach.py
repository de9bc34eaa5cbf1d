"""Shows a run again, live: its event log is the truth, whoever writes it. Starts nothing, ends nothing."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable

from obl_magic.display.base import Display
from obl_magic.display.studies import StudyDisplay
from obl_magic.errors import UsageProblem
from obl_magic.events.event import STARTUP, Event, Log
from obl_magic.kernel_process import is_gone
from obl_magic.rundir import RunDir, existing, readable
from obl_magic.runs import LIVE, Run, epoch_rows
from obl_magic.show import current_cell, show_still, show_study, showing, showing_study
from obl_magic.study.results import AblationResult, Study, open_results

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
    events = read._ledger.catch_up()
    if read.status != "running":
        show_still(read._header, read._ledger.state, epoch_rows(read._ledger.rows))
    elif not _follow(read, events, display or showing()):
        read = Run.open(read._ledger.folder)  # the interrupt may have come between reading and folding
    found = LIVE.get(read.id) or read
    if read.status != "running":
        found.wait()  # what is on disk is known here a moment later
    found._shown_in = current_cell()
    return found


def attach_study(name: str, display: StudyDisplay | None = None) -> Study | AblationResult:
    """As :func:`attach`, for a search or an ablation.

    Args:
        name: the study, as for :func:`obl_magic.study.results.open_results`. display: where to show it.

    Raises:
        UsageProblem: there is no such study.
    """
    study = open_results(name)
    if study.status != "running":
        show_study(study._header, study._shown())
    else:
        shown = display or showing_study()
        shown.begin(study._header)
        try:
            while study.status == "running":
                shown.update(study._shown())
                time.sleep(SHOW_EVERY_S)
            shown.end(study._shown())
        except KeyboardInterrupt:  # detaches
            shown.end(study._shown())
    study._shown_in = current_cell()
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
    return is_gone(readable(folder).get("kernel"), folder.logs)


def _follow(run: Run, before: Iterable[Event], shown: Display) -> bool:
    """Shows a run from now on, until it has ended or the user interrupts; whether it has ended."""
    ledger, ranks = run._ledger, tuple(run._manifest["options"]["show_ranks"] or ())
    many, open_line = len(ranks) > 1, False
    try:
        shown.begin(run._header)
        for log in _last_lines(before):
            shown.text(log.rank, log.stream, log.text, many)
            open_line = not log.text.endswith("\n")
        while True:
            shown.update(ledger.state, time.time())
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
    shown.end(ledger.state, epoch_rows(ledger.rows), time.time())
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
