"""Starts programs by hand, as a user without obl_magic would, and waits for them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from obl_magic.launchers import mpirun
from obl_magic.world.cores import cores
from obl_magic.world.process import is_root

TIMEOUT_S = 300
QUIET_FOR_S = 0.5
QUIET_SHARE = 0.02
"""Of a processor, which a rank that waits stays below."""
_SETTINGS = ("HOROVOD_", "OMPI_MCA_", "PRTE_MCA_", "PMIX_MCA_", "TF_NUM_", "OMP_", "OBL_")


def plain_environment() -> dict[str, str]:
    """This process's environment without anything that tunes MPI, Horovod or TensorFlow."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)}
    env["TF_CPP_MIN_LOG_LEVEL"] = "2"
    if is_root():
        env |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return env


def plain(ranks: int, program: Sequence[str]) -> str:
    """``mpirun -n RANKS PROGRAM`` and nothing else; what it printed."""
    return wait_for([mpirun.require().mpirun, "-n", str(ranks), *program], plain_environment())


def tuned(ranks: int, program: Sequence[str]) -> None:
    """The same program with the command line, the environment and the processors that obl_magic gives its own ranks."""
    launcher, here = mpirun.require(), cores()
    argv = mpirun.command(launcher, ranks, program, cores=here, root=is_root())
    if ranks == here:  # a processor each, as obl_magic's ranks take them
        argv[argv.index("none")] = "core"
    env = mpirun.environment(launcher, plain_environment(), ranks=ranks, cores=here, engine="horovod")
    wait_for(argv, env)


def tuned_threads(ranks: int) -> tuple[int, int]:
    """TensorFlow's intra-op and inter-op threads, as obl_magic's ranks set them."""
    threads = max(1, cores() // ranks)
    return threads, max(2, threads)


def standing_by(ranks: int, timeout_s: float = TIMEOUT_S) -> list[psutil.Process]:
    """The ranks of the standby of this process, as soon as they only wait.

    They have imported what they import, since MPI comes last and its library is mapped, and for half a second they
    have used no more of the processor than waiting does.

    Raises:
        RuntimeError: they did not come up in time.
    """
    deadline_s = time.monotonic() + timeout_s
    while time.monotonic() < deadline_s:
        found = [child for child in psutil.Process().children(recursive=True) if _is_rank(child)]
        if len(found) == ranks and all(map(_has_mpi, found)):
            before_s = sum(map(_used_s, found))
            time.sleep(QUIET_FOR_S)
            if sum(map(_used_s, found)) - before_s < QUIET_SHARE * QUIET_FOR_S * ranks:
                return found
        time.sleep(0.05)
    raise RuntimeError(f"{ranks} ranks did not stand by within {timeout_s:g} s")


def _is_rank(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return "obl_magic.worker" in process.cmdline() and "OMPI_COMM_WORLD_RANK" in process.environ()
    return False


def _has_mpi(process: psutil.Process) -> bool:
    with contextlib.suppress(OSError):
        return "mpi4py" in Path(f"/proc/{process.pid}/maps").read_text()
    return False


def _used_s(process: psutil.Process) -> float:
    """Seconds of processor that all threads of a process have used, to the nanosecond."""
    used_ns = 0
    for task in Path(f"/proc/{process.pid}/task").iterdir():
        with contextlib.suppress(OSError):
            used_ns += int((task / "schedstat").read_text().split()[0])
    return used_ns / 1e9


def wait_for(argv: Sequence[str], env: Mapping[str, str], timeout_s: float = TIMEOUT_S) -> str:
    """Standard output of a program that must succeed.

    Raises:
        RuntimeError: it failed, or did not end in time; with the last lines that it said.
    """
    with subprocess.Popen(
        list(argv),
        env=dict(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            said, complained = process.communicate(timeout=timeout_s)
        except BaseException as error:
            # Asked first: a launcher that is killed leaves its ranks behind.
            process.terminate()
            try:
                process.communicate(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
            if isinstance(error, subprocess.TimeoutExpired):
                raise RuntimeError(f"{' '.join(argv[:6])} … did not end within {timeout_s:g} s") from None
            raise
    if process.returncode != 0:
        tail = "\n".join((said + complained).splitlines()[-15:])
        raise RuntimeError(f"{' '.join(argv[:6])} … ended with exit code {process.returncode}:\n{tail}")
    return said
