"""obl_magic.run from plain Python, without a kernel, on real ranks."""

from __future__ import annotations

import gc
import hashlib
import inspect
import json
import math
import os
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import obl_magic
from obl_magic import report
from obl_magic.errors import CannotTravel, RankDied, RunFailed, SetupProblem, UsageProblem
from obl_magic.events.event import Ended, Launched, Metric, Result, Started
from obl_magic.events.log import read
from obl_magic.notebook import commands
from obl_magic.runs.run import LIVE, Run

pytestmark = [pytest.mark.slow, pytest.mark.timing]

SECRET = "an environment variable's value"


def run(fn: Any, workers: int | None = 2, **options: Any) -> obl_magic.Run:
    """A run that shows nothing, on the engine that starts fastest."""
    return obl_magic.run(fn, workers=workers, **{"engine": "mpi", "quiet": True, **options})


def rank() -> int:
    """This process's rank."""
    from mpi4py import MPI

    return int(MPI.COMM_WORLD.rank)


def train(lr: float = 0.1, epochs: int = 2) -> dict[str, float]:
    """A training function as any."""
    for epoch in range(1, epochs + 1):
        report(epoch=epoch, step=10 * epoch, loss=lr / epoch)
    print("trained with", lr)
    return {"loss": lr / epochs, "rank": rank()}


# What a run is


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> obl_magic.Run:
    """One run on two ranks that several tests look at."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OBLIVIOUS_HOME", str(home))
        patch.setenv("OBL_TEST_SECRET", SECRET)
        return run(train, args={"lr": 0.5}, seed=7)


def test_a_run_holds_what_every_rank_returned(two: obl_magic.Run) -> None:
    """Rank 0's value is the value."""
    assert two.values == [{"loss": 0.25, "rank": 0}, {"loss": 0.25, "rank": 1}]
    assert two.value == two.values[0]
    assert (two.status, two.error, two.workers, two.engine, two.seed) == ("succeeded", None, 2, "mpi", 7)


def test_metrics_are_a_tidy_table(two: obl_magic.Run) -> None:
    """One row per number, with its types."""
    types = {name: str(dtype) for name, dtype in two.metrics.dtypes.items() if name != "name"}
    assert types == {
        "time_s": "float64",
        "rank": "int64",
        "epoch": "Int64",
        "step": "Int64",
        "value": "float64",
    }
    assert pd.api.types.is_string_dtype(two.metrics.name)
    rows = two.metrics.sort_values(["rank", "epoch"])[["rank", "epoch", "step", "name", "value"]]
    assert rows.values.tolist() == [[r, e, 10 * e, "loss", 0.5 / e] for r in (0, 1) for e in (1, 2)]
    assert two.metrics.time_s.between(0, two.timings["total_s"]).all()


def test_an_empty_table_has_the_same_columns(home: Path) -> None:
    """So that code over metrics needs no special case."""
    metrics = run(lambda: None, workers=None).metrics
    assert isinstance(metrics, pd.DataFrame)
    assert len(metrics) == 0
    assert list(metrics.columns) == ["time_s", "rank", "epoch", "step", "name", "value"]


def test_logs_are_each_ranks_own(two: obl_magic.Run) -> None:
    """And a rank that there was not said nothing."""
    assert [two.logs(rank) for rank in range(3)] == ["trained with 0.5\n", "trained with 0.5\n", ""]


def test_the_digest_is_the_sources_and_every_rank_reports_it(two: obl_magic.Run) -> None:
    """sha256 of what inspect.getsource gives."""
    assert two.digest == hashlib.sha256(inspect.getsource(train).encode()).hexdigest()
    assert [e.digest for e in read(two.dir / "events.jsonl") if isinstance(e, Started)] == [two.digest] * 2


def test_timings_are_named_and_in_order(two: obl_magic.Run) -> None:
    """Seconds; the first step is unknown where nobody trained a model."""
    timings = two.timings
    assert list(timings) == ["capture_s", "launch_s", "first_step_s", "total_s"]
    assert timings["first_step_s"] is None
    assert timings["capture_s"] is not None
    assert timings["launch_s"] is not None
    assert timings["total_s"] is not None
    assert 0 < timings["launch_s"] < timings["total_s"] < 60


def test_a_run_that_has_ended_can_be_waited_for_and_stopped(two: obl_magic.Run) -> None:
    """Both do nothing."""
    assert two.wait() is two
    assert two.wait(timeout_s=0) is two
    two.stop()
    assert two.status == "succeeded"


