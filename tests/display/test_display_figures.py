"""Charts as matplotlib figures: what is on them, and that nobody else holds them."""

from __future__ import annotations

import io
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from rows import metric_rows

import obl_magic
from obl_magic.display.charts.figures import ablation_figure, run_figure, search_figure
from obl_magic.display.study.view import ComponentRow, StudyState, TrialRow
from obl_magic.errors import SetupProblem
from obl_magic.events.event import Metric
from obl_magic.rundir.record import StudyRecord

SEARCH = StudyRecord(
    "s-1", "train", "01", 2, "mpi", kind="search", quantity="val_accuracy", direction="maximize", wanted=3
)


def drawn(figure: object) -> bytes:
    """A picture of it."""
    file = io.BytesIO()
    figure.savefig(file, format="png")  # type: ignore[attr-defined]
    return file.getvalue()


def test_a_run_has_a_chart_for_each_metric_with_its_validation() -> None:
    """The best point is ringed."""
    rows = [
        row
        for epoch in (1, 2, 3)
        for row in metric_rows(
            Metric(0, 1.0, {"loss": 1 / epoch, "val_loss": 2 - 1 / epoch, "lr": 0.1}, epoch, epoch)
        )
    ]
    figure = run_figure("train", rows)
    (loss,) = figure.axes
    assert loss.get_title() == "loss"
    assert list(loss.get_lines()[0].get_ydata()) == [1.0, 0.5, 1 / 3]
    assert [text.get_text() for text in loss.get_legend().get_texts()] == ["train", "val"]
    assert len(loss.get_lines()) == 4
    assert drawn(figure)[:4] == b"\x89PNG"


def test_a_search_shows_its_trials_and_the_best_so_far() -> None:
    """And what parameters mattered, where that is known."""
    rows = (
        TrialRow(0, "succeeded", 0.5), TrialRow(1, "failed"), TrialRow(2, "succeeded", 0.9), TrialRow(3, "pruned", 0.1),
    )  # fmt: skip
    (trials,) = search_figure(SEARCH, StudyState(rows=rows)).axes
    assert trials.get_title() == "best: trial 2"
    assert [list(line.get_ydata()) for line in trials.get_lines()] == [[0.5, 0.9], [0.1], [0.5, 0.9, 0.9]]
    _, weighed = search_figure(SEARCH, StudyState(rows=rows, importances={"lr": 0.8, "units": 0.2})).axes
    assert [bar.get_width() for bar in weighed.patches] == [0.2, 0.8]
    assert drawn(search_figure(SEARCH, StudyState()))


def test_an_ablation_shows_what_each_part_is_worth_and_how_sure_that_is() -> None:
    """What may be chance is pale."""
    components = (
        ComponentRow("base", "", 0.9, 0.0, 0.01, 3, "succeeded"),
        ComponentRow("conv", "layer", 0.7, -0.2, 0.01, 3, "succeeded", False, interval=0.05),
        ComponentRow("age", "feature", 0.9, 0.001, 0.01, 3, "succeeded", True, interval=0.02),
        ComponentRow("broken", "layer", None, None, status="failed"),
    )
    figure = ablation_figure(replace(SEARCH, kind="ablation"), StudyState(components=components))
    bars = figure.axes[0].patches
    assert sorted((bar.get_width(), bar.get_alpha()) for bar in bars) == [(-0.2, 1.0), (0.001, 0.35)]
    assert drawn(figure)


def test_figures_come_from_what_users_hold(home: Path) -> None:
    """No window, no state of pyplot's."""

    def train(lr: float = 0.1) -> float:
        for step in range(3):
            obl_magic.report(step=step, loss=lr / (step + 1))
        return lr

    run = obl_magic.run(train, quiet=True)
    assert run.plot().axes[0].get_title() == "loss"
    study = obl_magic.search(train, "lr=float(0.1,1)", trials=3, minimize="value", quiet=True)
    assert study.plot().axes[0].get_ylabel() == "value"
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_without_matplotlib_the_command_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is drawn."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(
        SetupProblem, match=r"matplotlib, which is missing; do: python -m pip install matplotlib"
    ):
        run_figure("train", [])
