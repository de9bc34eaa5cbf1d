"""Executes a notebook in a real kernel and prints its tables as text. Never writes to the source.

Usage: execute.py SOURCE.ipynb TARGET.ipynb

Printed are the results of the cells tagged ``table``; where no cell has that tag, the notebook's last one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

TIMEOUT_S = 900


def main(source: Path, target: Path) -> int:
    """Executes ``source``, writes it with its outputs to ``target``; 0 when every cell worked."""
    if source.resolve() == target.resolve():
        print(f"execute.py: {target} is the source itself; name another place", file=sys.stderr)
        return 2
    notebook = nbformat.read(source, as_version=4)
    client = NotebookClient(notebook, timeout=TIMEOUT_S, resources={"metadata": {"path": str(source.parent)}})
    started = time.monotonic()
    failure = ""
    try:
        client.execute()
    except CellExecutionError as error:
        failure = str(error)
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, target)
    for text in tables(notebook):
        print(text.rstrip(), end="\n\n")
    if failure:
        print(failure, file=sys.stderr)
        return 1
    print(f"executed {source} in {time.monotonic() - started:.0f} s; with its outputs: {target}")
    return 0


def tables(notebook: nbformat.NotebookNode) -> Iterator[str]:
    """The texts of the tagged cells' results, else the notebook's last one."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    tagged = [cell for cell in code if "table" in cell.metadata.get("tags", [])]
    if tagged:
        for cell in tagged:
            yield from texts(cell)
        return
    everything = [text for cell in code for text in texts(cell)]
    yield from everything[-1:]


def texts(cell: nbformat.NotebookNode) -> Iterator[str]:
    """The plain text of each result that the cell showed."""
    for output in cell.outputs:
        if output.output_type in ("execute_result", "display_data") and "text/plain" in output.data:
            yield output.data["text/plain"]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: execute.py SOURCE.ipynb TARGET.ipynb")
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
