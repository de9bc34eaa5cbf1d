"""Which process conducts a run, and whether it still lives, as another process can tell. Ends nothing.

A process is known by its id, the clock ticks from the machine's start to its own, and the machine's boot id: no clock
that can be set is asked, and no host name, which a container changes when it is started again.
"""

from __future__ import annotations

import os
import socket
import tempfile
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import psutil

SILENT_S = 600.0
"""The run of a process that cannot be seen from here is over when nothing was added to its log for so long."""
SAME_START_S = 10.0
"""Where there are no ticks, two readings of one process's start may differ by so much: clocks are corrected."""


def this_process() -> dict[str, Any]:
    """The record of this process: ``pid``, ``start_ticks``, ``boot_id``, ``pids`` (its table of ids), ``host``."""
    return _record(os.getpid())


def is_gone(kernel: Mapping[str, Any] | None, logs: Collection[Path] = ()) -> bool:
    """Whether a process that :func:`this_process` recorded has ended.

    Args:
        kernel: the record, or None where a run has none: then nobody can be said to conduct it.
        logs: what the process adds to while it lives; asked where the process cannot be seen, as that of
            another machine or container. Without any it is taken to live.
    """
    if kernel is None:
        return True
    here = _machine()
    if kernel.get("host") == here["host"] and kernel.get("boot_id") not in (None, here["boot_id"]):
        return True  # the machine was started again
    if any(kernel.get(name) not in (None, here[name]) for name in ("boot_id", "pids")) or (
        "boot_id" not in kernel and kernel.get("host") != here["host"]
    ):
        return bool(logs) and min(map(_age_s, logs)) > SILENT_S
    try:
        found, status = _record(kernel["pid"]), psutil.Process(kernel["pid"]).status()
    except (psutil.NoSuchProcess, FileNotFoundError):
        return True
    if "start_ticks" in kernel:
        another = found["start_ticks"] != kernel["start_ticks"]
    else:  # as earlier versions wrote it
        started_s = psutil.Process(kernel["pid"]).create_time()
        another = abs(started_s - kernel.get("started_s", started_s)) > SAME_START_S
    return another or status == psutil.STATUS_ZOMBIE


def _record(pid: int) -> dict[str, Any]:
    return {"pid": pid, "start_ticks": _start_ticks(pid), **_machine()}


def _start_ticks(pid: int) -> int:
    """When a process began, in ticks since the machine did; the 22nd field of ``/proc/PID/stat`` (proc(5))."""
    stat = Path(f"/proc/{pid}/stat")
    if not Path("/proc/self/stat").exists():
        return int(psutil.Process(pid).create_time())
    return int(stat.read_text().rpartition(")")[2].split()[19])


def _machine() -> dict[str, Any]:
    return {"boot_id": _boot_id(), "pids": _pids(), "host": socket.gethostname()}


def _boot_id() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


def _pids() -> str | None:
    """Which table of process ids is looked into: a container's own, or the machine's."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def _age_s(log: Path) -> float:
    """Seconds since a file was written, by the clock of its own file system where that can be asked."""
    try:
        written_s = log.stat().st_mtime
    except OSError:
        return float("inf")
    try:
        with tempfile.TemporaryFile(dir=log.parent) as now:
            return os.fstat(now.fileno()).st_mtime - written_s
    except OSError:
        return time.time() - written_s
