"""No port of ours, nothing loaded that a stranger could have written, nothing of the environment on disk."""

from __future__ import annotations

import ast
import json
import os
import secrets
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import obl_magic
from obl_magic.errors import UsageProblem
from obl_magic.export import export

pytestmark = pytest.mark.timing

PACKAGE = Path(obl_magic.__file__).parent
SECRET = secrets.token_hex(16)
"""The value of an environment variable."""

LOADERS = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}

LOADED_BY = {
    "payload.loads": {
        "worker/receive.py": "the job, from the folder of the run that its kernel names",
        "worker/execute.py": "the function inside it, and the rank's own exception",
        "worker/library_settings.py": "settings in the job, from the kernel's own libraries",
        "worker/frameworks/keras/checkpoints.py": "a checkpoint that a rank of the same run wrote",
        "worker/frameworks/keras/keeping.py": "a checkpoint that a rank of the same run wrote",
        "worker/frameworks/keras/loop_checkpoints.py": "a checkpoint that a rank of the same run wrote",
        "runs/failures.py": "the exception of a rank",
        "payload/files.py": "for the callers below",
        "export/__init__.py": "the function of a job of the user's own run",
        "export/found.py": "a job that this process has kept in memory",
        "export/standalone.py": "the same, in the script that was exported",
    },
    "files.load": {
        "runs/run.py": "the value of a rank",
        "worker/execute.py": "the value that this rank has just written",
        "export/standalone.py": "what lies beside the user's own script",
    },
}
"""Who runs a pickle, and whose it is."""


def trees() -> dict[str, ast.Module]:
    """Every file of the package, parsed."""
    return {
        path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")
    }


def test_only_payload_says_pickle() -> None:
    """Whoever wants to load one must go through it; PickleBuffer is memory, no program."""
    users = set()
    for name, tree in trees().items():
        for node in ast.walk(tree):
            modules: list[str] = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and {alias.name for alias in node.names} != {
                "PickleBuffer"
            }:
                modules = [node.module or ""]
            if any(module.partition(".")[0] in LOADERS for module in modules):
                users.add(name.partition("/")[0])
    assert users == {"payload"}


def test_no_other_door_loads_pickles() -> None:
    """NumPy, pandas, logging and multiprocessing can load them, too, when asked to; nor is text executed."""
    doors = {"allow_pickle", "read_pickle", "Unpickler", "multiprocessing", "logging.config", "eval", "exec"}
    found = set()
    for name, tree in trees().items():
        for node in ast.walk(tree):
            said = {
                ast.keyword: lambda n: n.arg,
                ast.Attribute: lambda n: n.attr,
                ast.Name: lambda n: n.id,
                ast.ImportFrom: lambda n: n.module,
                ast.alias: lambda n: n.name,
            }.get(type(node), lambda n: None)(node)
            shut = (
                isinstance(node, ast.keyword)
                and isinstance(node.value, ast.Constant)
                and node.value.value is False
            )
            if said in doors and not shut:
                found.add((name, said))
    assert found == {
        ("export/plain.py", "exec")
    }  # the definition of a function that is in the notebook already


@pytest.mark.parametrize("loader", LOADED_BY)
def test_who_loads_pickles_is_known(loader: str) -> None:
    """The job on ranks, and what ranks that we started have written."""
    module, _, function = loader.partition(".")
    users = {
        name
        for name, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and (node.func.attr, getattr(node.func.value, "id", "")) == (function, module)
    }
    assert users == set(LOADED_BY[loader])


def listening(process: psutil.Process) -> set[tuple[str, Any]]:
    """The sockets at which a process can be reached from outside: TCP that listens, UDP that is bound."""
    return {
        (str(each.type), each.laddr)
        for each in process.net_connections("inet")
        if each.status in (psutil.CONN_LISTEN, psutil.CONN_NONE) and each.laddr
    }


AUDIT = """
import os, sys
def note(event, args):
    if event in ("socket.bind", "socket.connect", "socket.sendto"):
        with open(os.environ["OBL_TEST_AUDIT"] + str(os.getpid()), "a") as file:
            file.write(f"{event} {args}\\n")
sys.addaudithook(note)
"""
"""Python loads it first of all in every process of a run, and cannot unload it."""


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["mpi", "horovod"])
def test_no_port_is_opened(home: Path, monkeypatch: pytest.MonkeyPatch, engine: str) -> None:
    """Neither by the kernel while a run lasts, nor by a rank or the MPI in it; the launcher's own are mpirun's."""
    hook = home / "hook"
    hook.mkdir()
    (hook / "sitecustomize.py").write_text(AUDIT)
    monkeypatch.setenv("PYTHONPATH", f"{hook}{os.pathsep}{os.environ['PYTHONPATH']}")
    monkeypatch.setenv("OBL_TEST_AUDIT", str(home / "audit-"))
    gate = home / "gate"

    def fit(gate: str) -> Any:
        import sys

        import numpy as np
        from mpi4py import MPI

        MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, np.ones(1_000_000))  # whatever MPI opens is open now
        print("here", flush=True)
        while not Path(gate).exists():
            time.sleep(0.01)
        return "sitecustomize" in sys.modules and "hook" in str(sys.modules["sitecustomize"].__file__)

    kernel = psutil.Process()
    before = listening(kernel)
    run = obl_magic.run(fit, workers=2, engine=engine, quiet=True, background=True, args={"gate": str(gate)})
    during = set()
    while run.logs(0) != "here\n" or run.logs(1) != "here\n":
        during |= listening(kernel)
        assert run.wait(0.02).status == "running"
    during |= listening(kernel)
    pids = [run.ledger.state.ranks[rank].pid for rank in (0, 1)]
    ranks = [listening(psutil.Process(pid)) for pid in pids]
    gate.touch()
    assert run.values == [True, True]
    assert during <= before
    assert ranks == [set(), set()]
    assert [path.read_text() for path in home.glob("audit-*")] == []
    assert not any(thread.name.startswith("obl-") for thread in threading.enumerate() if not thread.daemon)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [None, 2])
