"""Which process conducts a run, and whether it still lives, as another process of the host can tell. Ends nothing."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Any

import psutil

SAME_START_S = 10.0
"""Two readings of one process's start may differ by so much, since hosts correct their clocks."""


def this_process() -> dict[str, Any]:
    """The record of this process for ``run.json``: ``pid``, ``started_s`` (Unix time in seconds), ``host``."""
    return {
        "pid": os.getpid(),
        "started_s": psutil.Process().create_time(),
        "host": socket.gethostname(),
    }


def is_gone(kernel: Mapping[str, Any] | None) -> bool:
    """Whether a process that :func:`this_process` recorded has ended.

    Args:
        kernel: the record, or None where a run has none: then nobody can be said to conduct it. A process of
            another host is taken to live, since nobody here can know.
    """
    if kernel is None:
        return True
    if kernel["host"] != socket.gethostname():
        return False
    try:
        process = psutil.Process(kernel["pid"])
        another = abs(process.create_time() - kernel["started_s"]) > SAME_START_S
        return another or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
