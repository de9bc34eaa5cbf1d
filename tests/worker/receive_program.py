"""What one rank does in test_receive.py: takes a job's arrays, from a file that some ranks do not see. Prints JSON."""

import json
import sys
from pathlib import Path

import numpy as np
from mpi4py import MPI

from obl_magic.worker import receive

receive.CHUNK_BYTES = int(sys.argv[3])
world = MPI.COMM_WORLD
blind = [int(rank) for rank in sys.argv[2].split(",") if rank]
path = Path(sys.argv[1] if world.rank not in blind else "/nowhere/job.bin")
arrays = [np.frombuffer(buffer, "uint8") for buffer in receive.shared(world, path)]
before = [int(array.astype("int64").sum()) for array in arrays]
world.Barrier()


def mapping(name):
    """What the kernel says of the memory in which the first array lies."""
    at = arrays[0].ctypes.data
    found, inside = {}, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        first = line.split()[0]
        if "-" in first and not first.endswith(":"):
            low, high = (int(each, 16) for each in first.split("-"))
            inside = low <= at < high
        elif inside:
            found[first[:-1]] = line.split()[1]
    return int(found[name]) * 1024


told = {"rank": world.rank, "sums": before}
if arrays:
    told["shared"] = mapping("Pss")
    world.Barrier()
    arrays[0][:] = world.rank
    world.Barrier()
    told["own"] = int(arrays[0].max()) == int(arrays[0].min()) == world.rank
    told["dirty"] = mapping("Private_Dirty")
sys.stdout.write(json.dumps(told) + "\n")
sys.stdout.flush()
world.Barrier()
