"""A framework's import is noticed once, whoever looks for it before and however it is imported."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from obl_magic.worker.on_import import when_imported


@pytest.fixture
def framework(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of a package that can be imported and never was."""
    folder = tmp_path / "obl_framework"
    folder.mkdir()
    (folder / "__init__.py").write_text("ready = True\n")
    (folder / "part.py").write_text("import obl_framework\nseen = obl_framework.ready\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "obl_framework"
    for name in [name for name in sys.modules if name.startswith("obl_framework")]:
        del sys.modules[name]


def test_the_call_comes_right_after_the_import(framework: str) -> None:
    """When the module is whole, and before the importer goes on."""
    seen: list[bool] = []
    with when_imported(framework, lambda: seen.append(sys.modules[framework].ready)):
        assert seen == []
        importlib.import_module(framework)
        assert seen == [True]
        importlib.import_module(f"{framework}.part")
        importlib.import_module(framework)
    assert seen == [True]


def test_a_module_that_is_there_counts_at_once(framework: str) -> None:
    """The function may have been shipped with its framework."""
    importlib.import_module(framework)
    seen: list[int] = []
    with when_imported(framework, lambda: seen.append(1)):
        assert seen == [1]
    assert seen == [1]


def test_importing_a_part_counts(framework: str) -> None:
    """``from keras.layers import Dense`` imports keras."""
    seen: list[int] = []
    with when_imported(framework, lambda: seen.append(1)):
        importlib.import_module(f"{framework}.part")
    assert seen == [1]


def test_who_only_looks_for_it_does_not_use_the_call_up(framework: str) -> None:
    """Libraries ask ``find_spec`` whether a framework is installed, long before somebody imports it."""
    seen: list[int] = []
    with when_imported(framework, lambda: seen.append(1)):
        assert importlib.util.find_spec(framework) is not None
        assert importlib.util.find_spec(framework) is not None
        assert seen == []
        importlib.import_module(framework)
    assert seen == [1]


def test_an_import_that_failed_does_not_use_the_call_up(framework: str, tmp_path: Path) -> None:
    """The second try counts."""
    source = tmp_path / framework / "__init__.py"
    source.write_text("raise ImportError('not yet')\n")
    seen: list[int] = []
    with when_imported(framework, lambda: seen.append(1)):
        with pytest.raises(ImportError, match="not yet"):
            importlib.import_module(framework)
        source.write_text("ready = 'at the second try'\n")
        importlib.invalidate_caches()
        importlib.import_module(framework)
        assert seen == [1]


def test_afterwards_nothing_is_watched(framework: str) -> None:
    """Leaving restores the import system, also when nothing was imported."""
    before = list(sys.meta_path)
    seen: list[int] = []
    with when_imported(framework, lambda: seen.append(1)):
        pass
    assert sys.meta_path == before
    importlib.import_module(framework)
    assert seen == []


def test_two_watchers_are_both_called(framework: str) -> None:
    """Threads are set and Keras is adapted by different rooms."""
    seen: list[str] = []
    with (
        when_imported(framework, lambda: seen.append("outer")),
        when_imported(framework, lambda: seen.append("inner")),
    ):
        importlib.import_module(framework)
    assert sorted(seen) == ["inner", "outer"]


def test_a_module_that_does_not_exist_is_an_import_error_as_ever() -> None:
    """Nothing is hidden."""
    with (
        when_imported("obl_no_such_module", pytest.fail),
        pytest.raises(ModuleNotFoundError, match="obl_no_such_module"),
    ):
        importlib.import_module("obl_no_such_module")


def test_resources_and_source_of_the_module_are_found(framework: str) -> None:
    """The module's loader answers as its own would."""
    with when_imported(framework, lambda: None):
        module = importlib.import_module(framework)
    assert module.__spec__ is not None
    assert module.__spec__.loader is not None
    assert module.__spec__.loader.get_source(framework) == "ready = True\n"  # type: ignore[attr-defined]
