"""Whether the process that conducts a run still lives."""

from __future__ import annotations

import subprocess
import sys

import psutil
import pytest

from obl_magic.kernel_process import is_gone, this_process


def test_this_process_lives() -> None:
    """By the record that it writes of itself."""
    assert not is_gone(this_process())


def test_a_process_that_has_ended_is_gone_before_its_parent_takes_notice_and_after() -> None:
    """A zombie conducts nothing."""
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    record = {**this_process(), "pid": child.pid, "started_s": psutil.Process(child.pid).create_time()}
    assert not is_gone(record)
    child.kill()
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        pass
    assert is_gone(record)
    child.communicate()
    assert is_gone(record)


@pytest.mark.parametrize("earlier_s", [-3600.0, 3600.0])
def test_another_process_of_the_same_id_is_not_it(earlier_s: float) -> None:
    """Process ids are used again."""
    me = this_process()
    assert is_gone({**me, "started_s": me["started_s"] - earlier_s})


def test_a_corrected_clock_makes_no_other_process() -> None:
    """The same start may be read a second apart."""
    me = this_process()
    assert not is_gone({**me, "started_s": me["started_s"] + 1})


def test_a_process_of_another_host_is_taken_to_live() -> None:
    """Nobody here can know."""
    assert not is_gone({**this_process(), "host": "elsewhere", "pid": 2**22 + 1})


def test_a_run_without_a_record_is_conducted_by_nobody() -> None:
    """It would be followed for ever."""
    assert is_gone(None)
