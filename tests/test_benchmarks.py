"""What the benchmarks' table rests on: turns, ratios, goals; schedules, verdicts, counts."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as some

pytestmark = pytest.mark.timing

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def ratios(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks/ratios.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("benchmark_ratios", BENCHMARKS / "ratios.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_sides_take_turns(ratios: ModuleType) -> None:
    """A slow minute meets every side: A B A B, not A A B B."""
    order: list[str] = []
    sides = {name: lambda name=name: order.append(name) for name in "AB"}
    ratios.interleaved(sides, repetitions=3)
    assert order == list("ABABAB")


def test_a_ratio_pairs_neighbours_in_time(ratios: ModuleType) -> None:
    """Each repetition is compared with the other side's next to it; the median is of these ratios."""
    line = ratios.ratio("a / b", [1.0, 20.0, 9.0], [1.0, 10.0, 3.0], ratios.Goal("at least", 2.5))
    assert line.values == (1.0, 2.0, 3.0)
    assert line.number == 2.0
    assert line.met is False


def test_a_goal_has_a_side(ratios: ModuleType) -> None:
    """More is better for a speed, less for a wait, and the bound itself is good enough for both."""
    assert ratios.Goal("at least", 1.4).met(1.4)
    assert not ratios.Goal("at least", 1.4).met(1.39)
    assert ratios.Goal("at most", 100).met(100)
    assert not ratios.Goal("at most", 100).met(101)


def test_the_table_names_a_missed_goal(ratios: ModuleType) -> None:
    """A line without a goal has no verdict; one that misses says MISSED beside the goal."""
    lines = [
        ratios.Line("import", "ms", (120.0,), ratios.Goal("at most", 100)),
        ratios.Line("speed", "samples/s", (3210.0, 3400.0)),
    ]
    head, missed, plain = ratios.table(lines).splitlines()
    assert head.split() == ["number", "range", "unit", "goal"]
    assert missed.split() == ["import", "120", "120", "–", "120", "ms", "≤", "100", "MISSED"]
    assert plain.split() == ["speed", "3,305", "3,210", "–", "3,400", "samples/s"]


@pytest.fixture(scope="module")
def benchmarks() -> Iterator[SimpleNamespace]:
    """The benchmarks of searches, which are no part of the package."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        names = ("searching", "planted", "reuse", "run")
        yield SimpleNamespace(**{name: importlib.import_module(name) for name in names})
    for path in BENCHMARKS.glob("*.py"):
        if path.stem not in before:
            sys.modules.pop(path.stem, None)


LENGTHS_S = some.lists(some.integers(1, 200).map(lambda tenths: tenths / 10), min_size=1, max_size=25)


@given(lengths_s=LENGTHS_S, worlds=some.integers(1, 5))
def test_a_greedy_schedule_lies_between_its_bounds(
    benchmarks: SimpleNamespace, lengths_s: list[float], worlds: int
) -> None:
    """No shorter than the work shared out or the longest trial; no longer than stages, nor than Graham's bound."""
    took_s = benchmarks.searching.greedy_s(lengths_s, worlds)
    least_s = max(sum(lengths_s) / worlds, max(lengths_s))
    assert took_s >= least_s - 1e-9
    assert took_s <= benchmarks.searching.staged_s(lengths_s, worlds) + 1e-9
    assert took_s <= (2 - 1 / worlds) * least_s + 1e-9


def test_a_free_world_takes_the_next_trial(benchmarks: SimpleNamespace) -> None:
    """A long trial holds up its own world only, where a stage holds up all."""
    lengths_s = [4.0, 1.0, 1.0, 1.0, 1.0, 4.0]
    assert benchmarks.searching.greedy_s(lengths_s, 2) == 8.0
    assert benchmarks.searching.staged_s(lengths_s, 2) == 9.0
    assert benchmarks.searching.greedy_s([3.0, 1.0, 1.0, 1.0], 2) == 3.0
    assert benchmarks.searching.staged_s([3.0, 1.0, 1.0, 1.0], 2) == 4.0


def test_lengths_are_drawn_again_alike_and_uneven(benchmarks: SimpleNamespace) -> None:
    """One seed, one series, within its range; another seed, another series."""
    searching = benchmarks.searching
    drawn = searching.lengths(3)
    assert drawn == searching.lengths(3)
    assert drawn != searching.lengths(4)
    assert len(drawn) == searching.TRIALS
    assert all(searching.SHORTEST_S <= length_s <= searching.LONGEST_S for length_s in drawn)
    assert max(drawn) > 2 * min(drawn)


def test_most_trials_are_stopped_early_in_an_order_that_the_seed_draws(benchmarks: SimpleNamespace) -> None:
    """As many of each length, whatever the seed."""
    searching = benchmarks.searching
    drawn = searching.stopped_early(3)
    assert drawn == searching.stopped_early(3) != searching.stopped_early(4)
    assert sorted(drawn) == sorted(searching.stopped_early(4))
    assert drawn.count(searching.FULL_S) == searching.FULL
    assert len(drawn) == searching.TRIALS


def planted_table(std: float = 0.01, **deltas: float) -> pd.DataFrame:
    """A table as an ablation result gives it, sorted by harm."""
    told = {"vital": -0.3, "useful": -0.05, "noise1": 0.002, "noise2": -0.001, "spare": 0.0} | deltas
    rows = [{"component": "base", "delta": 0.0, "std": std, "within_noise": None}]
    for name in sorted(told, key=lambda name: told[name]):
        noise = abs(told[name]) < std
        rows.append({"component": name, "delta": told[name], "std": std, "within_noise": noise})
    return pd.DataFrame(rows)


def test_a_planted_truth_that_was_found_counts(benchmarks: SimpleNamespace) -> None:
    """Vital first, useful second, the rest within what another seed does."""
    planted = benchmarks.planted
    assert planted.ranked_rightly(planted_table())
    assert planted.taken_for_noise(planted_table()) == 3
    assert planted.taken_for_effects(planted_table()) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"useful": -0.4},
        {"useful": -0.005},
        {"noise1": -0.06},
        {"noise2": 0.02},
        {"spare": -0.02},
        {"std": 0.06},
    ],
    ids=str,
)
def test_a_planted_truth_that_was_missed_does_not_count(
    benchmarks: SimpleNamespace, wrong: dict[str, float]
) -> None:
    """A wrong order, harm below the spread, and an effect of what has none are each a miss."""
    assert not benchmarks.planted.ranked_rightly(planted_table(**wrong))


def test_epochs_are_counted_from_one_to_the_first_that_is_good_enough(benchmarks: SimpleNamespace) -> None:
    """The first epoch is number 1; a curve that never gets there has no number."""
    assert benchmarks.reuse.epochs_to(0.9, [0.95, 0.8]) == 1
    assert benchmarks.reuse.epochs_to(0.9, [0.5, 0.9, 0.95]) == 2
    assert benchmarks.reuse.epochs_to(0.9, [0.5, 0.6]) is None


def test_every_benchmark_can_be_asked_for(benchmarks: SimpleNamespace) -> None:
    """The searches' are registered beside the others."""
    assert {"searching", "planted", "reuse"} <= set(benchmarks.run.BENCHMARKS)
