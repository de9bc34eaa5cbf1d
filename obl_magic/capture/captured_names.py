"""The table of what a function drags along: paths, types, sizes, suspected secrets. Keeps no value."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable
from typing import Any

from obl_magic.capture.credentials import looks_secret
from obl_magic.payload.reach import SAMPLE, Reached, code_parts, data_parts
from obl_magic.values import CapturedName

_SMALL_BYTES = 1_000_000
"""Up to this estimate a value is pickled to be weighed exactly."""

_DEEP = 6
_BY_NAME = (
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.WrapperDescriptorType,
    types.GetSetDescriptorType,
    types.MemberDescriptorType,
    types.ClassMethodDescriptorType,
    types.GenericAlias,
)


def captured_names(
    reached: Iterable[Reached], own: frozenset[str], pickled: Callable[[Any], bytes]
) -> tuple[CapturedName, ...]:
    """Weighs and names what a walk found, largest first.

    Args:
        reached: the walk, nearest first.
        own: names of modules that travel by value.
        pickled: how a small value is pickled.

    Returns:
        One entry for each value that is data; parts of another value only where they look like credentials.
    """
    names = []
    for here in reached:
        secret = looks_secret(here.name, here.value)
        if secret or (not here.inside and _is_data(here.value, own)):
            names.append(
                CapturedName(here.path, type_name(here.value), size_bytes(here.value, pickled), secret)
            )
    return tuple(sorted(names, key=lambda name: (-name.size_bytes, name.path)))


def type_name(value: object) -> str:
    """A value's type as ``module.Qualname``, without ``builtins``."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def size_bytes(value: Any, pickled: Callable[[Any], bytes]) -> int:
    """What a value weighs when sent, in bytes; an array is asked, never copied.

    Args:
        value: any data.
        pickled: how a small value is pickled.
    """
    known = _buffer_bytes(value)
    if known is not None:
        return known
    estimate = _estimate(value, _DEEP, set())
    if estimate > _SMALL_BYTES:
        return estimate
    try:
        return len(pickled(value))
    except Exception:  # whatever a __reduce__ raises: it is reported when the whole is pickled
        return estimate


def _is_data(value: Any, own: frozenset[str]) -> bool:
    if isinstance(value, _BY_NAME) or type(value).__module__ == "typing" or type(value).__name__ == "ufunc":
        return False
    return code_parts(value, own) is None


def _buffer_bytes(value: Any) -> int | None:
    """The bytes of an array, table, tensor, model or text, from what it says about itself."""
    if isinstance(value, (str, bytes, bytearray)):
        return len(value)
    if hasattr(type(value), "memory_usage"):
        return _table_bytes(value)
    if getattr(getattr(value, "dtype", None), "kind", "") == "O":
        return _array_of_objects_bytes(value)
    if isinstance(nbytes := getattr(value, "nbytes", None), int):
        return nbytes
    if isinstance(variables := getattr(value, "variables", None), (list, tuple)) and variables:
        return sum(_buffer_bytes(variable) or 0 for variable in variables)
    return _tensor_bytes(value)


def _table_bytes(table: Any) -> int:
    """A pandas object, with the texts of its first rows taken for all."""
    sample = table.iloc[:SAMPLE] if hasattr(table, "iloc") else table[:SAMPLE]
    if not len(sample):
        return _total(table.memory_usage())
    texts = _total(sample.memory_usage(deep=True)) - _total(sample.memory_usage())
    return _total(table.memory_usage()) + texts * len(table) // len(sample)


def _total(usage: Any) -> int:
    return int(usage.sum() if hasattr(usage, "sum") else usage)


def _array_of_objects_bytes(array: Any) -> int:
    some = list(array.flat[:SAMPLE]) if hasattr(array, "flat") else []
    share = sum(_estimate(item, 2, set()) for item in some) / max(len(some), 1)
    return int(array.nbytes + share * getattr(array, "size", 0))


def _tensor_bytes(value: Any) -> int | None:
    """A tensor or variable that knows its shape and its type: product of the shape times the item's bytes."""
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    item = getattr(
        dtype, "itemsize", getattr(dtype, "size", _ITEM_BYTES.get(dtype) if isinstance(dtype, str) else None)
    )
    if shape is None or not isinstance(item, int):
        return None
    total = item
    for length in shape:
        total *= int(length or 0)
    return total


_ITEM_BYTES = {"bool": 1, "int8": 1, "uint8": 1, "float16": 2, "bfloat16": 2, "int16": 2, "uint16": 2,
               "float32": 4, "int32": 4, "uint32": 4, "float64": 8, "int64": 8, "uint64": 8}  # fmt: skip
"""Keras variables name their type in words."""


def _estimate(value: Any, depth: int, seen: set[int]) -> int:
    """A rough weight of any object: its parts', the first ones taken for all."""
    if id(value) in seen:
        return 2
    known = _buffer_bytes(value)
    if known is not None:
        return known + 4
    if depth == 0 or isinstance(
        value, (int, float, complex, type(None), type, types.FunctionType, types.ModuleType)
    ):
        return 9
    seen.add(id(value))
    parts = data_parts(value, SAMPLE)
    some = sum(_estimate(part, depth - 1, seen) for _, part in parts)
    length = len(value) if isinstance(value, (dict, list, tuple, set, frozenset)) else 0
    keys = 9 * length if isinstance(value, dict) else 0
    return 9 + keys + (some * length // SAMPLE if length > SAMPLE else some)
