"""The world that waits for the next cell: taken if it fits, replaced if not, cheap meanwhile, never left behind."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import obl_magic
from obl_magic.launch.on_ranks import wanted
from obl_magic.world import standby
from obl_magic.world.standby import STANDBY, Standby

pytestmark = [pytest.mark.slow, pytest.mark.timing]


@pytest.fixture(autouse=True)
def _dropped() -> Iterator[None]:
    yield
    STANDBY.drop()


def pid_and_time() -> tuple[int, float]:
    """Which process runs this, and when."""
    return os.getpid(), time.time()


def cpu_s(pids: list[int]) -> float:
    """Seconds of processor that these processes have used so far, all their threads, to the nanosecond."""
    tasks = [task for pid in pids for task in Path(f"/proc/{pid}/task").iterdir()]
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def ranks_of(waiting: Standby, how_many: int) -> list[int]:
    """The ranks' process ids, as soon as they have imported their frameworks and wait."""
    assert waiting._waiting is not None
    launcher = psutil.Process(waiting._waiting.channel.world.pid)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        pids = [p.pid for p in launcher.children(recursive=True) if "obl_magic.worker" in p.cmdline()]
        if len(pids) == how_many and all("mpi4py" in Path(f"/proc/{pid}/maps").read_text() for pid in pids):
            before = cpu_s(pids)
            time.sleep(0.5)
            if cpu_s(pids) - before < 0.02:
                return sorted(pids)
        time.sleep(0.1)
    raise AssertionError("the standby did not come up")


def test_a_run_of_that_size_and_engine_takes_it_and_is_there_at_once(home: Path) -> None:
    """Its ranks are those that waited; nobody waits afterwards."""
    assert STANDBY.prepare(wanted(2, "mpi"))
    waiting = ranks_of(STANDBY, 2)
    began = time.time()
    run = obl_magic.run(pid_and_time, workers=2, engine="mpi", quiet=True)
    assert sorted(pid for pid, _ in run.values) == waiting
    assert max(when for _, when in run.values) - began < 1.5
    assert STANDBY.ranks == 0


def test_waiting_costs_next_to_nothing(home: Path) -> None:
    """Below 0.5 % of a core for three ranks together: nobody spins."""
    assert STANDBY.prepare(wanted(3, "horovod"))
    pids = ranks_of(STANDBY, 3)
    time.sleep(6)  # past the time in which a job is looked for often
    before, began = cpu_s(pids), time.monotonic()
    time.sleep(4)
    assert (cpu_s(pids) - before) / (time.monotonic() - began) < 0.005


@pytest.mark.parametrize("what", ["environment", "folder", "size", "engine"])
def test_a_stale_one_is_replaced_and_not_used(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Another environment, working folder, size or engine is another world; the old one is gone."""
    assert STANDBY.prepare(wanted(2, "mpi"))
    assert STANDBY._waiting is not None
    world = STANDBY._waiting.channel.world
    size, engine = 2, "mpi"
    if what == "environment":
        monkeypatch.setenv("LEARNING_RATE", "0.1")
    elif what == "folder":
        (tmp_path / "other").mkdir()
        monkeypatch.chdir(tmp_path / "other")
    elif what == "size":
        size = 1
    else:
        engine = "horovod"
    taken = STANDBY.take(wanted(size, engine))
    assert taken is None
    assert world.exit_code is not None
    assert STANDBY.ranks == 0


def test_one_that_died_while_it_waited_is_not_used(home: Path) -> None:
    """The run starts a world of its own."""
    assert STANDBY.prepare(wanted(1, "mpi"))
    assert STANDBY._waiting is not None
    psutil.Process(STANDBY._waiting.channel.world.pid).kill()
    assert STANDBY._waiting.channel.world.wait(10)
    run = obl_magic.run(pid_and_time, workers=1, engine="mpi", quiet=True)
    assert run.status == "succeeded"


def test_one_that_nobody_takes_is_dropped(home: Path) -> None:
    """After its idle time."""
    waiting = Standby(idle_s=0.5)
    assert waiting.prepare(wanted(1, "mpi"))
    assert waiting._waiting is not None
    world = waiting._waiting.channel.world
    assert world.wait(30)
    assert waiting.ranks == 0


def test_none_is_started_where_memory_is_short(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said by the return value; the next run is simply a cold one."""
    monkeypatch.setattr(standby, "SPARE_BYTES_A_RANK", 2**50)
    assert not STANDBY.prepare(wanted(1, "mpi"))
    assert STANDBY.ranks == 0
