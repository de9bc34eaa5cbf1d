"""Whose the files of a run are: what somebody else may have written is not unpickled. Knows owners and permissions.

The rule is that of OpenSSH's StrictModes: the file, its folder, and every folder above belong to the user or to root,
and nobody else can write them. A sticky folder, as /tmp is, lets others add but not replace.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from obl_magic.errors import SetupProblem, UsageProblem

_MADE: set[Path] = set()
_RUN_BY_PICKLE = ("*.pkl", "*.bin", "*.npz", "checkpoints", "checkpoints/*", "*.journal")


def made(folder: Path) -> None:
    """This process has made the folder, so whose it is need not be asked."""
    _MADE.add(folder)


def refuse_foreign(folder: Path, use: str, do: str = "") -> None:
    """Refuses a run's or a study's folder that somebody else may have written, before a byte of it is read.

    Args:
        folder: the folder.
        use: what it is wanted for, e.g. ``the value of 20260101-000000-abcdef``.
        do: how to use it all the same; by default ``Run.open(..., trust=True)``.

    Raises:
        UsageProblem: others own or can write it, a file in it, or a folder above.
    """
    if folder in _MADE:
        return
    for path in _all_of(folder):
        why, mend = _foreign(path)
        if why:
            trusted = do or f"Run.open({str(folder)!r}, trust=True)"
            raise UsageProblem(
                f"{use}, where {why}",
                "files that only you can write, since reading them runs what they hold",
                f"{f'{mend}; or, ' if mend else ''}if you know whose they are, {trusted}",
            )


def refuse_open(folder: Path) -> None:
    """Refuses to keep runs in a folder in which others could replace them.

    Raises:
        SetupProblem: others own or can write it.
    """
    why, mend = _foreign(folder)
    if why:
        raise SetupProblem(
            f"runs would be kept in {folder}, where others could change them: {why}",
            f"{f'{mend}, or ' if mend else ''}set OBLIVIOUS_HOME to a folder of your own",
        )


def _all_of(folder: Path) -> Iterator[Path]:
    """The folder, what is loaded from it, and all folders above, by both their names where links lead there."""
    found = dict.fromkeys((folder.absolute(), folder.resolve()))
    for pattern in _RUN_BY_PICKLE:
        for path in folder.glob(pattern):
            found |= dict.fromkeys((path, path.resolve()))
    for path in list(found):
        found |= dict.fromkeys(path.parents)
    yield from sorted(found, key=lambda path: len(path.parts))


def _foreign(path: Path) -> tuple[str, str]:
    """(how others could have written a path, the command that mends it); empty where they could not."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return "", ""
    if found.st_uid not in (0, os.geteuid()):
        return f"{path} belongs to {_name(found.st_uid)}", ""
    if stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX:
        return "", ""
    if found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and not _is_own_group(found.st_gid)):
        return f"others can write {path}", f"chmod go-w {path}"
    return "", ""


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _is_own_group(gid: int) -> bool:
    """Whether a group has the user as its only member, as most Linux systems make one for each user."""
    try:
        me, group = pwd.getpwuid(os.geteuid()), grp.getgrgid(gid)
    except KeyError:
        return False
    return gid == me.pw_gid and group.gr_name == me.pw_name and set(group.gr_mem) <= {me.pw_name}
