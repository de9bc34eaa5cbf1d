"""The command line: options become one call, problems become one line and an exit code."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import obl_magic
from obl_magic import __main__ as command_line
from obl_magic.errors import SetupProblem, UsageProblem
from obl_magic.setup import doctor, install_horovod


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module with one function, in the current folder."""
    (tmp_path / "my_trainer.py").write_text("def main(lr=0.1):\n    return lr\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    yield "my_trainer"
    sys.modules.pop("my_trainer", None)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What ``obl_magic.run`` was called with; every run succeeds."""
    made: list[dict[str, Any]] = []

    def run(fn: Any, **options: Any) -> SimpleNamespace:
        made.append({"fn": fn.__name__, **options})
        return SimpleNamespace(status="succeeded")

    monkeypatch.setattr(obl_magic, "run", run, raising=False)
    return made


def test_doctor_prints_its_table_and_returns_its_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """0 where runs work, 1 where they do not."""
    rows = [doctor.Check("Engine", "ok", "auto takes mpi")]
    monkeypatch.setattr(doctor, "examine", lambda: rows)
    assert command_line.main(["doctor"]) == 0
    assert capsys.readouterr().out == "Engine  ok       auto takes mpi\n"
    rows[0] = doctor.Check("Engine", "missing", "no MPI", "install it")
    assert command_line.main(["doctor"]) == 1


def test_install_horovod_passes_its_two_switches_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """--gpu and --force, and neither by default."""
    made: list[dict[str, bool]] = []
    monkeypatch.setattr(install_horovod, "install", lambda **options: made.append(options))
    assert command_line.main(["install-horovod"]) == 0
    assert command_line.main(["install-horovod", "--gpu", "--force"]) == 0
    assert made == [{"gpu": False, "force": False}, {"gpu": True, "force": True}]


def test_a_problem_of_setup_is_one_line_and_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No traceback."""

    def install(**options: bool) -> None:
        raise SetupProblem("TensorFlow is missing", "pip install it")

    monkeypatch.setattr(install_horovod, "install", install)
    assert command_line.main(["install-horovod"]) == 1
    assert capsys.readouterr().err == "obl_magic: TensorFlow is missing; do: pip install it\n"


def test_run_calls_the_function_with_what_was_given_only(trainer: str, calls: list[dict[str, Any]]) -> None:
    """What is not said on the command line is left to ``obl_magic.run``."""
    assert command_line.main(["run", f"{trainer}:main"]) == 0
    everything = (
        "--workers 2 --engine mpi --arg lr=0.5 --arg act='relu' --seed 3 --batch per-worker --timeout 9"
    )
    assert command_line.main(["run", f"{trainer}:main", *everything.split()]) == 0
    assert calls == [
        {"fn": "main", "args": {}},
        {
            "fn": "main",
            "args": {"lr": 0.5, "act": "relu"},
            "workers": 2,
            "engine": "mpi",
            "seed": 3,
            "batch": "per-worker",
            "timeout": 9.0,
        },
    ]


@pytest.mark.parametrize(
    ("named", "sentence"),
    [
        ("my_trainer", r"got 'my_trainer'; expected MODULE:FUNCTION; do: python -m obl_magic run train:main"),
        ("no_such_module:main", r"got module 'no_such_module'; expected a module that can be imported here"),
        ("my_trainer:train", r"got 'train'; expected a function of my_trainer; do: name one of: main$"),
    ],
)
def test_a_function_that_is_not_there_is_named_with_what_is(trainer: str, named: str, sentence: str) -> None:
    """Expected, got, do this."""
    with pytest.raises(UsageProblem, match=sentence):
        command_line.find_function(named)


def test_a_module_that_itself_misses_an_import_keeps_its_own_error(trainer: str) -> None:
    """Only the module that was named is the user's spelling mistake."""
    Path("my_trainer.py").write_text("import not_installed_anywhere\n")
    with pytest.raises(ModuleNotFoundError, match="not_installed_anywhere"):
        command_line.find_function("my_trainer:main")


@pytest.mark.parametrize("text", ["lr", "lr=", "0=1", "act=relu", "lr=__import__('os')"])
def test_an_argument_that_is_no_literal_is_refused_with_an_example(text: str) -> None:
    """Values are Python literals; nothing is evaluated."""
    said = r"expected name=value with a Python literal \(text in quotes\); do: --arg lr=0\.1"
    with pytest.raises(UsageProblem, match=said):
        command_line.argument_value(text)


def test_a_wrong_request_is_exit_code_2(trainer: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Ours and argparse's alike."""
    assert command_line.main(["run", f"{trainer}:nothing"]) == 2
    assert capsys.readouterr().err.startswith("obl_magic: got 'nothing'")
    assert command_line.main(["run", f"{trainer}:main", "--engine", "gloo"]) == 2
    said = capsys.readouterr().err
    assert said == "obl_magic: got engine 'gloo'; expected auto, horovod or mpi; do: --engine auto\n"
    with pytest.raises(SystemExit, match="2"):
        command_line.main(["run", f"{trainer}:main", "--workers", "two"])


def test_a_run_that_did_not_succeed_is_exit_code_1(
    trainer: str, calls: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that a script notices."""
    monkeypatch.setattr(obl_magic, "run", lambda fn, **options: SimpleNamespace(status="interrupted"))
    assert command_line.main(["run", f"{trainer}:main"]) == 1


def test_the_module_answers_to_python_m() -> None:
    """As users call it."""
    said = subprocess.run(
        [sys.executable, "-m", "obl_magic", "--help"], capture_output=True, text=True, check=True
    )
    for command in ("doctor", "install-horovod", "run"):
        assert command in said.stdout
