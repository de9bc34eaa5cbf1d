"""Other tools that users would pick instead, as far as they are installed apart; see requirements.txt."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import ranks

FOLDER = Path("build", "others")
"""Where `make bench` installs them; only their own programs see it."""


def has(package: str) -> bool:
    """Whether a tool is there."""
    return (FOLDER / package).is_dir()


def said_by(script: Path, *words: str) -> Any:
    """What a program that uses one of them prints last, as JSON.

    Args:
        script: the program.
        words: its arguments.
    """
    env = ranks.plain_environment()
    env["PYTHONPATH"] = os.pathsep.join((str(FOLDER.resolve()), str(script.parent.resolve())))
    env["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), env["PATH"]))  # where mpiexec is
    return json.loads(ranks.wait_for([sys.executable, str(script), *words], env).splitlines()[-1])
