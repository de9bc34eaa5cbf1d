"""The notebooks take one function, byte for byte, through every phase, in a real kernel on real ranks."""

from __future__ import annotations

import ast
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from obl_magic import rundir
from obl_magic.runs.run import Run
from obl_magic.study.ablation_result import AblationResult
from obl_magic.study.find import open_results
from obl_magic.study.search_result import Study

pytestmark = pytest.mark.timing

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
PHASES = ("02_search", "03_ablation", "04_chain")


@dataclass(frozen=True, slots=True)
class Executed:
    """A notebook that ran to its end.

    Attributes:
        cells: with their outputs. printed: to standard output. refused: to standard error, by the magic.
    """

    cells: list[Any]
    printed: str
    refused: list[str]

    def shown(self, beginning: str, mime: str = "text/plain") -> str:
        """What the one cell that begins so has shown."""
        (cell,) = (cell for cell in self.cells if cell.source.startswith(beginning))
        return "".join(output.data.get(mime, "") for output in cell.outputs if "data" in output)


def executed(name: str, home: Path) -> Executed:
    """Executes a notebook beside ``home``'s runs; a cell that fails without having announced it is raised."""
    notebook = nbformat.read(shutil.copy(NOTEBOOKS / f"{name}.ipynb", home), as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(home)}}).execute()
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    streams = [output for cell in cells for output in cell.outputs if output.output_type == "stream"]
    printed = "".join(output.text for output in streams if output.name == "stdout")
    errors = "".join(output.text for output in streams if output.name == "stderr")
    return Executed(cells, printed, re.findall(r"^UsageError: (.*)$", errors, re.M))


def alone() -> list[Run]:
    """The runs that belong to no study, oldest first."""
    return [Run.open(folder) for folder in rundir.existing()]


def digests(*phases: Any) -> set[str]:
    """Of the functions that really ran, trial by trial."""
    runs = [run for phase in phases for run in (phase, *getattr(phase, "runs", ()))]
    return {run.digest for run in runs}


def search_of(name: str) -> Study:
    """The search of that name."""
    found = open_results(name)
    assert isinstance(found, Study)
    return found


def ablation_of(name: str) -> AblationResult:
    """The ablation of that name."""
    found = open_results(name)
    assert isinstance(found, AblationResult)
    return found


def definitions(name: str) -> dict[str, str]:
    """Source of each function that a notebook defines."""
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    found = {}
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        text = re.sub(r"^%.*$", "", cell.source, flags=re.M)
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef):
                found[node.name] = ast.get_source_segment(text, node) or ""
    return found


