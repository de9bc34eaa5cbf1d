"""The guard of all tests itself: what is left behind is found, named and removed."""

from __future__ import annotations

import re
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.timing

pytest_plugins = ["pytester"]

LEAVES_A_CHILD = """
import subprocess, sys
def test_it():
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
"""
LEAVES_A_STRANGER = """
import os, subprocess, sys
def test_it():
    child = subprocess.run([sys.executable, "-c", '''if True:
        import os, subprocess, sys
        left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"],
                                start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        print(left.pid)
    '''], capture_output=True, text=True)
    print("left", child.stdout)
"""
LEAVES_FILES = """
import os, tempfile, pathlib
def test_it():
    pathlib.Path(tempfile.gettempdir(), "prte.1").mkdir()
    pathlib.Path("/dev/shm/obl_test_guard").write_text("x")
"""
LEAVES_NOTHING = """
import subprocess, sys
def test_it(tmp_path):
    (tmp_path / "a").write_text("a")
    subprocess.run([sys.executable, "-c", "pass"], check=True)
"""


def run(pytester: pytest.Pytester, text: str) -> pytest.RunResult:
    """That test file under our conftest, in a pytest of its own."""
    tests = pytester.mkdir("checkout") / "tests"
    tests.mkdir()
    (tests / "conftest.py").write_text(Path(__file__).with_name("conftest.py").read_text())
    (tests / "test_it.py").write_text(text)
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", str(tests), timeout=60)


@pytest.mark.parametrize("text", [LEAVES_A_CHILD, LEAVES_A_STRANGER], ids=["child", "re-parented"])
def test_a_process_left_behind_fails_the_test_and_is_ended(pytester: pytest.Pytester, text: str) -> None:
    """Also one whose parent is gone and which has a session of its own."""
    result = run(pytester, text)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*the test left behind:*", "*process *: *time.sleep(600)*"])
    # a second time in pytest's closing summary, which is whole where ``CI`` is set
    (pid,) = set(re.findall(r"process (\d+): ", result.stdout.str()))
    assert not psutil.pid_exists(int(pid)) or psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE


def test_a_session_folder_and_shared_memory_left_behind_fail_the_test(pytester: pytest.Pytester) -> None:
    """What a launcher that was killed too hard leaves."""
    try:
        result = run(pytester, LEAVES_FILES)
    finally:
        Path("/dev/shm/obl_test_guard").unlink(missing_ok=True)
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*file /dev/shm/obl_test_guard", "*file *prte.1"])


def test_a_test_that_cleans_up_passes(pytester: pytest.Pytester) -> None:
    """Its own folder and processes that ended are nobody's business."""
    run(pytester, LEAVES_NOTHING).assert_outcomes(passed=1)
