"""Replaces methods on classes and puts them back. Knows nothing about what is replaced.

A method is replaced on its class, so that names imported earlier are covered too.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any


def _calls_another(*args: Any, **kwargs: Any) -> Any:
    return _replacement(*args, **kwargs)  # type: ignore[name-defined]  # noqa: F821


class Patches:
    """Replacements that can all be undone, last first."""

    def __init__(self) -> None:
        self._undo: list[tuple[Any, str, Any, bool]] = []

    def replace(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        """Replaces ``owner.name`` by ``make(original)``, where original is the attribute as stored.

        Args:
            owner: a class or a module.
            name: the attribute.
            make: from the original to the replacement.
        """
        own = name in vars(owner)
        original = vars(owner)[name] if own else getattr(owner, name)
        self._undo.append((owner, name, original, own))
        setattr(owner, name, make(original))

    def replace_function(self, function: Any, make: Callable[[Any], Any]) -> None:
        """Replaces what a module's function does, so that names imported from the module earlier are covered too.

        Args:
            function: a plain function, without closure.
            make: from the original to the replacement.
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
        self._undo.append((function, "__code__", function.__code__, True))
        function.__code__ = _calls_another.__code__.replace(co_names=(name,), co_name=function.__name__)

    def restore(self) -> None:
        """Puts everything back as it was."""
        while self._undo:
            owner, name, original, own = self._undo.pop()
            if own:
                setattr(owner, name, original)
            else:
                delattr(owner, name)
