"""Becomes the launcher that it is told, on a leash: Linux ends it with the one who started it.

Run as a script, with as little of Python as there is. Open MPI's launcher does not tell its ranks that standard
input has ended, so that they cannot find out by themselves that their kernel is gone.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: int, argv: list[str]) -> None:
    """Never returns: the process is then the launcher, with the same process id."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            return
    os.execv(argv[0], argv)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
