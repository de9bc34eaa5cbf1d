"""The one table of options: calls, magic, command line, completion and docs say the same."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kernel import Kernel

import obl_magic
from obl_magic.api.stub import stub
from obl_magic.errors import UsageProblem
from obl_magic.notebook.options import Offers, as_markdown, completions, given, help_on, meant, misplaced
from obl_magic.options import OPTIONS, RunOptions, StudyOptions, keywords

PACKAGE = Path(obl_magic.__file__).parent
CALLS = {"run": obl_magic.run, "search": obl_magic.search, "ablate": obl_magic.ablate}
FOR_PROGRAMS = {"fn", "args", "space", "study", "provide", "namespace", "cells", "display", "out"}
"""Parameters of the calls that are no options."""


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
    assert signature == {option.name: option.default for option in keywords(call)}


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
    assert given("search", typed)["trials"] == 3
    assert "space" not in given("search", typed)
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
        ("%%oblivious --no-", ["--no-balance", "--no-sync-batchnorm"]),
        ("%%oblivious --engine ", ["auto", "horovod", "mpi"]),
        ("%%oblivious --pruner m", ["median"]),
        ("%%oblivious --trials ", []),
        ("%oblivious ru", []),
    ],
)
def test_flags_and_their_words_are_offered(line: str, offered: list[str]) -> None:
    """Where they make sense."""
    assert completions(line) == offered


THERE = Offers(
    words=("runs", "attach"),
    functions=("train", "evaluate"),
    runs=("study", "20261127-1"),
    values=("my_space",),
)


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("%%oblivious -f tr", ["train"]),
        ("%%oblivious --function ", ["train", "evaluate"]),
        ("%%oblivious -w 2 --params ", ["best", "study", "20261127-1"]),
        ("%%oblivious --resume s", ["study"]),
        ("%%oblivious --space m", ["my_space"]),
        ("%oblivious ", ["runs", "attach"]),
        ("%oblivious attach 2", ["20261127-1"]),
        ("%oblivious runs ", []),
        ("%%oblivious ", []),
    ],
)
def test_what_there_is_to_be_named_is_offered(line: str, offered: list[str]) -> None:
    """Functions, runs, dicts, and what a line can do."""
    assert completions(line, THERE) == offered


@pytest.mark.parametrize(
    ("error", "example"),
    [
        ("unrecognized arguments: --workrs", "--workers 2"),
        ("unrecognized arguments: --trails=3", "--trials 30"),
        ("unrecognized arguments: --xyz", ""),
        ("argument -w/--workers: expected one argument", ""),
    ],
)
def test_an_option_that_is_almost_one_is_guessed(error: str, example: str) -> None:
    """With its example; nothing is guessed where nothing is like it."""
    assert meant(error) == example


def test_help_tells_all_that_is_known_of_an_option() -> None:
    """By its name or its flag; without one, of all options in groups."""
    assert help_on(["verify"]) == help_on(["--verify"])
    assert "without it: auto" in help_on(["verify"])
    assert "prove themselves at their calls" in help_on(["verify"])
    whole = help_on([])
    assert [line for line in whole.splitlines() if line.endswith(":")][:3] == [
        "The world:", "What it begins with:", "The promise:",
    ]  # fmt: skip
    with pytest.raises(
        UsageProblem,
        match=r"^got %oblivious help wokers; expected an option of %%oblivious; do: %oblivious help --workers$",
    ):
        help_on(["wokers"])


def test_every_option_ends_its_help_with_an_example_of_itself() -> None:
    """As people read it in %%oblivious?."""
    for option in OPTIONS:
        example = option.help.rpartition(": ")[2]
        assert example.startswith((option.flag, f"--no-{option.flag[2:]}")), option


def test_the_page_of_options_is_that_of_the_table() -> None:
    """Make options writes it."""
    assert (PACKAGE.parent / "docs" / "options.md").read_text() == as_markdown()


def test_the_stub_that_editors_read_is_that_of_the_table() -> None:
    """Make options writes it."""
    assert (PACKAGE / "__init__.pyi").read_text() == stub()


def test_an_option_that_a_call_does_not_have_is_a_type_error_that_says_what_was_meant() -> None:
    """As for any function."""
    with pytest.raises(
        TypeError, match=r"run\(\) got an unexpected keyword argument 'worker'; did you mean workers\?"
    ):
        obl_magic.run(len, worker=2)
    with pytest.raises(TypeError, match=r"search\(\) got an unexpected keyword argument 'retries'"):
        StudyOptions.of("search", {"retries": 1})


def test_what_is_recorded_of_the_options_is_plain_and_whole() -> None:
    """As JSON gives it back; what is a value of the notebook is left to the lineage."""
    options = RunOptions.of("run", {"workers": 3, "show_ranks": "all", "params": {"lr": object()}, "seed": 5})
    record = options.seeded_by(7).record
    assert json.loads(json.dumps(record)) == record
    assert set(record) == {option.name for option in keywords("run")} - {"params"} | {"seeded"}
    assert (record["show_ranks"], record["seed"], record["seeded"]) == ([0, 1, 2], 5, True)


@pytest.mark.parametrize(("asked", "notebook", "base"), [(None, None, 0), (None, 7, 7), (5, 7, 5), (0, 7, 0)])
def test_the_base_seed_is_the_one_asked_for_else_the_notebooks(
    asked: int | None, notebook: int | None, base: int
) -> None:
    """Else 0."""
    options = RunOptions.of("run", {"seed": asked}).seeded_by(notebook)
    assert (options.base_seed, options.seeded) == (base, asked is not None)


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
