"""What launchers that were killed have left on a host."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from obl_magic.worker.swept import sweep


def test_only_what_belongs_to_nobody_goes(tmp_path: Path) -> None:
    """A daemon that lives keeps its folder; whatever has another name is not looked at."""
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        pass
    kept = [tmp_path / f"prted.{os.getpid()}", tmp_path / "prted.x", tmp_path / "mine"]
    goes = [
        tmp_path / f"prted.{gone.pid}",
        tmp_path / f"ompi.{gone.pid}",
        tmp_path / f"obl-away-x.{gone.pid}",
    ]
    for folder in (*kept, *goes):
        folder.mkdir()
        (folder / "file").touch()
    sweep(str(tmp_path))
    assert sorted(tmp_path.iterdir()) == sorted(kept)