def test_a_run_prints_itself_in_a_terminal(two: obl_magic.Run) -> None:
    """Plainly."""
    assert repr(two).startswith("✓ train succeeded in ")
    assert two.id in repr(two)


def test_the_folder_is_private_and_holds_everything(two: obl_magic.Run) -> None:
    """Event log, logs, source, arguments, environment, seed, result; for the user's eyes only."""
    assert stat.S_IMODE(two.dir.stat().st_mode) == 0o700
    assert stat.S_IMODE(two.dir.parent.stat().st_mode) == 0o700
    names = {path.name for path in two.dir.iterdir()}
    assert names == {
        "events.jsonl", "function.py", "run.json", "summary.json", "rank-0.log", "rank-1.log", "value-0.pkl",
        "value-1.pkl",
    }  # fmt: skip
    assert (two.dir / "function.py").read_text() == inspect.getsource(train)
    record = json.loads((two.dir / "run.json").read_text())
    assert (record["arguments"], record["seed"], record["workers"]) == ({"lr": "0.5"}, 7, 2)
    assert record["environment"]["packages"]["numpy"] == np.__version__
    assert SECRET not in (two.dir / "run.json").read_text()


def test_the_event_log_is_the_truth(two: obl_magic.Run) -> None:
    """A run that is opened from it equals the live one, by its id's beginning or end, or by its folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OBLIVIOUS_HOME", str(two.dir.parents[1]))
        for name in (two.id, two.id[:15], two.id[-6:], str(two.dir)):
            opened = obl_magic.Run.open(name)
            for attribute in (
                "id",
                "dir",
                "status",
                "values",
                "digest",
                "workers",
                "engine",
                "seed",
                "timings",
                "notes",
            ):
                assert getattr(opened, attribute) == getattr(two, attribute)
            pd.testing.assert_frame_equal(opened.metrics, two.metrics)
            assert repr(opened) == repr(two)


def test_the_events_tell_the_whole_story_in_order(two: obl_magic.Run) -> None:
    """Launched first, ended last, each rank started before it reported and reported before it returned."""
    events = list(read(two.dir / "events.jsonl"))
    assert isinstance(events[0], Launched)
    assert isinstance(events[-1], Ended)
    for rank in (0, 1):
        story = [type(e) for e in events if e.rank == rank and isinstance(e, Started | Metric | Result)]
        assert story == [Started, Metric, Metric, Result]


def test_an_unknown_run_is_named(home: Path) -> None:
    """With what there is."""
    with pytest.raises(
        UsageProblem,
        match=r"^got run 'abc' \(no run of that id\); expected the id of one run; the newest: none;",
    ):
        obl_magic.Run.open("abc")


def test_without_workers_the_function_runs_here(home: Path) -> None:
    """In this very process, with the same Run."""
    here = run(lambda: os.getpid(), workers=None)
    assert here.value == os.getpid()
    assert here.values == [os.getpid()]
    assert (here.workers, here.engine, here.status) == (None, "inline", "succeeded")
    assert obl_magic.Run.open(here.id).value == os.getpid()


def test_one_worker_is_one_separate_process(home: Path) -> None:
    """Its only rank is rank 0."""
    single = run(lambda: (os.getpid(), rank()), workers=1)
    assert single.value != (os.getpid(), 0)
    assert single.value[1] == 0
    assert len(single.values) == 1


def test_more_ranks_than_cores_work(home: Path) -> None:
    """Eight ranks of a trivial function, with a remark."""
    eight = run(rank, workers=8)
    assert eight.values == list(range(8))
    if len(os.sched_getaffinity(0)) < 8:
        assert "8 ranks on" in json.loads((eight.dir / "run.json").read_text())["lines"][0]


# Arguments


def test_parameters_come_from_provide_before_the_functions_globals(home: Path) -> None:
    """Both before any default."""

    def fit(model_fn: Any, table: Any, lr: float = 0.1) -> Any:
        return model_fn(lr), table

    given = {"model_fn": lambda lr: ("model", lr), "table": {"a": 1}}
    for workers in (None, 1):
        assert run(fit, workers=workers, provide=given, args={"lr": 2.0}).value == (("model", 2.0), {"a": 1})


def needs_rank(rank: Any) -> Any:
    """A function whose parameter names a function of this module."""
    return rank()


def test_from_python_names_are_looked_up_in_the_functions_own_globals(home: Path) -> None:
    """As pytest fills fixtures."""
    assert run(needs_rank).values == [0, 1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"args": {"rate": 1}}, "got args 'rate', which train does not take; expected one of its parameters: lr, "),
        ({"provide": {"x": 1}}, "got provide 'x', which train does not take; expected one of its parameters: lr, "),
        ({"workers": 0}, "got workers=0; expected a whole number of ranks, 1 or more; do: workers=2"),
        ({"workers": True}, "got workers=True; expected a whole number of ranks, 1 or more; do: workers=2"),
        ({"workers": 1.5}, "got workers=1.5; expected a whole number of ranks, 1 or more; do: workers=2"),
        ({"seed": -1}, "got seed=-1; expected a whole number, 0 or more; do: seed=1"),
        ({"timeout": 0}, "got timeout=0; expected seconds, more than 0; do: timeout=600"),
        ({"timeout": "10"}, "got timeout='10'; expected seconds, more than 0; do: timeout=600"),
        ({"stall_timeout": float("nan")}, "got stall_timeout=nan; expected seconds, more than 0; do: stall_timeout="),
        ({"args": [1]}, "got args of type list; expected arguments by name; do: args={'lr': 0.01}"),
        ({"resume": 5}, "got 5 for a run; expected its id or its folder; do: %oblivious runs"),
        ({"show_ranks": [2]}, "got show_ranks=[2]; expected all, or ranks between 0 and 1 with commas; "),
        ({"workers": None, "background": True}, "got background without workers; expected a number of workers; "),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_before_anything_starts(home: Path, options: dict[str, Any], said: str) -> None:
    """And no run folder is made."""
    with pytest.raises(UsageProblem) as problem:
        run(train, **options)
    assert str(problem.value).startswith(said)
    assert not (home / "runs").exists()


def test_a_working_folder_that_is_gone_is_named(
    home: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On ranks, in this process and as a search."""
    folder = tmp_path_factory.mktemp("gone")
    monkeypatch.chdir(folder)
    folder.rmdir()
    for begin in (
        lambda: run(train, workers=2),
        lambda: run(train, workers=None),
        lambda: obl_magic.search(train, space="lr=float(0,1)", minimize="loss", trials=1, quiet=True),
    ):
        with pytest.raises(
            SetupProblem, match=r"^the working folder does not exist any more \(.*; do: os.chdir to"
        ):
            begin()
    assert not (home / "runs").exists()