def test_a_runs_files_are_private_and_hold_nothing_of_the_environment(
    home: Path, monkeypatch: pytest.MonkeyPatch, workers: int | None
) -> None:
    """Whatever the umask: folders 0700, files 0600, and no value of a variable in any of them."""
    monkeypatch.setenv("OBL_TEST_SECRET", SECRET)

    def fit() -> Any:
        import numpy

        print("printed")
        obl_magic.report(loss=1.0)
        os.environ["OBL_TEST_OTHER"] = "x"
        return numpy.ones(1 << 18)

    before = os.umask(0)
    try:
        done = obl_magic.run(fit, workers=workers, engine="mpi", quiet=True)
    finally:
        os.umask(before)
    inside = [done.dir, *done.dir.rglob("*")]
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in inside}
    assert {name: oct(mode) for name, mode in modes.items() if mode not in (0o600, 0o700)} == {}
    assert all(path.is_dir() == (modes[path.name] == 0o700) for path in inside)
    for path in inside:
        assert path.is_dir() or SECRET.encode() not in path.read_bytes()
    said = json.loads((done.dir / "run.json").read_text())["environment"]
    assert set(said) == {"python", "platform", "cwd", "packages"}


@pytest.mark.slow
def test_what_looks_like_a_credential_is_named_before_launch_and_not_written_down(home: Path) -> None:
    """With its name, never with its value, and with the way out."""
    api_key = "sk-" + "0123456789" * 4

    def fit() -> int:
        return len(api_key)

    done = obl_magic.run(fit, workers=1, engine="mpi", quiet=True)
    (said,) = json.loads((done.dir / "run.json").read_text())["lines"]
    assert said.startswith(
        "fit -> api_key looks like a credential and is sent to the ranks; better: os.environ "
    )
    for path in done.dir.iterdir():
        assert api_key.encode() not in path.read_bytes(), path


def calls_home(api_key: str, lr: float = 0.1) -> float:
    """Takes a credential as an argument."""
    return len(api_key) * lr


def _holds(folder: Path, secret: str) -> list[str]:
    """The files that hold a text."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return [path.name for path in files if secret.encode() in path.read_bytes()]


def test_an_argument_that_looks_like_a_credential_is_written_down_as_stars(home: Path) -> None:
    """The panel names it; no record, of a run or of a search with its trials, holds its value."""
    said = (
        "the argument api_key looks like a credential and is written down as ***; "
        "better: os.environ inside the function, set before the run"
    )
    run = obl_magic.run(calls_home, args={"api_key": SECRET}, quiet=True)
    manifest = json.loads((run.dir / "run.json").read_text())
    assert manifest["arguments"] == {"api_key": "***"}
    assert said in manifest["lines"]
    assert _holds(run.dir, SECRET) == []
    study = obl_magic.search(
        calls_home, "lr=float(0,1)", args={"api_key": SECRET}, trials=2, maximize="value", quiet=True
    )
    assert said in study.record.lines
    assert study.best.run.record.arguments["api_key"] == "***"
    assert _holds(study.folder.path, SECRET) == []
    with pytest.raises(UsageProblem, match=r"argument api_key is \*\*\*; .*--arg api_key="):
        obl_magic.run(calls_home, params=run, quiet=True)


@pytest.mark.slow
def test_a_script_asks_for_the_credential_that_it_does_not_hold(home: Path) -> None:
    """It names the place where it is to be had from; with it, the script runs."""
    run = obl_magic.run(calls_home, args={"api_key": SECRET}, workers=1, engine="mpi", quiet=True)
    script = home / "script" / "train.py"
    script.parent.mkdir()
    export(run.id, str(script), {"calls_home": calls_home})
    assert _holds(script.parent, SECRET) == []

    def ran() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, script], capture_output=True, text=True, timeout=120, check=False,
            env={**os.environ, "API_KEY": SECRET},
        )  # fmt: skip

    assert (
        "got the argument api_key, which is *** in train.py; expected its value, which an export leaves out where it "
        'looks like a credential; do: write os.environ["API_KEY"] in its place, with import os above'
    ) in ran().stderr
    text = script.read_text()
    mended = text.replace("'***'", 'os.environ["API_KEY"]').replace(
        "import obl_magic.export.standalone", "import os\nimport obl_magic.export.standalone", 1
    )
    script.write_text(mended)
    assert "returned 3.2" in ran().stdout
