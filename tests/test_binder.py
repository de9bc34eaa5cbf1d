"""Binder's image, built as Binder builds it: a clean environment, the locked requirements, then ``postBuild``.

Each takes minutes and gigabytes, so it is built where ``OBL_BINDER=all`` asks for it, as CI does every week.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.environ.get("OBL_BINDER") != "all", reason="builds an image's environment: OBL_BINDER=all"
    ),
]

TREE = Path(__file__).parents[1]
RUN = """
import obl_magic
def answer():
    import keras
    return keras.__version__
run = obl_magic.run(answer, workers=2, quiet=True)
print(run.status, run.record.engine, run.values[0] == run.values[1])
"""


@pytest.mark.parametrize("compiler", [True, False], ids=["with a compiler", "without a compiler"])
def test_binders_image_runs_ranks_with_horovod_or_else_with_plain_mpi(tmp_path: Path, compiler: bool) -> None:
    """Where Horovod cannot be built the log says what is taken instead; the image opens on the quickstart."""
    copy, home = tmp_path / "home" / "obl_magic", tmp_path / "home"
    shutil.copytree(
        TREE, copy, ignore=shutil.ignore_patterns(".venv", "build", ".git", ".oblivious", "__pycache__")
    )
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "env"], check=True)
    here = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "OBL"))}
    env = here | {"HOME": str(home), "PATH": f"{tmp_path / 'env' / 'bin'}:{os.environ['PATH']}"}
    if not compiler:
        env |= {"CXX": "/bin/false", "CC": "/bin/false"}

    def does(*argv: object) -> str:
        done = subprocess.run(
            [str(each) for each in argv],
            cwd=copy,
            env=env,
            capture_output=True,
            text=True,
            timeout=2400,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout + done.stderr

    does("python", "-m", "pip", "install", "--quiet", "--requirement", "binder/requirements.txt")
    said = does("bash", "binder/postBuild")
    assert (
        "Horovod was not built; --engine auto takes plain MPI (mpi4py): the same numbers" in said
    ) != compiler
    told = does("python", "-c", RUN).strip().splitlines()[-1]
    assert told == f"succeeded {'horovod' if compiler else 'mpi'} True"
    config = (home / ".jupyter" / "jupyter_server_config.py").read_text()
    assert "/lab/tree/notebooks/01_quickstart.ipynb" in config
    assert (copy / "notebooks" / "01_quickstart.ipynb").is_file()
