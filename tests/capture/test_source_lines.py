"""Wherever a rank fails or hangs the user is told ``In [n], line k`` and the text of that line: in a real kernel."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel import Cell, Kernel

pytestmark = [pytest.mark.slow, pytest.mark.timing]

TWO = "--workers 2 --engine mpi"
STALLING = f"{TWO} --stall-timeout 3"

RAISES = "raise KeyError('no such column')"
HANGS = "while True: tick = time.monotonic()"

BEHIND = {
    "function": "def work(rank):\n    if rank == 1:\n        {line}\n",
    "method": "class Work:\n    def __call__(self, rank):\n        if rank == 1:\n            {line}\nwork = Work()\n",
    "nested": "def make():\n    def inner(rank):\n        if rank == 1:\n            {line}\n    return inner\n"
    "work = make()\n",
    "property": "class Work:\n    def __init__(self, rank): self.rank = rank\n    @property\n    def done(self):\n"
    "        if self.rank == 1:\n            {line}\ndef work(rank): return Work(rank).done\n",
    "generator": "def rows(rank):\n    yield 0\n    if rank == 1:\n        {line}\n    yield 1\n"
    "def work(rank): return list(rows(rank))\n",
    "wrapped": "import functools\ndef again(f):\n    @functools.wraps(f)\n    def call(*args): return f(*args)\n"
    "    return call\n"
    "@again\ndef work(rank):\n    if rank == 1:\n        {line}\n",
}
"""Where a line of the user's may stand; each defines ``work(rank)``."""

TRAIN = """
def train():
    work(int(os.environ["OMPI_COMM_WORLD_RANK"]))
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """One kernel for the tests of this file, with the magics loaded."""
    folder = tmp_path_factory.mktemp("notebook")
    with Kernel(folder, {"OBLIVIOUS_HOME": str(folder)}) as kernel:
        assert kernel.run("%load_ext obl_magic\nimport os, sys, time").ename == ""
        yield kernel


def line_of(code: str, text: str) -> int:
    """The number, from 1 on, of the only line with this text in it."""
    (number,) = (number for number, line in enumerate(code.splitlines(), 1) if text in line)
    return number


def here(kernel: Kernel, options: str, kind: str, text: str) -> tuple[Cell, int, str, int]:
    """A cell whose helper runs a line: what came of it, and (number of the line's cell, the cell's code, its line)."""
    code = f"%%oblivious {options}\n" + BEHIND[kind].format(line=text) + TRAIN
    cell = kernel.run(code)
    return cell, cell.number, code, line_of(code, text)


def there(kernel: Kernel, options: str, kind: str, text: str) -> tuple[Cell, int, str, int]:
    """As :func:`here`, with the helper in a cell of its own."""
    code = "# a helper\n\n" + BEHIND[kind].format(line=text)
    helper = kernel.run(code)
    return kernel.run(f"%%oblivious {options}\n{TRAIN}"), helper.number, code, line_of(code, text)


KINDS = pytest.mark.parametrize(
    ("place", "kind"), [*((here, kind) for kind in BEHIND), (there, "function"), (there, "method")]
)


@KINDS
def test_an_exception_is_told_with_its_cells_line_and_text(kernel: Kernel, place: object, kind: str) -> None:
    """In the magic's cell and in another one, whatever holds the line."""
    cell, number, _, line = place(kernel, TWO, kind, RAISES)  # type: ignore[operator]
    assert (cell.ename, cell.evalue) == ("KeyError", "'no such column'")
    assert cell.traceback.startswith(f"rank 1 raised at In [{number}], line {line}:\n")
    assert f"  In [{number}], line {line}, in " in cell.traceback
    assert f"\n    {RAISES}\n" in cell.traceback
    train = f"  In [{cell.number}], line "
    assert f"{train}{cell.traceback.split(train)[1].split(',')[0]}, in train\n    work(int(" in cell.traceback
    assert "dynamic-code" not in cell.traceback


@KINDS
def test_a_stall_is_told_with_its_cells_line_and_text(kernel: Kernel, place: object, kind: str) -> None:
    """The line that the rank hangs at, although it is C code or a library that hangs there."""
    cell, number, _, line = place(kernel, STALLING, kind, HANGS)  # type: ignore[operator]
    assert cell.ename == "RunStalled", cell.traceback
    assert f"rank 1: busy at In [{number}], line {line}; rank 0: returned" in cell.traceback
    assert f"\n  In [{number}], line {line}: {HANGS}" in cell.traceback


def test_what_a_rank_returns_raises_at_its_cells_line(kernel: Kernel) -> None:
    """A function that came back from a rank stands in the notebook where it stood before."""
    body = f"def train():\n    def later():\n        {RAISES}\n    return later"
    number = kernel.run(f"%%oblivious --workers 1 --engine mpi --out back\n{body}").number
    cell = kernel.run("back.value()")
    assert cell.ename == "KeyError"
    assert f"Cell In[{number}], line 4, in train.<locals>.later()" in cell.traceback
    assert re.search(rf"----> 4 +{re.escape(RAISES)}", cell.traceback)


SCRIPT = """
import os
import time

import obl_magic


def work(rank):
    if rank == 1:
        {line}


def train():
    work(int(os.environ["OMPI_COMM_WORLD_RANK"]))


if __name__ == "__main__":
    obl_magic.run(train, workers=2, engine="mpi", quiet=True, stall_timeout=3)
"""


def from_a_shell(folder: Path, kernel: Kernel) -> str:
    """Runs the script as a program; what it says on its way out."""
    environ = {**os.environ, "OBLIVIOUS_HOME": str(folder)}
    done = subprocess.run(
        [sys.executable, "plain.py"], cwd=folder, env=environ, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    return done.stderr


def imported(folder: Path, kernel: Kernel) -> str:
    """Imports the script as a module of a notebook and runs its function; what the cell shows."""
    call = "obl_magic.run(plain.train, workers=2, engine='mpi', quiet=True, stall_timeout=3)"
    code = f"sys.path.insert(0, {str(folder)!r})\nsys.modules.pop('plain', None)\nimport obl_magic, plain\n{call}"
    return kernel.run(code).traceback


def by_run(folder: Path, kernel: Kernel) -> str:
    """Runs the script by IPython's own magic; what the cell shows."""
    return kernel.run(f"%run {folder}/plain.py").traceback


@pytest.mark.parametrize("way", [from_a_shell, imported, by_run])
@pytest.mark.parametrize("text", [RAISES, HANGS])
def test_a_plain_scripts_line_is_told_with_its_text(
    tmp_path: Path, kernel: Kernel, way: object, text: str
) -> None:
    """A function that no cell holds is found in its file."""
    code = SCRIPT.format(line=text)
    (tmp_path / "plain.py").write_text(code)
    said = way(tmp_path, kernel)  # type: ignore[operator]
    line = line_of(code, text)
    if text == RAISES:
        assert f"plain.py, line {line}, in work\n    {RAISES}\n" in said
        assert "in train\n    work(int(os.environ" in said
    else:
        assert f"rank 1: busy at plain.py, line {line}; rank 0: returned" in said
        assert f"\n  plain.py, line {line}: {HANGS}" in said
