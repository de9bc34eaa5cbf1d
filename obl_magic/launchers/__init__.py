"""What starts ranks: one file per launcher with all that is known of it, and the registry. Read in both processes."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from obl_magic.launchers.launcher import Launcher

LAUNCHERS = {
    "openmpi": "obl_magic.launchers.openmpi",
    "mpich": "obl_magic.launchers.mpich",
}


def launcher(name: str) -> Launcher:
    """The launcher of that name."""
    module: Launcher = importlib.import_module(LAUNCHERS[name])
    return module


def launchers() -> Iterator[Launcher]:
    """All of them, in order."""
    return map(launcher, LAUNCHERS)
