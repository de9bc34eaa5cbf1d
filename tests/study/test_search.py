"""Searches in this process, from the call to what the user holds."""

from __future__ import annotations

import builtins
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import searched

import obl_magic
from obl_magic import report
from obl_magic.errors import UsageProblem
from obl_magic.study.find import open_results
from obl_magic.study.search_result import Study

pytestmark = pytest.mark.timing


def search(fn: Any, space: Any = "x=float(-2,2)", **options: Any) -> Study:
    """A search that shows nothing."""
    if not {"maximize", "minimize", "resume"} & options.keys():
        options["minimize"] = "loss"
    return obl_magic.search(fn, space, **{"quiet": True, "trials": 4, **options})


def bowl(x: float = 0.0, y: float = 0.0) -> dict[str, float]:
    """Smooth."""
    return {"loss": (x - 1) ** 2 + y**2}


# Traps of others


def test_every_metric_of_a_curve_is_kept(home: Path) -> None:
    """Maggy keeps the latest of a heartbeat: five sent, one kept. Here five of five, in every trial."""

    def curve(x: float = 0.0) -> None:
        for step in range(5):
            report(loss=x + step, step=step)

    study = search(curve, trials=2)
    for run, x in zip(study.runs, study.trials.x, strict=True):
        assert run.metrics.step.tolist() == [0, 1, 2, 3, 4]
        assert run.metrics.value.tolist() == pytest.approx([x + step for step in range(5)])
    assert study.trials.value.tolist() == pytest.approx((study.trials.x + 4).tolist())


def test_identical_curves_do_not_kill_each_other(home: Path) -> None:
    """Maggy's median rule does."""

    def same(x: float = 0.0) -> None:
        for step in range(6):
            report(loss=1 / (1 + step), step=step)

    assert search(same, pruner="median", trials=9).trials.status.tolist() == ["succeeded"] * 9


def test_pruning_compares_by_step_and_not_by_list_position(home: Path) -> None:
    """A trial that reports only late steps, where others were as good, is not pruned for what they were at first."""

    def late(x: int = 0) -> None:
        for step in range(0 if x < 5 else 6, 10):
            report(loss=10.0 - step, step=step)

    study = search(late, "x=int(0,6)", sampler="grid", pruner="median", trials=7, seed=1)
    assert study.trials.status.tolist() == ["succeeded"] * 7


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_asha_promotes_the_best_in_both_directions(home: Path, direction: str) -> None:
    """Maggy's promotes the worst where it minimises."""
    sign = 1.0 if direction == "minimize" else -1.0

    def level(x: int = 0) -> None:
        for step in range(1, 65):
            report(loss=sign * x, step=step)

    space = "x=int(0,15)"
    study = search(level, space, sampler="grid", pruner="asha", trials=16, **{direction: "loss"})
    trials = study.trials
    assert trials.x[trials.value == sign * 0].tolist() == [0]
    assert trials.status[trials.x == 0].tolist() == ["succeeded"]
    assert (trials.status == "pruned").sum() >= 4
    assert trials.x[trials.status == "pruned"].min() > trials.x[trials.status == "succeeded"].min()
    assert study.best.params == {"x": 0}


def test_a_dict_keeps_all_its_keys(home: Path) -> None:
    """Maggy keeps the first; here each is a column, also one that is called as a parameter."""

    def many(x: float = 0.0) -> dict[str, Any]:
        return {"acc": 0.5, "loss": x, "x": 7, "note": "fine", "status": 3, "none": None}

    study = search(many, trials=2)
    assert study.trials.acc.tolist() == [0.5, 0.5]
    assert study.trials.note.tolist() == ["fine", "fine"]
    assert study.trials.returned_x.tolist() == [7, 7]
    assert study.trials.returned_status.tolist() == [3, 3]
    assert study.trials["none"].tolist() == [None, None]
    assert study.best.run.value["acc"] == 0.5


@pytest.mark.parametrize("zero", [0.0, {"value": 0.0}, 0, False])
def test_zero_is_a_value(home: Path, zero: Any) -> None:
    """Maggy refuses it."""

    def nothing(x: float = 0.0) -> Any:
        return zero

    study = search(nothing, minimize="value", trials=2)
    assert study.trials.value.tolist() == [0.0, 0.0]
    assert study.best.number == 0


