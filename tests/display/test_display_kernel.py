"""The panel in a real kernel: one output, updated in place, and saved."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from obl_magic.display import notebook as notebook_display

pytestmark = pytest.mark.timing

CELL = """
from obl_magic.display.notebook import NotebookDisplay, in_notebook
from obl_magic.events.event import Ended, Metric, Progress, Started
from obl_magic.events.fold import MetricRow, empty, fold
from obl_magic.rundir.record import RunRecord

assert in_notebook()
display = NotebookDisplay()
display.begin(RunRecord("run-1", "train", "0123456789abcdef", 2, "mpi", "", "global", 2, 100.0))
state, rows = fold(empty(), Started(0, 100.5, 1, "host", "01", "mpi", 0, 1)), []
for epoch in (1, 2, 3):
    metric = Metric(0, 100.0 + epoch, {"loss": 1 / epoch}, epoch, epoch)
    rows += [MetricRow(100.0 + epoch, 0, epoch, epoch, "loss", 1 / epoch)]
    state = fold(fold(state, Progress(0, 100.0 + epoch, epoch, 3, 1, 1, None, {}, epoch)), metric)
    display.text(0, "stdout", f"epoch {epoch}\\n", False)
    display.update(state, rows, 100.0 + epoch)
state = fold(state, Ended(-1, 183.0, "succeeded", ""))
display.end(state, rows, 183.0)
"""


@pytest.mark.slow
def test_in_a_real_kernel_the_panel_is_one_output_and_the_still_is_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prints stay beside the panel; what the notebook keeps is the still, in both its forms."""
    monkeypatch.setenv("PYTHONPATH", str(Path(notebook_display.__file__).parents[2]))
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = notebook.cells[0].outputs
    (panel,) = [output for output in outputs if output.output_type == "display_data"]
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    assert printed == "epoch 1\nepoch 2\nepoch 3\n"
    assert "✓ succeeded in" in panel.data["text/html"]
    assert "<svg" in panel.data["text/html"]
    assert panel.data["text/plain"].startswith("✓ train succeeded in 1:23")
    nbformat.validate(nbformat.reads(nbformat.writes(notebook), as_version=4))
