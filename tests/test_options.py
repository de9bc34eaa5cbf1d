"""The one table of options: calls, magic, command line, completion and docs say the same."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kernel import Kernel

import obl_magic
from obl_magic import options
from obl_magic.options import OPTIONS, completions, given, misplaced

CALLS = {"run": obl_magic.run, "search": obl_magic.search, "ablate": obl_magic.ablate}
FOR_PROGRAMS = {"fn", "provide", "namespace", "cells", "display", "out"}
"""Parameters of the calls that no cell and no command line sets."""
UNSAID = {"trials", "sampler", "pruner"}
"""Whose default depends on the search that is resumed."""


def parsed(**typed: Any) -> Any:
    """What argparse gives for that."""
    return SimpleNamespace(**{option.name: option.default for option in OPTIONS} | typed)


@pytest.mark.parametrize("call", CALLS)
def test_the_keywords_of_a_call_are_those_of_the_table(call: str) -> None:
    """By name, and with the same defaults."""
    signature = {
        name: parameter.default
        for name, parameter in inspect.signature(CALLS[call]).parameters.items()
        if name not in FOR_PROGRAMS
    }
    table = {
        option.parameter: option.default for option in OPTIONS if call in option.calls and option.parameter
    }
    assert set(signature) == set(table)
    for name, default in signature.items():
        if name not in ("args", "study"):
            assert default == table[name], name


@pytest.mark.parametrize("call", CALLS)
def test_a_call_is_documented_with_every_keyword(call: str) -> None:
    """In its docstring."""
    told = inspect.getdoc(CALLS[call]) or ""
    for name in set(inspect.signature(CALLS[call]).parameters) - {"fn"}:
        assert name in told, name


def test_what_was_typed_becomes_the_keywords_of_a_call() -> None:
    """Of that call only; what stands for the cell is left out."""
    typed = parsed(workers=2, trials=3, repeats=4, out="run", function="train")
    assert given("run", typed)["workers"] == 2
    assert "trials" not in given("run", typed)
    assert given("search", typed, ["space"])["trials"] == 3
    assert "space" not in given("search", typed, ["space"])
    assert given("ablate", typed)["repeats"] == 4
    assert not {"out", "function", ""} & set(given("run", typed))


@pytest.mark.parametrize(
    ("call", "typed", "flag"),
    [
        ("run", {"maximize": "acc"}, "--maximize"), ("run", {"keep_weights": 3}, "--keep-weights"),
        ("search", {"retries": 1}, "--retries"), ("search", {"repeats": 2}, "--repeats"),
        ("ablate", {"show_ranks": "all"}, "--show-ranks"), ("ablate", {"resume": "x"}, "--resume"),
    ],
)  # fmt: skip
def test_an_option_of_another_call_is_found(call: str, typed: dict[str, Any], flag: str) -> None:
    """None is passed over in silence."""
    wrong = misplaced(call, parsed(**typed))
    assert wrong is not None
    assert wrong.flag == flag
    assert misplaced(call, parsed(workers=2, seed=1)) is None


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("%%oblivious --work", ["--workers", "--workers-per-trial"]),
        ("%%oblivious -w 2 --sync", ["--sync-batchnorm"]),
        ("%%oblivious --no-", ["--no-sync-batchnorm"]),
        ("%%oblivious --engine ", ["auto", "horovod", "mpi"]),
        ("%%oblivious --pruner m", ["median"]),
        ("%%oblivious --trials ", []),
        ("%oblivious ru", []),
    ],
)
def test_flags_and_their_words_are_offered(line: str, offered: list[str]) -> None:
    """Where they make sense."""
    assert completions(line) == offered


def test_every_option_ends_its_help_with_an_example_of_itself() -> None:
    """As people read it in %%oblivious?."""
    for option in OPTIONS:
        example = option.help.rpartition(": ")[2]
        assert example.startswith((option.flag, f"--no-{option.flag[2:]}")), option


def test_the_page_of_options_is_that_of_the_table() -> None:
    """Make options writes it."""
    assert (Path(options.__file__).parents[1] / "docs" / "options.md").read_text() == options.as_markdown()


@pytest.mark.slow
def test_tab_completes_options_in_a_notebook(tmp_path: Path) -> None:
    """In the line of the magic, and nowhere else."""
    with Kernel(tmp_path, {"OBLIVIOUS_HOME": str(tmp_path)}) as kernel:
        assert kernel.run("%load_ext obl_magic").ename == ""
        cell = "%%oblivious --work"
        assert kernel.completed(cell + "\ndef train():\n    return 1", len(cell)) == [
            "--workers",
            "--workers-per-trial",
        ]
        assert "horovod" in kernel.completed("%%oblivious --engine h", 22)
        assert "--workers" not in kernel.completed("print(--work", 12)
        kernel.run("%unload_ext obl_magic\n%load_ext obl_magic")
        assert kernel.completed(cell, len(cell)) == ["--workers", "--workers-per-trial"]
