"""Whether the process that conducts a run still lives."""

from __future__ import annotations

import ast
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from obl_magic.runs.owner import SILENT_S, is_gone, this_process


def test_this_process_lives() -> None:
    """By the record that it writes of itself."""
    assert not is_gone(this_process())


def test_a_process_that_has_ended_is_gone_before_its_parent_takes_notice_and_after() -> None:
    """A zombie conducts nothing."""
    child = subprocess.Popen(
        [sys.executable, "-c", "from obl_magic.runs import owner as k; print(k.this_process()); input()"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout is not None
    record = ast.literal_eval(child.stdout.readline())
    assert record["pid"] == child.pid
    assert not is_gone(record)
    child.kill()
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        pass
    assert is_gone(record)
    child.communicate()
    assert is_gone(record)


@pytest.mark.parametrize("ticks", [-1, 1, 360_000])
def test_another_process_of_the_same_id_is_not_it(ticks: int) -> None:
    """Process ids are used again; one process begins at one tick."""
    me = this_process()
    assert is_gone({**me, "start_ticks": me["start_ticks"] + ticks})


def test_a_clock_that_is_set_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is recorded counts from the machine's start, which no clock moves."""
    me = this_process()
    hour_later = time.time() + 3600
    monkeypatch.setattr(time, "time", lambda: hour_later)
    monkeypatch.setattr(psutil, "boot_time", lambda: me["start_ticks"] + 3600.0)
    assert not is_gone(me)
    assert this_process() == me


def test_a_machine_that_was_started_again_runs_nothing_from_before() -> None:
    """Though there may be a process of that id."""
    assert is_gone({**this_process(), "boot_id": "00000000-0000-0000-0000-000000000000"})


def test_another_host_name_alone_is_no_other_machine() -> None:
    """A laptop changes it with its network."""
    assert not is_gone({**this_process(), "host": "elsewhere"})
    assert is_gone({**this_process(), "host": "elsewhere", "pid": 2**22 + 1})


@pytest.mark.parametrize(
    "elsewhere",
    [
        {"host": "elsewhere", "boot_id": "00000000-0000-0000-0000-000000000000"},
        {"host": "elsewhere", "pids": "pid:[1]"},
        {"pids": "pid:[1]"},
    ],
)
def test_a_process_that_cannot_be_seen_lives_while_its_log_grows(elsewhere: dict, tmp_path: Path) -> None:
    """Another machine's, or another container's: after a restart nobody adds to it."""
    record = {**this_process(), **elsewhere}
    assert not is_gone(record)
    log = tmp_path / "events.jsonl"
    assert is_gone(record, [log])
    log.touch()
    assert not is_gone(record, [log])
    assert not is_gone(record, [tmp_path / "other.jsonl", log])
    os.utime(log, (time.time() - SILENT_S - 60,) * 2)
    assert is_gone(record, [log])
    log.parent.chmod(0o500)
    assert is_gone(record, [log])


def test_the_record_of_an_earlier_version_is_understood() -> None:
    """It held when the process began, by the clock."""
    me = psutil.Process()
    old = {"pid": me.pid, "started_s": me.create_time(), "host": socket.gethostname()}
    assert not is_gone(old)
    assert is_gone({**old, "started_s": old["started_s"] - 3600})
    assert not is_gone({**old, "host": "elsewhere"})


def test_a_run_without_a_record_is_conducted_by_nobody() -> None:
    """It would be followed for ever."""
    assert is_gone(None)