def test_who_has_no_home_folder_runs_all_the_same(home: Path) -> None:
    """As under cron, or in a container without a user."""
    (home / "script.py").write_text(
        "import obl_magic\n\ndef train():\n    return 3\n\n"
        "print(obl_magic.run(train, workers=2, engine='mpi', quiet=True).values)\n"
    )
    environ = {name: value for name, value in os.environ.items() if name != "HOME"}
    said = subprocess.run(
        [sys.executable, "script.py"], cwd=home, env=environ, capture_output=True, text=True, timeout=60
    )
    assert said.stdout == "[3, 3]\n", said.stderr


def test_what_cannot_travel_is_named_before_anything_starts(home: Path) -> None:
    """Also among the arguments."""
    with pytest.raises(CannotTravel, match=r"^cannot send train -> lr \(a _thread.lock\) to the ranks: "):
        run(train, args={"lr": threading.Lock()})
    assert not (home / "runs").exists()


# Values and failures


def test_a_value_that_cannot_be_sent_back_is_named(home: Path) -> None:
    """With what to return instead."""

    def fit() -> Any:
        return threading.Lock()

    with pytest.raises(
        TypeError, match=r"^the function returned a lock, which cannot be sent back: .*; do: return numbers, "
    ):
        run(fit)


def test_a_value_that_cannot_be_pickled_stays_with_a_run_in_this_process(home: Path) -> None:
    """Whoever opens the run later finds none."""
    lock = threading.Lock()
    here = run(lambda: lock, workers=None)
    assert here.value is lock
    assert obl_magic.Run.open(here.id).value is None


