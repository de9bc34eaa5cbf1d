"""One process conducts a study at a time."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from obl_magic import rundir
from obl_magic.errors import UsageProblem
from obl_magic.study.holding import Holding

PROGRAM = """
import sys
from pathlib import Path
from obl_magic.rundir import StudyDir
from obl_magic.study.holding import Holding
held = Holding(StudyDir(Path(sys.argv[1])))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_second_one_is_refused_until_the_first_lets_go(tmp_path: Path) -> None:
    """In this process, too."""
    folder = rundir.create_study(tmp_path)
    first = Holding(folder)
    with pytest.raises(
        UsageProblem, match=rf"^got resume={folder.id}, which is under way; .*; do: %oblivious stop$"
    ):
        Holding(folder)
    first.let_go()
    first.let_go()
    Holding(folder).let_go()


def test_a_process_that_is_killed_holds_nothing_any_more(tmp_path: Path) -> None:
    """The system lets go for it."""
    folder = rundir.create_study(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(folder.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(UsageProblem):
            Holding(folder)
        other.kill()
    Holding(folder).let_go()


def test_only_the_user_may_touch_what_holds_it(tmp_path: Path) -> None:
    """As every file of a study."""
    folder = rundir.create_study(tmp_path)
    Holding(folder).let_go()
    assert os.stat(folder.held).st_mode & 0o777 == 0o600
