"""What leads to a fork server on another host; run as a script, with as little of Python as there is.

Here, as ``boot.py PARENT COMMAND...``: becomes ssh, which is ended when its parent is gone. There, as ``boot.py``:
becomes the server, in the environment that comes on standard input, whose size is told first, in eight digits.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def _read(size: int) -> bytes:
    said = b""
    while len(said) < size:
        if not (more := os.read(0, size - len(said))):
            sys.exit(1)  # whoever wanted it is gone
        said += more
    return said


def become_ssh(parent: int, argv: list[str]) -> None:
    """On the host of the kernel."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == parent:
        os.execvp(argv[0], argv)


def become_the_server() -> None:
    """On the other host."""
    env = json.loads(_read(int(_read(8), 16)))
    os.execve(sys.executable, [sys.executable, "-P", "-m", "obl_magic.server"], {**os.environ, **env})


if __name__ == "__main__":
    if len(sys.argv) > 1:
        become_ssh(int(sys.argv[1]), sys.argv[2:])
    else:
        become_the_server()
