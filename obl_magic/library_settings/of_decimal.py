"""The context of decimal arithmetic: precision, rounding, traps. Its flags say what happened, and are no setting."""

from __future__ import annotations

import decimal
from collections.abc import Mapping
from typing import Any

_FIELDS = ("prec", "rounding", "Emin", "Emax", "capitals", "clamp")


def _of(context: decimal.Context) -> dict[str, Any]:
    found = {name: getattr(context, name) for name in _FIELDS}
    return {**found, "traps": tuple(kind.__name__ for kind, on in context.traps.items() if on)}


DEFAULTS = {
    "prec": 28, "rounding": "ROUND_HALF_EVEN", "Emin": -999999, "Emax": 999999, "capitals": 1, "clamp": 0,
    "traps": ("InvalidOperation", "DivisionByZero", "Overflow"),
}  # fmt: skip


def read() -> dict[str, Any]:
    """Of the calling thread's context."""
    return _of(decimal.getcontext())


def write(values: Mapping[str, Any]) -> None:
    """Sets the calling thread's context."""
    context = decimal.getcontext()
    for name in _FIELDS:
        if name in values:
            setattr(context, name, values[name])
    if "traps" in values:
        for kind in context.traps:
            context.traps[kind] = kind.__name__ in values["traps"]
