"""Removes what launchers and ranks that were killed have left on a host where no leash looks after them."""

from __future__ import annotations

import glob
import os
import shutil
import tempfile
from pathlib import Path

import psutil

from obl_magic.launchers import launchers
from obl_magic.worker.stand_in import PREFIX


def sweep(temporary: str | None = None) -> None:
    """Removes the folders of this user's launchers, daemons and ranks that live no more.

    Args:
        temporary: the folder for temporary files; this host's by default.
    """
    where = glob.escape(temporary or tempfile.gettempdir())
    patterns = [pattern for each in launchers() for pattern in each.session_folders(where, os.geteuid())]
    for pattern in (*patterns, f"{where}/{PREFIX}*.{{pid}}"):
        for path in map(Path, glob.glob(pattern.format(pid="*"))):
            pid = path.name.rpartition(".")[2]
            if pid.isdigit() and not psutil.pid_exists(int(pid)) and path.stat().st_uid == os.geteuid():
                shutil.rmtree(path, ignore_errors=True)
