"""Replaces methods on classes and puts them back. Knows nothing about what is replaced.

A method is replaced on its class, so that names imported earlier are covered too.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any


class Patches:
    """Replacements that can all be undone, last first."""

    def __init__(self) -> None:
        self._undo: list[tuple[Any, str, Any, bool]] = []

    def replace(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        """Replaces ``owner.name`` by ``make(original)``, where original is the attribute as stored.

        Args:
            owner: a class or a module. name: the attribute. make: from the original to the replacement.
        """
        own = name in vars(owner)
        original = vars(owner)[name] if own else getattr(owner, name)
        self._undo.append((owner, name, original, own))
        setattr(owner, name, make(original))

    def replace_function(self, function: Any, make: Callable[[Any], Any]) -> None:
        """Replaces what a module's function does, so that names imported from the module earlier are covered too.

        Args:
            function: a plain function, without closure. make: from the original to the replacement.
        """
        if not isinstance(function, FunctionType) or function.__code__.co_freevars:
            module = sys.modules[function.__module__]
            self.replace(module, function.__name__, make)
            return
        original = FunctionType(
            function.__code__, function.__globals__, function.__name__, function.__defaults__
        )
        original.__kwdefaults__, original.__module__ = function.__kwdefaults__, function.__module__
        original.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]
        name = f"_obl_{function.__name__}"
        function.__globals__[name] = make(original)
        code: dict[str, Any] = {}
        exec(f"def {function.__name__}(*args, **kwargs): return {name}(*args, **kwargs)", code)
        self._undo.append((function, "__code__", function.__code__, True))
        function.__code__ = code[function.__name__].__code__

    def restore(self) -> None:
        """Puts everything back as it was."""
        while self._undo:
            owner, name, original, own = self._undo.pop()
            if own:
                setattr(owner, name, original)
            else:
                delattr(owner, name)