def test_an_exception_of_a_rank_is_raised_here_with_its_traceback(home: Path) -> None:
    """The same type, the rank's frames as a note, and the run."""

    def fit() -> None:
        if rank() == 1:
            raise KeyError("column")
        rank_forever()

    with pytest.raises(KeyError) as raised:
        run(fit)
    assert raised.value.args == ("column",)
    note = raised.value.__notes__[0]
    assert note.startswith("rank 1 raised at test_run.py, line ")
    assert '    raise KeyError("column")\nKeyError: ' in note
    assert note.endswith("(rank 0: stopped)")
    assert raised.value.run.status == "failed"
    opened = obl_magic.Run.open(raised.value.run.id)
    assert type(opened.error) is KeyError
    assert opened.status == "failed"


def rank_forever() -> None:
    """Waits for a message that nobody sends."""
    from mpi4py import MPI

    MPI.COMM_WORLD.recv(source=rank(), tag=99)


class Stubborn(Exception):
    """Cannot be unpickled: its arguments are not its constructor's."""

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what} because {why}")


def test_an_exception_that_cannot_be_unpickled_is_told(home: Path) -> None:
    """By its type and text, with the rank's traceback."""

    def fit() -> None:
        raise Stubborn("no", "never")

    with pytest.raises(RunFailed, match=r"^Stubborn: no because never\n") as raised:
        run(fit)
    assert 'raise Stubborn("no", "never")' in raised.value.__notes__[0]


@pytest.mark.parametrize("workers", [None, 2])
def test_system_exit_is_an_exception_as_any(home: Path, workers: int | None) -> None:
    """It ends the run, not the notebook's process behind its back."""

    def fit() -> None:
        sys.exit(3)

    with pytest.raises(SystemExit) as raised:
        run(fit, workers=workers)
    assert raised.value.code == 3
    assert raised.value.run.status == "failed"


def test_a_dead_rank_is_an_error_of_ours(home: Path) -> None:
    """Which keeps its run."""

    def fit() -> None:
        if rank() == 1:
            os._exit(5)
        rank_forever()

    with pytest.raises(RankDied, match=r"^rank 1 died: exit code 5") as raised:
        run(fit)
    assert raised.value.run.status == "failed"


# Beside each other, and elsewhere


def test_two_background_runs_go_on_at_once(home: Path) -> None:
    """Each waits for the other's sign before it returns."""

    def meet(mine: str, other: str) -> str:
        Path(mine).touch()
        while not Path(other).exists():
            time.sleep(0.01)
        return mine

    a, b = str(home / "a"), str(home / "b")
    runs = [run(meet, workers=1, background=True, args={"mine": x, "other": y}) for x, y in ((a, b), (b, a))]
    assert [each.wait(60).status for each in runs] == ["succeeded", "succeeded"]
    assert [each.value for each in runs] == [a, b]
    assert runs[0].dir != runs[1].dir


def test_a_background_run_that_nobody_holds_can_be_stopped(home: Path) -> None:
    """By its id, or as the only one; once it has ended it is held no longer."""
    gate = home / "gate"

    def wait(gate: str) -> None:
        Path(gate).touch()
        time.sleep(60)

    stopped = run(wait, workers=1, background=True, args={"gate": str(gate)}).id
    gc.collect()
    deadline_s = time.monotonic() + 60
    while not gate.exists():
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    assert repr(commands.stop(stopped)) == f"stopped {stopped}"
    gc.collect()
    assert stopped not in LIVE
    assert Run.open(stopped).status == "interrupted"


def test_a_background_run_that_fails_keeps_its_error(home: Path) -> None:
    """Nothing is raised until it is asked for."""
    failing = run(lambda: 1 / 0, workers=1, background=True)
    assert failing.wait().status == "failed"
    assert type(failing.error) is ZeroDivisionError
    assert failing.value is None


def test_a_stopped_run_is_interrupted(home: Path) -> None:
    """From another thread as well."""
    stopped = run(lambda: time.sleep(60), background=True)
    thread = threading.Thread(target=stopped.stop)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    assert stopped.status == "interrupted"
    assert type(stopped.error) is KeyboardInterrupt


def test_a_run_can_be_conducted_from_a_thread(home: Path) -> None:
    """Where Python delivers no interrupts; a run in the background outlives the thread that began it."""
    runs: list[obl_magic.Run] = []
    gate = home / "gate"

    def fit(gate: str) -> str:
        while not Path(gate).exists():
            time.sleep(0.01)
        return "through"

    def conduct() -> None:
        runs.append(run(fit, workers=1, background=True, args={"gate": str(gate)}))
        runs.append(run(rank, workers=1))

    thread = threading.Thread(target=conduct)
    thread.start()
    thread.join(60)
    gate.touch()
    assert [each.wait(60).value for each in runs] == ["through", 0]


