"""Holds what N ranks returned against what one process returned. Knows numbers only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

CURVE = 1e-5
"""Relative, for losses and every other curve."""
NUMBER = 1e-5
"""For metrics and predictions: absolute up to one, relative above."""
WEIGHT = 1e-4
"""Absolute, for whatever is a weight."""
TINY = 1e-7
"""What one float32 operation may lose on values around one; below it nothing is a difference."""

_CURVES = ("history", "curve", "first", "second", "frozen", "thawed", "teacher", "rows", "collected", "order")
_WEIGHTS = ("weights", "last")


def flat(value: Any, path: str = "") -> dict[str, Any]:
    """Every number, array and text of a nested result by its path; arrays as NumPy."""
    if isinstance(value, Mapping):
        items = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, (list, tuple)):
        items = [(str(index), item) for index, item in enumerate(value)]
    else:
        return {path: value if isinstance(value, str) or value is None else np.asarray(value)}
    return {
        name: leaf
        for key, item in items
        for name, leaf in flat(item, f"{path}/{key}" if path else key).items()
    }


def differences(expected: Mapping[str, Any], got: Mapping[str, Any]) -> list[str]:
    """What differs beyond tolerance between two flat results, in words; empty when nothing does."""
    said = [f"{name}: missing" for name in expected if name not in got]
    said += [f"{name}: not expected" for name in got if name not in expected]
    for name in expected:
        if name in got and (words := _difference(name, expected[name], got[name])):
            said.append(f"{name}: {words}")
    return said


def _difference(name: str, expected: Any, got: Any) -> str:
    if not (isinstance(expected, np.ndarray) and isinstance(got, np.ndarray)):
        return "" if _same(expected, got) else f"{expected!r} became {got!r}"
    if expected.shape != got.shape:
        return f"shape {expected.shape} became {got.shape}"
    if expected.dtype.kind not in "fc" and got.dtype.kind not in "fc":
        return "" if np.array_equal(expected, got) else f"{expected} became {got}"
    a, b = expected.astype("float64"), got.astype("float64")
    if not np.array_equal(np.isfinite(a), np.isfinite(b)):
        return f"finite in other places: {a} became {b}"
    allowed = np.where(np.isfinite(a), _allowed(name, a), 0.0)
    off = np.abs(np.where(np.isfinite(a), a - b, 0.0))
    if np.all(off <= allowed):
        return ""
    worst = np.unravel_index(np.argmax(off - allowed), off.shape)
    return f"{a[worst]:.9g} became {b[worst]:.9g} (off by {off[worst]:.2g}, allowed {allowed[worst]:.2g})"


def _same(expected: Any, got: Any) -> bool:
    return type(expected) is type(got) and expected == got


def _allowed(name: str, a: np.ndarray) -> np.ndarray:
    parts = name.split("/")
    if any(part in _WEIGHTS for part in parts):
        return np.full(a.shape, WEIGHT)
    if any(part in _CURVES for part in parts):
        return CURVE * np.abs(a) + TINY
    return NUMBER * np.maximum(1.0, np.abs(a))
