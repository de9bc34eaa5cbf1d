"""The first step on two engines of ipyparallel under mpirun, as its documentation starts them.

Usage: by_ipyparallel.py TIMES. Prints seconds from the start of the cluster to the first step, and from each later call
to its first step, as a JSON list. Engines keep what they have imported and run, as a notebook's do.
"""

from __future__ import annotations

import json
import logging
import sys
import time

import ipyparallel

ENGINES = 2


def first_step() -> float:
    """As ``startup.first_step``, with Horovod begun as one does it by hand."""
    import horovod.tensorflow as hvd
    import startup

    if not hvd.is_initialized():
        hvd.init()
    return startup.first_step()


def main(times: int) -> None:
    """Measures."""
    took_s = []
    began = time.time()
    with ipyparallel.Cluster(n=ENGINES, engines="mpi", log_level=logging.ERROR) as clients:
        for _ in range(times):
            took_s.append(max(clients[:].apply_sync(first_step)) - began)
            began = time.time()
    print(json.dumps(took_s))


if __name__ == "__main__":
    main(int(sys.argv[1]))
