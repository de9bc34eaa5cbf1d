"""What a new machine installs is written down to the last version and byte, and lies within the ranges of setup.cfg."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from obl_magic.setup import doctor

TREE = Path(__file__).parents[1]
LOCK = TREE / "requirements.lock"
BINDER = TREE / "binder" / "requirements.txt"
NAME = re.compile(r"[-_.]+")


def setup() -> dict[str, list[Requirement]]:
    """What setup.cfg asks for, by extra; "" for what the package always needs."""
    config = configparser.ConfigParser()
    config.read(TREE / "setup.cfg")
    told = {"": config["options"]["install_requires"], **config["options.extras_require"]}
    return {extra: [Requirement(line) for line in lines.split("\n") if line] for extra, lines in told.items()}


def wanted(extras: str) -> list[Requirement]:
    """What the package needs with these extras, those that an extra names in turn included."""
    asked, found, todo = setup(), [], ["", *extras.split(",")]
    for extra in todo:
        for each in asked[extra]:
            if each.name == "obl_magic":
                todo += each.extras
            else:
                found.append(each)
    return found


def extras_of(variable: str) -> str:
    """What the Makefile locks."""
    (line,) = re.findall(rf"^{variable} := (\S+)$", (TREE / "Makefile").read_text(), re.M)
    return str(line)


def locked(path: Path) -> dict[str, list[Version]]:
    """The versions of each package in a lock; more than one where they depend on the Python."""
    found: dict[str, list[Version]] = {}
    for name, version in re.findall(r"^([\w.-]+)(?:\[[\w,-]+\])?==([^\s;]+)", path.read_text(), re.M):
        found.setdefault(NAME.sub("-", name).lower(), []).append(Version(version))
    return found


@pytest.mark.parametrize("path", [LOCK, BINDER], ids=["lock", "binder"])
def test_a_lock_names_no_place_to_load_from(path: Path) -> None:
    """Neither an index nor a folder of the machine that made it: each machine's own pip knows where to look."""
    text = path.read_text()
    for place in ("://", "--index", "--extra-index", "--find-links", "--trusted-host", " @ ", "-e "):
        assert place not in text
    assert "/" not in "".join(line for line in text.splitlines() if "==" in line)


@pytest.mark.parametrize("path", [LOCK, BINDER], ids=["lock", "binder"])
def test_a_lock_fixes_each_package_to_its_bytes(path: Path) -> None:
    """Only files whose digests were written down are installed."""
    blocks = re.split(r"\n(?=\S)", path.read_text())
    pinned = [block for block in blocks if not block.startswith("#")]
    assert len(pinned) > 50
    for block in pinned:
        assert re.match(r"[\w.-]+(\[[\w,-]+\])?==\S+", block), block
        assert "--hash=sha256:" in block


@pytest.mark.parametrize(("path", "variable"), [(LOCK, "LOCKED"), (BINDER, "BINDER")], ids=["lock", "binder"])
def test_a_lock_holds_what_setup_cfg_asks_for(path: Path, variable: str) -> None:
    """Whoever changes setup.cfg runs ``make lock``: every requirement is in it, at versions that it allows."""
    versions = locked(path)
    for each in wanted(extras_of(variable)):
        found = versions.get(NAME.sub("-", each.name).lower(), [])
        assert found, f"{each} is not in {path.name}: run `make lock`"
        for version in found:
            assert version in each.specifier, f"{path.name} has {each.name} {version}: run `make lock`"


def test_binder_runs_what_the_tests_ran() -> None:
    """A package that stands in both locks has the same version in both."""
    here, there = locked(LOCK), locked(BINDER)
    assert {name: there[name] for name in here.keys() & there.keys()} == {
        name: here[name] for name in here.keys() & there.keys()
    }


@pytest.mark.parametrize("name", ["cloudpickle", "ipykernel", "ipython", "keras", "mpi4py", "optuna"])
def test_what_we_lean_on_has_honest_bounds(name: str) -> None:
    """From the lowest version that ``make test-lowest`` runs to below the next one that nobody has tried."""
    (asked,) = [each for each in wanted(extras_of("LOCKED")) if each.name == name]
    assert {each.operator for each in asked.specifier} == {">=", "<"}, str(asked)


def test_the_doctor_advises_the_keras_that_is_run() -> None:
    """Its command and setup.cfg name the same range."""
    (asked,) = [each for each in setup()[""] if each.name == "keras"]
    (advised,) = re.findall(r'"(keras.*)"', doctor.INSTALL_KERAS)
    assert Requirement(advised).specifier == asked.specifier


TOLD = """#!/bin/sh
echo "$@" >> {log}
case "$*" in *find_spec*) exit {has_tensorflow};; esac
"""
"""A Python that writes down what it is asked, and answers whether it has TensorFlow."""


def installed(venv: Path, *, has_tensorflow: bool) -> str:
    """What ``make setup`` asks the Python of an environment to install."""
    log = venv / "log"
    log.write_text("")
    python = venv / "bin" / "python"
    python.parent.mkdir(exist_ok=True)
    python.write_text(TOLD.format(log=log, has_tensorflow=int(has_tensorflow)))
    python.chmod(0o700)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    subprocess.run(
        ["make", "setup", f"VENV={venv}"], cwd=TREE, env=environ, check=True, capture_output=True, timeout=60
    )
    asked = log.read_text()
    assert asked.splitlines()[-1] == "-m obl_magic install-horovod"
    return "\n".join(line for line in asked.splitlines() if " install " in line and " -c " not in line)


def test_an_environment_of_ours_gets_the_lock_and_again_when_it_changes(tmp_path: Path) -> None:
    """The TensorFlow that the lock brought is not taken for one that the user had."""
    first = installed(tmp_path, has_tensorflow=False)
    assert "--require-hashes --requirement requirements.lock" in first
    assert "--no-deps --no-build-isolation --editable ." in first
    assert ".[" not in first
    (tmp_path / ".obl_magic_installed").unlink()  # as old as a lock that was written since
    assert installed(tmp_path, has_tensorflow=True) == first


def test_who_has_a_tensorflow_keeps_it_and_what_it_came_with(tmp_path: Path) -> None:
    """Only what is missing is installed, by the ranges; no TensorFlow is among it."""
    asked = installed(tmp_path, has_tensorflow=True)
    assert "requirements.lock" not in asked
    (extras,) = re.findall(r"--editable \.\[(.*)\]", asked)
    assert set(extras.split(",")) == set(extras_of("LOCKED").split(",")) - {"cpu"}
    assert not [each for each in wanted(extras) if each.name.startswith("tensorflow")]
