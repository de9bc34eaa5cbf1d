"""Environment variables by which a user sets something. All begin alike; names of older versions are read still."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping

PREFIX, OLDER = "OBLIVIOUS_", "OBL_"

_noted: set[str] = set()


def setting(name: str, environ: Mapping[str, str] = os.environ) -> tuple[str, str]:
    """What a user has set.

    Args:
        name: of the setting, such as ``CORES``.
        environ: variables by name.

    Returns:
        The variable's whole name, and its value, or "".
    """
    current, older = PREFIX + name, OLDER + name
    if current in environ or older not in environ:
        return current, environ.get(current, "")
    if older not in _noted:
        _noted.add(older)
        warnings.warn(
            f"{older} is now called {current}; it is read all the same", FutureWarning, stacklevel=2
        )
    return older, environ[older]
