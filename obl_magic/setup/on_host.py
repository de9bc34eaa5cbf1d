"""What one host says of itself, as one line of JSON: the program that :mod:`obl_magic.setup.hosts` starts on each.

Imports no framework: it answers within a second. Then it waits to be ended, since the last words of a rank that leaves
by itself are lost on their way home.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import socket
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from obl_magic.hosts.cores import cores
from obl_magic.worker import ranks
from obl_magic.world.free_memory import available_bytes

UNTIL_ENDED_S = 60
PACKAGES = {
    "obl_magic": ("obl_magic",),
    "TensorFlow": ("tensorflow", "tensorflow-cpu"),
    "Keras": ("keras",),
    "Horovod": ("horovod",),
    "mpi4py": ("mpi4py",),
    "NumPy": ("numpy",),
}
"""What must not differ between hosts, by the names of their distributions."""


def answers(seen: str, cwd: str) -> dict[str, Any]:
    """What this host says.

    Args:
        seen: a file in the folder of runs.
        cwd: the kernel's working folder.
    """
    return {
        "host": socket.gethostname(),
        "versions": versions(),
        "cores": cores(),
        "gpus": list(ranks.gpus()),
        "free_bytes": available_bytes(),
        "sees_runs": Path(seen).exists(),
        "sees_cwd": Path(cwd).is_dir(),
        "networks": _networks(),
    }


def versions() -> dict[str, str]:
    """Of what must be the same on all hosts, by name."""
    found = {"Python": platform.python_version()}
    for name, distributions in PACKAGES.items():
        for distribution in distributions:
            try:
                found[name] = metadata.version(distribution)
                break
            except metadata.PackageNotFoundError:
                continue
    return found


def _networks() -> list[tuple[str, str]]:
    """(address, mask) of each network of version 4 that leads elsewhere."""
    return [
        (each.address, each.netmask or "255.255.255.255")
        for interface in psutil.net_if_addrs().values()
        for each in interface
        if each.family == socket.AF_INET and not each.address.startswith("127.")
    ]


def main() -> None:
    """Says which rank it is and what it found, in one line."""
    asked = json.loads(sys.argv[1])
    said = {"rank": ranks.identify().rank, **answers(asked["seen"], asked["cwd"])}
    os.write(1, json.dumps(said).encode() + b"\n")
    signal.alarm(UNTIL_ENDED_S)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
