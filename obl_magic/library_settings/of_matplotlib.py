"""matplotlib's rcParams, but for those that say where figures are shown: ranks have no screen and no notebook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_OF_THE_SCREEN = {"backend", "backend_fallback", "interactive", "toolbar", "webagg.address", "webagg.port"}


def _of(parameters: Any) -> dict[str, Any]:
    """Read past their own access, which warns of some and resolves others."""
    return {name: dict.__getitem__(parameters, name) for name in parameters if name not in _OF_THE_SCREEN}


def read() -> dict[str, Any]:
    """As they stand."""
    import matplotlib

    return _of(matplotlib.rcParams)


def defaults() -> dict[str, Any]:
    """As matplotlib comes, a user's ``matplotlibrc`` apart."""
    import matplotlib

    return _of(matplotlib.rcParamsDefault)


def write(values: Mapping[str, Any]) -> None:
    """Sets those that this version knows."""
    import matplotlib

    parameters: Any = matplotlib.rcParams
    known = matplotlib.rcParamsDefault
    dict.update(parameters, {name: value for name, value in values.items() if name in known})
