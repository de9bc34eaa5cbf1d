"""How much memory more processes may take: what the machine has left, or less where a control group sets a limit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil

_FILES = {2: ("memory.max", "memory.current", "inactive_file"),
          1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")}  # fmt: skip
"""By version of control groups: the limit, what is used, and the field of ``memory.stat`` that can be taken back."""


def available_bytes(groups: Path = Path("/sys/fs/cgroup"), mine: Path = Path("/proc/self/cgroup")) -> int:
    """Memory that is free or can be freed, for this process and those it starts.

    Args:
        groups: where control groups are mounted.
        mine: which of them this process is in; see cgroups(7).
    """
    return min([int(psutil.virtual_memory().available), *_left(groups, mine)])


def _left(groups: Path, mine: Path) -> Iterator[int]:
    """What each group that this process is in has left; a container sees its own as the root."""
    for version, folder in _folders(groups, mine):
        limit, used, reclaimable = _FILES[version]
        try:
            limit_bytes = int((folder / limit).read_text())  # "max" where there is none
            used_bytes = int((folder / used).read_text())
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        except (OSError, ValueError):
            continue
        yield max(0, limit_bytes - used_bytes + int(stat.get(reclaimable, 0)))


def _folders(groups: Path, mine: Path) -> Iterator[tuple[int, Path]]:
    try:
        lines = mine.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        version, root = (1, groups / "memory") if controllers else (2, groups)
        group = root / path.lstrip("/")
        yield from ((version, each) for each in (group, *group.parents) if each.is_relative_to(root))
