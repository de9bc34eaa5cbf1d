"""A host that is lost in the middle of a training: the run goes on without it, with the numbers of an undisturbed one.

``OBL_FAULTS=all`` kills ranks, daemons and cables of three hosts at random, ten times.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import time

import pytest
from simulated import Hosts

pytestmark = [pytest.mark.slow, pytest.mark.timing]

SEEDS = range(10 if os.environ.get("OBL_FAULTS") == "all" else 0)

TRAINS = """
    import json, sys
    import obl_magic

    def train():
        import keras, numpy as np, os, time
        from sklearn.datasets import load_digits

        class Slow(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch, logs=None):
                if "OMPI_COMM_WORLD_RANK" in os.environ:
                    open(f"epoch-{epoch}", "w").close()
                    time.sleep(1.5)

        x, y = load_digits(return_X_y=True)
        keras.utils.set_random_seed(1)
        model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(16, "relu"), keras.layers.Dense(10)])
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        history = model.fit(x[:640] / 16, y[:640], epochs=5, batch_size=64, verbose=0, callbacks=[Slow()])
        return history.history["loss"], sum(float(np.abs(each).sum()) for each in model.get_weights())

    undisturbed = obl_magic.run(train, quiet=True).value
    open("ready", "w").close()
    try:
        run = obl_magic.run(
            train, hosts=sys.argv[1], retries=5, min_workers=1, quiet=True, timeout=150, engine=sys.argv[2]
        )
        print("RESULT", json.dumps([undisturbed, run.value, run.worlds, list(run.notes)]))
    except BaseException as error:
        print("RESULT", json.dumps([undisturbed, str(error)]))
"""


def _result(said: str) -> list[object]:
    (line,) = [line for line in said.splitlines() if line.startswith("RESULT ")] or [said]
    found: list[object] = json.loads(line.removeprefix("RESULT "))
    return found


def _until(hosts: Hosts, name: str, run: subprocess.Popen[str], within_s: float = 90) -> None:
    until = time.monotonic() + within_s
    while not (hosts.shared / name).exists():
        assert run.poll() is None, run.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.05)


def _forget(hosts: Hosts) -> None:
    for path in (*hosts.shared.glob("epoch-*"), *hosts.shared.glob("ready")):
        path.unlink()


@pytest.mark.parametrize("engine", ["mpi", "horovod"] if SEEDS else ["mpi"])
def test_a_run_goes_on_without_the_host_that_it_lost(hosts: Hosts, engine: str) -> None:
    """Its cable is out; the next world takes the ranks that are left."""
    _forget(hosts)
    run = hosts.start("nb", TRAINS, "a:1,b:1", engine)
    _until(hosts, "epoch-2", run)
    hosts.call("link", "b", "down")
    try:
        undisturbed, value, worlds, notes = _result(run.communicate(timeout=150)[0])
    finally:
        hosts.call("link", "b", "up")
    assert value[0] == pytest.approx(undisturbed[0], abs=1e-4)
    assert value[1] == pytest.approx(undisturbed[1], rel=1e-4)
    assert [(world["workers"], world["from_epoch"]) for world in worlds] == [(2, 1), (1, 3)]
    assert worlds[1]["hosts"] == "1 rank on 1 host: a 1"
    assert any("host b was lost" in note for note in notes)
    hosts.python("nb", "import obl_magic\nobl_magic.run(lambda: 1, hosts='a:1,b:1', quiet=True)")  # it sweeps
    hosts.wait_until_empty(10)


@pytest.mark.parametrize("seed", SEEDS)
def test_chaos_ends_in_the_right_weights_or_in_a_sentence(hosts: Hosts, seed: int) -> None:
    """Two blows at random moments, each to a rank, a daemon or a cable of a random host."""
    draw = random.Random(seed)
    _forget(hosts)
    run = hosts.start("nb", TRAINS, "nb:1,a:1,b:1", draw.choice(["mpi", "horovod"]))
    _until(hosts, "ready", run)
    down = []
    for _ in range(2):
        time.sleep(draw.uniform(3, 9))
        host, what = draw.choice(["a", "b"]), draw.choice(["obl_magic.worker", "prted", "cable"])
        if what == "cable":
            hosts.call("link", host, "down")
            down.append(host)
        for pid in hosts.pids(host, what)[-1:]:
            hosts.shell(host, f"kill -9 {pid} || true")
    try:
        undisturbed, *rest = _result(run.communicate(timeout=200)[0])
    finally:
        for host in down:
            hosts.call("link", host, "up")
    if len(rest) == 1:
        assert any(f" {host}" in str(rest[0]) or f"{host} " in str(rest[0]) for host in ("a", "b")), rest
    else:
        assert rest[0][0] == pytest.approx(undisturbed[0], abs=1e-4)
    hosts.python("nb", "import obl_magic\nobl_magic.run(lambda: 1, hosts='nb:1,a:1,b:1', quiet=True)")
    hosts.wait_until_empty(10)
