"""Runs over several hosts, as a notebook on one of them sees them. Hosts are simulated, ssh and mpirun are real."""

from __future__ import annotations

import os
import re
import signal
import time

import pytest
from simulated import Hosts, results

pytestmark = [pytest.mark.slow, pytest.mark.timing]

DIGITS = """
    import json, sys
    import obl_magic, numpy as np
    captured = np.arange(400_000.0)

    def train():
        import keras, numpy as np, socket
        from sklearn.datasets import load_digits
        x, y = load_digits(return_X_y=True)
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32, "relu"), keras.layers.Dense(10)])
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        history = model.fit(x / 16, y, epochs=3, batch_size=64, verbose=0)
        weights = sum(float(np.abs(each).sum()) for each in model.get_weights())
        return history.history["loss"], weights, float(captured.sum()), socket.gethostname()

    here = obl_magic.run(train, quiet=True).value
    for engine in ("mpi", "horovod"):
        run = obl_magic.run(train, hosts="a:1,b:1", engine=engine, quiet=True, timeout=100)
        hosts = {rank: it.host for rank, it in run.ledger.state.ranks.items() if rank >= 0}
        print("RESULT", json.dumps([here, run.value, hosts, run.record.hosts]))
"""


def test_two_hosts_give_the_numbers_of_one_rank(hosts: Hosts) -> None:
    """With both engines, though the run's folder is on one host only, and with an array that came along."""
    said = hosts.python("a", DIGITS, env={"OBLIVIOUS_HOME": "/tmp/obl-home"}, within_s=150)
    for here, there, ranks, told in results(said):
        assert there[0] == pytest.approx(here[0], abs=1e-5)
        assert there[1] == pytest.approx(here[1], rel=1e-5)
        assert there[2] == here[2]
        assert ranks == {"0": "a", "1": "b"}
        assert told == "2 ranks on 2 hosts: a 1, b 1"
    hosts.shell("a", "rm -rf /tmp/obl-home")
    hosts.wait_until_empty()


BIG = """
    import json
    import obl_magic

    def many():
        for line in range(20_000):
            print("line", line)
        return bytes(6_000_000)

    run = obl_magic.run(many, hosts="a:1,b:1", quiet=True, timeout=60)
    lines = [run.logs(rank).count("line ") for rank in (0, 1)]
    print("RESULT", json.dumps([run.status, lines, [len(value) for value in run.values]]))
"""


def test_nothing_that_ranks_on_other_hosts_say_is_lost(hosts: Hosts) -> None:
    """The launcher is on a host without ranks: whatever they write last crosses the network."""
    assert results(hosts.python("nb", BIG)) == [["succeeded", [20_000, 20_000], [6_000_000, 6_000_000]]]
    hosts.wait_until_empty()


ENVIRONMENT = """
    import json
    import obl_magic

    def look():
        import os
        return [os.environ.get(name) for name in ("MINE", "OMP_NUM_THREADS", "OBLIVIOUS_THREADS", "HOSTNAME_OF_MINE")]

    run = obl_magic.run(look, hosts="a:1,b:1", quiet=True, timeout=60)
    print("RESULT", json.dumps(list(run.values)))
"""


def test_variables_go_along_and_threads_are_those_of_each_host(hosts: Hosts) -> None:
    """What the notebook has set is seen everywhere; how many processors a host has is its own affair."""
    hosts.shell("b", "echo 'export OBLIVIOUS_CORES=6' > ~/.bashrc")
    try:
        (values,) = results(hosts.python("a", ENVIRONMENT, env={"MINE": "x y=z", "OBLIVIOUS_CORES": "3"}))
    finally:
        hosts.shell("b", "rm ~/.bashrc")
    assert values == [["x y=z", "3", "3", None], ["x y=z", "6", "6", None]]


WAITS = """
    import sys, time
    import obl_magic

    def wait():
        import os, time
        rank = int(os.environ["OMPI_COMM_WORLD_RANK"])
        open(f"up-{rank}", "w").close()
        if "raises" in what and rank == 1:
            raise ValueError("no good on b")
        time.sleep(60)

    what = sys.argv[1]
    began = time.monotonic()
    try:
        obl_magic.run(wait, hosts="a:1,b:1", quiet=True, timeout=50)
    except BaseException as error:
        print("RESULT", __import__("json").dumps(f"{type(error).__name__}: {error}"))
"""


@pytest.fixture(autouse=True)
def _nobody_is_up(request: pytest.FixtureRequest) -> None:
    if "hosts" in request.fixturenames:
        request.getfixturevalue("hosts").nobody_is_up()


