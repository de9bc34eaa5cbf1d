"""What a server holds in its memory for the ranks that it forks, and whether it may fork at all."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
from collections.abc import Sequence

from obl_magic.worker import shelf

NEEDS_BYTES = 1500 * 2**20
"""Memory that must be free to import anything."""
OURS = ("obl_magic.worker.frameworks.keras.adapter",)
"""What of ours a rank imports with Keras."""
_MADV_DONTNEED = 4

HELD: set[int] = set()
"""The files that belong to what was imported."""


def why_not() -> str:
    """Why this process must not fork ranks; "" if it may."""
    threads = os.listdir("/proc/self/task")
    if len(threads) > 1:
        return f"what it has imported started {len(threads) - 1} thread{'s' if len(threads) > 2 else ''}"
    devices = [path for path in files().values() if path.startswith("/dev/nvidia")]
    return f"what it has imported opened {devices[0]}" if devices else ""


def files() -> dict[int, str]:
    """What this process has open, by number."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # what the list itself was read from
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
    return found


def import_ahead(modules: Sequence[str]) -> list[str]:
    """Imports what can be imported, as far as that starts nothing; the names of what was."""
    with contextlib.suppress(ImportError):
        import mpi4py  # where there is MPI

        mpi4py.rc.initialize = False
        importlib.import_module(shelf.MPI)
    found = []
    for name in modules:
        with contextlib.suppress(Exception):  # a rank that imports it will say so itself
            importlib.import_module(name)
            found.append(name)
    with contextlib.suppress(Exception):
        for name in OURS if "keras" in found else ():
            importlib.import_module(name)
    return found


def give_pages_back() -> None:
    """Unmaps what can be read from its file again: the code of libraries, most of which is needed once, at import."""
    libc = ctypes.CDLL(None)
    place = (0, 0)
    with open("/proc/self/smaps") as maps:
        for line in maps:
            name, *words = line.split()
            if "-" in name and not name.endswith(":"):
                first, last = (int(number, 16) for number in name.split("-"))
                of_file = words[0] in ("r--p", "r-xp") and words[3] != "0"
                place = (first, last - first) if of_file else (0, 0)
            elif name == "Anonymous:" and words[0] == "0" and place[1]:  # nothing was written into it
                libc.madvise(ctypes.c_void_p(place[0]), ctypes.c_size_t(place[1]), _MADV_DONTNEED)
