"""A search on Optuna: what it draws, prunes, keeps and refuses. Real Optuna, real journals."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from obl_magic.errors import SetupProblem, UsageProblem
from obl_magic.specs import parse_space
from obl_magic.study.plan.base import Plan
from obl_magic.study.plan.search import PRUNERS, SAMPLERS, UNFINISHED, Search, importances_of, open_study
from obl_magic.values import Outcome, Trial

optuna = pytest.importorskip("optuna")

SPACE = "lr=log(1e-4,1e-1) units=int(16,128) drop=float(0,0.5) act=choice('relu','tanh')"
TWO = "x=float(-1,1) y=float(-1,1)"
FINITE = "a=choice('p','q') n=int(1,3) x=float(0,1,step=0.5)"

Make = Callable[..., Search]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Makes searches that share one journal, so that a second one continues the first."""

    def made(space: Any = SPACE, **options: Any) -> Search:
        given = {
            "trials": 5,
            "direction": "minimize",
            "seed": 1,
            "journal": tmp_path / "journal",
            "study_name": "s",
        }
        return Search(parse_space(space), **(given | options))

    return made


def asked(search: Plan) -> Trial:
    """The next trial, of which there is one."""
    trial = search.ask()
    assert trial is not None
    return trial


def all_of(
    search: Search, value: Callable[[Trial], float] = lambda trial: float(trial.number)
) -> list[Trial]:
    """Asks and tells until nothing is left."""
    trials = []
    while trial := search.ask():
        search.tell(trial, Outcome("succeeded", value(trial)))
        trials.append(trial)
    return trials


def states(search: Search) -> list[str]:
    """Optuna's states, by trial number."""
    return [trial.state.name for trial in search.optuna.trials]


def bowl(args: dict[str, Any]) -> float:
    """A loss that depends on every parameter."""
    return math.log10(args["lr"]) ** 2 + args["units"] / 100 + args["drop"] + (args["act"] == "tanh")


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_search_draws_what_optuna_draws(make: Make, sampler: str) -> None:
    """The same seed gives the very parameters that ``study.optimize`` gives."""
    theirs = optuna.samplers.TPESampler(seed=7) if sampler == "tpe" else optuna.samplers.RandomSampler(seed=7)
    study = optuna.create_study(sampler=theirs)

    def objective(trial: Any) -> float:
        return bowl(
            {
                "lr": trial.suggest_float("lr", 1e-4, 1e-1, log=True),
                "units": trial.suggest_int("units", 16, 128),
                "drop": trial.suggest_float("drop", 0, 0.5),
                "act": trial.suggest_categorical("act", ["relu", "tanh"]),
            }
        )

    study.optimize(objective, n_trials=25)
    ours = all_of(make(sampler=sampler, seed=7, trials=25), lambda trial: bowl(trial.args))
    assert [trial.args for trial in ours] == [trial.params for trial in study.trials]


def test_a_trial_has_its_number_and_a_seed_of_its_own(make: Make) -> None:
    """Numbers are Optuna's; seeds follow from them."""
    search = make(seed=40, trials=3)
    assert [(trial.number, trial.seed, trial.component) for trial in all_of(search)] == [
        (0, 40, None),
        (1, 41, None),
        (2, 42, None),
    ]
    assert search.ask() is None
    assert [trial.number for trial in search.optuna.trials] == [0, 1, 2]


def test_args_have_the_types_of_the_space(make: Make) -> None:
    """Floats, ints and the options themselves."""
    args = asked(make()).args
    assert list(args) == ["lr", "units", "drop", "act"]
    assert [type(value) for value in args.values()] == [float, int, float, str]


@pytest.mark.parametrize("at_once", [1, 2])
def test_tpe_counts_on_running_trials_only_where_there_are_several(make: Make, at_once: int) -> None:
    """With one world it draws as without, with more as with Optuna's constant liar."""

    def drawn(liar: bool) -> list[dict[str, Any]]:
        study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=3, constant_liar=liar))
        spread = {name: optuna.distributions.FloatDistribution(-1, 1) for name in "xy"}
        params = []
        for _ in range(15):
            pair = [study.ask(spread), study.ask(spread)]
            params += [trial.params for trial in pair]
            for trial in pair:
                study.tell(trial, trial.params["x"] ** 2 + trial.params["y"])
        return params

    search, ours = make(TWO, seed=3, trials=30, at_once=at_once), []
    for _ in range(15):
        pair = [asked(search), asked(search)]
        ours += [trial.args for trial in pair]
        for trial in pair:
            search.tell(trial, Outcome("succeeded", trial.args["x"] ** 2 + trial.args["y"]))
    assert ours == drawn(at_once > 1)
    assert ours != drawn(at_once == 1)


