"""What Keras' tests find in Keras' repository and not in its source distribution, as a plugin of pytest.

Its ``conftest`` (a marker, ``skip_if_backend``), other test files under ``keras.src``, and packages that test modules
import but that are not needed on TensorFlow (jax, torch, grain): stand-ins while a module is imported, no longer.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

OPTIONAL = ("jax", "torch", "grain", "onnxruntime", "sklearn", "tf2onnx")


def _of_conftest() -> types.ModuleType:
    """The module ``conftest`` as tests import it."""
    conftest = types.ModuleType("conftest")

    def skip_if_backend(given: str, reason: str) -> pytest.MarkDecorator:
        from keras import backend

        return pytest.mark.skipif(backend.backend() == given, reason=reason)

    conftest.skip_if_backend = skip_if_backend  # type: ignore[attr-defined]
    return conftest


class _StandIn(types.ModuleType):
    """A package that is not installed: every name in it is an empty class."""

    __path__: Sequence[str] = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class _StandInLoader(Loader):
    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


class _Finder(MetaPathFinder):
    """Finds what only test modules import.

    Args:
        folder: holds ``keras_tests``.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.stand_ins: list[str] = []
        self._absent = {name for name in OPTIONAL if importlib.util.find_spec(name) is None}

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name.startswith("keras.src.") and name.endswith("_test"):
            file = self._folder / "keras_tests" / (name.removeprefix("keras.src.").replace(".", "/") + ".py")
            return importlib.util.spec_from_file_location(name, file) if file.is_file() else None
        if name.partition(".")[0] in self._absent and self._asked_by_a_test_module():
            self.stand_ins.append(name)
            return ModuleSpec(name, _StandInLoader(), is_package=True)
        return None

    def _asked_by_a_test_module(self) -> bool:
        """Keras itself tries to import such packages too, and must not find them."""
        frame = sys._getframe(2)
        while frame is not None and "importlib" in frame.f_code.co_filename:
            frame = frame.f_back  # type: ignore[assignment]
        code = getattr(frame, "f_code", None)
        return (
            code is not None and code.co_name == "<module>" and code.co_filename.startswith(str(self._folder))
        )


class KerasRepository:
    """The plugin.

    Args:
        folder: holds ``keras_tests``.
    """

    def __init__(self, folder: Path) -> None:
        self._finder = _Finder(folder)
        self._undo: list[Callable[[], object]] = []

    def pytest_configure(self, config: pytest.Config) -> None:
        config.addinivalue_line("markers", "requires_trainable_backend: every test of ours may train")
        config.addinivalue_line("markers", "multi_device: needs several devices in one process")
        sys.modules["conftest"] = _of_conftest()
        sys.meta_path.append(self._finder)
        self._undo = [lambda: sys.modules.pop("conftest"), lambda: sys.meta_path.remove(self._finder)]

    def pytest_unconfigure(self) -> None:
        while self._undo:
            self._undo.pop()()

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> Iterator[None]:
        try:
            return (yield)
        finally:
            while self._finder.stand_ins:
                sys.modules.pop(self._finder.stand_ins.pop(), None)
