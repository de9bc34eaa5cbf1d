"""The notebook of several hosts, executed on one of two; ``python test_notebook_of_hosts.py`` keeps its outputs."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from simulated import TREE, Hosts

pytestmark = [pytest.mark.slow, pytest.mark.timing]

NOTEBOOK = TREE / "notebooks" / "05_hosts.ipynb"


def _executed(hosts: Hosts) -> Path:
    """The notebook with its outputs."""
    shutil.copy(NOTEBOOK, hosts.shared / NOTEBOOK.name)
    done = hosts.shared / "done" / NOTEBOOK.name
    execute = f"import runpy, sys; sys.path.insert(0, {str(NOTEBOOK.parent)!r}); sys.argv[0] = 'execute.py'"
    program = f"{execute}; runpy.run_path({str(NOTEBOOK.parent / 'execute.py')!r}, run_name='__main__')"
    said = hosts.python("a", program, str(hosts.shared / NOTEBOOK.name), str(done), within_s=170)
    assert done.is_file(), said
    assert "executed" in said, said
    return done


def test_the_notebook_of_hosts_gives_the_same_numbers_on_two(hosts: Hosts) -> None:
    """Its own cell asserts it; the panel says where the ranks are, and the refusal names the host."""
    notebook = nbformat.read(_executed(hosts), as_version=4)
    text = str([cell.get("outputs") for cell in notebook.cells])
    assert "2 ranks on 2 hosts: a 1, b 1" in text
    assert "largest difference between the weights" in text
    assert "nowhere cannot be reached: ssh says" in text
    hosts.shell("a", "rm -rf ~/.ipython ~/.local ~/.cache ~/.keras")


if __name__ == "__main__":
    up = Hosts(("a", "b"))
    try:
        shutil.copy(_executed(up), NOTEBOOK)
    finally:
        up.down()
    sys.exit(0)
