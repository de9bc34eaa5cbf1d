"""Runs shown again: from another cell, from another kernel, after their kernel is gone."""

from __future__ import annotations

import io
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel import Cell, Kernel, gone

from obl_magic.display.run.text import TextDisplay
from obl_magic.errors import UsageProblem
from obl_magic.notebook.attach import attach
from obl_magic.rundir import existing

pytestmark = [pytest.mark.slow, pytest.mark.timing]

WAITS = """from obl_magic import report
import os, time
def {name}():
    for line in range(30):
        print('early', line)
    report(loss=0.5)
    print('waiting', flush=True)
    while not os.path.exists({gate!r}):
        time.sleep(0.01)
    print('through')
    return {name!r}
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of all runs of this file."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def kernel(shared: Path) -> Iterator[Kernel]:
    """The kernel that runs."""
    with Kernel(shared, {"OBLIVIOUS_HOME": str(shared)}) as kernel:
        kernel.run("%load_ext obl_magic")
        yield kernel


@pytest.fixture(scope="module")
def other(shared: Path) -> Iterator[Kernel]:
    """Another kernel beside it."""
    with Kernel(shared, {"OBLIVIOUS_HOME": str(shared)}) as kernel:
        kernel.run("%load_ext obl_magic\nimport obl_magic")
        yield kernel


def begin(kernel: Kernel, name: str, gate: Path, options: str = "--quiet") -> str:
    """Starts a background run that waits for a file, and waits until it waits; its id."""
    code = f"%%oblivious --workers 1 --engine mpi --background --out {name}_run {options}\n"
    cell = kernel.run(code + WAITS.format(name=name, gate=str(gate)))
    assert cell.ename == "", cell.traceback
    kernel.run(f"while 'waiting' not in {name}_run.logs(0):\n    time.sleep(0.01)")
    return kernel.value(f"{name}_run.id").strip("'")


def waits(cell: Cell) -> bool:
    """Whether the last line before the wait was shown."""
    return "waiting" in cell.text


def test_another_kernel_shows_a_run_to_its_end(kernel: Kernel, other: Kernel, tmp_path: Path) -> None:
    """Rank 0's last lines first, then what comes; one panel, which becomes the still; the Run is the value."""
    gate = tmp_path / "gate"
    name = begin(kernel, "train", gate)
    panels: list[str] = []

    def opened(cell: Cell) -> bool:
        drawn = [shown["text/plain"] for shown in cell.displays]
        if waits(cell) and not panels and not drawn[0].startswith("○"):  # it was launching
            panels.extend(drawn)
            gate.touch()
        return False

    sent = other.start("seen = get_ipython().run_line_magic('oblivious', 'attach')\nseen")
    cell = other.finish(sent, until=opened)
    assert cell.ename == "", cell.traceback
    assert cell.text.splitlines() == [*(f"early {line}" for line in range(11, 30)), "waiting", "through"]
    assert [panel.split(" ")[:2] for panel in panels] == [["●", "train"]]
    (still,) = cell.displays
    assert still["text/plain"].startswith("✓ train succeeded in ")
    assert other.value("seen.id, seen.status, seen.value") == str((name, "succeeded", "train"))
    assert kernel.value("train_run.wait(5).status") == "'succeeded'"


def test_an_ended_run_is_shown_at_once(kernel: Kernel, other: Kernel, tmp_path: Path) -> None:
    """As its still, once; in its own kernel it is the same Run."""
    (tmp_path / "gate").touch()
    name = begin(kernel, "done", tmp_path / "gate")
    kernel.run("done_run.wait()")
    for where in (kernel, other):
        cell = where.run(f"%oblivious attach {name[-6:]}")
        assert cell.text == ""
        assert [shown["text/plain"].split(" in ")[0] for shown in cell.displays] == ["✓ done succeeded"]
    assert kernel.value("_ is done_run") == "True"


