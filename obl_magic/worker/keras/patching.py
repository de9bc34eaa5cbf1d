"""Replaces methods on classes and puts them back. Knows nothing about what is replaced.

A method is replaced on its class, so that names imported earlier are covered too.
"""

from __future__ import annotations

from collections.abc import Callable
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

    def restore(self) -> None:
        """Puts everything back as it was."""
        while self._undo:
            owner, name, original, own = self._undo.pop()
            if own:
                setattr(owner, name, original)
            else:
                delattr(owner, name)
