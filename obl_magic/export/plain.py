"""Which values a script can write as text: literals, imports, functions. What is not certain to come back has none."""

from __future__ import annotations
import __future__

import ast
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

LONGEST = 500
"""Characters up to which a literal is written into a script."""

_LATER = __future__.annotations.compiler_flag


def literal(value: Any) -> str | None:
    """The literal that gives this very value, if it has a short one."""
    text = repr(value) if _is_literal(value) else ""
    return text if 0 < len(text) <= LONGEST else None


def constant(value: Any) -> str | None:
    """As :func:`literal`, for a global name: a value that nobody can change, since others may hold it, too."""
    return None if _may_change(value) else literal(value)


def import_of(name: str, value: Any) -> str | None:
    """The import statement that binds ``name`` to ``value``, if there is one."""
    if isinstance(value, ModuleType):
        module = value.__name__
        if sys.modules.get(module) is not value:
            return None
        return f"import {module}" if module == name else f"import {module} as {name}"
    home, its_name = getattr(value, "__module__", None), getattr(value, "__name__", "")
    if not isinstance(home, str) or home == "__main__" or not isinstance(its_name, str):
        return None
    package = home.partition(".")[0]
    places = [
        place
        for place, known in list(sys.modules.items())
        if place.partition(".")[0] == package and vars(known or object).get(its_name) is value
    ]
    if not places:
        return None
    bound = its_name if its_name == name else f"{its_name} as {name}"
    return f"from {min(places, key=lambda place: (len(place), place))} import {bound}"


def submodules(package: ModuleType, names: set[str]) -> list[str]:
    """Import statements for the submodules of a package that code reaches through its attributes.

    Args:
        package: what is imported anyway.
        names: attributes that the code looks up.
    """
    prefix = package.__name__ + "."
    return [
        f"import {module}"
        for module in sorted(sys.modules)
        if module.startswith(prefix)
        and names.issuperset(tail := module.removeprefix(prefix).split("."))
        and any(_is_file_of(Path(folder, *tail)) for folder in getattr(package, "__path__", ()))
    ]


def definition(name: str, function: FunctionType, text: str) -> str | None:
    """The ``def`` in a text that makes this very function under this name, if there is one.

    It is compared with the function: its code and its defaults. Functions with a closure or decorators, and those
    whose defaults need other names, have none.

    Args:
        name: the global name.
        function: the function.
        text: the cell or file that defines it.
    """
    if function.__closure__ is not None or function.__name__ != name:
        return None
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return None
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == name and not node.decorator_list:
            source = ast.get_source_segment(text, node)
            if source is not None and _makes(source, text, function):
                return source
    return None


def annotates(source: str) -> bool:
    """Whether a ``def`` names anything in its annotations that must be there when it is executed."""
    (node,) = ast.parse(source).body
    assert isinstance(node, ast.FunctionDef)
    arguments = node.args
    every = [
        *arguments.posonlyargs,
        *arguments.args,
        *arguments.kwonlyargs,
        arguments.vararg,
        arguments.kwarg,
    ]
    return node.returns is not None or any(each is not None and each.annotation is not None for each in every)


def _is_literal(value: Any) -> bool:
    if type(value) in (list, tuple, set):
        return all(map(_is_literal, value)) and value != set()
    if type(value) is dict:
        return all(map(_is_literal, [*value, *value.values()]))
    if type(value) is float:
        return math.isfinite(value)
    return value is None or type(value) in (bool, int, str, bytes)


def _may_change(value: Any) -> bool:
    return any(map(_may_change, value)) if type(value) is tuple else type(value) in (list, dict, set)


def _is_file_of(path: Path) -> bool:
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def _makes(source: str, text: str, function: FunctionType) -> bool:
    """Whether executing a ``def`` of a text by itself gives a function of the same code and defaults.

    A call of an imported module's function is compiled in another way where the import is seen: in a file, whose
    statements are compiled together, and not in a cell, whose are not.
    """
    made: dict[str, Any] = {"__builtins__": {}}
    try:
        exec(compile(source, "<export>", "exec", flags=_LATER, dont_inherit=True), made)
        modules = [compile(each, "<export>", "exec", dont_inherit=True) for each in (source, text)]
    except Exception:  # its defaults need other names
        return False
    new = made[function.__name__]
    compiled = [const for module in modules for const in module.co_consts if isinstance(const, CodeType)]
    same = any(_same(code, function.__code__) for code in compiled)
    return same and _same_defaults(new, function)


def _same_defaults(one: FunctionType, other: FunctionType) -> bool:
    mine = (one.__defaults__ or (), one.__kwdefaults__ or {})
    return _is_literal(mine) and repr(mine) == repr((other.__defaults__ or (), other.__kwdefaults__ or {}))


def _same(one: CodeType, other: CodeType) -> bool:
    return _shape(one) == _shape(other) and len(one.co_consts) == len(other.co_consts) and all(
        _same(a, b) if isinstance(a, CodeType) and isinstance(b, CodeType) else _same_const(a, b)
        for a, b in zip(one.co_consts, other.co_consts, strict=True)
    )  # fmt: skip


def _same_const(one: Any, other: Any) -> bool:
    return type(one) is type(other) and (one == other if type(one) is frozenset else repr(one) == repr(other))


def _shape(code: CodeType) -> Mapping[str, Any]:
    names = ("code", "name", "names", "varnames", "freevars", "cellvars")
    counts = ("argcount", "posonlyargcount", "kwonlyargcount")
    return {name: getattr(code, f"co_{name}") for name in (*names, *counts)}
