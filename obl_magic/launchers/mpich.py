"""MPICH's mpiexec, which is Hydra. Starts nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable

from obl_magic.hosts.places import Hosts
from obl_magic.launchers.launcher import Death, Variables

TITLE = "MPICH"
PROGRAMS = ("mpirun", "mpiexec")
VARIABLES = Variables("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS")
SEGMENTS = r"mpich_shm_"

_SIGNAL = re.compile(r"EXIT STRING: ([^\n(]+) \(signal (\d+)\)")
_EXIT = re.compile(r"=\s+EXIT CODE: (\d+)")


def version(said: str) -> str | None:
    """``HYDRA build details: … Version: 5.0.2``."""
    if "HYDRA" not in said and "MPICH" not in said:
        return None
    found = re.search(r"Version:\s*(\d[\w.]*)", said)
    return found[1] if found else "?"


def arguments(version: str, ranks: int, cores: int, root: bool) -> list[str]:
    """One dash; it takes any number of ranks from anybody."""
    return ["-n", str(ranks), "-bind-to", "none"]


def settings(version: str, several: bool = False) -> dict[str, str]:
    """None of its own."""
    return {}


def on_hosts(version: str, hosts: Hosts) -> list[str] | None:
    """Never tried by us."""
    return None


def exported(names: Iterable[str]) -> list[str]:
    """Hydra sends the whole environment along."""
    return []


def death(said: str) -> Death | None:
    """It does not say which rank it was."""
    if found := _SIGNAL.search(said):
        return Death(None, f"signal {found[2]} ({found[1].strip()})")
    if found := _EXIT.search(said):
        return Death(None, f"exit code {found[1]}")
    return None


def session_folders(temporary: str, uid: int) -> list[str]:
    """It has none."""
    return []
