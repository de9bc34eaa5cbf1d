"""README's example lines do what they say: typed as printed, in order, in a real kernel on real ranks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from kernel import Kernel

README = Path(__file__).parents[1] / "README.md"
CELLS = re.findall(r"^```python\n(.*?)^```$", README.read_text(), re.S | re.M)


@pytest.mark.slow
@pytest.mark.timing
def test_the_examples_run_in_order_as_printed(tmp_path: Path) -> None:
    """A run, a search, the final training from its best trial, an ablation."""
    with Kernel(tmp_path, {"OBLIVIOUS_HOME": str(tmp_path)}) as kernel:
        for cell in CELLS:
            done = kernel.run(cell, deadline_s=400)
            assert done.ename == "", done.traceback
            assert "UsageError" not in done.text
        assert len(CELLS) == 3
        assert kernel.value("two.value.name, two.status, two.workers") == "('sequential', 'succeeded', 2)"
        assert float(kernel.value("float(two.metrics.query('name == \"val_accuracy\"').value.max())")) > 0.9
        assert kernel.value("len(study.trials), final.status") == "(10, 'succeeded')"
        assert kernel.value("final.digest == two.digest == study.digest == parts.digest") == "True"
        assert kernel.value("sorted(parts.table.component)") == "['base', 'dropout', 'second']"
        assert kernel.value("set(parts.table.repeats)") == "{3}"
