"""Replaced methods come back exactly as they were."""

from __future__ import annotations

import math
from types import ModuleType

from obl_magic.worker.patching import Patches


class Base:
    """Has what a class can have."""

    def method(self) -> str:
        return "base"

    @classmethod
    def made(cls) -> str:
        return cls.__name__

    @staticmethod
    def plain() -> str:
        return "static"

    @property
    def value(self) -> int:
        return 1


class Child(Base):
    """Inherits all of it."""


def test_a_replacement_holds_for_objects_made_before() -> None:
    """The class is changed, so whoever holds an instance or imported the class earlier is covered."""
    before = Child()
    patches = Patches()
    patches.replace(Base, "method", lambda original: lambda self: original(self) + "+")
    assert before.method() == "base+"
    patches.restore()
    assert before.method() == "base"


def test_everything_is_restored_as_it_was_stored() -> None:
    """Functions, class methods, static methods and properties, on the class that has them and on one that inherits."""
    base, child = dict(vars(Base)), dict(vars(Child))
    patches = Patches()
    for owner in (Base, Child):
        for name in ("method", "made", "plain", "value"):
            patches.replace(owner, name, lambda original: "replaced")
    assert Child.method == "replaced"
    patches.restore()
    assert dict(vars(Base)) == base
    assert dict(vars(Child)) == child
    assert (Child().method(), Child.made(), Child.plain(), Child().value) == ("base", "Child", "static", 1)


def test_the_original_is_given_as_it_is_stored() -> None:
    """A class method's wrapper is seen, so that it can be wrapped again."""
    patches, seen = Patches(), []
    patches.replace(Base, "made", lambda original: seen.append(original) or original)
    patches.restore()
    assert isinstance(seen[0], classmethod)


def test_two_replacements_of_one_method_are_undone_last_first() -> None:
    """Each wraps what it found."""
    patches = Patches()
    patches.replace(Base, "method", lambda original: lambda self: original(self) + "1")
    patches.replace(Base, "method", lambda original: lambda self: original(self) + "2")
    assert Base().method() == "base12"
    patches.restore()
    assert Base().method() == "base"


def test_a_modules_attribute_can_be_replaced() -> None:
    """And restoring twice does nothing more."""
    module = ModuleType("some")
    module.value = math.pi  # type: ignore[attr-defined]
    patches = Patches()
    patches.replace(module, "value", lambda original: 3)
    assert module.value == 3
    patches.restore()
    patches.restore()
    assert module.value == math.pi