def test_one_function_goes_through_all_phases() -> None:
    """The training function and what it gets by name are the same text in each notebook, and name no rank."""
    texts = [
        {each: definitions(name)[each] for each in ("train", "dataset_fn", "model_fn")} for name in PHASES
    ]
    assert texts[0] == texts[1] == texts[2]
    assert not re.search(r"rank|worker|hvd|horovod|\bmpi|trial|ablat", " ".join(texts[0].values()), re.I)


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_are_kept_with_what_they_show(path: Path) -> None:
    """A page that only shows notebooks shows panels: cells executed in order, no start-up noise, few bytes."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), "make notebooks"
    panels = [output for cell in code for output in cell.outputs if "text/html" in output.get("data", {})]
    assert any("obl" in cell.source for cell in code)
    assert panels
    text = path.read_text()
    assert not re.search(r"oneDNN|cpu_feature_guard|/tmp/|/root/|/home/", text)
    assert len(text) < 400_000


@pytest.mark.slow
@pytest.mark.slow
def test_the_notebook_of_one_to_four_ranks_gives_the_same_numbers(home: Path) -> None:
    """Three ranks share 64 rows unevenly; the report proves the first steps."""
    notebook = executed("06_unchanged", home)
    assert "same function: True" in notebook.printed
    assert "the same numbers" in notebook.shown("%oblivious -f train --arg epochs=2")
    assert {run.workers for run in alone()} == {None, 1, 2, 3, 4}


@pytest.mark.slow
@pytest.mark.slow
def test_the_notebook_of_failures_shows_a_sentence_for_each(home: Path) -> None:
    """Two are refused before anything is started; three fail on ranks; one goes on by itself."""
    notebook = executed("07_failures", home)
    assert any("do: %%oblivious --workers" in said for said in notebook.refused)
    assert any("guarded -> lock" in said for said in notebook.refused)
    assert [run.status for run in alone()] == ["failed", "failed", "stalled", "succeeded"]
    assert "succeeded after 6 epochs" in notebook.printed


@pytest.mark.slow
@pytest.mark.slow
def test_the_search_notebook_finds_a_best_trial_and_goes_on(home: Path) -> None:
    """Ten trials, then two more of the same search; Optuna holds the same best; a bad space is one line."""
    notebook = executed("02_search", home)
    study, (once,) = search_of("study"), alone()
    trials = study.trials
    assert list(trials.number) == list(range(12))
    assert set(trials.status) == {"succeeded"}
    assert study.best.value == trials.value.min() == study.optuna.best_value
    assert {"lr", "units", "dropout"} == set(study.best.params)
    assert digests(study, once) == {once.digest}
    assert f"one training function in 13 runs: {once.digest}" in notebook.printed
    assert re.search(
        r"10/10 trials.*best: trial \d",
        notebook.shown('%%oblivious --function train --search "lr=log(1e'),
        re.S,
    )
    resumed = "%%oblivious --function train --resume"
    assert "12/12 trials" in notebook.shown(resumed)
    assert "importance of parameters" in notebook.shown(resumed)
    assert 'aria-label="val_loss of 12 trials by number' in notebook.shown(resumed, "text/html")
    assert notebook.refused == [
        "got a logarithmic range from 0 at column 8; expected low > 0; do: write lr=log(1e-4,1e-1)"
    ]


@pytest.mark.slow
@pytest.mark.slow
def test_the_ablation_notebook_ranks_twelve_components(home: Path) -> None:
    """The base and twelve components, three runs each; the layer that all hangs on is the most harmful to lose."""
    notebook = executed("03_ablation", home)
    result, (once,) = ablation_of("result"), alone()
    table = result.table
    assert len(table) == 13
    assert set(table.status) == {"succeeded"}
    assert set(table.repeats) == {3}
    assert list(table.component[:2]) == ["base", "standardise"]
    assert list(table.delta[1:]) == sorted(table.delta[1:], reverse=True)
    assert table.delta[1] > 0
    by_kind = {kind: set(rows.inputs) for kind, rows in table.groupby("kind")}
    assert by_kind == {"": {30}, "feature": {29}, "group": {20}, "layer": {30}, "model": {30}, "flag": {30}}
    proof = table.set_index("component")
    assert proof.layers[["base", "standardise", "hidden_2", "dropout", "logistic_model"]].tolist() == [
        5,
        4,
        4,
        4,
        2,
    ]
    assert "['hidden_1', 'hidden_2', 'dropout', 'verdict']" in notebook.shown("without = result.run_of")
    assert digests(result, once) == {once.digest}
    assert f"one training function in 40 runs: {once.digest}" in notebook.printed
    shown = "%%oblivious --function train --study components"
    assert "39/39 trials" in notebook.shown(shown)
    (chart,) = re.findall(
        r'aria-label="Change of val_loss without each component: ([^"]*)"', notebook.shown(shown, "text/html")
    )
    assert chart.count(" ± ") == 12
    assert notebook.refused == [
        "got layers=hidden_3; expected one of standardise, hidden_1, hidden_2, dropout, verdict; do: layers=hidden_2"
    ]


@pytest.mark.slow
@pytest.mark.slow
def test_the_chain_notebook_hands_on_parameters_and_weights(home: Path) -> None:
    """Explored, searched, trained on two ranks from the best trial, ablated: each run knows where it came from."""
    notebook = executed("04_chain", home)
    study, result = search_of("study"), ablation_of("result")
    explored, final, scratch = alone()
    assert digests(explored, study, final, scratch, result) == {explored.digest}
    assert notebook.printed.count(explored.digest) == 4
    assert set(study.trials.status) == set(result.table.status) == {"succeeded"}
    best = {"study": study.id, "trial": study.best.number, "run": study.best.run.id}
    assert [each.record.lineage for each in (explored, study, final, scratch, result)] == [
        {}, {}, {"params": best, "weights": best}, {"params": best}, {"params": best},
    ]  # fmt: skip
    assert (explored.workers, final.workers, scratch.workers) == (None, 2, None)
    given = {name: repr(value) for name, value in study.best.params.items()}
    for run in (final, scratch):
        assert run.record.arguments == given | {"epochs": "12"}
    assert f"began from the weights of {best['run']}" in notebook.shown(
        "%%oblivious --function train --params study --init-from"
    )
    begun = [run.metrics.query("name == 'val_loss'").value.iloc[0] for run in (final, scratch)]
    assert begun[0] < begun[1]
    assert result.table.component[1] == "standardise"
    assert f"params + weights: {study.best.run.id}" in notebook.shown("%oblivious runs")
