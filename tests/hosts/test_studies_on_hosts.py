"""Searches over several hosts: trials are on all of them at once, and none is on two while one has room."""

from __future__ import annotations

import json

import pytest
from simulated import Hosts

pytestmark = [pytest.mark.slow, pytest.mark.timing]

SEARCH = """
    import json
    import obl_magic

    def train(lr):
        import os, socket, time
        from mpi4py import MPI
        hosts = MPI.COMM_WORLD.allgather(socket.gethostname())
        open(f"at-{hosts[0]}", "w").close()
        until = time.monotonic() + 20
        while not (os.path.exists("at-a") and os.path.exists("at-b")):  # the other world's
            assert time.monotonic() < until
            time.sleep(0.02)
        share = os.environ["OMP_NUM_THREADS"]
        return {"loss": lr, "where": "+".join(hosts), "threads": share}

    study = obl_magic.search(
        train, space={"lr": (0.1, 0.2)}, minimize="loss", trials=4, sampler="random", workers=4, workers_per_trial=2,
        hosts="a:2,b:2", quiet=True, timeout=60,
    )
    print("RESULT", json.dumps([study.record.hosts, [trial.returned for trial in study.ended_trials]]))
"""


def test_trials_fill_each_host_before_they_span_two(hosts: Hosts) -> None:
    """Two worlds of two ranks on two hosts with two places each."""
    said = hosts.python("nb", SEARCH, within_s=90)
    found = [
        json.loads(line.removeprefix("RESULT ")) for line in said.splitlines() if line.startswith("RESULT ")
    ]
    assert found, said
    ((told, trials),) = found
    assert told == "4 ranks on 2 hosts: a 2, b 2"
    assert {each["where"] for each in trials} == {"a+a", "b+b"}
    assert len(trials) == 4
    hosts.wait_until_empty()
