"""What the benchmarks' table rests on: turns, ratios, goals."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

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
