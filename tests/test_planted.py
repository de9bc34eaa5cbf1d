"""An ablation study of a function whose truth is known, with real ranks."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """benchmarks/planted.py, which is no part of the package."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module("planted")
    for name in ("planted", "ranks", "ratios"):
        if name not in before:
            sys.modules.pop(name, None)


@pytest.mark.slow
@pytest.mark.skipif(
    os.environ.get("OBL_STUDIES") != "all", reason="takes a minute: OBL_STUDIES=all, or make bench"
)
def test_a_planted_study_ranks_its_parts_rightly(
    planted: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losing the vital feature harms most, the useful one second; noise and a spare layer do less than a seed does."""
    monkeypatch.setenv("OBLIVIOUS_HOME", str(tmp_path))
    table = planted.study(seed=1).table
    assert planted.ranked_rightly(table), table.to_string()
    assert planted.taken_for_effects(table) == 2, table.to_string()
    rows = table.set_index("component")
    assert (rows["status"] == "succeeded").all()
    assert (rows["repeats"] == planted.REPEATS).all()
    assert (rows.loc[["vital", "useful", "noise1", "noise2"], "inputs"] == 3).all()
    assert rows.loc["spare", "layers"] == rows.loc["base", "layers"] - 1