def test_an_interrupt_only_looks_away(kernel: Kernel, other: Kernel, tmp_path: Path) -> None:
    """One plain line says so; the run goes on, in this kernel and in another."""
    gate = tmp_path / "gate"
    name = begin(kernel, "lasting", gate)
    for where in (other, kernel):
        cell = where.run("%oblivious attach", interrupt_after=waits)
        assert cell.ename == "", cell.traceback
        last = cell.text.splitlines()[-1]
        assert last == f"detached; run {name} goes on (to see it again: %oblivious attach {name})"
    assert other.value("_.status, _.wait(0.01).status") == "('running', 'running')"
    said = other.run("_.stop()")
    assert (said.ename, "which the kernel with process id" in said.evalue) == ("UsageProblem", True)
    gate.touch()
    assert kernel.value("lasting_run.wait().value") == "'lasting'"
    assert other.value("obl_magic.Run.open(_.id).value") == "'lasting'"


def test_two_runs_at_once_in_one_kernel(kernel: Kernel, tmp_path: Path) -> None:
    """Each has its own display, value and end; while one is shown the other can be stopped and waited for."""
    first, second = tmp_path / "first", tmp_path / "second"
    one, two = begin(kernel, "one", first, ""), begin(kernel, "two", second, "")
    assert kernel.value("one_run.status, two_run.status") == "('running', 'running')"
    code = f"import threading\nthreading.Timer(0.5, lambda: open({str(second)!r}, 'w').close()).start()\n"
    cell = kernel.run(f"{code}get_ipython().run_line_magic('oblivious', 'attach {two}').value")
    assert cell.result == "'two'"
    assert kernel.value("one_run.status, two_run.status") == "('running', 'succeeded')"
    assert kernel.run(f"%oblivious stop {one}").ename == ""
    assert kernel.value("one_run.status, one_run.value, two_run.values") == "('interrupted', None, ['two'])"
    assert kernel.children() == []


def test_a_run_whose_kernel_is_gone_has_failed(other: Kernel, shared: Path, tmp_path: Path) -> None:
    """It is said in words, by attach, by the Run and in the table; nobody follows it for ever."""
    scratch = {"TMPDIR": str(tmp_path), "OMPI_MCA_btl_sm_backing_directory": str(tmp_path)}
    with Kernel(shared, {"OBLIVIOUS_HOME": str(shared), **scratch}) as third:
        third.run("%load_ext obl_magic")
        name = begin(third, "orphan", tmp_path / "gate")
        pid, workers, killed = third.process.pid, third.children(), list[int]()

        def kills(cell: Cell) -> bool:
            if waits(cell) and not killed:
                killed.append(pid)
                third.kill()
            return False

        cell = other.finish(other.start(f"%oblivious attach {name}"), until=kills)
        assert gone(workers, within_s=10)
    (still,) = cell.displays
    assert f"its kernel is gone (process {pid} has ended)" in still["text/plain"]
    assert still["text/plain"].startswith("✗ orphan failed after ")
    (again,) = other.run(f"%oblivious attach {name}").displays
    assert again["text/plain"] == still["text/plain"]
    assert (
        other.value("(o := obl_magic.Run.open(_.id)).status, type(o.error).__name__")
        == "('failed', 'RunFailed')"
    )
    assert other.value("str(o.error).split('; do: ')").startswith(f"['its kernel is gone (process {pid} ")
    other.run("table = get_ipython().run_line_magic('oblivious', 'runs')")
    assert other.value(f"list(table[table.run == {name!r}].status)") == "['failed']"


def test_without_any_run_it_says_so(home: Path) -> None:
    """One line, as every request that cannot be."""
    with pytest.raises(UsageProblem, match="got attach where there is no run yet; expected a run beside"):
        attach()
    assert list(home.iterdir()) == []


CONDUCTS = """
import obl_magic, os, time
def train():
    print('half', end='', flush=True)
    while not os.path.exists('gate'):
        time.sleep(0.01)
    print(' a line')
obl_magic.run(train, quiet=True)
"""


def test_in_a_terminal_a_line_goes_on_where_it_was(home: Path) -> None:
    """Another process runs the function by itself; what it printed before and after makes one line."""
    out = io.StringIO()
    with subprocess.Popen([sys.executable, "-c", CONDUCTS]) as conductor:
        while not any("half" in run.read_log(0) for run in existing()):
            assert conductor.poll() is None
        threading.Timer(0.3, (home / "gate").touch).start()
        run = attach(display=TextDisplay(out, out))
    assert run.status == "succeeded"
    first, line, *_ = out.getvalue().splitlines()
    assert first.startswith("train · in the kernel")
    assert line == "half a line"
