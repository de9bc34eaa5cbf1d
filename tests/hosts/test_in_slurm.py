"""Runs in a Slurm allocation, and runs that ask for one; Slurm is real, its nodes are simulated."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator

import pytest
import simulated
from simulated import Hosts

pytestmark = [pytest.mark.slow, pytest.mark.timing]

RUN = """
    import json, sys
    import obl_magic
    from obl_magic.errors import OblError

    def where():
        import socket
        from mpi4py import MPI
        return MPI.COMM_WORLD.allgather(socket.gethostname())

    try:
        run = obl_magic.run(where, quiet=True, **json.loads(sys.argv[1]))
        said = [run.value, run.record.hosts, [note.text for note in run.ledger.state.notes]]
    except (OblError, BaseException) as error:
        said = str(error)
    print("RESULT", json.dumps(said))
"""
WAITS = """
    import sys
    import obl_magic

    def wait():
        import os, time
        open("up-" + os.environ["OMPI_COMM_WORLD_RANK"], "w").close()
        time.sleep(60)

    obl_magic.run(wait, slurm=sys.argv[1], quiet=True)
"""


@pytest.fixture(scope="module")
def slurm() -> Iterator[Hosts]:
    """Two nodes, and a login node."""
    if why := simulated.why_not("sshd", "ip", "nsenter", "slurmctld", "slurmd", "munged", "salloc"):
        pytest.skip(why)
    up = Hosts(("nb", "a", "b"), "make_slurm.sh", more={"SLURM_CPUS": "4"})
    yield up
    up.down()


@pytest.fixture(autouse=True)
def _the_queue_is_empty(slurm: Hosts) -> Iterator[None]:
    for path in slurm.shared.glob("up-*"):
        path.unlink()
    yield
    _until_the_queue_is_empty(slurm)
    slurm.wait_until_empty()


def _until_the_queue_is_empty(slurm: Hosts) -> None:
    until = time.monotonic() + 10
    while jobs := slurm.shell("nb", "squeue -h"):
        assert time.monotonic() < until, jobs
        time.sleep(0.1)


def _run(cluster: Hosts, before: list[str], **options: object) -> list[object] | str:
    printed = cluster.python("nb", RUN, json.dumps(options), before=before)
    (line,) = [line for line in printed.splitlines() if line.startswith("RESULT ")] or [printed]
    found: list[object] | str = json.loads(line.removeprefix("RESULT "))
    return found


def test_an_allocation_is_used_and_said(slurm: Hosts) -> None:
    """Nothing is to be typed but how many ranks."""
    value, told, _ = _run(slurm, ["salloc", "-Q", "-N2", "--ntasks-per-node=2"], workers=4)
    assert value == ["a", "a", "b", "b"]
    assert told.startswith("4 ranks on 2 hosts of Slurm job ")
    assert told.endswith(": a 2, b 2")


def test_fewer_ranks_than_tasks_are_spread(slurm: Hosts) -> None:
    """Else all would sit on the first node."""
    assert _run(slurm, ["salloc", "-Q", "-N2", "--ntasks-per-node=2"], workers=2)[0] == ["a", "b"]


def test_hosts_narrow_an_allocation(slurm: Hosts) -> None:
    """And nothing else."""
    assert _run(slurm, ["salloc", "-Q", "-N2", "--ntasks-per-node=2"], hosts="b:2")[0] == ["b", "b"]
    said = str(_run(slurm, ["salloc", "-Q", "-N2"], hosts="c:1"))
    assert "c is not in Slurm job" in said
    assert "(a, b)" in said


def test_a_batch_script_runs_on_its_nodes(slurm: Hosts) -> None:
    """As in ``salloc``; the script begins on the first of them."""
    printed = slurm.python(
        "nb",
        RUN,
        json.dumps({"workers": 2}),
        before=["sbatch", "-Q", "-W", "-N2", "-o", "out.txt", "--wrap"],
        wraps=True,
    )
    assert "RESULT" in (slurm.shared / "out.txt").read_text(), printed
    value, _, _ = json.loads((slurm.shared / "out.txt").read_text().partition("RESULT ")[2].splitlines()[0])
    assert value == ["a", "b"]


def test_a_step_runs_on_all_nodes_of_its_job(slurm: Hosts) -> None:
    """As a notebook that was started by ``srun -N1 -n1 jupyter``; Slurm tells it of its own node only."""
    before = ["salloc", "-Q", "-N2", "--ntasks-per-node=1", "srun", "-N1", "-n1"]
    assert _run(slurm, before, workers=2)[0] == ["a", "b"]


def test_a_run_gets_an_allocation_of_its_own(slurm: Hosts) -> None:
    """It ends with the run."""
    value, _, notes = _run(slurm, [], slurm="-N 2")
    assert value == ["a", "b"]
    assert any("2 ranks on 2 hosts of Slurm job" in str(note) for note in notes)


def test_an_allocation_that_cannot_be_had_is_told(slurm: Hosts) -> None:
    """In Slurm's words."""
    said = str(_run(slurm, [], slurm="-N 2 -p nowhere"))
    assert said.startswith("Slurm refused the allocation: ")
    assert "salloc -N 2 -p nowhere" in said


def test_what_it_waits_for_is_said_and_an_interrupt_ends_the_waiting(slurm: Hosts) -> None:
    """Three nodes of two."""
    run = slurm.start("nb", RUN, json.dumps({"slurm": "-N 3", "timeout": 1}))
    until = time.monotonic() + 20
    while not any(
        "waiting for" in path.read_text() for path in slurm.shared.glob(".oblivious/runs/*/events.jsonl")
    ):
        assert time.monotonic() < until
        time.sleep(0.1)
    time.sleep(2)  # it has not timed out by then: time counts from the first rank
    os.killpg(run.pid, signal.SIGINT)
    said, _ = run.communicate(timeout=20)
    assert 'RESULT ""' in said, said
    newest = max(slurm.shared.glob(".oblivious/runs/*/events.jsonl"), key=lambda path: path.stat().st_mtime)
    assert "waiting for Slurm job" in newest.read_text()


@pytest.mark.parametrize("asked", ["-N 2", "-N 3"])
def test_a_kernel_that_is_killed_leaves_no_allocation(slurm: Hosts, asked: str) -> None:
    """Neither one that was granted nor one that waits."""
    run = slurm.start("nb", WAITS, asked)
    until = time.monotonic() + 20
    while asked == "-N 2" and len(list(slurm.shared.glob("up-*"))) < 2:
        assert time.monotonic() < until
        time.sleep(0.05)
    while not slurm.shell("nb", "squeue -h"):
        assert time.monotonic() < until
        time.sleep(0.05)
    (kernel,) = slurm.pids("nb", "script-")[:1]
    slurm.shell("nb", f"kill -9 {kernel}")
    run.communicate(timeout=20)
    _until_the_queue_is_empty(slurm)
    assert _run(slurm, [], slurm="-N 2")[0] == ["a", "b"]  # and what daemons have left that Slurm killed goes