def test_what_was_told_is_kept(make: Make) -> None:
    """Values, zero among them; NaN and nothing fail; errors and notes stay beside."""
    search = make(trials=7)
    outcomes = [
        Outcome("succeeded", 0.0),
        Outcome("succeeded", math.inf),
        Outcome("succeeded", math.nan),
        Outcome("succeeded"),
        Outcome("failed", error="ValueError: no"),
        Outcome("pruned"),
        Outcome("failed", 1.0, "died"),
    ]
    for outcome in outcomes:
        trial = asked(search)
        search.note(trial, run=f"run-{trial.number}", seed=trial.seed)
        search.tell(trial, outcome)
    trials = make(trials=7).optuna.trials
    assert [(trial.state.name, trial.value, trial.user_attrs.get("error")) for trial in trials] == [
        ("COMPLETE", 0.0, None),
        ("COMPLETE", math.inf, None),
        ("FAIL", None, "its value is NaN"),
        ("FAIL", None, "it gave no value"),
        ("FAIL", None, "ValueError: no"),
        ("PRUNED", None, None),
        ("FAIL", None, "died"),
    ]
    assert [trial.user_attrs["run"] for trial in trials] == [f"run-{number}" for number in range(7)]
    assert trials[3].user_attrs["seed"] == 4


@pytest.mark.parametrize("sampler", ["random", "tpe", "grid"])
def test_a_search_is_continued(make: Make, sampler: str) -> None:
    """Finished trials count and are not repeated, whatever became of them; the rest is new."""
    space = FINITE if sampler == "grid" else SPACE
    first = make(space, trials=10, sampler=sampler)
    for status in ("succeeded", "failed", "pruned", "succeeded"):
        first.tell(asked(first), Outcome(status, 1.0 if status == "succeeded" else None))
    second = all_of(make(space, trials=10, sampler=sampler, seed=1))
    assert [trial.number for trial in second] == list(range(4, 10))
    params = [repr(trial.params) for trial in first.optuna.trials]
    assert len(set(params)) == len(params) == 10
    assert make(space, trials=10, sampler=sampler).ask() is None
    assert asked(make(space, trials=11, sampler=sampler)).number == 10


def test_what_a_dead_process_left_running_is_done_again_first(make: Make, tmp_path: Path) -> None:
    """A process that is gone tells nothing more; its trials have failed, do not count, and come again as others."""
    script = (
        "import os, pathlib, sys\nfrom obl_magic.study.plan.search import Search\n"
        "from obl_magic.specs import parse_space\n"
        "search = Search(parse_space(sys.argv[2]), trials=5, direction='minimize', seed=1,"
        " journal=pathlib.Path(sys.argv[1]), study_name='s')\nsearch.ask()\nsearch.ask()\nos._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "journal"), SPACE], check=True)
    search = make()
    assert states(search) == ["FAIL", "FAIL", "WAITING", "WAITING"]
    left = search.optuna.trials[:2]
    assert [trial.user_attrs["error"] for trial in left] == [UNFINISHED] * 2
    again = all_of(search)
    assert [trial.number for trial in again] == [2, 3, 4, 5, 6]
    assert [trial.args for trial in again[:2]] == [trial.params for trial in left]


def test_a_half_written_line_does_not_cost_the_search(make: Make, tmp_path: Path) -> None:
    """What a killed process or a full disk left unfinished is cut; the rest is there and can be continued."""
    all_of(make(trials=2))
    with (tmp_path / "journal").open("ab") as journal:
        journal.write(b'{"op_code":4,"worker_id"')
    all_of(make(trials=3))
    assert states(make(trials=3)) == ["COMPLETE"] * 3


def test_a_lock_of_a_dead_process_holds_nobody_up(make: Make, tmp_path: Path) -> None:
    """Killed while it wrote, a process leaves Optuna's lock behind; it is taken away."""
    all_of(make(trials=1))
    (tmp_path / "journal.lock").symlink_to(tmp_path / "journal")
    assert len(all_of(make(trials=2))) == 1
    assert not (tmp_path / "journal.lock").is_symlink()


def test_a_file_that_is_no_journal_is_refused_and_left_alone(make: Make, tmp_path: Path) -> None:
    """Somebody else's file is neither read as a study nor cut."""
    (tmp_path / "journal").write_text("dear diary\nyesterday")
    with pytest.raises(
        SetupProblem,
        match=r"the search's journal .*/journal cannot be read: .*; do: search under another name",
    ):
        make()
    assert (tmp_path / "journal").read_text() == "dear diary\nyesterday"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"direction": "maximize"},
            "got the direction maximize; expected minimize, with which this search began; do: --minimize M",
        ),
        ({"space": TWO}, "got the space x=float(-1,1) y=float(-1,1); expected lr=log(0.0001,0.1) units=int"),
        ({"sampler": "grid", "space": SPACE}, "for the sampler grid"),
    ],
)
def test_another_search_does_not_continue_it(make: Make, options: dict[str, Any], sentence: str) -> None:
    """What differs is named, with how it began."""
    all_of(make(trials=1))
    with pytest.raises(UsageProblem) as caught:
        make(**options)
    assert sentence in str(caught.value)


