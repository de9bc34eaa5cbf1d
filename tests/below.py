"""What runs below this process."""

from __future__ import annotations

import contextlib

import psutil


def is_server(process: psutil.Process) -> bool:
    """Whether it is a fork server, which lives as long as its kernel."""
    with contextlib.suppress(psutil.Error):
        return bool(process.cmdline()[-2:] == ["-m", "obl_magic.server"])
    return False


def command(process: psutil.Process) -> str:
    """Its command line; "" where it has ended."""
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def worlds() -> list[psutil.Process]:
    """Every process below this one but its fork server and the tracker of multiprocessing."""
    below = psutil.Process().children(recursive=True)
    return [child for child in below if not is_server(child) and "resource_tracker" not in command(child)]
