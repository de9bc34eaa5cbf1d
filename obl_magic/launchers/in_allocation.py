"""What ``salloc`` runs when Slurm has granted an allocation: says where the ranks are, and becomes their mpirun.

Only now is it known which nodes these are.
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict

from obl_magic.errors import OblError
from obl_magic.events.event import LAUNCHER, Note, to_json
from obl_magic.events.frames import encode
from obl_magic.hosts.allocation import allocation, for_mpirun, placed_in
from obl_magic.launchers import mpirun

PLACED = "placed"
"""Code of the note that says where the ranks are."""


def command(mpi: mpirun.Mpi, ranks: int, words: list[str], root: bool) -> list[str]:
    """The argv, up to the ranks' own, that asks Slurm for an allocation and starts ranks in it.

    Args:
        mpi: the launcher.
        ranks: how many processes.
        words: salloc's own options, as the user typed them.
        root: whether we are the superuser.
    """
    told = json.dumps({**asdict(mpi), "ranks": ranks, "root": root})
    return ["salloc", *words, sys.executable, "-P", "-m", "obl_magic.launchers.in_allocation", told]


def main() -> None:
    """Becomes mpirun."""
    told, program = json.loads(sys.argv[1]), sys.argv[2:]
    mpi = mpirun.Mpi(told["flavour"], told["version"], told["mpirun"])
    job = allocation()
    try:
        hosts = None if job is None else placed_in(job, told["ranks"])
        argv = mpirun.command(mpi, told["ranks"], (), cores=told["ranks"], root=told["root"], hosts=hosts)
    except OblError as problem:
        sys.exit(f"obl_magic: {problem}")
    if hosts is not None and job is not None:
        os.environ.update(for_mpirun(job, hosts))
        argv += mpirun.exported(os.environ)
        note = to_json(Note(LAUNCHER, time.time(), hosts.told, PLACED))
        for frame in encode(LAUNCHER, 0, note):
            os.write(1, frame)
    os.execv(argv[0], [*argv, *program])


if __name__ == "__main__":
    main()
