"""CONTRIBUTING's recipes, followed literally: they take the files that they name and no other."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import obl_magic

pytestmark = pytest.mark.slow

PACKAGE = Path(obl_magic.__file__).parent
TRAIN = """
import os

import tensorflow as tf
from obl_magic.worker.report import report


def main():
    print("started by", os.environ.get("DUMMY_LAUNCHER"))
    model = tf.keras.Sequential([tf.keras.layers.Dense(1, kernel_initializer="ones")])
    model.compile("sgd", "mse")
    x = tf.reshape(tf.range(8.0), (8, 1))
    return model.fit(x, 2 * x, batch_size=4, epochs=1, verbose=0).history["loss"][0]
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package to be changed, and a function beside it."""
    shutil.copytree(PACKAGE, tmp_path / "obl_magic", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "train.py").write_text(TRAIN)
    return tmp_path


def add_line(path: Path, after: str, line: str) -> None:
    """A line of a registry, below another."""
    text = path.read_text()
    assert text.count(after) == 1, after
    path.write_text(text.replace(after, f"{after}{line}"))


def run(copy: Path, *options: str) -> str:
    """What the command line says of the function on two ranks; there is no launcher beside this Python."""
    (copy / "bin").mkdir(exist_ok=True)
    (copy / "bin" / "python").symlink_to(Path(sys.executable).resolve())
    packages = f"{copy}{os.pathsep}{sysconfig.get_path('purelib')}"
    environ = {**os.environ, "PYTHONPATH": packages, "OBLIVIOUS_HOME": str(copy / "home")}
    path = os.pathsep.join([str(copy / "bin"), environ["PATH"], str(Path(sys.executable).parent)])
    command = [
        str(copy / "bin" / "python"),
        "-P",
        "-m",
        "obl_magic",
        "run",
        "train:main",
        "-w",
        "2",
        *options,
    ]
    done = subprocess.run(
        command,
        cwd=copy,
        env={**environ, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_an_engine_is_a_file_a_line_of_the_registry_and_what_it_rests_on(copy: Path) -> None:
    """Then users may name it, completion offers it, and ranks take it."""
    package = copy / "obl_magic"
    (package / "worker" / "engines" / "dummy.py").write_text(
        "from obl_magic.worker.engines.mpi import connect as connect\n"
    )
    add_line(
        package / "engines.py", '    "mpi": Engine("obl_magic.worker.engines.mpi"),\n',
        '    "dummy": Engine("obl_magic.worker.engines.dummy"),\n',
    )  # fmt: skip
    add_line(package / "setup" / "doctor.py", '"mpi": _mpi4py', ', "dummy": _mpi4py')
    assert "dummy was asked for" in run(copy, "--engine", "dummy")


def test_a_launcher_is_a_file_and_a_line_of_the_registry(copy: Path) -> None:
    """Found by its own program, started by its own command line, known by its ranks' variables."""
    package = copy / "obl_magic"
    mpirun = Path(sys.executable).with_name("mpirun")
    (copy / "bin").mkdir(exist_ok=True)
    program = copy / "bin" / "dummyrun"
    program.write_text(
        '#!/bin/sh\n[ "$1" = --version ] && exec echo Dummy 7.1\n'
        f'shift; export DUMMY_LAUNCHER=1; exec {mpirun} "$@"\n'
    )
    program.chmod(0o755)
    openmpi = (package / "launchers" / "openmpi.py").read_text()
    dummy = openmpi.replace('("mpirun", "mpiexec")', '("dummyrun",)').replace(
        '"Open MPI\\)?\\s+v?', '"Dummy '
    ).replace('"-n", str(ranks)', '"dummy", "-n", str(ranks)')  # fmt: skip
    (package / "launchers" / "dummy.py").write_text(dummy)
    add_line(
        package / "launchers" / "__init__.py",
        "LAUNCHERS = {\n",
        '    "dummy": "obl_magic.launchers.dummy",\n',
    )
    assert "started by 1" in run(copy, "--engine", "mpi")
