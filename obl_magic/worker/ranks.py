"""Which rank am I, on which host, with which GPU: read from the launcher's environment. Starts nothing.

The variables stand in the launchers' own files. GPUs are pinned before any framework is imported;
this path was tested with fake devices only, never run on a GPU by us.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from obl_magic.environment import setting
from obl_magic.launchers import launchers
from obl_magic.launchers.launcher import Variables

AHEAD = "OBLIVIOUS_AHEAD"
"""Names the engine in the environment of a rank that imports its frameworks before it has a job."""

STAYS = "OBLIVIOUS_STAYS"
"""Set in the environment of a rank that takes one job after another."""

BESIDE = "OBLIVIOUS_BESIDE"
"""``0/4,1/4``: of each rank, its number among the ranks of all worlds on its host, and how many these are."""

SRUN = Variables("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_NTASKS_PER_NODE")
"""Of whoever starts an exported script with ``srun``."""


@dataclass(frozen=True, slots=True)
class Rank:
    """One process of a world.

    Attributes:
        rank: 0-based, of ``size``.
        local_rank: 0-based on this host, of ``local_size``.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int


ALONE = Rank(0, 1, 0, 1)


def identify(environ: Mapping[str, str] = os.environ) -> Rank:
    """This process's place in its world; alone where no launcher started it."""
    for rank, size, local_rank, local_size in (*(each.VARIABLES for each in launchers()), SRUN):
        if rank in environ and size in environ:
            me, all_ = int(environ[rank]), int(environ[size])
            here = int(environ.get(local_rank, me)), _leading_int(environ.get(local_size), all_)
            return Rank(me, all_, *here)
    return ALONE


def beside_others(me: Rank, environ: Mapping[str, str] = os.environ) -> Rank:
    """This rank's place on its host among the ranks of all worlds that share it: for processors and GPUs."""
    told = environ.get(BESIDE, "")
    if not told:
        return me
    mine, _, everyone = told.split(",")[me.rank].partition("/")
    return replace(me, local_rank=int(mine), local_size=int(everyone))


def gpus(
    environ: Mapping[str, str] = os.environ, proc: Path = Path("/proc/driver/nvidia/gpus")
) -> tuple[str, ...]:
    """The GPUs this process may use, as CUDA names them; found without importing a framework."""
    named = environ.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        names = (name.strip() for name in named.split(","))
        return tuple(itertools.takewhile(lambda name: name not in ("", "-1", "NoDevFiles"), names))
    return tuple(str(index) for index in range(len(list(proc.iterdir())))) if proc.is_dir() else ()


def pin_gpu(
    me: Rank, environ: MutableMapping[str, str] = os.environ, proc: Path = Path("/proc/driver/nvidia/gpus")
) -> str | None:
    """Gives this rank one GPU of its host, by local rank, round robin when there are fewer than ranks.

    Must be called before a framework is imported. Returns the GPU's name, or None where there is none.
    """
    found = gpus(environ, proc)
    if not found:
        return None
    mine = found[me.local_rank % len(found)]
    environ["CUDA_VISIBLE_DEVICES"] = mine
    environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    return mine


def share_of_cores(me: Rank, allowed: Sequence[int]) -> list[int]:
    """The processors that are this rank's if all ranks of its host take an even share; all if there are too few."""
    n = len(allowed)
    if me.local_size > n:
        return list(allowed)
    return list(allowed[n * me.local_rank // me.local_size : n * (me.local_rank + 1) // me.local_size])


def pin_cores(me: Rank, environ: Mapping[str, str] = os.environ) -> None:
    """Keeps all threads of this rank on its share of the host's processors; ``OBLIVIOUS_PIN=off`` forbids it.

    Horovod's thread asks for work all the time: free to wander, it drives the threads that compute onto one processor
    for seconds at a time (docs/decisions/0003-tuning.md).
    """
    if setting("PIN", environ)[1] != "off" and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, share_of_cores(me, sorted(os.sched_getaffinity(0))))


def _leading_int(text: str | None, otherwise: int) -> int:
    digits = "".join(c for c in (text or "").split("(")[0] if c.isdigit())
    return int(digits) if digits else otherwise
