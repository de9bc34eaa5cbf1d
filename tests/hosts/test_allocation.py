"""Slurm's variables, as its manual pages have them; and what ``salloc``'s options say of tasks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obl_magic.errors import UsageProblem
from obl_magic.hosts import salloc
from obl_magic.hosts.allocation import allocation, expanded, for_mpirun, narrowed_to, placed_in
from obl_magic.hosts.places import parse
from obl_magic.options import RUN, RunOptions

JOB = {
    "SLURM_JOB_ID": "4711", "SLURM_JOB_NODELIST": "a,b", "SLURM_TASKS_PER_NODE": "4(x2)", "SLURM_JOB_NUM_NODES": "2",
    "SLURM_JOB_CPUS_PER_NODE": "8(x2)",
}  # fmt: skip


@pytest.mark.parametrize(
    ("nodelist", "names"),
    [
        ("a", ["a"]),
        ("a,b", ["a", "b"]),
        ("n[1-3]", ["n1", "n2", "n3"]),
        ("n[01-03,07],login", ["n01", "n02", "n03", "n07", "login"]),
        ("rack[1-2]n[8-9]", ["rack1n8", "rack1n9", "rack2n8", "rack2n9"]),
        ("gpu[098-101].lan", ["gpu098.lan", "gpu099.lan", "gpu100.lan", "gpu101.lan"]),
        ("", []),
    ],
)
def test_nodelists_are_expanded_as_scontrol_does(nodelist: str, names: list[str]) -> None:
    """``scontrol show hostnames``."""
    assert expanded(nodelist) == names


@given(st.integers(0, 998), st.integers(1, 20))
def test_ranges_keep_their_zeros(first: int, many: int) -> None:
    """Of any length."""
    names = [f"n{number:04d}" for number in range(first, first + many)]
    assert expanded(f"n[{first:04d}-{first + many - 1:04d}]") == names


def test_an_allocation_is_told_as_users_read_it() -> None:
    """The panel's header."""
    job = allocation(JOB)
    assert job is not None
    assert placed_in(job, 8, JOB).told == "8 ranks on 2 hosts of Slurm job 4711: a 4, b 4"
    assert placed_in(job, 3, JOB).in_words == "a 2, b 1"


def test_processors_are_places_beyond_tasks() -> None:
    """One task a node with eight processors is a notebook's usual allocation."""
    job = allocation({**JOB, "SLURM_TASKS_PER_NODE": "1(x2)"})
    assert job is not None
    assert placed_in(job, 10, JOB).in_words == "a 5, b 5"
    with pytest.raises(UsageProblem, match=r"17 workers on hosts with 16 places \(a 8, b 8\)"):
        placed_in(job, 17, JOB)


def test_one_node_and_no_job_are_no_hosts() -> None:
    """A world is there what it is without Slurm."""
    assert allocation({}) is None
    assert allocation({**JOB, "SLURM_JOB_NODELIST": "a", "SLURM_TASKS_PER_NODE": "4"}) is None


def test_a_step_knows_its_jobs_nodes() -> None:
    """Slurm tells it of its own node only; mpirun is told of all."""
    step = {**JOB, "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_NODES": "1", "SLURM_TASKS_PER_NODE": "1"}
    job = allocation(step)
    assert job is not None
    assert job.in_words == "a 8, b 8"
    told = for_mpirun(job, placed_in(job, 2, step))
    assert told == {"SLURM_TASKS_PER_NODE": "8,8", "SLURM_NODELIST": "a,b"}


def test_hosts_may_only_narrow_an_allocation() -> None:
    """One that is not in it is named."""
    job = allocation(JOB)
    assert job is not None
    assert narrowed_to(job, parse("b:2")).told == "2 ranks on 1 host of Slurm job 4711: b 2"
    with pytest.raises(UsageProblem, match=r"c is not in Slurm job 4711 \(a, b\)"):
        narrowed_to(job, parse("c:2"))


@pytest.mark.parametrize(
    ("options", "tasks"),
    [
        ("-N 2", 2),
        ("-N2", 2),
        ("--nodes=2-4 --ntasks-per-node 3", 6),
        ("-p gpu -N 2 --gres=gpu:4 --ntasks-per-node=4", 8),
        ("-n 5", 5),
        ("-t 10", 1),
        ("-N x", 1),
    ],
)
def test_sallocs_options_say_how_many_tasks_there_are(options: str, tasks: int) -> None:
    """As many ranks there are without ``-w``."""
    assert salloc.tasks(options) == tasks
    assert RunOptions.of(RUN, {"slurm": options}).workers == tasks


def test_no_allocation_inside_an_allocation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its nodes are there already."""
    for name, value in JOB.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageProblem, match="inside Slurm job 4711"):
        RunOptions.of(RUN, {"slurm": "-N 2"})
