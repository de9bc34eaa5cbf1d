"""From what launchers and ranks said to the exception that a user sees."""

from __future__ import annotations

import pickle
from dataclasses import replace
from functools import reduce
from pathlib import Path

import pytest

from obl_magic import payload
from obl_magic.errors import RankDied, RunFailed, RunStalled, RunTimedOut
from obl_magic.events.event import Ended, Event, Failed, Log, Started
from obl_magic.events.fold import RunState, empty, fold
from obl_magic.rundir import RunDir
from obl_magic.runs.failures import Death, error_of, last_words, read_death

OPENMPI_5_KILLED = """--------------------------------------------------------------------------
prterun noticed that process rank 1 with PID 16221 on node vm exited on
signal 9 (Killed).
--------------------------------------------------------------------------
"""
OPENMPI_5_SEGFAULT = """--------------------------------------------------------------------------
prterun noticed that process rank 11 with PID 16231 on node vm exited on
signal 11 (Segmentation fault).
--------------------------------------------------------------------------
"""
OPENMPI_5_EXIT = """--------------------------------------------------------------------------
prterun detected that one or more processes exited with non-zero status,
thus causing the job to be terminated. The first process to do so was:

   Process name: [prterun-vm-16241@1,12]
   Exit code:    3
--------------------------------------------------------------------------
"""
OPENMPI_5_LEFT = """--------------------------------------------------------------------------
prterun has exited due to process rank 1 with PID 21214 on node vm exiting
improperly. There are three reasons this could occur:

1. this process did not call "init" before exiting, but others in the
job did. This can cause a job to hang indefinitely while it waits for
all processes to call "init". By rule, if one process calls "init",
then ALL processes must call "init" prior to termination.
--------------------------------------------------------------------------
"""
OPENMPI_4_KILLED = """--------------------------------------------------------------------------
Primary job  terminated normally, but 1 process returned
a non-zero exit code. Per user-direction, the job has been aborted.
--------------------------------------------------------------------------
--------------------------------------------------------------------------
mpirun noticed that process rank 1 with PID 0 on node vm exited on signal 9 (Killed).
--------------------------------------------------------------------------
"""
OPENMPI_4_EXIT = """--------------------------------------------------------------------------
Primary job  terminated normally, but 1 process returned
a non-zero exit code. Per user-direction, the job has been aborted.
--------------------------------------------------------------------------
--------------------------------------------------------------------------
mpirun detected that one or more processes exited with non-zero status, thus causing
the job to be terminated. The first process to do so was:

  Process name: [[15010,1],1]
  Exit code:    3
--------------------------------------------------------------------------
"""
MPICH = """
===================================================================================
=   BAD TERMINATION OF ONE OF YOUR APPLICATION PROCESSES
=   PID 16249 RUNNING AT vm
=   EXIT CODE: {code}
=   CLEANING UP REMAINING PROCESSES
=   YOU CAN IGNORE THE BELOW CLEANUP MESSAGES
===================================================================================
"""
MPICH_KILLED = (
    MPICH.format(code=9)
    + """YOUR APPLICATION TERMINATED WITH THE EXIT STRING: Killed (signal 9)
This typically refers to a problem with your application.
Please see the FAQ page for debugging suggestions
"""
)
MPICH_SEGFAULT = (
    MPICH.format(code=9)
    + """YOUR APPLICATION TERMINATED WITH THE EXIT STRING: Segmentation fault (signal 11)
This typically refers to a problem with your application.
Please see the FAQ page for debugging suggestions
"""
)


@pytest.mark.parametrize(
    ("said", "death"),
    [
        (OPENMPI_5_KILLED, Death(1, "signal 9 (Killed)")),
        (OPENMPI_5_SEGFAULT, Death(11, "signal 11 (Segmentation fault)")),
        (OPENMPI_5_EXIT, Death(12, "exit code 3")),
        (OPENMPI_5_LEFT, Death(1, "it left before the function had returned (exit code 0)")),
        (OPENMPI_4_KILLED, Death(1, "signal 9 (Killed)")),
        (OPENMPI_4_EXIT, Death(1, "exit code 3")),
        (MPICH_KILLED, Death(None, "signal 9 (Killed)")),
        (MPICH_SEGFAULT, Death(None, "signal 11 (Segmentation fault)")),
        (MPICH.format(code=3), Death(None, "exit code 3")),
        ("a user's words\n" + OPENMPI_5_KILLED + OPENMPI_5_EXIT, Death(1, "signal 9 (Killed)")),
        ("", None),
        ("process 1 is fine, signal 9 is a number\n", None),
    ],
    ids=[
        "openmpi5-killed", "openmpi5-segfault", "openmpi5-exit", "openmpi5-left", "openmpi4-killed", "openmpi4-exit",
        "mpich-killed", "mpich-segfault", "mpich-exit", "first-cause", "nothing", "noise",
    ],
)  # fmt: skip
def test_a_death_is_read_from_the_launchers_real_words(said: str, death: Death | None) -> None:
    """Which rank and how, as Open MPI 4.1.8, 5.0.11 and MPICH 5.0.2 print it."""
    assert read_death(said) == death


@pytest.fixture
def folder(tmp_path: Path) -> RunDir:
    """A run's folder."""
    return RunDir(tmp_path)


def state_of(*events: Event, ranks: int = 3) -> RunState:
    """The state after all ranks started and then these events happened."""
    started = [Started(rank, 1.0, 100 + rank, "host", "d", "mpi", rank, 1) for rank in range(ranks)]
    return reduce(fold, [*started, *events], empty())


