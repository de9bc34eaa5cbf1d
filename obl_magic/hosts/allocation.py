"""The Slurm allocation that this process is in, as its environment tells: nodes, and the places on each.

The variables are those of ``sbatch``'s and ``salloc``'s manual pages. Inside a step some of them are the step's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from obl_magic.errors import UsageProblem
from obl_magic.hosts.places import Hosts, Place

_ITEM = re.compile(r"([^,\[]+(?:\[[^\]]*\][^,\[]*)*)(?:,|$)")
_RANGE = re.compile(r"([^\[]*)\[([^\]]*)\](.*)")
_COUNT = re.compile(r"(\d+)(?:\(x(\d+)\))?")


def allocation(environ: Mapping[str, str] = os.environ) -> Hosts | None:
    """The nodes of the Slurm job that this process is in, with its tasks on each.

    None outside of one, and on one node: a world there is what it is without Slurm.
    """
    nodes = expanded(environ.get("SLURM_JOB_NODELIST", ""))
    if "SLURM_JOB_ID" not in environ or len(nodes) < 2:
        return None
    tasks = tasks_per_node(environ)
    places = zip(nodes, (*tasks, *[1] * len(nodes)), strict=False)
    return Hosts(tuple(Place(node, count) for node, count in places), f"Slurm job {environ['SLURM_JOB_ID']}")


def placed_in(job: Hosts, workers: int, environ: Mapping[str, str] = os.environ) -> Hosts:
    """Where so many ranks are in an allocation: spread over its nodes; more than its tasks where processors allow.

    Raises:
        UsageProblem: there are fewer places.
    """
    if workers <= job.ranks:
        return job.spread(workers)
    room = _counts(environ.get("SLURM_JOB_CPUS_PER_NODE", ""))
    if len(room) != len(job.places):
        return job.take(workers)
    wide = Hosts(
        tuple(Place(name, max(1, count)) for name, count in zip(job.names, room, strict=True)), job.of
    )
    return wide.spread(workers) if workers <= wide.ranks else wide.take(workers)


def narrowed_to(job: Hosts, asked: Hosts) -> Hosts:
    """The hosts that were asked for, inside an allocation.

    Raises:
        UsageProblem: one is not in it.
    """
    for name in asked.names:
        if name not in job.names:
            nodes = ", ".join(job.names)
            raise UsageProblem(
                f"{name} is not in {job.of} ({nodes})", "its nodes", f"--hosts {','.join(job.names)}"
            )
    return Hosts(asked.places, job.of)


def tasks_per_node(environ: Mapping[str, str]) -> list[int]:
    """The job's tasks on each node, in order; inside a step, whose own tasks are told instead, its processors'."""
    in_step = "SLURM_STEP_ID" in environ and environ.get("SLURM_STEP_NUM_NODES") != environ.get(
        "SLURM_JOB_NUM_NODES"
    )
    if in_step:
        each = int(environ.get("SLURM_CPUS_PER_TASK", "1") or 1)
        return [max(1, count // each) for count in _counts(environ.get("SLURM_JOB_CPUS_PER_NODE", ""))]
    return _counts(environ.get("SLURM_TASKS_PER_NODE", ""))


def for_mpirun(job: Hosts, placed: Hosts) -> dict[str, str]:
    """What mpirun reads of the allocation: inside a step Slurm tells it the step's share, which is not the job's.

    Args:
        job: the allocation.
        placed: where the ranks are.
    """
    ranks = {place.host: place.ranks for place in placed.places}
    counts = [max(place.ranks, ranks.get(place.host, 0)) for place in job.places]
    return {"SLURM_TASKS_PER_NODE": ",".join(map(str, counts)), "SLURM_NODELIST": ",".join(job.names)}


def expanded(nodelist: str) -> list[str]:
    """``n[01-03,7],login`` as names.

    Source: the hostlist syntax of ``scontrol show hostnames``.
    """
    found: list[str] = []
    for item in _ITEM.findall(nodelist):
        found += _of_item(item)
    return found


def _of_item(item: str) -> list[str]:
    match = _RANGE.fullmatch(item)
    if match is None:
        return [item]
    before, ranges, after = match.groups()
    names = []
    for each in ranges.split(","):
        first, _, last = each.partition("-")
        numbers = range(int(first), int(last or first) + 1)
        names += [f"{before}{number:0{len(first)}}{rest}" for number in numbers for rest in _of_item(after)]
    return names


def _counts(text: str) -> list[int]:
    """``2(x3),1`` as 2, 2, 2, 1."""
    return [int(count) for count, times in _COUNT.findall(text) for _ in range(int(times or 1))]
