"""A full disk costs a part of the log, or the run by name; never a training in silence, never a deadlock."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import obl_magic
from obl_magic.errors import SetupProblem

pytestmark = [pytest.mark.slow, pytest.mark.timing]


def run(fn: Any, workers: int | None = 2, **options: Any) -> obl_magic.Run:
    """A run that shows nothing, on the engine that starts fastest."""
    return obl_magic.run(fn, workers=workers, **{"engine": "mpi", "quiet": True, **options})


FULL = """
import resource, sys
from pathlib import Path
import obl_magic
from obl_magic import report

def fit(gate, folder):
    import time
    print("here", flush=True)
    while not Path(gate).exists():
        time.sleep(0.01)
    for step in range(3000):
        report(step=step, loss=float(step))
        print("step", step)
    return "trained"

gate = sys.argv[1]
run = obl_magic.run(
    fit, workers=2, engine="mpi", quiet=True, background=True, args={"gate": gate, "folder": gate}
)
while run.logs(0) != "here\\n" or run.logs(1) != "here\\n":
    assert run.wait(0.05).status == "running"
full = (run.dir / "events.jsonl").stat().st_size + 5000
resource.setrlimit(resource.RLIMIT_FSIZE, (full, resource.RLIM_INFINITY))
Path(gate).touch()
run.wait(60)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert run.status == "succeeded", run.error
assert run.values == ["trained"] * 2
assert len(run.metrics) == 6000
print(*run.notes, sep="\\n")
print(repr(run))
again = obl_magic.Run.open(run.id)
assert len(again.metrics) < 6000
assert (again.status, again.values, again.notes) == (run.status, run.values, run.notes)
"""
"""A kernel of its own, whose files may not grow; its ranks may write theirs."""


def test_a_log_that_cannot_grow_any_more_costs_no_training(home: Path) -> None:
    """The run goes on and succeeds; how much of the log is missing, and why, is said at its end."""
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(home / "gate")],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = "events could not be written to"
    assert sum(said in line and "(File too large)" in line for line in done.stdout.splitlines()) == 2


@pytest.mark.parametrize("large", [False, True])
def test_a_value_that_cannot_be_written_fails_the_run_by_name(home: Path, large: bool) -> None:
    """Never a run that succeeded without its value; no half of it stays."""

    def fit(large: bool) -> Any:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        return np.ones(5_000_000) if large else b"x" * 5_000_000

    with pytest.raises(
        SetupProblem, match=r"^cannot write the run's folder .*value-\d\.(pkl|bin) \(File too large\)"
    ) as raised:
        run(fit, args={"large": large})
    assert raised.value.run.status == "failed"
    assert [path.name for path in raised.value.run.dir.glob("*value*")] == []


SMALL = """
import resource, sys
import obl_magic

def train(lr=0.1, loud=False):
    return {"loss": lr}

calls = {
    "run": lambda: obl_magic.run(train, workers=1, engine="mpi", quiet=True),
    "run in the kernel": lambda: obl_magic.run(train, quiet=True),
    "search": lambda: obl_magic.search(train, "lr=float(0,1)", trials=9, minimize="loss", quiet=True),
    "ablation": lambda: obl_magic.ablate(train, "flags=loud", minimize="loss", quiet=True),
}
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    calls[sys.argv[1]]()
except BaseException as error:
    print(f"{type(error).__name__}: {error}")
"""
"""A kernel whose files may hold only so many bytes."""


@pytest.mark.parametrize("what", ["run", "run in the kernel", "search", "ablation"])
@pytest.mark.parametrize("room", [0, 60, 700, 4500])
def test_no_room_at_the_start_is_a_sentence_and_leaves_nothing_under_way(
    home: Path, what: str, room: int
) -> None:
    """Whichever file is the first that does not fit."""
    done = subprocess.run(
        [sys.executable, "-c", SMALL, what, str(room)], capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    assert done.stdout.startswith("SetupProblem: cannot write the run's folder ") or (room, done.stdout) == (
        4500,
        "",
    )
    assert "File too large" in done.stdout or not done.stdout
    left = [json.loads(path.read_text()).get("status") for path in home.rglob("study.json")]
    assert "running" not in left
    for record in home.rglob("run.json"):
        assert obl_magic.Run.open(record.parent).status != "running"
