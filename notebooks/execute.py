"""Executes a notebook in a real kernel and prints its tables as text. Never writes to the source.

Usage: execute.py SOURCE.ipynb TARGET.ipynb

Printed are the results of the cells tagged ``table``; where no cell has that tag, the notebook's last one.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

TIMEOUT_S = 900
NOISE = re.compile(
    r"^(?:WARNING: All log messages before absl|[IWE]\d{4} |To enable the following instructions).*\n?", re.M
)


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
    without_noise(notebook)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(without_places(nbformat.writes(notebook), source) + "\n")
    for text in tables(notebook):
        print(text.rstrip(), end="\n\n")
    if failure:
        print(failure, file=sys.stderr)
        return 1
    print(f"executed {source} in {time.monotonic() - started:.0f} s; with its outputs: {target}")
    return 0


def without_noise(notebook: nbformat.NotebookNode) -> None:
    """Takes out what TensorFlow's C++ code says when it starts."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if output.output_type == "stream" and output.name == "stderr":
                output.text = NOISE.sub("", output.text)
        if "outputs" in cell:
            silent = [output for output in cell.outputs if not output.get("text", "silent").strip()]
            cell.outputs = [output for output in cell.outputs if output not in silent]


def without_places(text: str, source: Path) -> str:
    """A notebook without the folders of this machine."""
    for folder in (source.parent.resolve(), Path(sys.prefix), Path(__file__).resolve().parents[1]):
        text = text.replace(f"{folder}/", "")
    return text


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