def test_a_grid_is_not_continued_by_another_sampler(make: Make) -> None:
    """The points of a grid are numbered as its trials are."""
    all_of(make(FINITE, sampler="grid", trials=2))
    with pytest.raises(
        UsageProblem,
        match="got the sampler random; expected grid, with which this search began; do: --sampler grid",
    ):
        make(FINITE, sampler="random")


def test_a_grid_has_each_point_once_and_ends_by_itself(make: Make) -> None:
    """Asked for more trials than there are points, it stops; failures are points too."""
    search = make(FINITE, sampler="grid", trials=100)
    assert search.planned == 18
    points = []
    while trial := search.ask():
        points.append(tuple(trial.args.values()))
        search.tell(trial, Outcome("failed", error="no") if trial.number == 5 else Outcome("succeeded", 1.0))
    assert (
        sorted(points) == [(a, n, x) for a in "pq" for n in (1, 2, 3) for x in (0.0, 0.5, 1.0)][: len(points)]
        or len(points) == 12
    )
    assert len(set(points)) == len(points) == search.planned


def test_a_grid_has_the_values_of_its_steps(make: Make) -> None:
    """Every value that the domain allows, with its type."""
    trials = all_of(make("n=int(0,10,step=5) x=float(0,0.3,step=0.1)", sampler="grid", trials=100))
    assert sorted({trial.args["n"] for trial in trials}) == [0, 5, 10]
    assert sorted({trial.args["x"] for trial in trials}) == [0.0, 0.1, 0.2, 0.3]
    assert all(type(trial.args["n"]) is int and type(trial.args["x"]) is float for trial in trials)


