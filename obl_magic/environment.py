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
    variable = older if current not in environ and older in environ else current
    return variable, environ.get(variable, "")


def note_older(variable: str) -> None:
    """Says once of a variable that was read under its older name what it is called now."""
    if not variable.startswith(PREFIX) and variable not in _noted:
        _noted.add(variable)
        current = PREFIX + variable.removeprefix(OLDER)
        warnings.warn(
            f"{variable} is now called {current}; it is read all the same", FutureWarning, stacklevel=2
        )
