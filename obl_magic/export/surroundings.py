"""What a function uses of its notebook, as statements of a script where they have a text, by name where not."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

from obl_magic.export import plain
from obl_magic.payload.code_names import global_names
from obl_magic.values import CellSource


class Surroundings:
    """The global names that a function looks up, and those that its helpers do.

    Args:
        function: the function.
        sources: the cells and files in which it and its helpers stand.

    Attributes:
        source: the function's definition, or None: then nothing is known of the rest.
        constants: assignments.
        helpers: definitions, those that others call first.
        needs: names whose values have no text.
    """

    def __init__(self, function: FunctionType, sources: Iterable[CellSource]) -> None:
        self._names = function.__globals__
        self._texts = {cell.filename: cell.text for cell in sources}
        self._known = {function.__name__}
        self._imports: list[str] = []
        self._packages: list[ModuleType] = []
        self._attributes: set[str] = set()
        self.constants: list[str] = []
        self.helpers: list[str] = []
        self.needs: list[str] = []
        self.source = self._definition(function.__name__, function)
        if self.source is not None:
            self._look_into(function)

    @property
    def imports(self) -> list[str]:
        """Import statements: whole modules first; submodules that the code reaches by their attributes, too."""
        deep = [line for package in self._packages for line in plain.submodules(package, self._attributes)]
        return sorted({*self._imports, *deep}, key=lambda line: (line.startswith("from "), line))

    def name_of(self, helper: Any) -> str | None:
        """The name by which the script can call a helper; None where it has no text, or another has that name."""
        name = getattr(helper, "__name__", "")
        source = None if self.source is None else self._definition(name, helper)
        if source is None or self._names.setdefault(name, helper) is not helper:
            return None
        self._gather([name])
        return name if name not in self.needs else None

    def _look_into(self, function: FunctionType) -> None:
        """Gathers what the text of a function uses."""
        for code in _codes(function.__code__):
            self._attributes.update(code.co_names)
        self._gather(global_names(function.__code__))

    def _gather(self, names: Iterable[str]) -> None:
        for name in names:
            is_pythons = name.startswith("__") and name.endswith("__")
            if name in self._known or name not in self._names or is_pythons:
                continue
            self._known.add(name)
            value = self._names[name]
            if (text := plain.constant(value)) is not None:
                self.constants.append(f"{name} = {text}")
            elif (text := plain.import_of(name, value)) is not None:
                self._imports.append(text)
                self._packages += [value] if isinstance(value, ModuleType) else []
            elif (text := self._definition(name, value)) is not None:
                self._look_into(value)
                self.helpers.append(text)
            else:
                self.needs.append(name)

    def _definition(self, name: str, value: Any) -> str | None:
        """The text of another function of the same notebook or module."""
        if not isinstance(value, FunctionType) or value.__globals__ is not self._names:
            return None
        return plain.definition(name, value, self._texts.get(value.__code__.co_filename, ""))


def _codes(code: CodeType) -> Iterator[CodeType]:
    """A code object and all those inside it."""
    yield code
    for const in code.co_consts:
        if isinstance(const, CodeType):
            yield from _codes(const)