def test_equal_configurations_are_distinct_trials(home: Path) -> None:
    """Maggy gives them one id, and loses a result."""
    calls = iter(range(10))

    def counts(x: int = 0) -> float:
        return float(next(calls))

    study = search(counts, "x=choice(1)", sampler="random", minimize="value", trials=3)
    assert study.trials.number.tolist() == [0, 1, 2]
    assert study.trials.value.tolist() == [0.0, 1.0, 2.0]
    assert len({run.id for run in study.runs}) == 3


def test_one_failing_trial_does_not_kill_the_study(home: Path) -> None:
    """It is a failed row with its error; also where the function wants to leave the process."""

    def sometimes(x: int = 0) -> float:
        if x == 1:
            raise ValueError("one is no good")
        if x == 2:
            raise SystemExit(5)
        return float(x)

    trials = search(sometimes, "x=int(0,4)", sampler="grid", minimize="value", trials=5).trials.set_index("x")
    assert trials.status.to_dict() == {
        0: "succeeded",
        1: "failed",
        2: "failed",
        3: "succeeded",
        4: "succeeded",
    }
    assert trials.error[1] == "ValueError: one is no good"
    assert trials.error[2].startswith("SystemExit")
    assert pd.isna(trials.value[1])
    assert trials.error[0] == ""


def test_an_all_discrete_random_search_works(home: Path) -> None:
    """Maggy refuses it. Options keep their types."""

    def typed(act: Any = "relu", n: int = 1, on: bool = False) -> float:
        assert (type(n), type(on)) == (int, bool)
        return float(n)

    space = "act=choice('relu',None,(1,2)) n=choice(1,2) on=choice(True,False)"
    study = search(typed, space, sampler="random", trials=8, minimize="value")
    assert study.trials.status.tolist() == ["succeeded"] * 8
    assert set(map(repr, study.trials.act)) <= {"'relu'", "None", "(1, 2)"}


def test_print_home_and_handlers_are_as_before(home: Path) -> None:
    """Maggy overwrites HOME and never restores print; also a failing trial leaves nothing."""
    import logging
    import sys
    import warnings

    def fails(x: float = 0.0) -> float:
        print("said")
        raise ValueError

    def looked() -> tuple[Any, ...]:
        return (
            builtins.print, os.environ.get("HOME"), os.getcwd(), sys.stdout, sys.stderr,
            signal.getsignal(signal.SIGINT),
            list(logging.getLogger().handlers), list(warnings.filters), threading.active_count(), sys.excepthook,
        )  # fmt: skip

    search(bowl, trials=1)  # what is imported first adds to the filters of warnings
    before = looked()
    search(fails, trials=2)
    assert looked() == before


# What is compared


def test_a_name_that_nobody_produced_ends_the_search_after_the_first_trial(home: Path) -> None:
    """One sentence with the names there were; not after twenty trials."""
    calls = []

    def gives(x: float = 0.0) -> dict[str, float]:
        calls.append(x)
        report(val=1.0)
        return {"accuracy": 1.0}

    with pytest.raises(UsageProblem) as caught:
        search(gives, maximize="acc", trials=20)
    assert str(caught.value) == (
        "got --maximize acc, which the function neither returns nor reports; expected one of accuracy, val; "
        "do: --maximize accuracy"
    )
    assert len(calls) == 1
    held: Study = caught.value.study  # type: ignore[attr-defined]
    assert held.status == "failed"
    assert held.trials.error.tolist() == ["acc was neither returned nor reported"]


def test_a_failed_trial_is_not_taken_for_one_without_the_number(home: Path) -> None:
    """The first that succeeds says what there is."""

    def later(x: int = 0) -> dict[str, float]:
        if not later.__dict__.setdefault("calls", []):
            later.__dict__["calls"].append(x)
            raise ValueError("cold")
        return {"loss": 1.0}

    assert search(later, "x=int(0,5)", trials=3).trials.status.tolist() == [
        "failed",
        "succeeded",
        "succeeded",
    ]


def test_nan_is_a_failed_row(home: Path) -> None:
    """Never the best."""

    def undefined(x: int = 0) -> float:
        return float("nan") if x == 0 else float(x)

    study = search(undefined, "x=int(0,2)", sampler="grid", maximize="value", trials=3)
    trials = study.trials.set_index("x")
    assert (trials.status[0], trials.error[0]) == ("failed", "value is nan")
    assert study.best.params == {"x": 2}
    assert study.worst.params == {"x": 1}


