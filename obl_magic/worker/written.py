"""Notices files that several ranks opened for writing, which a single process writes once. Knows no framework.

Python tells its audit hooks of every file that it opens; a library that opens files in C is not seen.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

MOST = 1000
"""Files that are remembered."""
_NAMED = 5
_IGNORED = ("/dev/", "/proc/", "/sys/")
_WRITES = os.O_WRONLY | os.O_RDWR

BY_SEVERAL = (
    "{files} {were} opened for writing by several ranks, under the same name; what is written there is written more "
    "than once (from a Keras callback or by report() it is written once; tempfile gives each rank a file of its own)"
)


class Written:
    """Remembers the files that this rank opens for writing.

    Args:
        ignored: folders whose files don't count.
    """

    def __init__(self, ignored: Sequence[str] = ()) -> None:
        self._ignored = (*_IGNORED, *(os.path.join(os.path.abspath(folder), "") for folder in ignored))
        self._paths: set[str] = set()

    def begin(self) -> None:
        """From now on."""
        global _watching
        _hook_once()
        _watching = self

    def end(self) -> None:
        """No more."""
        global _watching
        _watching = None

    def opened(self, path: Any, mode: Any, flags: Any) -> None:
        """A file is opened, as the audit event tells it."""
        writes = any(c in mode for c in "wax+") if isinstance(mode, str) else bool((flags or 0) & _WRITES)
        if not writes or not isinstance(path, (str, bytes, os.PathLike)) or len(self._paths) >= MOST:
            return
        full = os.path.abspath(os.fsdecode(path))
        if not full.startswith(self._ignored) and "__pycache__" not in full:
            self._paths.add(full)

    @property
    def paths(self) -> list[str]:
        """The files, in order."""
        return sorted(self._paths)


def by_several(paths: Sequence[Sequence[str]]) -> str:
    """A sentence about the files that several ranks opened for writing; "" if there are none.

    Args:
        paths: of every rank.
    """
    once: set[str] = set()
    twice: set[str] = set()
    for mine in paths:
        twice |= once.intersection(mine)
        once.update(mine)
    if not twice:
        return ""
    named = sorted(twice)
    more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
    files = ", ".join(os.path.relpath(path) if _is_here(path) else path for path in named[:_NAMED]) + more
    return BY_SEVERAL.format(files=files, were="was" if len(named) == 1 else "were")


def _is_here(path: str) -> bool:
    return path.startswith(os.path.join(os.getcwd(), ""))


_watching: Written | None = None
_hooked = False


def _hook_once() -> None:
    """A hook cannot be taken away again, so there is one, which asks who watches."""
    global _hooked
    if not _hooked:
        _hooked = True
        sys.addaudithook(_heard)


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _watching is not None:
        _watching.opened(*arguments[:3])
