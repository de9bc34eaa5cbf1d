"""A rank's exception as text: the user's lines with the cell's labels, ours left out."""

from __future__ import annotations

import linecache
from pathlib import Path
from typing import Any

import pytest

from obl_magic.values import CellSource
from obl_magic.worker import execute
from obl_magic.worker.tracebacks import describe, one_line, remember

CELL = CellSource(
    "/tmp/ipykernel_1/123.py",
    "In [7]",
    "def helper(x):\n    return 1 / x\n\ndef train():\n    return helper(0)\n",
)


def raised(cell: CellSource = CELL) -> BaseException:
    """What the cell's function raises, called as a rank calls it."""
    namespace: dict[str, object] = {}
    exec(compile(cell.text, cell.filename, "exec"), namespace)
    try:
        namespace["train"]()  # type: ignore[operator]
    except Exception as error:
        return error
    raise AssertionError("it did not raise")


def test_the_cells_own_lines_are_shown_under_its_own_name() -> None:
    """Not under a file name of another process, and with the source."""
    remember([CELL])
    text, where = describe(raised(), [CELL])
    assert "In [7], line 5, in train\n    return helper(0)" in text
    assert "In [7], line 2, in helper\n    return 1 / x" in text
    assert CELL.filename not in text
    assert text.endswith("ZeroDivisionError: division by zero\n")
    assert where == "In [7], line 2"


def test_the_source_survives_a_check_of_the_cache() -> None:
    """Whoever formats another traceback in between asks linecache to look at the disk."""
    remember([CELL])
    linecache.checkcache()
    assert linecache.getline(CELL.filename, 2) == "    return 1 / x\n"


def test_where_is_the_users_deepest_line_not_a_librarys() -> None:
    """The error may have been raised far below it."""
    cell = CellSource("/tmp/cell9", "In [9]", "import json\ndef train():\n    json.loads('{')\n")
    remember([cell])
    text, where = describe(raised(cell), [cell])
    assert where == "In [9], line 3"
    assert "json/decoder.py" in text


def test_frames_of_ours_before_the_users_are_left_out() -> None:
    """Nobody needs to know how the function was called."""
    ours = str(Path(execute.__file__).with_name("caller.py"))
    namespace: dict[str, Any] = {}
    exec(compile("def call(function):\n    function()\n", ours, "exec"), namespace)
    exec(compile(CELL.text, CELL.filename, "exec"), namespace)
    remember([CELL])
    with pytest.raises(ZeroDivisionError) as caught:
        namespace["call"](namespace["train"])
    error = caught.value.with_traceback(caught.tb.tb_next)
    text, _ = describe(error, [CELL])
    assert "caller.py" not in text
    assert text.startswith("Traceback (most recent call last):\n  In [7], line 5, in train\n")


def test_a_cause_is_told_with_its_effect() -> None:
    """``raise … from …`` keeps both, each with the cell's name."""
    body = "try:\n        1 / 0\n    except ZeroDivisionError as error:\n        raise ValueError('x') from error"
    cell = CellSource("/tmp/cell3", "In [3]", f"def train():\n    {body}\n")
    remember([cell])
    told, where = describe(raised(cell), [cell])
    assert told.index("In [3], line 3") < told.index("direct cause") < told.index("In [3], line 5")
    assert where == "In [3], line 5"


class Unspeakable(Exception):
    """Its text cannot be had."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("a\n  b"), "ValueError: a b"),
        (ValueError(), "ValueError"),
        (KeyError("x"), "KeyError: 'x'"),
        (SystemExit(3), "SystemExit: 3"),
        (Unspeakable(), "Unspeakable: <exception str() failed>"),
    ],
)
def test_an_error_is_told_on_one_line(error: BaseException, line: str) -> None:
    """Whatever its text, even none, even one that raises."""
    assert one_line(error) == line


def test_frames_of_ours_between_the_users_and_a_librarys_are_left_out() -> None:
    """Of the error, of its cause and of a group."""
    ours = str(Path(execute.__file__).with_name("in_between.py"))
    scope: dict[str, Any] = {}
    exec(compile("def between(call):\n    return call()", ours, "exec"), scope)

    def fails() -> None:
        raise ValueError("boom")

    def effect() -> None:
        try:
            scope["between"](fails)
        except ValueError as error:
            raise ExceptionGroup("several", [RuntimeError("so")]) from error

    with pytest.raises(ExceptionGroup) as caught:
        scope["between"](effect)
    text, _ = describe(caught.value, ())
    assert "in_between.py" not in text
    assert "in fails" in text
    assert "in effect" in text
