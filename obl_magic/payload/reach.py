"""What a function reaches: the values that travel with it, nearest first. Pickles and runs nothing."""

from __future__ import annotations

import builtins
import functools
import itertools
import sys
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from types import FunctionType, MethodType, ModuleType
from typing import Any

from obl_magic.payload.code_names import global_names

Parts = list[tuple[str, Any]]
"""Labels and values, in the order of reading. A label such as ``.rate`` or ``['key']`` extends the name
before it; an empty one adds nothing to a path."""

SAMPLE = 1000
"""Elements of a container that the walk looks into."""

_ATOMS = (str, bytes, int, float, complex, bool, type(None))


@dataclass(frozen=True, slots=True)
class Reached:
    """One value on the way.

    Attributes:
        path: how the function reaches it, e.g. ``train -> helper -> table``.
        name: the last step of the path, bare.
        value: the value itself.
        inside: it is part of a value that was reached before, such as an element of a list.
    """

    path: str
    name: str
    value: Any
    inside: bool = False


def walk(root: FunctionType, provided: dict[str, Any], own: Collection[str]) -> Iterator[Reached]:
    """Every value that travels with a function, nearest first, each once.

    Args:
        root: the function.
        provided: values for its parameters, by name.
        own: names of modules that travel by value.

    Yields:
        The function itself, then what it and the code it reaches use. Small immutable values come once
        for each name.
    """
    todo = deque([Reached(root.__name__, root.__name__, root)])
    todo.extend(_step(todo[0], name, value, inside=False) for name, value in provided.items())
    seen: dict[Any, Any] = {}  # holds the values, so that no identity is given twice
    while todo:
        here = todo.popleft()
        key = (id(here.value), here.name) if isinstance(here.value, _ATOMS) else id(here.value)
        if key in seen:
            continue
        seen[key] = here.value
        yield here
        code = code_parts(here.value, own)
        if code is not None:
            todo.extend(_step(here, name, value, inside=False) for name, value in code)
        else:
            kind = type(here.value)
            looks_inside = isinstance(here.value, (dict, list, tuple, set, frozenset)) or is_own_code(
                kind, own
            )
            parts = data_parts(here.value, SAMPLE) if looks_inside else []
            todo.extend(_step(here, name, value, inside=True) for name, value in parts)
            if is_own_code(kind, own):
                todo.append(_step(here, "", kind, inside=False))


def join(path: str, label: str) -> str:
    """The path of a part: ``a -> b``, ``a['key']``, ``a.name``, or ``a`` itself for an empty label."""
    if not label or label[0] in ".[{":
        return path + label
    return f"{path} -> {label}"


def is_code(value: object) -> bool:
    """Functions, classes, modules and what wraps them: things a user runs rather than holds."""
    kinds = (
        FunctionType,
        MethodType,
        ModuleType,
        type,
        property,
        staticmethod,
        classmethod,
        functools.partial,
    )
    return isinstance(value, kinds)


def is_own_code(value: object, own: Collection[str]) -> bool:
    """Whether a function, class or module travels by value: not importable, or the user's own."""
    if isinstance(value, ModuleType):
        return value.__name__ in own
    name = getattr(value, "__module__", None)
    if isinstance(value, type) and str(name).split(".")[0] in sys.stdlib_module_names:
        return False  # a type of the interpreter may be found under no name, as a lock's
    module = sys.modules.get(name) if isinstance(name, str) else None
    if module is None or name == "__main__" or _registered(str(name), own):
        return True
    found: Any = module
    for step in str(getattr(value, "__qualname__", "")).split("."):
        found = getattr(found, step, None)
    return found is not value


