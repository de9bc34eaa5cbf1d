"""Searches in worlds of real ranks: what fails, what is pruned, what stays from trial to trial."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
import searched

import obl_magic
from obl_magic.errors import RunTimedOut, UsageProblem
from obl_magic.rundir import StudyDir
from obl_magic.study.find import open_results
from obl_magic.study.search_result import Study

pytestmark = [pytest.mark.slow, pytest.mark.timing]

UNDER_LOAD = 3
"""How many times longer than promised something may take here, where tests share the cores with others."""


def search(fn: Any, space: Any = "x=float(-2,2)", **options: Any) -> Study:
    """A search in one world of one rank, that shows nothing."""
    if not {"maximize", "minimize", "resume"} & options.keys():
        options["minimize"] = "loss"
    return obl_magic.search(
        fn,
        space,
        **{"quiet": True, "trials": 4, "workers": 1, "engine": "mpi", "sampler": "random", **options},
    )


def pids(study: Study) -> list[int]:
    """The process of each trial's rank 0, from its log."""
    return [run._state.ranks[0].pid for run in study.runs]


# Worlds


def test_worlds_stay_from_trial_to_trial_and_share_the_work(home: Path) -> None:
    """Two processes for eight trials, the same draws as in this process, nothing left."""
    study = search(searched.bowl, trials=8, workers=2, seed=4)
    assert study.trials.status.tolist() == ["succeeded"] * 8
    assert len(set(study.trials.pid)) <= 2
    here = search(searched.bowl, trials=8, workers=None, seed=4)
    assert here.trials.x.tolist() == study.trials.x.tolist()
    assert here.trials.value.tolist() == study.trials.value.tolist()
    assert not [child for child in psutil.Process().children(recursive=True) if "mpirun" in child.name()]


