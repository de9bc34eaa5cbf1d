"""What was imported ahead is out of sight until it is imported, and then all of it is there."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from obl_magic.worker.on_import import on_import
from obl_magic.worker.shelf import Shelf

NAMES = ("put_away", "put_away.inner", "put_away.inner.most", "put_away_not")


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, ModuleType]]:
    """A package of three modules and one with a name alike, imported; afterwards nothing of them is left."""
    inner = tmp_path / "put_away" / "inner"
    inner.mkdir(parents=True)
    (inner.parent / "__init__.py").write_text("import put_away.inner.most\n")
    (inner / "__init__.py").touch()
    (inner / "most.py").write_text("imported = []\n")
    (tmp_path / "put_away_not.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    finders = list(sys.meta_path)
    yield {name: importlib.import_module(name) for name in NAMES}
    sys.meta_path[:] = finders
    for name in NAMES:
        sys.modules.pop(name, None)


def test_it_is_not_there_until_it_is_imported(modules: dict[str, ModuleType]) -> None:
    """Nobody sees it; what only sounds alike stays."""
    Shelf([["put_away"]])
    assert [name for name in NAMES if name in sys.modules] == ["put_away_not"]
    assert importlib.util.find_spec("put_away") is not None
    assert "put_away" not in sys.modules


@pytest.mark.parametrize("name", ["put_away", "put_away.inner.most", "put_away.inner"])
def test_an_import_of_any_part_brings_all_of_it(modules: dict[str, ModuleType], name: str) -> None:
    """The very same modules, not imported again."""
    specs = {each: module.__spec__ for each, module in modules.items()}
    modules["put_away.inner.most"].imported.append("once")
    Shelf([["put_away"]])
    importlib.import_module(name)
    assert {each: sys.modules[each] for each in NAMES} == modules
    assert {each: module.__spec__ for each, module in modules.items()} == specs
    from put_away.inner.most import imported  # type: ignore[import-not-found]

    assert imported == ["once"]


def test_a_part_that_is_put_away_alone_is_no_attribute_meanwhile(modules: dict[str, ModuleType]) -> None:
    """As ``mpi4py.MPI`` of mpi4py."""
    Shelf([["put_away.inner.most"]])
    assert not hasattr(modules["put_away.inner"], "most")
    from put_away.inner import most

    assert most is modules["put_away.inner.most"] is modules["put_away.inner"].most


def test_who_waits_for_an_import_is_told_then_and_once(modules: dict[str, ModuleType]) -> None:
    """Whoever waits for a part, too, in the order in which their imports ended."""
    told: list[str] = []
    Shelf([["put_away"]], {"put_away": lambda: told.append("then")})
    for name in ("put_away.inner.most", "put_away"):
        on_import(name, lambda name=name: told.append(name))
    assert told == []
    importlib.import_module("put_away")
    importlib.import_module("put_away.inner.most")
    assert told == ["then", "put_away.inner.most", "put_away"]


def test_nothing_is_put_away_that_was_not_imported() -> None:
    """And nothing watches imports then."""
    finders = list(sys.meta_path)
    Shelf([["never_heard_of"]])
    assert sys.meta_path == finders
