"""Run after run in one kernel, good, failing and stopped ones, with pools, threads and leftovers: nothing grows."""

from __future__ import annotations

import json
import os
from pathlib import Path

import psutil
import pytest
from kernel import Kernel

pytestmark = [pytest.mark.slow, pytest.mark.timing]

RUNS = 200 if os.environ.get("OBL_FAULTS") == "all" else 28

LOOP = """
import gc, json, os, subprocess, threading, time, psutil, obl_magic

def good(n):
    print(n)
    return n

def bad(n):
    raise ValueError(n)

def pools(n):
    from multiprocessing import Pool
    with Pool(2) as pool:
        return sum(pool.map(abs, [n, -n]))

def jobs(n):
    from joblib import Parallel, delayed
    return sum(Parallel(n_jobs=2)(delayed(abs)(each) for each in [n, -n]))

def threads(n):
    from concurrent.futures import ThreadPoolExecutor
    said = []
    threading.Thread(target=lambda: (time.sleep(0.3), said.append(n))).start()
    return ThreadPoolExecutor(2).submit(abs, -2 * n).result()

def leaves(n):
    subprocess.Popen(["sleep", "600"], start_new_session=True, env={})
    return 2 * n

def endless(n):
    import time
    print("here", flush=True)
    time.sleep(600)

def measure():
    gc.collect()
    me = psutil.Process()
    children = [p for p in me.children(recursive=True) if "obl_magic.server" not in p.cmdline()]
    return {"children": len(children), "files": me.num_fds(), "threads": threading.active_count(),
            "bytes": me.memory_info().rss}

def one(n):
    kind = n % 7
    if kind == 0:
        assert obl_magic.run(good, workers=2, engine="mpi", args={"n": n}, quiet=True).value == n
    elif kind < 5:
        starts = (pools, jobs, threads, leaves)[kind - 1]
        assert obl_magic.run(starts, workers=1 + n % 2, engine="mpi", args={"n": n}, quiet=True).value == 2 * n
    elif kind == 5:
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

for n in range(14):
    one(n)
before = measure()
for n in range(RUNS):
    one(n)
print(json.dumps([before, measure()]))
"""


def _is_ours(process: psutil.Process, home: Path) -> bool:
    """Whether a function of ours has started it; tests that run beside this one start such processes, too."""
    try:
        return process.name() == "sleep" and process.environ().get("OBLIVIOUS_HOME") == str(home)
    except psutil.Error:
        return False


def test_nothing_grows_from_run_to_run(home: Path) -> None:
    """Processes, files and threads as before; less than 20 MB; every run's folder whole, and nothing beside them."""
    before_all = set(psutil.pids())
    with Kernel(home) as kernel:
        cell = kernel.run(f"RUNS = {RUNS}\n{LOOP}", deadline_s=RUNS * 10 + 120)
    assert not cell.ename, cell.traceback
    left = [one for one in psutil.process_iter(["name"]) if one.pid not in before_all and _is_ours(one, home)]
    assert left == []
    assert sorted(path.name for path in home.iterdir() if not path.name.startswith(".")) == ["runs"]
    before, after = json.loads(cell.text.strip().splitlines()[-1])
    assert after["children"] == before["children"] == 0
    assert after["files"] <= before["files"] + 2
    assert after["threads"] <= before["threads"] + 1
    assert after["bytes"] - before["bytes"] < 20 * 2**20
    folders = list((home / "runs").iterdir())
    assert len(folders) == RUNS + 14
    for folder in folders:
        *_, last = (folder / "events.jsonl").read_text().splitlines()
        assert json.loads(last)["kind"] == "ended"