@pytest.mark.parametrize("launcher", ["nb", "a"])
def test_a_rank_that_is_killed_on_another_host_is_named_with_it(hosts: Hosts, launcher: str) -> None:
    """Within two seconds, and nothing is left on any host."""
    run = hosts.start(launcher, WAITS, "waits")
    hosts.wait_until_up()
    (pid,) = [pid for pid in hosts.pids("b", "obl_magic.worker") if "prted" not in str(pid)][-1:]
    began = time.monotonic()
    hosts.shell("b", f"kill -9 {pid}")
    (said,) = results(run.communicate(timeout=30)[0])
    assert time.monotonic() - began < 4
    assert re.search(r"rank 1 on b died: signal 9", str(said)), said
    hosts.wait_until_empty()


def test_what_a_rank_raises_on_another_host_is_raised_here(hosts: Hosts) -> None:
    """As on one host."""
    assert results(hosts.python("a", WAITS, "raises", env={"OBLIVIOUS_HOME": "/tmp/obl-home"})) == [
        "ValueError: no good on b"
    ]
    hosts.shell("a", "rm -rf /tmp/obl-home")
    hosts.wait_until_empty()


def test_a_daemon_that_is_killed_costs_its_host(hosts: Hosts) -> None:
    """The launcher ends as if all were well (exit code 0); the message names the host."""
    run = hosts.start("nb", WAITS, "waits")
    hosts.wait_until_up()
    for pid in hosts.pids("b", "prted"):
        hosts.shell("b", f"kill -9 {pid} 2> /dev/null || true")
    (said,) = results(run.communicate(timeout=30)[0])
    assert re.search(r"host b was lost \(its daemon has ended\); its rank was 1", str(said)), said
    hosts.python("nb", WAITS, "raises")  # what the daemon has left goes with the next run
    hosts.wait_until_empty()


def test_a_kernel_that_is_killed_leaves_nothing_on_any_host(hosts: Hosts) -> None:
    """Within five seconds."""
    run = hosts.start("nb", WAITS, "waits")
    hosts.wait_until_up()
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    hosts.wait_until_empty(5)


def test_an_interrupt_ends_the_ranks_on_all_hosts(hosts: Hosts) -> None:
    """As on one host."""
    run = hosts.start("nb", WAITS, "waits")
    hosts.wait_until_up()
    os.killpg(run.pid, signal.SIGINT)
    (said,) = results(run.communicate(timeout=30)[0])
    assert str(said).startswith("KeyboardInterrupt"), said
    hosts.wait_until_empty(5)


def test_a_cable_that_is_out_is_noticed(hosts: Hosts) -> None:
    """Within ten seconds, by name; what was left on the host ends when it is back."""
    run = hosts.start("nb", WAITS, "waits")
    hosts.wait_until_up()
    hosts.call("link", "b", "down")
    try:
        began = time.monotonic()
        (said,) = results(run.communicate(timeout=30)[0])
        assert time.monotonic() - began < 10
        assert re.search(r"host b was lost \(no answer for 5 s\); its rank was 1", str(said)), said
    finally:
        hosts.call("link", "b", "up")
    hosts.wait_until_empty(10)


STANDS_STILL = """
    import sys
    import obl_magic

    def stand_still():
        import os, time
        open("up-" + os.environ["OMPI_COMM_WORLD_RANK"], "w").close()
        if os.environ["OMPI_COMM_WORLD_RANK"] == "1":
            time.sleep(60)  # on b

    try:
        obl_magic.run(stand_still, hosts="a:1,b:1", quiet=True, stall_timeout=2)
    except BaseException as error:
        folder = error.run.dir
        print("RESULT", __import__("json").dumps([str(error), (folder / "stacks-1.txt").read_text()]))
"""


def test_who_stands_still_is_named_with_its_host_and_writes_its_own_stacks(hosts: Hosts) -> None:
    """They come home from a host that does not see the run's folder."""
    printed = hosts.python("a", STANDS_STILL, env={"OBLIVIOUS_HOME": "/tmp/obl-home"})
    ((said, stacks),) = results(printed)
    assert "rank 1 on b: busy at" in said, said
    assert "all stacks: " in said
    assert "in stand_still" in stacks
    hosts.python("a", WAITS, "raises", env={"OBLIVIOUS_HOME": "/tmp/obl-home"})  # what was killed is swept up
    hosts.shell("a", "rm -rf /tmp/obl-home")
    hosts.wait_until_empty()
