"""The quickstart notebook does what the README says, in a real kernel on real ranks."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.timing

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "01_quickstart.ipynb"


@pytest.mark.slow
def test_the_quickstart_trains_on_two_ranks_what_it_trains_in_the_kernel(home: Path) -> None:
    """At least 0.95 validation accuracy, and the same loss curve from the same function, byte for byte."""
    copy = shutil.copy(NOTEBOOK, home)
    notebook = nbformat.read(copy, as_version=4)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(home)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    (accuracy,) = re.findall(r"validation accuracy in this notebook: ([\d.]+)", printed)
    ((same, difference),) = re.findall(
        r"same function: (\w+); largest relative difference of the loss: ([\de.+-]+)", printed
    )
    assert float(accuracy) >= 0.95
    assert same == "True"
    assert float(difference) < 1e-4
    assert printed.count("trained on 1437 digits") == 2
    stills = [output.data["text/plain"] for output in outputs if output.output_type == "display_data"]
    assert [still.split(" in ")[0] for still in stills] == ["✓ train succeeded"] * 2
