"""Large things, on real ranks: one copy of an array on a host, values by file, a hundred thousand metrics."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import obl_magic
from obl_magic import report

pytestmark = [pytest.mark.slow, pytest.mark.timing]

MIB = 1 << 20
REPORTS = 100_000

KERNEL = """
import json, sys, time
import numpy as np
import obl_magic
from test_large import peak_bytes, reset_peak, rss_bytes

def train(x):
    return float(x[0].sum() + x[-1].sum())

def make(size):
    import numpy as np
    return {"x": np.ones(size, "uint8")}

what, size = sys.argv[1], int(sys.argv[2])
said = {}
if what == "captured":
    rows = size // 8 // 64
    x = np.ones((rows, 65))[:, 1:] if sys.argv[3] == "strided" else np.ones((rows, 64))
    obl_magic.run(train, workers=1, engine="mpi", provide={"x": x[:2]}, quiet=True)  # imports what it needs
    reset_peak()
    before = rss_bytes()
    run = obl_magic.run(train, workers=1, engine="mpi", provide={"x": x}, quiet=True)
    assert run.value == 128.0
else:
    obl_magic.run(make, workers=1, engine="mpi", args={"size": 1}, quiet=True).value
    reset_peak()
    before = rss_bytes()
    run = obl_magic.run(make, workers=1, engine="mpi", args={"size": size}, quiet=True)
    began = time.perf_counter()
    value = run.value
    said["seconds"] = time.perf_counter() - began
    said["sum"] = int(value["x"].sum(dtype="int64"))
said["peak"] = peak_bytes() - before
said["total_s"] = run.timings["total_s"]
print(json.dumps(said))
"""
"""A kernel of its own, whose memory nobody else uses."""


def rss_bytes() -> int:
    """Memory of this process that is resident."""
    return _status("VmRSS")


def peak_bytes() -> int:
    """The most there was since :func:`reset_peak`."""
    return _status("VmHWM")


def reset_peak() -> None:
    """Forgets the most there was."""
    Path("/proc/self/clear_refs").write_text("5")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def kernel(*arguments: object) -> dict[str, Any]:
    """What a kernel found in its own memory."""
    done = subprocess.run(
        [sys.executable, "-c", KERNEL, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={
            **os.environ,
            "PYTHONPATH": f"{Path(__file__).parent}:{Path(__file__).parents[1]}:{Path(__file__).parents[2]}",
        },
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def run(fn: Any, workers: int | None = 2, **options: Any) -> obl_magic.Run:
    """A run that shows nothing, on the engine that starts fastest."""
    return obl_magic.run(fn, workers=workers, **{"engine": "mpi", "quiet": True, **options})


def looks(held: Any) -> dict[str, Any]:
    """What a rank finds of the arrays it was given: their sums, and what their memory costs it.

    Memory of its own is what the kernel calls anonymous: pages of the file that no other rank has touched, and that are
    not on the disk yet, count as private and dirty, too.
    """
    from mpi4py import MPI

    world = MPI.COMM_WORLD

    def cost() -> dict[str, int]:
        found, inside = {"Pss": 0, "Anonymous": 0}, False
        for line in Path("/proc/self/smaps").read_text().splitlines():
            name, _, rest = line.partition(":")
            if " " in name:
                inside = line.endswith("job.bin")
            elif inside and name in found:
                found[name] += int(rest.split()[0]) * 1024
        return found

    sums = [float(array.sum()) for array in held["arrays"]] + [float(held["table"]["b"].sum())]
    world.Barrier()
    before = cost()
    world.Barrier()
    first = held["arrays"][0]
    if world.rank == 1:
        first[: len(first) // 2] = 7
    world.Barrier()
    return {
        "sums": sums,
        "before": before,
        "after": cost(),
        "first": float(first[0]),
        "last": float(first[-1]),
    }


def test_captured_arrays_are_in_memory_once_however_many_ranks_there_are(home: Path) -> None:
    """A dict of a list of arrays and a table, 256 MiB: shared by three ranks until one of them writes."""
    count = 256 * MIB // 8 // 4
    arrays = [np.ones(count), np.full(count, 2.0)]
    table = pd.DataFrame({"a": np.zeros(count), "b": np.full(count, 3.0)})
    done = run(looks, workers=3, provide={"held": {"arrays": arrays, "table": table}})
    size = 4 * count * 8
    values = done.values
    assert [each["sums"] for each in values] == [[1.0 * count, 2.0 * count, 3.0 * count]] * 3
    assert sum(each["before"]["Pss"] for each in values) == pytest.approx(size, rel=0.35)
    assert max(each["before"]["Anonymous"] for each in values) < MIB
    assert [each["first"] for each in values] == [1.0, 7.0, 1.0]
    assert [each["last"] for each in values] == [1.0, 1.0, 1.0]
    assert values[1]["after"]["Anonymous"] == pytest.approx(count * 8 / 2, rel=0.05)
    assert max(values[at]["after"]["Anonymous"] for at in (0, 2)) < MIB
    assert arrays[0][0] == 1.0
    assert list(done.dir.glob("job*")) == []
    sizes = done.captured.set_index("path").size_bytes
    assert sizes.max() >= size


@pytest.mark.parametrize(("how", "copies"), [("plain", 0), ("strided", 1)])
def test_the_kernel_holds_no_copy_of_what_it_sends(home: Path, how: str, copies: int) -> None:
    """Its array goes to the disk from where it lies; one that is not in one piece is copied once."""
    found = kernel("captured", 128 * MIB, how)
    assert found["peak"] < copies * 128 * MIB + 40 * MIB


def test_an_array_among_the_arguments_travels_alike(home: Path) -> None:
    """Also in this process's own world of one, and its text in the record is short."""

    def fit(x: Any) -> float:
        return float(x.sum())

    for workers in (None, 1, 2):
        done = run(fit, workers=workers, args={"x": np.ones(MIB)})
        assert done.value == MIB
        assert json.loads((done.dir / "run.json").read_text())["arguments"] == {
            "x": "<numpy.ndarray, 8.4 MB>"
        }


