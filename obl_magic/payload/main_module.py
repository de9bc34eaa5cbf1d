"""The notebook's own namespace on a rank: ``__main__`` there holds what came with the job, under its names.

Code that pickles by name, as ``multiprocessing`` does, then finds a notebook's functions and classes where they say
that they are. Whatever else is restored, such as a run's value in its kernel, gets a namespace of its own and never
touches the ``__main__`` that is there.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from types import FunctionType, ModuleType
from typing import Any

from obl_magic.payload import reach

_KEPT = ("__name__", "__package__", "__path__", "__file__")
_filled: ModuleType | None = None


class Globals(dict[str, Any]):
    """Comes back as the globals that all functions of ``__main__`` in one pickle share.

    Args:
        namespace: of ``__main__`` here.
    """

    def __init__(self, namespace: dict[str, Any]) -> None:
        super().__init__({name: namespace[name] for name in _KEPT if name in namespace})

    def __reduce__(self) -> tuple[Any, ...]:
        return _globals, (dict(self),)


def is_of_main(function: FunctionType) -> bool:
    """Whether a function's globals are those of ``__main__``."""
    main = sys.modules.get("__main__")
    return main is not None and function.__globals__ is vars(main)


def renew() -> None:
    """From now on ``__main__`` is a new module, with nothing of the last job's."""
    sys.modules["__main__"] = ModuleType("__main__")


@contextlib.contextmanager
def filled() -> Iterator[None]:
    """Within the block what is restored belongs to the ``__main__`` of this process."""
    global _filled
    _filled = sys.modules["__main__"]
    try:
        yield
    finally:
        _filled = None


def is_filled() -> bool:
    """Whether what is restored now belongs to a job of this process."""
    return _filled is not None


def complete(function: FunctionType, provided: dict[str, Any]) -> None:
    """Names in ``__main__`` what a function reaches without naming it, such as the class of a value."""
    main = vars(sys.modules["__main__"])
    for reached in reach.walk(function, provided, ()):
        found = reached.value
        is_code = isinstance(found, (FunctionType, type)) and found.__module__ == "__main__"
        if is_code and "." not in found.__qualname__:
            main.setdefault(found.__qualname__, found)


def _globals(entries: dict[str, Any]) -> dict[str, Any]:
    if _filled is None:
        return entries
    vars(_filled).update(entries)
    return vars(_filled)
