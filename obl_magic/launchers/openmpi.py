"""Open MPI's mpirun, 4 and 5. Starts nothing."""

from __future__ import annotations

import re

from obl_magic.launchers.launcher import Death, Variables

TITLE = "Open MPI"
PROGRAMS = ("mpirun", "mpiexec")
VARIABLES = Variables(
    "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"
)
SEGMENTS = r"sm_segment\.|vader_segment\."

_SIGNAL = re.compile(r"process rank (\d+) .*?exited on\s+signal (\d+) \(?([^)\n.]*)", re.S)
_EXIT = re.compile(r"Process name: \[.*?(\d+)\]\s*Exit code:\s*(\d+)", re.S)
_LEFT = re.compile(r"has exited due to process rank (\d+) .*?exiting\s+improperly", re.S)


def version(said: str) -> str | None:
    """``mpirun (Open MPI) 5.0.11``."""
    found = re.search(r"Open MPI\)?\s+v?(\d[\w.]*)", said)
    return found[1] if found else None


def arguments(version: str, ranks: int, cores: int, root: bool) -> list[str]:
    """It wants to be told of more ranks than cores, and of the superuser."""
    many = ["--map-by", ":OVERSUBSCRIBE"] if _is_5(version) else ["--oversubscribe"]
    return [
        "-n", str(ranks), "--bind-to", "none", *(many if ranks > cores else []),
        *(["--allow-run-as-root"] if root else []),
    ]  # fmt: skip


def settings(version: str) -> dict[str, str]:
    """Waiting ranks give their processor away; no rank listens at a port (docs/decisions/0003-tuning.md)."""
    return {
        "OMPI_MCA_mpi_yield_when_idle": "1",
        "OMPI_MCA_btl": "self,sm" if _is_5(version) else "self,vader",
        "OMPI_MCA_mtl": "^ofi",
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    }


def death(said: str) -> Death | None:
    """A signal, an exit code, or a rank that left as if all were well."""
    if found := _SIGNAL.search(said):
        return Death(int(found[1]), f"signal {found[2]} ({found[3].strip()})")
    if found := _EXIT.search(said):
        return Death(int(found[1]), f"exit code {found[2]}")
    if found := _LEFT.search(said):
        return Death(int(found[1]), "it left before the function had returned (exit code 0)")
    return None


def session_folders(temporary: str, uid: int) -> list[str]:
    """Of both versions."""
    return [
        f"{temporary}/ompi.{{pid}}",
        f"{temporary}/prte.*.{uid}/dvm.{{pid}}",
        f"{temporary}/ompi.*.{uid}/pid.{{pid}}",
    ]


def _is_5(version: str) -> bool:
    return not version or int(version.partition(".")[0]) >= 5