def test_a_grid_at_several_places_repeats_nothing(make: Make) -> None:
    """Points that run elsewhere are not asked again."""
    search = make(FINITE, sampler="grid", trials=100)
    running = [asked(search) for _ in range(search.planned)]
    assert search.ask() is None
    assert len({repr(trial.args) for trial in running}) == search.planned


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"space": "x=float(0,1) n=int(1,2)", "sampler": "grid"},
            "got x=float(0,1) for the sampler grid; expected parameters with finitely many values: choices, "
            "whole numbers, or ranges with step=; do: write x=float(0,1,step=0.1)",
        ),
        ({"space": "x=log(1e-3,1)", "sampler": "grid"}, "do: write x=float(0.001,1,step=0.0999)"),
        (
            {"space": "n=int(1,1000000)", "sampler": "grid"},
            "got a grid of 1,000,000 points; expected at most 100,000",
        ),
        (
            {"space": "x=float(0,1) a=choice(1,2)", "sampler": "cmaes"},
            "got 1 range of numbers for the sampler cmaes",
        ),
        (
            {"sampler": "bayes"},
            "got the sampler 'bayes'; expected one of tpe, random, grid, cmaes, gp, nsga2; do: --sampler tpe",
        ),
        (
            {"pruner": "percentile"},
            "got the pruner 'percentile'; expected one of none, median, asha, hyperband; do: --pruner none",
        ),
        ({"direction": "up"}, "got the direction 'up'; expected one of maximize, minimize; do: --maximize M"),
        ({"trials": 0}, "got 0 trials; expected at least one; do: --trials 20"),
    ],
)
def test_a_wrong_request_is_refused(
    make: Make, tmp_path: Path, options: dict[str, Any], sentence: str
) -> None:
    """In one line, before anything is written."""
    with pytest.raises(UsageProblem) as caught:
        make(**options)
    assert sentence in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("absent", "sampler", "sentence"),
    [
        (["optuna"], "tpe", "a search needs Optuna, which is not installed; do: pip install optuna"),
        (["cmaes"], "cmaes", "the sampler cmaes needs cmaes, which is not installed; do: pip install cmaes"),
        (
            ["torch", "scipy"],
            "gp",
            "the sampler gp needs torch and scipy, which are not installed; do: pip install torch scipy",
        ),
    ],
)
def test_what_is_missing_is_named(
    make: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    absent: list[str],
    sampler: str,
    sentence: str,
) -> None:
    """With the line that installs it, before anything is written."""
    for package in absent:
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SetupProblem) as caught:
        make(TWO, sampler=sampler)
    assert str(caught.value) == sentence
    assert list(tmp_path.iterdir()) == []


