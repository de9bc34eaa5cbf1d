"""The text of code that travels, for digests and for tracebacks on a rank. Changes none of it."""

from __future__ import annotations

import hashlib
import inspect
import linecache
from collections.abc import Callable, Iterable
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

from obl_magic.values import CellSource

Cells = Callable[[str], CellSource | None]
"""Gives the text behind a code object's ``co_filename``, or None."""


def source_of(fn: FunctionType) -> str:
    """A function's source, exactly as written (indentation and decorators included).

    For a function without one (defined by ``exec`` or in a plain interpreter) one line of comment stands in,
    with the sha256 of its bytecode, names and constants: its digest changes when the function does.
    """
    try:
        return inspect.getsource(fn)
    except (OSError, TypeError):
        code = hashlib.sha256()
        _hash_code(fn.__code__, code)
        return f"# the source of {fn.__name__} is not available; sha256 of its bytecode: {code.hexdigest()}\n"


def digest_of(source: str) -> str:
    """sha256 of a source text in UTF-8, hexadecimal."""
    return hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()


def read_cell(filename: str) -> CellSource | None:
    """The text that Python's line cache knows under a name; labelled with the file's own name.

    Args:
        filename: a code object's ``co_filename``: a path, or a name such as ``<stdin>``.
    """
    lines = linecache.getlines(filename)
    if not lines:
        return None
    label = Path(filename).name if Path(filename).is_file() else filename
    return CellSource(filename, label, "".join(lines))


def sources_of(values: Iterable[Any], cells: Cells = read_cell) -> tuple[CellSource, ...]:
    """The texts behind all functions among some values, each text once, in order.

    Args:
        values: what travels; only functions count.
        cells: gives the text behind a file name.
    """
    filenames = dict.fromkeys(
        value.__code__.co_filename for value in values if isinstance(value, FunctionType)
    )
    return tuple(cell for filename in filenames if (cell := cells(filename)) is not None)


def _hash_code(code: CodeType, into: Any) -> None:
    into.update(code.co_code)
    into.update(repr((code.co_names, code.co_varnames, code.co_freevars)).encode())
    for const in code.co_consts:
        if isinstance(const, CodeType):
            _hash_code(const, into)
        else:
            into.update(repr(sorted(const, key=repr) if isinstance(const, frozenset) else const).encode())
