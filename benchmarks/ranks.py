"""Starts programs by hand, as a user without obl_magic would, and waits for them."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from obl_magic.hosts.cores import cores
from obl_magic.launchers import mpirun
from obl_magic.world.process import is_root

TIMEOUT_S = 300
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


def used_s(pid: int) -> float:
    """Seconds of processor that all threads of a process have used, to the nanosecond."""
    used_ns = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            used_ns += int((task / "schedstat").read_text().split()[0])
    return used_ns / 1e9


def memory_mb(pids: Sequence[int]) -> float:
    """Memory of these processes, what several share counted in parts (PSS)."""
    rolled = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids]
    return sum(int(text.partition("\nPss:")[2].split()[0]) for text in rolled) / 1024


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