def failed(rank: int, error: str, file: str = "", traceback: str = "Traceback: In [7], line 12") -> Failed:
    """A rank's failure, with a traceback unless told otherwise."""
    return Failed(rank, 2.0, error, traceback, "In [7], line 12" if traceback else "", file)


@pytest.mark.parametrize(
    ("status", "kind", "said"),
    [
        ("interrupted", KeyboardInterrupt, ""),
        ("timed out", RunTimedOut, "the run passed its timeout of 3 s"),
        ("stalled", RunStalled, "rank 1 is behind"),
        ("failed", RunFailed, "the disk is full"),
    ],
)
def test_every_status_has_its_exception(
    folder: RunDir, status: str, kind: type[BaseException], said: str
) -> None:
    """Of its own type, with the run's first cause as its words."""
    error = error_of(state_of(Ended(-1, 3.0, status, said)), folder)
    assert type(error) is kind
    assert str(error) == said


def test_a_failure_without_a_word_says_so(folder: RunDir) -> None:
    """Never an empty error."""
    error = error_of(state_of(Ended(-1, 3.0, "failed", "")), folder)
    with pytest.raises(RunFailed, match="the run failed without a word"):
        raise error


def test_the_workers_own_exception_comes_back_with_the_ranks_traceback(folder: RunDir) -> None:
    """Same type, same arguments; the notebook shows the rank's lines, a terminal sees them as a note."""
    folder.write_bytes(folder.error(1), payload.dumps(KeyError("loss")))
    state = state_of(
        failed(1, "KeyError: 'loss'", folder.error(1).name), failed(0, "RuntimeError: peer left")
    )
    error = error_of(replace(state, status="failed"), folder)
    assert repr(error) == "KeyError('loss')"
    (note,) = error.__notes__
    assert note.splitlines() == [
        "rank 1 raised at In [7], line 12:", "", "Traceback: In [7], line 12", "", "(ranks 0, 2: stopped)",
    ]  # fmt: skip
    assert error._render_traceback_() == note.splitlines()  # type: ignore[attr-defined]


def test_ranks_that_raised_the_same_are_folded_into_one_line(folder: RunDir) -> None:
    """One traceback, not one a rank."""
    state = state_of(*(failed(rank, "ValueError: x") for rank in (2, 0, 1)))
    (note,) = error_of(replace(state, status="failed"), folder).__notes__
    assert note.startswith("rank 2 raised")
    assert note.endswith("(ranks 0, 1: raised the same)")


@pytest.mark.parametrize(
    "data", [None, b"not a pickle", payload.dumps("no exception")], ids=["lost", "torn", "other"]
)
def test_an_exception_that_cannot_come_back_is_told_by_its_text(folder: RunDir, data: bytes | None) -> None:
    """As a failed run with the same first line and the same traceback."""
    if data is not None:
        folder.write_bytes(folder.error(0), data)
    state = state_of(failed(0, "Strange: from afar", folder.error(0).name), ranks=1)
    error = error_of(replace(state, status="failed"), folder)
    assert type(error) is RunFailed
    assert str(error) == "Strange: from afar"
    assert error.__notes__ == ["rank 0 raised at In [7], line 12:\n\nTraceback: In [7], line 12"]


def test_a_rank_that_died_is_told_with_its_last_words(folder: RunDir) -> None:
    """Ten lines of its output at most."""
    lines = [Log(2, 1.5, "stdout", f"line {n}\n") for n in range(15)]
    state = state_of(*lines, failed(2, "rank 2 died: signal 9 (Killed)", traceback=""))
    error = error_of(replace(state, status="failed"), folder)
    assert type(error) is RankDied
    said = str(error).splitlines()
    assert said[:3] == ["rank 2 died: signal 9 (Killed)", "last lines of its output:", "  line 5"]
    assert (said[-1], len(said)) == ("  line 14", 12)


def test_a_traceback_says_more_than_a_death(folder: RunDir) -> None:
    """The rank that raised is the cause; the one that died with it is not."""
    state = state_of(failed(0, "rank 0 died: exit code 1", traceback=""), failed(1, "ValueError: cause"))
    assert str(error_of(replace(state, status="failed"), folder)) == "ValueError: cause"


@pytest.mark.parametrize("status", ["interrupted", "timed out", "stalled", "failed"])
def test_what_a_run_raises_can_be_pickled(folder: RunDir, status: str) -> None:
    """It may be raised in a process that has to send it on; what it says stays with it."""
    folder.write_bytes(folder.error(0), payload.dumps(ValueError("boom")))
    state = state_of(failed(0, "ValueError: boom", folder.error(0).name), Ended(-1, 3.0, status, "why"))
    error = error_of(state, folder)
    back = pickle.loads(pickle.dumps(error))
    assert (type(back), str(back)) == (type(error), str(error))
    assert back._render_traceback_() == error._render_traceback_()  # type: ignore[attr-defined]


def test_what_tensorflow_writes_for_information_is_none_of_a_dead_ranks_last_words() -> None:
    """It is the same in every run, and hides what the function printed."""
    noise = "I0000 00:00:1.5 7 port.cc:153] oneDNN custom operations are on.\n"
    state = fold(
        empty(), Log(0, 1.0, "stderr", f"{noise}W0000 00:00:1.6 7 gpu.cc:1] no device\nmine\n{noise}")
    )
    assert last_words(state, 0) == (
        "last lines of its output:\n  W0000 00:00:1.6 7 gpu.cc:1] no device\n  mine"
    )
    assert last_words(fold(empty(), Log(0, 1.0, "stderr", noise)), 0) == ""