def test_a_trial_in_a_warm_world_costs_little_and_nothing_sleeps_at_the_end(home: Path) -> None:
    """Maggy sleeps six seconds at each end; here the search ends soon after its last trial."""
    study = search(searched.bowl, trials=10)
    done = time.time()
    last = study.runs[-1]._state
    assert last.ended_s is not None
    assert done - last.ended_s < 0.5 * UNDER_LOAD
    began = [run._state.started_s or 0.0 for run in study.runs[1:]]
    gaps = sorted(after - before for before, after in pairwise(began))
    assert gaps[len(gaps) // 2] < 0.1 * UNDER_LOAD


def test_an_idle_driver_burns_no_core(home: Path) -> None:
    """Maggy's burns one. While a trial sleeps three seconds, this process works for a tenth of that at most."""
    spent: list[float] = []

    def watch() -> None:
        began, process = time.monotonic(), psutil.Process()
        while not started() and time.monotonic() - began < 60:
            threading.Event().wait(0.02)
        before = sum(process.cpu_times()[:2])
        threading.Event().wait(2.0)
        spent.append(sum(process.cpu_times()[:2]) - before)

    def started() -> bool:
        return any('"started"' in path.read_text().lower() for path in home.rglob("events.jsonl"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    search(searched.sleeps, "x=float(0,1)", minimize="value", trials=1)
    watcher.join()
    assert spent[0] < 0.3


def test_a_trial_sees_nothing_of_the_trial_before_it(home: Path) -> None:
    """No global, no module's state, no layer's number, no policy, no random state."""
    study = search(searched.leaves_traces, "x=int(0,9)", trials=3, seed=1)
    trials = study.trials
    assert trials.status.tolist() == ["succeeded"] * 3, trials.error.tolist()
    assert len(set(trials.pid)) == 1
    assert trials.layer.tolist() == ["dense"] * 3
    assert trials.policy.tolist() == ["float32"] * 3
    assert trials["global"].tolist() == trials.module.tolist() == [0] * 3
    assert trials.environment.tolist() == [""] * 3
    assert trials.folder.nunique() == 1
    alone = [search(searched.leaves_traces, "x=int(0,9)", trials=1, seed=seed).trials for seed in (2, 3)]
    for name in ("python", "numpy", "keras"):
        assert trials[name].nunique() == 3
        assert trials[name].tolist()[1:] == [one[name][0] for one in alone], name


@pytest.mark.skipif(os.environ.get("OBL_STUDIES") != "all", reason="takes a minute: OBL_STUDIES=all")
def test_the_memory_of_a_world_grows_no_more_than_tensorflow_itself(home: Path) -> None:
    """A fit in a plain loop leaves some 4 MB with TensorFlow each time; what trials add to that is little."""
    study = search(searched.grows, "x=int(0,9)", trials=14, keep_weights=0)
    assert study.trials.status.tolist() == ["succeeded"] * 14, study.trials.error.tolist()
    assert len(set(study.trials.pid)) == 1
    plain = obl_magic.run(searched.grows_in_a_loop, workers=1, engine="mpi", quiet=True).value
    rss = study.trials.rss.tolist()
    assert rss[-1] - rss[5] < plain[-1] - plain[5] + 8 * 1.5, (rss, plain)


# Trials that end badly


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("raises", "OSError: no such luck"),
        ("exits", "exit code 3"),
        ("is killed", "rank 0 died: signal 9"),
        ("stalls", "no progress for"),
    ],
)
def test_a_trial_that_ends_badly_is_a_failed_row_and_its_world_is_replaced(
    home: Path, how: str, told: str
) -> None:
    """The others go on, in a new process."""
    options = {"stall_timeout": 2} if how == "stalls" else {}
    study = search(
        searched.falls, "x=int(0,2)", sampler="grid", trials=3, args={"how": how}, seed=2, **options
    )
    trials = study.trials.set_index("x")
    assert trials.status.to_dict() == {0: "succeeded", 1: "failed", 2: "succeeded"}
    assert told in trials.error[1], trials.error[1]
    assert "\n" not in trials.error[1]
    assert study.status == "succeeded"
    at, processes = int(trials.number[1]), pids(study)
    assert at < 2
    assert processes[at] != processes[at + 1]
    assert len(set(processes)) == 2


def test_a_failing_rank_of_two_fails_the_trial_and_not_the_search(home: Path) -> None:
    """The other rank waits in a collective, and is ended with its world."""
    study = search(
        searched.one_of_two_raises, "x=int(0,2)", sampler="grid", trials=3, workers=2, workers_per_trial=2
    )
    trials = study.trials.set_index("x")
    assert trials.status.to_dict() == {0: "succeeded", 1: "failed", 2: "succeeded"}
    assert trials.error[1] == "ValueError: on rank 1"


def test_a_name_that_nobody_produced_ends_the_search_soon(home: Path) -> None:
    """After the first trial; other worlds' trials are ended."""
    began = time.monotonic()
    with pytest.raises(
        UsageProblem, match=r"got --maximize acc, .*; expected one of loss, pid; do: --maximize loss"
    ) as caught:
        search(
            searched.one_is_slow,
            "x=int(0,99)",
            maximize="acc",
            trials=50,
            workers=2,
            args={"folder": str(home)},
        )
    assert time.monotonic() - began < 10 * UNDER_LOAD
    held: Study = caught.value.study  # type: ignore[attr-defined]
    assert held.status == "failed"
    assert len(held.trials) < 10


def test_a_deadline_ends_what_is_under_way(home: Path) -> None:
    """What had ended is kept, nothing is left."""
    with pytest.raises(RunTimedOut, match="the search passed its timeout") as caught:
        search(
            searched.waits_for_ever, "x=int(0,99)", trials=20, args={"folder": str(home), "at": 2}, timeout=8
        )
    held: Study = caught.value.study  # type: ignore[attr-defined]
    assert held.status == "timed out"
    assert held.trials.status.tolist() == ["succeeded"] * 2


# Trials of several ranks


def test_parameters_are_drawn_once_for_all_ranks(home: Path) -> None:
    """Elsewhere each rank draws its own."""
    study = search(
        searched.on_every_rank,
        minimize="value",
        trials=3,
        workers=4,
        workers_per_trial=2,
        args={"folder": str(home)},
    )
    assert study.trials.status.tolist() == ["succeeded"] * 3, study.trials.error.tolist()
    for x, run in zip(study.trials.x, study.runs, strict=True):
        assert run.values == [x, x]
        assert {path.name for path in home.glob(f"{x!r}-*")} == {f"{x!r}-0", f"{x!r}-1"}


def test_pruning_is_decided_once_for_all_ranks_and_their_world_goes_on(home: Path) -> None:
    """Reported by hand, with a collective after each report: no rank is left behind, and the process stays."""
    study = search(
        searched.by_hand,
        "x=int(0,8)",
        sampler="grid",
        pruner="median",
        trials=9,
        workers=2,
        workers_per_trial=2,
        seed=2,
    )
    trials = study.trials
    assert set(trials.status) == {"succeeded", "pruned"}, trials.error.tolist()
    assert len(set(pids(study))) == 1
    pruned = trials[trials.status == "pruned"]
    assert pruned.error.tolist() == [""] * len(pruned)
    first = trials.x[:5].median()
    assert (trials[trials.status == "pruned"].x > first - 3).all()
    for number in pruned.number:
        rows = study.runs[number].metrics
        assert rows.step[rows["rank"] == 0].tolist() == rows.step[rows["rank"] == 1].tolist()
        assert study.runs[number].status == "pruned"
    assert [t.state.name for t in study.optuna.trials].count("PRUNED") == len(pruned)


def test_fits_of_any_shape_are_pruned_and_follow_each_other_in_one_world(home: Path, engine: str) -> None:
    """On both engines. Horovod negotiates tensors by name, and those of an earlier trial have other shapes."""
    study = search(
        searched.fits, "lr=log(1e-7,1e-1) units=int(3,17)", pruner="median", trials=7, workers=2, workers_per_trial=2,
        engine=engine, seed=3, args={"epochs": 2, "samples": 64},
    )  # fmt: skip
    trials = study.trials
    assert trials.status.tolist()[:5] == ["succeeded"] * 5, trials.error.tolist()
    assert set(trials.status) == {"succeeded", "pruned"}, trials.error.tolist()
    assert len(set(pids(study))) == 1
    assert trials.units.nunique() > 2
    for number in trials.number[trials.status == "pruned"]:
        epochs = study.runs[number].metrics.query("name == 'loss'").groupby("rank").epoch.max()
        assert epochs.nunique() == 1
    for mine, theirs in (run.values for run in study.runs[:5]):
        assert {**mine, "pid": 0} == {**theirs, "pid": 0}
    assert [path.parent.name for path in study.dir.rglob("weights.npz")] == [study.best.run.id]


# Interrupts, and going on


def press_when(path: Path) -> threading.Thread:
    """Interrupts this process as soon as a file is there."""

    def press() -> None:
        began = time.monotonic()
        while not path.exists() and time.monotonic() - began < 60:
            threading.Event().wait(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=press)
    thread.start()
    return thread


def test_an_interrupt_ends_all_worlds_and_resume_ends_with_all_trials(home: Path) -> None:
    """Within five seconds; finished trials are kept and not repeated, the interrupted ones do not count."""
    pressing = press_when(home / "call-3")
    with pytest.raises(KeyboardInterrupt) as caught:
        search(
            searched.waits_for_ever, "x=int(0,1000)", trials=6, workers=2, seed=8, out="mine",
            args={"folder": str(home), "at": 3},
        )  # fmt: skip
    pressing.join()
    assert time.time() - (home / "call-3").stat().st_mtime < 5 * UNDER_LOAD
    held: Study = caught.value.study  # type: ignore[attr-defined]
    assert held.status == "interrupted"
    kept = held.trials
    assert set(kept.status) <= {"succeeded"}
    assert 2 <= len(kept) < 6
    resumed = search(searched.waits_for_ever, None, resume="mine", trials=None, workers=2)
    assert resumed.id == held.id
    assert resumed.status == "succeeded"
    assert resumed.trials.status.tolist() == ["succeeded"] * 6
    merged = kept.merge(resumed.trials, on=["number", "x", "value", "duration_s"])
    assert len(merged) == len(kept)


def test_a_search_goes_on_after_its_kernel_was_killed(home: Path) -> None:
    """In mid-search, without a word; nothing of it lives on, no finished trial is repeated."""
    script = [sys.executable, str(Path(searched.__file__)), str(home)]
    scratch = {
        "TMPDIR": str(home),
        "OMPI_MCA_btl_sm_backing_directory": str(home),
    }  # Open MPI leaves it behind
    with subprocess.Popen(script, cwd=home, env={**os.environ, **scratch}) as kernel:
        began = time.monotonic()
        while not (home / "call-3").exists() and time.monotonic() - began < 90:
            threading.Event().wait(0.02)
        ranks = psutil.Process(kernel.pid).children(recursive=True)
        kernel.kill()
    assert ranks
    assert not psutil.wait_procs(ranks, timeout=5)[1]
    before = open_results("killed")
    assert isinstance(before, Study)
    kept = before.trials
    assert (before.status, len(kept)) == ("interrupted", 3)
    resumed = search(searched.waits_for_ever, None, resume="killed", trials=None)
    assert resumed.trials.status.tolist() == ["succeeded"] * 6
    assert resumed.trials.x.tolist()[:3] == kept.x.tolist()
    assert len(list(home.glob("call-*"))) == 7
    assert open_results("killed").status == "succeeded"


def test_a_search_in_the_background_is_live(home: Path) -> None:
    """It returns at once, and can be stopped."""
    study = search(
        searched.waits_for_ever, "x=int(0,99)", trials=9, background=True, args={"folder": str(home), "at": 2}
    )
    assert study.status == "running"
    assert study.wait(timeout_s=0.01) is study
    began = time.monotonic()
    while not (home / "call-2").exists() and time.monotonic() - began < 60:
        threading.Event().wait(0.02)
    with pytest.raises(UsageProblem, match="which is under way; expected a search that has ended"):
        search(searched.waits_for_ever, None, resume=study.id)
    elsewhere = open_results(StudyDir(study.dir))  # as another kernel sees it
    (going,) = (row for row in elsewhere.shown().rows if row.status == "running")
    assert going.duration_s is not None
    assert 0 <= going.duration_s < 90
    study.stop()
    assert study.status == "interrupted"
    assert study.trials.status.tolist() == ["succeeded"] * 2
