"""Modules that were imported before a rank began, out of its sight until it imports them itself.

A rank that was forked has TensorFlow in its memory, but a function that never asks for TensorFlow must not meet it,
and whoever waits for its import (``on_import``) must not be told before it. So what was imported ahead lies on a shelf;
an import takes it from there, together with all that had come with it.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

from obl_magic.worker import on_import

MPI = "mpi4py.MPI"
FAMILIES: tuple[tuple[str, ...], ...] = (("tensorflow", "keras"), ("horovod",), (MPI,))
"""Packages, or single modules, that come into view together."""
LIBRARIES = ("scipy", "pandas", "sklearn", "optuna", "matplotlib", "tensorflow_datasets", "PIL", "h5py")
"""What is imported ahead, in everyone's sight, where the kernel or a function before has imported it."""


def in_use() -> tuple[str, ...]:
    """Those of the libraries that this process has imported."""
    return tuple(name for name in LIBRARIES if name in sys.modules)


class Shelf(MetaPathFinder):
    """Takes these families out of sight, in this process.

    Args:
        families: which; only what is imported already is put away.
        then: called when the first of a family's names is imported, by that name.
    """

    def __init__(
        self,
        families: Sequence[Sequence[str]] = FAMILIES,
        then: Mapping[str, Callable[[], None]] | None = None,
    ) -> None:
        self._then = dict(then or {})
        self._kept: list[dict[str, ModuleType]] = []
        for family in families:
            kept = {name: module for name, module in sys.modules.items() if _is_of(name, family)}
            for name in kept:
                del sys.modules[name]
                parent, _, last = name.rpartition(".")
                if parent not in kept and parent in sys.modules:
                    vars(sys.modules[parent]).pop(last, None)
            if kept:
                self._kept.append(kept)
        if self._kept:
            sys.meta_path.insert(0, self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        for kept in self._kept:
            if fullname in kept:
                taken = _Taken(self, kept, fullname)
                return importlib.util.spec_from_loader(fullname, taken, origin=taken.origin)
        return None

    def take(self, kept: dict[str, ModuleType], asked: str) -> None:
        """Brings a family into view; whoever waits for a module is told, the first imported first."""
        self._kept.remove(kept)
        if not self._kept:
            sys.meta_path.remove(self)
        for name, module in kept.items():
            sys.modules[name] = module
            parent, _, last = name.rpartition(".")
            if parent and parent not in kept and parent in sys.modules:
                setattr(sys.modules[parent], last, module)
        for name in kept:
            if name in self._then:
                self._then[name]()
        on_import.has_come(kept)


class _Taken(Loader):
    """Gives a module that is there already."""

    def __init__(self, shelf: Shelf, kept: dict[str, ModuleType], name: str) -> None:
        self._shelf, self._kept, self._name = shelf, kept, name
        self._spec = kept[name].__spec__
        self.origin = None if self._spec is None else self._spec.origin

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self._kept[self._name]

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self._spec
        self._shelf.take(self._kept, self._name)


def _is_of(name: str, family: Sequence[str]) -> bool:
    return any(name == each or name.startswith(f"{each}.") for each in family)
