"""What runs below this process."""

from __future__ import annotations

import contextlib

import psutil


def is_server(process: psutil.Process) -> bool:
    """Whether it is a fork server, which lives as long as its kernel."""
    with contextlib.suppress(psutil.Error):
        return bool(process.cmdline()[-2:] == ["-m", "obl_magic.server"])
    return False


def worlds() -> list[psutil.Process]:
    """Every process below this one but its fork server."""
    return [child for child in psutil.Process().children(recursive=True) if not is_server(child)]