def code_parts(value: Any, own: Collection[str]) -> Parts | None:
    """What a piece of code uses; an empty list for code that is imported by name; None for data."""
    if isinstance(value, functools.partial):
        return [("", value.func), *_numbered(value.args), *value.keywords.items()]
    if isinstance(value, MethodType):
        return [("", value.__self__), ("", value.__func__)]
    if isinstance(value, (staticmethod, classmethod)):
        return [("", value.__func__)]
    if isinstance(value, property):
        return [("", part) for part in (value.fget, value.fset, value.fdel) if part is not None]
    if not isinstance(value, (FunctionType, type, ModuleType)):
        wrapped = getattr(value, "__wrapped__", None) if callable(value) else None
        return [("", wrapped)] if isinstance(wrapped, FunctionType) else None
    if not is_own_code(value, own):
        return []
    if isinstance(value, FunctionType):
        return _function_parts(value)
    return _class_parts(value, own) if isinstance(value, type) else _public(vars(value))


def data_parts(value: Any, limit: int | None = None) -> Parts:
    """Elements of a container, or attributes of an object.

    Args:
        value: anything but code.
        limit: largest number of elements to look at.
    """
    if isinstance(value, dict):
        items = list(itertools.islice(dict.items(value), limit))  # a class of its own may refuse to tell
        parts = [(f"[{_short(key)}]", item) for key, item in items]
        return parts + [("{key}", key) for key, _ in items if not isinstance(key, _ATOMS)]
    if isinstance(value, (list, tuple, deque)):
        return _numbered(itertools.islice(value, limit)) + _attributes(value)
    if isinstance(value, (set, frozenset)):
        return [("{element}", item) for item in itertools.islice(value, limit)]
    return _attributes(value)


def _step(here: Reached, label: str, value: Any, inside: bool) -> Reached:
    name = label.strip(".[]{}'\"") if label else here.name
    return Reached(join(here.path, label), name, value, inside)


def _registered(name: str, own: Collection[str]) -> bool:
    steps = name.split(".")
    return any(".".join(steps[:count]) in own for count in range(1, len(steps) + 1))


def _function_parts(function: FunctionType) -> Parts:
    parts: Parts = []
    if isinstance(getattr(function, "__wrapped__", None), FunctionType):
        parts.append(("", function.__wrapped__))  # type: ignore[attr-defined]
    known = function.__globals__
    parts += [(name, known[name]) for name in global_names(function.__code__) if name in known]
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            parts.append((cell.cell_contents.__name__ if name == "__class__" else name, cell.cell_contents))
        except ValueError:  # a cell that is filled later
            continue
    code = function.__code__
    positional = code.co_varnames[: code.co_argcount]
    defaults = function.__defaults__ or ()
    parts += zip(positional[len(positional) - len(defaults) :], defaults, strict=True)
    parts += (function.__kwdefaults__ or {}).items()
    parts += [(f".{name}", value) for name, value in vars(function).items() if name != "__wrapped__"]
    return [(name, value) for name, value in parts if not _is_builtin(name, value)]


def _class_parts(kind: type, own: Collection[str]) -> Parts:
    parts = [(base.__name__, base) for base in kind.__bases__ if is_own_code(base, own)]
    parts += [(name, value) for name, value in vars(kind).items() if is_code(value) and name != "__class__"]
    return parts + [part for part in _public(vars(kind)) if not is_code(part[1]) and part[0] != "_abc_impl"]


def _public(entries: Any) -> Parts:
    return [(name, value) for name, value in dict(entries).items() if not name.startswith("__")]


def _numbered(values: Any) -> Parts:
    return [(f"[{index}]", value) for index, value in enumerate(values)]


def _attributes(value: Any) -> Parts:
    names = list(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        names += [slots] if isinstance(slots, str) else list(slots)
    found = [
        (f".{name}", getattr(value, name, None)) for name in dict.fromkeys(names) if isinstance(name, str)
    ]
    return [part for part in found if part[0] not in (".__dict__", ".__weakref__")]


def _is_builtin(name: str, value: Any) -> bool:
    return name in ("__builtins__", "__name__") or getattr(builtins, name, sys) is value


def _short(key: object) -> str:
    return repr(key) if isinstance(key, _ATOMS) and len(repr(key)) <= 40 else type(key).__name__
