"""Open MPI's mpirun, 4 and 5. Starts nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable

from obl_magic.hosts.places import Hosts
from obl_magic.launchers import ssh
from obl_magic.launchers.launcher import Death, Variables

TITLE = "Open MPI"
PROGRAMS = ("mpirun", "mpiexec")
VARIABLES = Variables(
    "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"
)
SEGMENTS = r"sm_segment\.|vader_segment\."

_ITS_OWN = ("OMPI_", "PRTE_", "PMIX_")
"""Variables of such names it passes on by itself."""
_BETWEEN_HOSTS = {
    "PRTE_MCA_oob_tcp_keepalive_time": "2",
    "PRTE_MCA_oob_tcp_keepalive_intvl": "1",
    "PRTE_MCA_oob_tcp_keepalive_probes": "3",
    "PRTE_MCA_plm_ssh_args": ssh.BATCH,
}

_SIGNAL = re.compile(r"process rank (\d+) .*?exited on\s+signal (\d+) \(?([^)\n.]*)", re.S)
_EXIT = re.compile(r"Process name: \[.*?(\d+)\]\s*Exit code:\s*(\d+)", re.S)
_LOST = re.compile(r"lost communication with a remote daemon.*?Remote daemon:[^\n]*on node (\S+)", re.S)
_DAEMON = re.compile(r"A daemon failed to report back.*?Remote host:\s+(\S+)", re.S)
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


def on_hosts(version: str, hosts: Hosts) -> list[str] | None:
    """By ssh, or through Slurm in an allocation; tried with Open MPI 5 only."""
    return ["-H", hosts.typed, "--map-by", "slot:OVERSUBSCRIBE"] if _is_5(version) else None


def exported(names: Iterable[str]) -> list[str]:
    """Values stand in no command line: mpirun takes them from its own environment."""
    return [word for name in names if not name.startswith(_ITS_OWN) for word in ("-x", name)]


def settings(version: str, several: bool = False) -> dict[str, str]:
    """Waiting ranks give their processor away; on one host no rank listens at a port (docs/decisions/0003-tuning.md).

    On several, a cable that is out is noticed within seconds, and ssh asks nobody for a password.
    """
    memory = "sm" if _is_5(version) else "vader"
    return {
        "OMPI_MCA_mpi_yield_when_idle": "1",
        "OMPI_MCA_btl": f"self,{memory}{',tcp' if several else ''}",
        "OMPI_MCA_mtl": "^ofi",
        "OMPI_MCA_rmaps_base_oversubscribe": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        **(_BETWEEN_HOSTS if several else {}),
    }


def death(said: str) -> Death | None:
    """A signal, an exit code, or a rank that left as if all were well."""
    if found := _SIGNAL.search(said):
        return Death(int(found[1]), f"signal {found[2]} ({found[3].strip()})")
    if found := _EXIT.search(said):
        return Death(int(found[1]), f"exit code {found[2]}")
    if found := _LOST.search(said):
        return Death(None, "no answer for 5 s", found[1])
    if found := _DAEMON.search(said):
        return Death(None, "its daemon has ended", found[1])
    if found := _LEFT.search(said):
        return Death(int(found[1]), "it left before the function had returned (exit code 0)")
    return None


def session_folders(temporary: str, uid: int) -> list[str]:
    """Of both versions."""
    return [
        f"{temporary}/ompi.{{pid}}",
        f"{temporary}/prte.*.{uid}/dvm.{{pid}}",
        f"{temporary}/prted.{{pid}}",
        f"{temporary}/ompi.*.{uid}/pid.{{pid}}",
    ]


def _is_5(version: str) -> bool:
    return not version or int(version.partition(".")[0]) >= 5
