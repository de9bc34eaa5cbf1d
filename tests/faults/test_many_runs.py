"""Run after run in one kernel, good ones, failing ones and stopped ones: nothing grows."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from kernel import Kernel

pytestmark = pytest.mark.slow

RUNS = 200 if os.environ.get("OBL_FAULTS") == "all" else 30

LOOP = """
import gc, json, os, threading, psutil, obl_magic

def good(n):
    print(n)
    return n

def bad(n):
    raise ValueError(n)

def endless(n):
    import time
    print("here", flush=True)
    time.sleep(600)

def measure():
    gc.collect()
    me = psutil.Process()
    return {"children": len(me.children(recursive=True)), "files": me.num_fds(), "threads": threading.active_count(),
            "bytes": me.memory_info().rss}

def one(n):
    if n % 3 == 0:
        assert obl_magic.run(good, workers=2, engine="mpi", args={"n": n}, quiet=True).value == n
    elif n % 3 == 1:
        try:
            obl_magic.run(bad, workers=1, engine="mpi", args={"n": n}, quiet=True)
        except ValueError as error:
            assert error.args == (n,)
    else:
        run = obl_magic.run(endless, workers=1, engine="mpi", args={"n": n}, quiet=True, background=True)
        while "here" not in run.logs():
            assert run.wait(0.01).status == "running"
        run.stop()
        assert run.status == "interrupted"

for n in range(6):
    one(n)
before = measure()
for n in range(RUNS):
    one(n)
print(json.dumps([before, measure()]))
"""


def test_nothing_grows_from_run_to_run(home: Path) -> None:
    """Processes, files and threads as before; less than 20 MB; every run's folder whole."""
    with Kernel(home) as kernel:
        cell = kernel.run(f"RUNS = {RUNS}\n{LOOP}", deadline_s=RUNS * 10 + 120)
    assert not cell.ename, cell.traceback
    before, after = json.loads(cell.text.strip().splitlines()[-1])
    assert after["children"] == before["children"] == 0
    assert after["files"] <= before["files"] + 2
    assert after["threads"] <= before["threads"] + 1
    assert after["bytes"] - before["bytes"] < 20 * 2**20
    folders = list((home / "runs").iterdir())
    assert len(folders) == RUNS + 6
    for folder in folders:
        *_, last = (folder / "events.jsonl").read_text().splitlines()
        assert json.loads(last)["kind"] == "ended"
