"""NumPy: what it does about floating-point errors, and how it prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ERRORS = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}
_PRINTS = {
    "edgeitems": 3, "threshold": 1000, "floatmode": "maxprec", "precision": 8, "suppress": False, "linewidth": 75,
    "nanstr": "nan", "infstr": "inf", "sign": "-", "formatter": None, "legacy": False, "override_repr": None,
}  # fmt: skip


def defaults() -> dict[str, Any]:
    """As NumPy comes."""
    return {
        **{f"seterr.{name}": value for name, value in _ERRORS.items()},
        "seterrcall": None,
        **{f"printoptions.{name}": value for name, value in _PRINTS.items()},
    }


def read() -> dict[str, Any]:
    """Of the calling thread."""
    import numpy as np

    return {
        **{f"seterr.{name}": value for name, value in np.geterr().items()},
        "seterrcall": np.geterrcall(),
        **{f"printoptions.{name}": value for name, value in np.get_printoptions().items()},
    }


def write(values: Mapping[str, Any]) -> None:
    """Sets the calling thread's."""
    import numpy as np

    errors = _part("seterr.", values)
    if errors:
        np.seterr(**errors)
    if "seterrcall" in values:
        np.seterrcall(values["seterrcall"])
    known = np.get_printoptions()
    prints = {name: value for name, value in _part("printoptions.", values).items() if name in known}
    if prints:
        np.set_printoptions(**{**known, **prints})


def _part(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix(prefix): value for name, value in values.items() if name.startswith(prefix)}