def test_infinity_is_the_worst_there_is(home: Path) -> None:
    """And no failure: a loss that overflows says something."""

    def overflows(x: int = 0) -> float:
        return float("inf") if x == 0 else float(x)

    study = search(overflows, "x=int(0,2)", sampler="grid", minimize="value", trials=3)
    assert study.trials.status.tolist() == ["succeeded"] * 3
    assert (study.best.params, study.worst.params) == ({"x": 1}, {"x": 0})


# What is refused, before anything runs


def never(lr: float = 0.1, units: int = 3) -> float:
    """Is never called."""
    raise AssertionError


@pytest.fixture
def nothing_runs(home: Path) -> Iterator[Path]:
    """No folder of a study is left, no call was made."""
    yield home
    assert not list(home.glob("studies/*"))


@pytest.mark.parametrize(
    ("space", "options", "sentence"),
    [
        ("rate=log(1e-4,1)", {}, "got rate in the space, which never does not take; expected one of its parameters: "
         "lr, units; do: lr=log(0.0001,1)"),
        ("unit=int(1,2)", {}, "got unit in the space, which never does not take; expected one of its parameters: "
         "lr, units; do: units=int(1,2)"),
        (None, {}, 'got a search without a space; expected what varies; do: --search "lr=log(1e-4,1e-1)" --trials 20'),
        ("lr=log(1e-4,1)", {"sampler": "tpes"}, "got sampler 'tpes'; expected one of tpe, random, grid, cmaes, gp, "
         "nsga2; do: --sampler tpe"),
        ("lr=log(1e-4,1)", {"pruner": "meadian"}, "got pruner 'meadian'; expected one of none, median, asha, "
         "hyperband; do: --pruner none"),
        ("lr=log(1e-4,1)", {"trials": 0}, "got trials=0; expected a whole number, 1 or more; do: trials=1"),
        ("lr=log(1e-4,1)", {"trials": 2.5}, "got trials=2.5; expected a whole number, 1 or more; do: trials=1"),
        ("lr=log(1e-4,1)", {"keep_weights": -1}, "got keep_weights=-1; expected a whole number, 0 or more; do: "
         "keep_weights=1"),
        ("lr=log(1e-4,1)", {"workers": 1, "workers_per_trial": 2}, "got workers=1 with workers_per_trial=2; expected "
         "at least as many ranks as one trial takes; do: workers=2"),
        ("lr=log(1e-4,1)", {"workers": 2, "workers_per_trial": 0}, "got workers_per_trial=0; expected a whole number, "
         "1 or more; do: workers_per_trial=1"),
        ("lr=log(1e-4,1)", {"background": True}, "got background without workers; expected a number of workers; do: "
         "workers=1"),
        ("lr=log(1e-4,1)", {"workers_per_trial": 2}, "got workers_per_trial=2 without workers; expected a number of "
         "workers; do: workers=2"),
        ("lr=log(1e-4,1)", {"stall_timeout": 3}, "got stall_timeout without workers; expected a number of workers; "
         "do: workers=1"),
        ("lr=log(1e-4,1)", {"resume": "gone"}, "got study 'gone' (no study of that name); expected the id of one "
         "study, or its --out; the newest: none; do: %oblivious runs"),
        ("lr=log(1e-4,1)", {"params": "best"}, "got --params best, where there was no search yet; expected a search "
         "before it; do: %%oblivious --search ..."),
        ("lr=log(1e-4,1)", {"maximize": "a"}, "got both maximize and minimize; expected the one quantity to compare; "
         "do: --maximize val_accuracy, or --minimize val_loss"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_in_one_sentence(
    nothing_runs: Path, space: Any, options: dict[str, Any], sentence: str
) -> None:
    """And nothing was started."""
    with pytest.raises(UsageProblem) as caught:
        obl_magic.search(never, space, minimize="value", quiet=True, **options)
    assert str(caught.value) == sentence


def test_a_spec_that_cannot_be_read_names_the_piece(nothing_runs: Path) -> None:
    """And its place."""
    with pytest.raises(UsageProblem) as caught:
        search(never, "lr=log(1e-4,1e-1) units=itn(1,2)")
    assert "itn" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_search_needs_a_quantity(nothing_runs: Path) -> None:
    """Nothing is guessed."""
    with pytest.raises(UsageProblem, match="neither maximize nor minimize"):
        obl_magic.search(never, "lr=log(1e-4,1)", quiet=True)


def test_a_function_that_takes_any_argument_may_be_searched_for_any(home: Path) -> None:
    """There is no list to hold against it."""

    def takes(**kwargs: float) -> float:
        return kwargs["rate"]

    assert search(takes, "rate=float(0,1)", minimize="value", trials=1).trials.status.tolist() == [
        "succeeded"
    ]


# What the user holds


def test_trials_are_a_table(home: Path) -> None:
    """One row a trial, the fixed columns first, with types that do not depend on what happened."""
    trials = search(bowl, "x=float(-2,2) y=int(0,3)").trials
    assert trials.columns.tolist() == ["number", "status", "value", "duration_s", "error", "x", "y", "loss"]
    numbers = {name: str(kind) for name, kind in trials.dtypes.items() if name not in ("status", "error")}
    assert numbers == {
        "number": "int64", "value": "float64", "duration_s": "float64", "x": "float64", "y": "int64", "loss": "float64",
    }  # fmt: skip
    assert trials.duration_s.between(0, 60).all()


def test_the_table_of_a_search_whose_trials_all_failed_has_the_same_types(home: Path) -> None:
    """Then there is no best, and it says why."""

    def fails(x: float = 0.0) -> float:
        raise ValueError("never works")

    study = search(fails, trials=2)
    assert str(study.trials.value.dtype) == "float64"
    assert study.trials.columns.tolist() == ["number", "status", "value", "duration_s", "error", "x"]
    with pytest.raises(
        UsageProblem, match=r"of which none has succeeded; the first that failed: ValueError: never works"
    ):
        _ = study.best
    with pytest.raises(
        UsageProblem, match=r"expected a search in which a trial succeeded; do: study\.trials"
    ):
        _ = study.worst
    assert study.importances == {}
    assert "failed" in repr(study)


def test_the_best_trial_is_a_run_with_its_curve_log_and_seed(home: Path) -> None:
    """So is every other."""

    def speaks(x: float = 0.0) -> dict[str, float]:
        print("x is", x)
        report(loss=x, epoch=1)
        return {"loss": x}

    study = search(speaks, seed=40)
    best = study.best
    assert best.value == study.trials.value.min() == best.params["x"]
    assert study.worst.value == study.trials.value.max()
    assert best.run.value == {"loss": best.value}
    assert best.run.metrics.value.tolist() == [best.value]
    assert best.run.logs(0) == f"x is {best.value}\n"
    assert (best.run.seed, best.seed) == (40 + best.number,) * 2
    assert best.run.id == study.runs[best.number].id
    assert best.run.id.startswith(study.id)
    assert best.run.digest == study.digest
    assert repr(best) == f"trial {best.number}: succeeded, value {best.value}, {best.params}"


def test_optuna_has_the_same_trials(home: Path) -> None:
    """Numbers, parameters, values and states."""

    def sometimes(x: int = 0) -> float:
        if x == 1:
            raise ValueError("no")
        return float(x)

    study = search(sometimes, "x=int(0,4)", sampler="grid", minimize="value", trials=5)
    theirs = study.optuna.trials
    assert [t.number for t in theirs] == study.trials.number.tolist()
    assert [t.params["x"] for t in theirs] == study.trials.x.tolist()
    assert [t.value for t in theirs] == [None if pd.isna(v) else v for v in study.trials.value]
    named = {"COMPLETE": "succeeded", "FAIL": "failed", "PRUNED": "pruned"}
    assert [named[t.state.name] for t in theirs] == study.trials.status.tolist()
    assert study.optuna.best_trial.number == study.best.number
    assert study.optuna.direction.name.lower() == study.direction


@pytest.mark.parametrize("name", ["id", "out", "end of id"])
def test_a_study_is_found_again_and_is_the_same(home: Path, name: str) -> None:
    """By its id, a piece of it, or the name it was given."""
    study = search(bowl, trials=5, out="mine")
    again = open_results({"id": study.id, "out": "mine", "end of id": study.id[-6:]}[name])
    assert isinstance(again, Study)
    pd.testing.assert_frame_equal(again.trials, study.trials)
    assert (again.id, again.status, again.best.number) == (study.id, "succeeded", study.best.number)
    assert again.best.run.metrics.equals(study.best.run.metrics)
    assert again.importances == study.importances
    assert repr(again).splitlines()[2:] == repr(study).splitlines()[2:]
    assert again.wait() is again
    again.stop()


def test_a_name_that_was_given_twice_means_the_newest(home: Path) -> None:
    """As a variable of the notebook does."""
    search(bowl, trials=1, out="mine")
    newest = search(bowl, trials=1, out="mine")
    assert open_results("mine").id == newest.id


def test_the_same_seed_draws_the_same(home: Path) -> None:
    """Another seed does not; the seed is recorded."""
    one, two, other = (search(bowl, seed=seed).trials.x.tolist() for seed in (1, 1, 2))
    assert one == two
    assert one != other


def test_a_trials_seed_is_its_own(home: Path) -> None:
    """Trials differ in what they draw, and a search repeats itself."""
    import random

    def draws(x: float = 0.0) -> float:
        return random.random()

    first = search(draws, minimize="value", seed=3).trials.value.tolist()
    assert len(set(first)) == 4
    assert search(draws, minimize="value", seed=3).trials.value.tolist() == first
    assert search(draws, minimize="value", seed=4).trials.value.tolist()[:3] == first[1:]


def test_hparams_of_a_trial_are_all_it_was_called_with(home: Path) -> None:
    """Defaults included."""
    seen = []

    def asks(hparams: Any, x: float = 0.0, y: int = 5, z: int = 1) -> float:
        seen.append(dict(hparams))
        return 0.0

    study = search(asks, minimize="value", args={"z": 9}, trials=1)
    assert seen == [{"x": study.best.params["x"], "y": 5, "z": 9}]
    assert study.best.params.keys() == {"x"}


def test_a_deadline_ends_the_search_and_keeps_what_there_is(home: Path) -> None:
    """In this process between two trials."""
    from obl_magic.errors import RunTimedOut

    first = threading.Event()

    def slow(x: float = 0.0) -> float:
        first.wait(0.3)
        return x

    with pytest.raises(
        RunTimedOut, match="the search passed its timeout; what had ended by then is kept"
    ) as caught:
        search(slow, minimize="value", trials=100, timeout=0.2)
    held: Study = caught.value.study  # type: ignore[attr-defined]
    assert (held.status, len(held.trials)) == ("timed out", 1)


# Interrupts and going on


def test_an_interrupt_keeps_finished_trials_and_resume_goes_on_without_repeating_one(home: Path) -> None:
    """In this process; the interrupted one does not count, and the search ends as the uninterrupted one did."""
    whole = search(bowl, sampler="random", seed=6, trials=6).trials

    def presses_once(x: float = 0.0, y: float = 0.0) -> dict[str, float]:
        if len(list(home.glob("pressed"))) == 0 and len(calls) == 3:
            (home / "pressed").touch()
            signal.raise_signal(signal.SIGINT)
        calls.append(x)
        return bowl(x, y)

    calls: list[float] = []
    with pytest.raises(KeyboardInterrupt) as caught:
        search(presses_once, sampler="random", seed=6, trials=6, out="kept")
    held: Study = caught.value.study  # type: ignore[attr-defined]
    assert (held.status, len(held.trials)) == ("interrupted", 3)
    resumed = obl_magic.search(presses_once, resume="kept", quiet=True)
    assert resumed.id == held.id
    assert resumed.status == "succeeded"
    assert resumed.trials.status.tolist() == ["succeeded"] * 6
    assert resumed.trials.x.tolist()[:3] == held.trials.x.tolist() == whole.x.tolist()[:3]
    assert len(calls) == len(set(calls)) == 6
    assert open_results("kept").status == "succeeded"


def test_a_search_that_has_ended_goes_on_when_more_trials_are_wanted(home: Path) -> None:
    """The earlier ones are kept; with as many as there are nothing is done."""
    first = search(bowl, trials=3, seed=2)
    same = obl_magic.search(bowl, resume=first.id, quiet=True)
    assert same.trials.x.tolist() == first.trials.x.tolist()
    more = obl_magic.search(bowl, resume=first.id, trials=5, quiet=True)
    assert more.trials.x.tolist()[:3] == first.trials.x.tolist()
    assert more.trials.status.tolist() == ["succeeded"] * 5
    assert more.record.asked["trials"] == 5


def test_going_on_with_another_search_is_refused_and_leaves_it_as_it_was(home: Path) -> None:
    """Another space; an ablation."""
    first = search(bowl, trials=2, out="mine")
    with pytest.raises(UsageProblem, match="with which this search began"):
        obl_magic.search(bowl, "x=float(0,1)", resume="mine", quiet=True)
    again = open_results("mine")
    assert (again.status, len(again.trials)) == ("succeeded", 2)
    assert first.trials.equals(again.trials)


def test_what_is_not_said_is_as_it_was(home: Path) -> None:
    """Arguments, seed, sampler, name; what is said goes before, and need not be a literal before either."""

    def asks(x: float = 0.0, y: Any = 1.0, z: int = 0) -> dict[str, float]:
        return {"loss": x, "y": float(y), "z": z}

    import numpy as np

    search(asks, args={"y": np.float32(5), "z": 2}, trials=2, sampler="random", seed=9, out="mine")
    with pytest.raises(
        UsageProblem, match=r"whose argument y is np.float32\(5.0\); expected arguments that are Python"
    ):
        obl_magic.search(asks, resume="mine", trials=3, quiet=True)
    study = obl_magic.search(asks, resume="mine", trials=4, args={"y": 6.0}, quiet=True)
    assert study.trials.z.tolist() == [2] * 4
    assert study.trials.y.tolist() == [5, 5, 6, 6]
    assert [run.seed for run in study.runs] == [9, 10, 11, 12]


def test_going_on_with_another_function_is_said(home: Path) -> None:
    """The earlier trials are not what it computes."""
    first = search(bowl, trials=1, out="mine")

    def other(x: float = 0.0) -> dict[str, float]:
        return {"loss": x}

    study = obl_magic.search(other, resume="mine", trials=2, quiet=True)
    assert (
        f"the function is not that of the earlier trials (sha256 {first.digest[:12]})" in study.record.lines
    )
    assert "earlier trials" not in str(
        obl_magic.search(other, resume="mine", trials=3, quiet=True).record.lines
    )


def test_going_on_with_another_quantity_is_refused(home: Path) -> None:
    """Its values are not those of the earlier trials."""
    search(bowl, trials=1, out="mine")
    with pytest.raises(UsageProblem) as caught:
        search(bowl, resume="mine", minimize="lost")
    assert str(caught.value) == (
        "got --minimize lost; expected loss, with which this search began; do: --minimize loss, or search anew"
    )


def test_a_display_that_breaks_costs_no_trial(home: Path) -> None:
    """Whatever it raises."""

    class Breaks:
        def begin(self, header: Any) -> None:
            pass

        def update(self, state: Any) -> None:
            raise RuntimeError("cannot draw")

        def end(self, state: Any) -> None:
            pass

    def slow(x: float = 0.0) -> float:
        threading.Event().wait(0.3)
        return x

    study = obl_magic.search(slow, "x=float(0,1)", minimize="value", trials=2, display=Breaks())
    assert study.trials.status.tolist() == ["succeeded"] * 2


@pytest.mark.slow
def test_weights_of_one_trial_in_five_are_kept(home: Path) -> None:
    """The best one's."""
    study = search(searched.fits, "lr=log(1e-3,1e-1)", minimize="loss", trials=5, args={"epochs": 1}, seed=1)
    assert study.trials.status.tolist() == ["succeeded"] * 5
    kept = [path.parent.name for path in study.dir.rglob("weights.npz")]
    assert kept == [study.best.run.id]


@pytest.mark.slow
def test_no_weights_are_kept_where_none_are_wanted(home: Path) -> None:
    """And none need be copied."""
    study = search(searched.fits, "lr=log(1e-3,1e-1)", trials=2, args={"epochs": 1}, keep_weights=0)
    assert not list(study.dir.rglob("weights.npz"))


def test_a_parameter_without_default_may_be_searched(home: Path) -> None:
    """Each trial gives it; nobody else has to."""

    def needs(rate: float, units: int = 1) -> float:
        return rate * units

    study = obl_magic.search(needs, "rate=float(1,2)", trials=3, minimize="value", quiet=True)
    assert study.trials.status.tolist() == ["succeeded"] * 3
    assert study.best.value == study.best.params["rate"]