def test_an_old_optuna_is_named(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Version 3 has no journal of this kind."""
    monkeypatch.setattr(optuna, "__version__", "3.6.1")
    with pytest.raises(
        SetupProblem, match=r"needs Optuna 4 or later; here is 3\.6\.1; do: pip install --upgrade optuna"
    ):
        make()


def test_optuna_is_imported_when_a_search_begins() -> None:
    """Importing the plan costs nothing to who does not search."""
    script = "import sys, obl_magic.study.plan.search; print(*sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "obl_magic.study.plan.search" in loaded
    assert "optuna" not in loaded


def test_options_of_any_kind_reach_the_function_themselves(make: Make) -> None:
    """Tuples, lists and look-alikes are drawn without a warning, and are the very objects of the space."""
    space = parse_space("act=choice((32,64),[1,2],{'a':1},None) flag=choice(True,1,1.0)")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trials = all_of(
            make({"act": list(space[0].options), "flag": list(space[1].options)}, sampler="random", trials=30)
        )  # type: ignore[union-attr]
    assert {id(trial.args["act"]) for trial in trials} == {id(option) for option in space[0].options}  # type: ignore[union-attr]
    assert {repr(trial.args["flag"]) for trial in trials} == {"True", "1", "1.0"}


def test_equal_configurations_are_trials_of_their_own(make: Make) -> None:
    """A random search over choices alone may repeat itself; nothing is lost or refused."""
    search = make("a=choice(1,2)", sampler="random", trials=8)
    assert [trial.number for trial in all_of(search)] == list(range(8))
    assert [trial.value for trial in search.optuna.trials] == list(range(8))


def curves(search: Search, curve: Callable[[int], float], steps: int = 10) -> list[int]:
    """Runs all trials, each reporting a constant curve; returns which were pruned."""
    pruned = []
    while trial := search.ask():
        level = curve(trial.number)
        cut = any(search.judge(trial, step, level) for step in range(1, steps + 1))
        search.tell(trial, Outcome("pruned") if cut else Outcome("succeeded", level))
        pruned += [trial.number] * cut
    return pruned


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_median_pruner_prunes_what_is_worse(make: Make, direction: str) -> None:
    """After five trials what lags behind their median is pruned, in either direction."""
    sign = 1 if direction == "minimize" else -1
    search = make(TWO, trials=8, direction=direction, pruner="median")
    levels = [0, 1, 2, 3, 4, 100, -1, 100]
    assert curves(search, lambda number: float(sign * levels[number])) == [5, 7]
    assert states(search) == ["COMPLETE"] * 5 + ["PRUNED", "COMPLETE", "PRUNED"]


def test_identical_curves_are_not_pruned(make: Make) -> None:
    """Equal to the median is not worse than it."""
    assert curves(make(TWO, trials=12, pruner="median"), lambda _: 1.0) == []


def test_values_are_compared_at_the_same_step(make: Make) -> None:
    """A trial that reports rarely is compared with what others had at that step, not at that place of a list."""
    search = make(TWO, trials=6, pruner="median")
    for _ in range(5):
        trial = asked(search)
        assert not any(search.judge(trial, step, 100.0 - step) for step in range(100))
        search.tell(trial, Outcome("succeeded", 1.0))
    trial = asked(search)
    assert not search.judge(trial, 50, 49.0)
    assert search.judge(trial, 90, 48.0)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_asha_lets_the_best_go_on(make: Make, direction: str) -> None:
    """The best trial is never among the pruned, the worst ones are, in either direction."""
    sign = 1 if direction == "minimize" else -1
    pruned = curves(
        make(TWO, trials=16, direction=direction, pruner="asha"), lambda number: sign * float(number)
    )
    assert 0 not in pruned
    assert set(range(8, 16)) <= set(pruned)


def test_hyperband_prunes(make: Make) -> None:
    """Its largest resource is what the first complete trial used."""
    pruned = curves(make(TWO, trials=20, pruner="hyperband"), float, steps=30)
    assert 0 not in pruned
    assert len(pruned) > 5


def test_a_step_counts_once(make: Make) -> None:
    """Said again, it is ignored without a warning; what was said first stays."""
    search = make(TWO, pruner="median")
    trial = asked(search)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not search.judge(trial, 3, 1.0)
        assert not search.judge(trial, 3, 2.0)
    assert search.optuna.trials[0].intermediate_values == {3: 1.0}


@pytest.mark.filterwarnings("ignore:All-NaN slice")  # NumPy, to Optuna
def test_a_curve_of_nan_is_pruned_where_others_are_not(make: Make) -> None:
    """NaN is worse than any number, and no error."""
    search = make(TWO, trials=6, pruner="median")
    assert curves(search, lambda number: math.nan if number == 5 else 1.0) == [5]
    assert math.isnan(search.optuna.trials[5].intermediate_values[1])


def test_a_report_that_comes_late_changes_nothing(make: Make) -> None:
    """A rank may report what it did before its trial was told."""
    search = make(TWO, pruner="median")
    trial = asked(search)
    search.tell(trial, Outcome("succeeded", 1.0))
    assert not search.judge(trial, 1, 5.0)
    assert search.optuna.trials[0].intermediate_values == {}


def test_a_negative_step_is_refused(make: Make) -> None:
    """Optuna counts from 0."""
    search = make(TWO)
    with pytest.raises(UsageProblem, match="got a report at step -1; expected a step from 0 on; do: report"):
        search.judge(asked(search), -1, 1.0)


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name not in ("cmaes", "gp")])
@pytest.mark.parametrize("pruner", PRUNERS)
def test_every_sampler_works_with_every_pruner(make: Make, sampler: str, pruner: str) -> None:
    """A search with failures and reports ends with as many trials as wanted, and no warning."""
    search = make(FINITE, sampler=sampler, pruner=pruner, trials=12, at_once=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        curves(search, lambda number: float(number % 3), steps=2)
    assert len(search.optuna.trials) == 12


@pytest.mark.parametrize(("sampler", "packages"), [("cmaes", ["cmaes"]), ("gp", ["torch", "scipy"])])
def test_samplers_with_needs_of_their_own_work(make: Make, sampler: str, packages: list[str]) -> None:
    """Where their packages are installed they draw, and go on in a second session."""
    for package in packages:
        pytest.importorskip(package)
    space = f"{TWO} act=choice('relu','tanh')"
    first = all_of(make(space, sampler=sampler, trials=12), lambda trial: trial.args["x"] ** 2)
    second = all_of(make(space, sampler=sampler, trials=20), lambda trial: trial.args["x"] ** 2)
    assert len({repr(trial.args) for trial in first + second}) == 20


def test_threads_never_share_a_trial(make: Make) -> None:
    """Four worlds ask, report and tell at once: each number once, each outcome where it belongs."""
    search, seen, errors = make(TWO, trials=24, pruner="median", at_once=4), [], []
    together = threading.Barrier(4)

    def world() -> None:
        try:
            together.wait()
            while trial := search.ask():
                seen.append(trial.number)
                search.judge(trial, 1, float(trial.number))
                search.note(trial, number=trial.number)
                search.tell(trial, Outcome("succeeded", float(trial.number)))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=world) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert sorted(seen) == list(range(24))
    assert [(trial.value, trial.user_attrs["number"]) for trial in search.optuna.trials] == [
        (n, n) for n in range(24)
    ]


def test_a_study_is_looked_at_while_it_is_written(make: Make, tmp_path: Path) -> None:
    """Whoever opens it sees what there is, and takes neither lock nor unfinished line from the search."""
    search = make(TWO, trials=5)
    running = asked(search)
    (tmp_path / "journal.lock").symlink_to(tmp_path / "journal")
    with (tmp_path / "journal").open("ab") as journal:
        journal.write(b'{"op_code":')
    before = (tmp_path / "journal").read_bytes()
    study = open_study(tmp_path / "journal", "s")
    assert [(trial.state.name, trial.params) for trial in study.trials] == [("RUNNING", running.args)]
    assert (tmp_path / "journal").read_bytes() == before
    assert (tmp_path / "journal.lock").is_symlink()


def test_a_study_of_before_has_its_importances(make: Make, tmp_path: Path) -> None:
    """They need the journal alone."""
    search = make(TWO, trials=20, sampler="random")
    all_of(search, lambda trial: trial.args["x"] ** 2)
    assert importances_of(open_study(tmp_path / "journal", "s")) == search.importances() != {}


def test_importances_name_what_matters(make: Make) -> None:
    """The parameter that decides comes first; together they are 1."""
    search = make(TWO, trials=40, sampler="random")
    all_of(search, lambda trial: trial.args["x"] ** 2 + trial.args["y"] / 1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        importances = search.importances()
    assert list(importances) == ["x", "y"]
    assert importances["x"] > 0.7
    assert sum(importances.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("trials", "value"),
    [
        (1, float),
        (2, float),
        (20, lambda _: 3.0),
        (4, lambda number: [1.0, 2.0, math.inf, -math.inf][number]),
    ],
)
def test_too_little_is_no_importance(make: Make, trials: int, value: Callable[[int], float]) -> None:
    """From one or two trials, or from equal ones, nothing follows."""
    search = make(TWO, trials=trials)
    all_of(search, lambda trial: value(trial.number))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert search.importances() == {}


def test_optuna_prints_nothing_of_ours(tmp_path: Path) -> None:
    """A search is silent, resumed or new, and the user's own studies still say what they said before."""
    script = (
        "import pathlib, sys\nfrom obl_magic.study.plan.search import Search\nfrom obl_magic.specs import parse_space\n"
        "from obl_magic.values import Outcome\n"
        "for _ in range(2):\n"
        "    search = Search(parse_space('x=float(0,1)'), trials=4, direction='minimize', seed=1,"
        " journal=pathlib.Path(sys.argv[1]), study_name='quiet')\n"
        "    for _ in range(2): search.tell(search.ask(), Outcome('succeeded', 1.0))\n"
        "import optuna\nassert optuna.logging.get_verbosity() == optuna.logging.INFO\n"
        "optuna.create_study(study_name='loud')\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "journal")], capture_output=True, text=True, check=True
    )
    assert said.stdout == ""
    assert "quiet" not in said.stderr
    assert [line.partition("] ")[2] for line in said.stderr.splitlines()] == [
        "A new study created in memory with name: loud"
    ]


def test_nothing_stays_behind_on_the_users_handlers(make: Make) -> None:
    """The level is never touched, and no filter remains."""
    logger = logging.getLogger("optuna")
    before = logger.level, [(handler, list(handler.filters)) for handler in logger.handlers]
    make()
    assert (logger.level, [(handler, list(handler.filters)) for handler in logger.handlers]) == before


def test_the_journal_is_all_that_is_written(make: Make, tmp_path: Path) -> None:
    """No lock and no second file is left when trials are done."""
    all_of(make())
    assert os.listdir(tmp_path) == ["journal"]
