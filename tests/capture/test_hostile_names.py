"""Folders and functions with names that nobody expects: a run works in all of them and finds itself again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import obl_magic

pytestmark = [pytest.mark.slow, pytest.mark.timing]

NAMES = {
    "shell": "-n with spaces  'quotes' \"both\" 100% $HOME ${PATH} `id` $(id); & | * ? [a] {b} ~ # ! back\\slash:,=",
    "unicode": "größe 数据 🎉",
    "newline": "two\nlines\t",
    "bytes": os.fsdecode(b"no utf-8 \xff\xfe"),
}


def run(fn: Any, workers: int | None = 2, **options: Any) -> obl_magic.Run:
    """A run that shows nothing, on the engine that starts fastest."""
    return obl_magic.run(fn, workers=workers, **{"engine": "mpi", "quiet": True, **options})


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_a_run_works_in_a_folder_of_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As working folder and as home of the runs; the ranks are where the user is."""
    folder = tmp_path / name
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("OBLIVIOUS_HOME", raising=False)

    def fit() -> Any:
        print("printed")
        return os.getcwd()

    beside = run(fit)
    assert beside.values == [str(folder)] * 2
    assert beside.dir.parent == folder / ".oblivious" / "runs"
    monkeypatch.setenv("OBLIVIOUS_HOME", str(folder / name))
    elsewhere = run(fit, workers=1)
    assert elsewhere.dir.parent == folder / name / "runs"
    again = obl_magic.Run.open(elsewhere.id)
    assert (again.value, again.logs(0), again.status) == (str(folder), "printed\n", "succeeded")
    assert again.id in repr(again)


def test_a_run_works_in_a_folder_with_a_very_long_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two thousand characters."""
    folder = tmp_path.joinpath(*["x" * 200] * 10)
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OBLIVIOUS_HOME", str(folder))
    assert run(lambda: os.getcwd()).value == str(folder)


@pytest.mark.parametrize("workers", [None, 1])
def test_a_function_may_have_any_name_that_python_allows(home: Path, workers: int | None) -> None:
    """Its name is shown as it is written."""

    def größe_обучения_训练(größe: float = 0.5) -> float:
        return größe

    done = run(größe_обучения_训练, workers=workers, args={"größe": 2.0})
    assert done.value == 2.0
    assert "größe_обучения_训练" in repr(obl_magic.Run.open(done.id))


READ_ONLY = """
import obl_magic, obl_magic.errors
try:
    obl_magic.run(lambda: 1, workers=1, engine="mpi", quiet=True)
except obl_magic.errors.SetupProblem as problem:
    print(problem)
"""


def test_a_folder_that_may_not_be_written_is_named(tmp_path: Path) -> None:
    """Before anything starts, in one sentence. The superuser may write anywhere, so that ``nobody`` tries."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    nobody = {"user": 65534, "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    environ = {**os.environ, "OBLIVIOUS_HOME": str(closed)}
    command = [sys.executable, "-c", READ_ONLY]
    try:
        done = subprocess.run(
            command, env=environ, cwd="/", capture_output=True, text=True, check=False, timeout=60, **nobody
        )
    except PermissionError:
        pytest.skip("the user nobody cannot run this Python")
    if nobody and not done.stdout:
        pytest.skip(f"the user nobody cannot use this Python: {done.stderr[-200:]}")
    assert done.stdout.strip() == (
        f"cannot write the run's folder {closed}/runs (Permission denied); "
        "do: free or open it, or set OBLIVIOUS_HOME to a folder you can write"
    )
