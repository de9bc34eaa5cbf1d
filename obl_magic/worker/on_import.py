"""Calls back when a framework is imported, so that a rank pays only for the frameworks its function uses."""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class _Then(Loader):
    """Runs another loader, then a callback."""

    def __init__(self, loader: Loader, then: Callable[[], None]) -> None:
        self._loader, self._then = loader, then

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        self._then()

    def __getattr__(self, name: str) -> object:
        return getattr(self._loader, name)


class _Watch(MetaPathFinder):
    """Watches until the module was imported, not until somebody asks whether it could be."""

    def __init__(self, name: str, then: Callable[[], None]) -> None:
        self.name, self._then = name, then
        self._looking = threading.local()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.name or getattr(self._looking, "now", False):
            return None
        self._looking.now = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._looking.now = False
        if spec is not None and spec.loader is not None:
            spec.loader = _Then(spec.loader, self.imported)
        return spec

    def forget(self) -> None:
        """Watches no more."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def imported(self) -> None:
        """Tells so, once."""
        if self in sys.meta_path:
            self.forget()
            self._then()


def uses_keras(pickled: bytes) -> bool:
    """Whether a pickled function names Keras or TensorFlow anywhere."""
    return b"keras" in pickled or b"tensorflow" in pickled


def on_import(name: str, then: Callable[[], None]) -> Callable[[], None]:
    """Calls ``then`` once: now if the module is already there, else right after its import.

    Returns:
        A function that forgets it, if it has not happened yet.
    """
    if name in sys.modules:
        then()
        return lambda: None
    watch = _Watch(name, then)
    sys.meta_path.insert(0, watch)
    return watch.forget


def has_come(names: Mapping[str, object]) -> None:
    """Calls back whoever watches one of these modules, which were imported in this order."""
    for name in names:
        for watch in [each for each in sys.meta_path if isinstance(each, _Watch) and each.name == name]:
            watch.imported()


@contextmanager
def when_imported(name: str, then: Callable[[], None]) -> Iterator[None]:
    """As :func:`on_import`, within a block."""
    forget = on_import(name, then)
    try:
        yield
    finally:
        forget()