def test_ranks_work_where_the_caller_does(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the run's folder is beside it."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.delenv("OBLIVIOUS_HOME")
    there = run(lambda: os.getcwd(), workers=1)
    assert there.value == str(tmp_path / "elsewhere")
    assert there.dir.parent == tmp_path / "elsewhere" / ".oblivious" / "runs"


SCRIPT = """
import sys
import obl_magic
import local_part

def train():
    return local_part.answer()

local_part.answer.__globals__["ANSWER"] = 42  # as an editor's reload does: newer than the file
if __name__ == "__main__":
    print(obl_magic.run(train, workers=2, engine="mpi", quiet=True).values)
"""


def test_an_edited_module_beside_a_script_travels_as_it_is_in_memory(home: Path, tmp_path: Path) -> None:
    """Also where the ranks' working folder is another one."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "local_part.py").write_text("ANSWER = 1\ndef answer():\n    return ANSWER\n")
    (tmp_path / "code" / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, str(tmp_path / "code" / "script.py")],
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.returncode) == ("[42, 42]\n", 0), done.stderr


def test_a_failed_run_ends_a_script_with_the_ranks_traceback(home: Path, tmp_path: Path) -> None:
    """In Python's own words, with the rank's below."""
    (tmp_path / "script.py").write_text(
        'import obl_magic\ndef train():\n    raise ValueError("ouch")\nobl_magic.run(train, workers=1, engine="mpi")\n'
    )
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "rank 0 raised at script.py, line 3:" in done.stderr
    assert "✗ train failed after " in done.stdout + done.stderr


# Much of it


def test_a_large_print_arrives_whole(home: Path) -> None:
    """Five megabytes in one line from each of two ranks."""

    def fit() -> int:
        text = "0123456789" * 500_000
        print(text)
        return len(text)

    large = run(fit)
    for each in (0, 1):
        log = large.logs(each)
        assert len(log) == 5_000_001
        assert log == "0123456789" * 500_000 + "\n"


def test_many_metrics_arrive_all_and_in_order(home: Path) -> None:
    """Ten thousand reports from each of two ranks."""

    def fit() -> None:
        for step in range(10_000):
            report(step=step, loss=float(step))

    metrics = run(fit).metrics
    assert len(metrics) == 20_000
    for _, of_rank in metrics.groupby("rank"):
        assert of_rank.step.tolist() == list(range(10_000))
        assert of_rank.value.tolist() == list(range(10_000))


@pytest.mark.parametrize("workers", [None, 1])
@pytest.mark.parametrize("value", [0.0, math.inf, np.float32(0.5), np.int64(3), True])
def test_any_number_can_be_reported(home: Path, workers: int | None, value: Any) -> None:
    """Zero and infinity are numbers as others."""
    done = run(lambda: report(x=value), workers=workers)
    assert done.metrics.value.tolist() == [float(value)]
    assert obl_magic.Run.open(done.id).metrics.value.tolist() == [float(value)]


def test_nan_can_be_reported(home: Path) -> None:
    """It is kept, on disk too."""
    done = run(lambda: report(x=math.nan), workers=1)
    assert math.isnan(done.metrics.value[0])
    assert math.isnan(obl_magic.Run.open(done.id).metrics.value[0])


def test_what_is_no_number_cannot_be_reported(home: Path) -> None:
    """The refusal names it."""
    with pytest.raises(
        TypeError, match=r"^report\(\) got loss=str; expected a number; do: report\(loss=float\(\.\.\.\)\)\n"
    ):
        run(lambda: report(loss="low"), workers=1)


def test_a_run_inside_a_run_is_an_ordinary_one(home: Path) -> None:
    """In the kernel and on a rank, where it runs in the rank's own process."""

    def outer() -> Any:
        import obl_magic

        return obl_magic.run(lambda: 5, quiet=True).value

    assert run(outer, workers=None).value == 5
    assert run(outer, workers=1).value == 5


def test_a_seed_makes_random_numbers_repeat(home: Path) -> None:
    """And leaves this process's own alone."""
    import random

    def fit() -> float:
        return random.random()

    values = [run(fit, workers=workers, seed=3).value for workers in (None, None, 1)]
    assert values[0] == values[1] == values[2]
    assert run(fit, workers=None, seed=4).value != values[0]