def test_a_value_of_a_hundred_megabytes_is_there_at_once(home: Path) -> None:
    """By file and not by pipe; mapped, so that the kernel holds it once, when it looks at it."""
    found = kernel("returned", 100 * MIB)
    assert found["sum"] == 100 * MIB
    assert found["seconds"] < 1
    assert found["peak"] < 140 * MIB


def test_a_large_value_is_the_callers_own(home: Path) -> None:
    """What is written into it is not written to the run's folder."""

    def fit() -> Any:
        return np.arange(MIB)

    done = run(fit)
    done.value[:] = -1
    assert done.values[1].sum() == MIB * (MIB - 1) // 2
    assert obl_magic.Run.open(done.id).value.sum() == MIB * (MIB - 1) // 2
    assert {path.name for path in done.dir.glob("*.bin")} == {"value-0.bin", "value-1.bin"}


def test_a_large_keras_model_comes_back(home: Path) -> None:
    """Its saved file lies beside the pickle; so does that of a model that is sent."""
    keras = pytest.importorskip("keras")
    model = keras.Sequential([keras.Input((1000,)), keras.layers.Dense(4000, name="wide")])
    model.layers[0].kernel.assign(np.full((1000, 4000), 0.25, "float32"))

    def fit() -> Any:
        model.layers[0].bias.assign(np.ones(4000, "float32"))
        return model

    done = run(fit, workers=1)
    kernel, bias = done.value.get_weights()
    assert (kernel.min(), kernel.max(), bias.min()) == (0.25, 0.25, 1.0)
    assert (done.dir / "value-0.bin").stat().st_size > 16_000_000
    assert (done.dir / "value-0.pkl").stat().st_size < MIB


def test_the_job_of_a_run_whose_kernel_was_killed_is_removed_by_the_next(home: Path) -> None:
    """It holds the user's data, and may take gigabytes; that of a run under way stays."""
    program = """
import os, signal, numpy, obl_magic
def fit(x):
    print("here", flush=True)
    import time
    time.sleep(60)
run = obl_magic.run(fit, workers=1, engine="mpi", provide={"x": numpy.ones(1 << 20)}, background=True, quiet=True)
while "here" not in run.logs():
    run.wait(0.05)
os.kill(os.getpid(), signal.SIGKILL)
"""
    scratch = {
        "TMPDIR": str(home),
        "OMPI_MCA_btl_sm_backing_directory": str(home),
    }  # of a launcher that is ended so
    subprocess.run([sys.executable, "-c", program], check=False, timeout=60, env={**os.environ, **scratch})
    left, pickle = sorted(home.glob("runs/*/job.*"))
    x, gate = np.ones(MIB), home / "gate"

    def fit(gate: str) -> float:
        while not Path(gate).exists():
            time.sleep(0.01)
        return float(x.sum())

    living = run(fit, workers=1, background=True, args={"gate": str(gate)})
    assert not left.exists()
    assert not pickle.exists()
    assert run(lambda: 1, workers=1).value == 1
    assert (living.dir / "job.bin").exists()
    gate.touch()
    assert living.value == MIB
    assert list(home.glob("runs/*/job.*")) == []


def test_a_hundred_thousand_metrics_arrive_in_time(home: Path) -> None:
    """All of them, correct, shown at the end, and read back from disk."""

    def fit() -> None:
        for step in range(REPORTS):
            report(step=step, loss=step / 7)

    began = time.perf_counter()
    done = obl_magic.run(fit, workers=1, engine="mpi", quiet=True)
    seconds = time.perf_counter() - began
    reading = time.perf_counter()
    again = obl_magic.Run.open(done.id)
    pd.testing.assert_frame_equal(again.metrics, done.metrics)
    reading = time.perf_counter() - reading
    assert done.metrics.step.tolist() == list(range(REPORTS))
    assert done.metrics.value.tolist() == [step / 7 for step in range(REPORTS)]
    assert set(done.metrics.name) == {"loss"}
    assert "loss" in repr(done)
    assert seconds < 30, seconds
    assert reading < 15, reading
