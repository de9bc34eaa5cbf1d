"""Searches and ablations by magic, in a real kernel."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from kernel import Cell, Kernel

pytestmark = [pytest.mark.slow, pytest.mark.timing]

TRAIN = """
from obl_magic import report
def train(x=0.0, on=True):
    report(loss=x)
    return {"loss": x if on else x + 1}
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """One kernel, with the magics loaded."""
    folder = tmp_path_factory.mktemp("notebook")
    with Kernel(folder, {"OBLIVIOUS_HOME": str(folder)}) as kernel:
        assert kernel.run("%load_ext obl_magic").ename == ""
        yield kernel


def magic(kernel: Kernel, options: str, body: str = TRAIN) -> Cell:
    """A cell with the magic, which raised nothing."""
    cell = kernel.run(f"%%oblivious {options}\n{body}")
    assert cell.ename == "", cell.traceback
    assert "UsageError" not in cell.text, cell.text
    return cell


def refused(kernel: Kernel, options: str, body: str = TRAIN) -> str:
    """The one line a cell is refused with; no study was begun."""
    before = kernel.value("len(list(__import__('pathlib').Path('studies').glob('*')))")
    cell = kernel.run(f"%%oblivious {options}\n{body}")
    assert (cell.displays, cell.traceback, cell.stream("stdout")) == ([], "", "")
    line = cell.stream("stderr")
    assert line.startswith("UsageError: ")
    assert line.count("\n") == 1
    assert kernel.value("len(list(__import__('pathlib').Path('studies').glob('*')))") == before
    return line.removeprefix("UsageError: ").rstrip("\n")


def test_a_search_shows_one_panel_and_is_bound_to_its_name(kernel: Kernel) -> None:
    """In worlds of its own; the cell's value is the study, which is not shown a second time."""
    cell = magic(
        kernel,
        '--search "x=float(0,1)" --trials 5 --minimize loss --workers 2 --engine mpi --out study --seed 3',
    )
    assert len(cell.displays) == 1
    panel = cell.displays[0]
    assert set(panel) >= {"text/html", "text/plain"}
    assert "loss" in panel["text/html"]
    assert (
        kernel.value("(type(study).__name__, len(study.trials), study.status)") == "('Study', 5, 'succeeded')"
    )
    assert kernel.value("study is _") == "True"
    assert kernel.value("bool(study.best.value == study.trials.value.min())") == "True"
    assert kernel.children() == []


def test_a_search_is_shown_where_it_is_the_value_of_another_cell(kernel: Kernel) -> None:
    """As a still."""
    magic(kernel, '--search "x=float(0,1)" --trials 2 --minimize loss --out shown')
    cell = kernel.run("shown")
    assert len(cell.displays) == 1
    assert "text/html" in cell.displays[0]


def test_a_space_may_be_a_dict_of_the_notebook(kernel: Kernel) -> None:
    """By its name."""
    kernel.run("my_space = {'x': 'float(0,1)'}")
    magic(kernel, "--space my_space --trials 3 --minimize loss --sampler random --pruner median --out spaced")
    assert kernel.value("bool(spaced.trials.x.between(0, 1).all())") == "True"
    assert "--space gone; expected a dict or a text of this notebook" in refused(
        kernel, "--space gone --minimize loss"
    )


def test_a_search_goes_on_by_its_name(kernel: Kernel) -> None:
    """The option that goes on with a run goes on with a search."""
    magic(kernel, '--search "x=float(0,1)" --trials 2 --minimize loss --out begun')
    magic(kernel, "--resume begun --trials 4 --out further")
    assert kernel.value("(further.id == begun.id, len(further.trials))") == "(True, 4)"


def test_the_chain_from_search_to_final_run_to_ablation(kernel: Kernel) -> None:
    """One function through all of them, its digest equal."""
    magic(kernel, '--search "x=float(5,6)" --trials 3 --minimize loss --out links')
    magic(kernel, "--function train --params links --out final", "")
    assert kernel.value("final.value['loss'] == links.best.value") == "True"
    assert kernel.value("final.digest == links.digest") == "True"
    cell = magic(
        kernel,
        '--function train --ablate "flags=on" --params links --minimize loss --repeats 2 --out parts',
        "",
    )
    assert len(cell.displays) == 1
    assert "text/html" in cell.displays[0]
    assert kernel.value("parts.table.component.tolist()") == "['base', 'on']"
    assert kernel.value("round(float(parts.table.delta[1]), 6)") == "1.0"
    assert kernel.value("parts.digest == links.digest") == "True"
    shown = kernel.run("%oblivious runs")
    assert "params: " in shown.text + "".join(str(each) for each in shown.displays)


def test_a_study_of_an_ablation_may_be_a_dict_of_the_notebook(kernel: Kernel) -> None:
    """On ranks."""
    kernel.run("my_study = {'flags': ['on']}")
    magic(kernel, "--study my_study --minimize loss --workers 1 --engine mpi --out studied")
    assert kernel.value("studied.table.status.tolist()") == "['succeeded', 'succeeded']"


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ('--search "x=flaot(0,1)" --minimize loss', "flaot"),
        ('--search "y=float(0,1)" --minimize loss', "y in the space, which train does not take"),
        ('--search "x=float(0,1)"', "neither maximize nor minimize"),
        ('--search "x=float(0,1)" --minimize loss --sampler tpee', "sampler 'tpee'"),
        ('--search "x=float(0,1)" --minimize loss --ablate "flags=on"', "--search with --ablate"),
        ('--search "x=float(0,1)" --minimize loss --verify', "verify=3 for a search or an ablation"),
        (
            '--search "x=float(0,1)" --minimize loss --workers 1 --retries 2',
            "--retries with a search;",
        ),
        (
            '--search "x=float(0,1)" --minimize loss --workers 2 --workers-per-trial 3',
            "workers=2 with workers_per_trial=3",
        ),
        ('--search "x=float(0,1)" --minimize loss --background', "background without workers"),
        ('--search "x=float(0,1)" --minimize loss --trials 0', "trials=0"),
        ('--ablate "flags=off" --minimize loss', "off"),
        ('--ablate "flagz=on" --minimize loss', "flagz"),
        ('--ablate "flags=on" --minimize loss --resume gone', "--resume with an ablation"),
        ("--minimize loss", "--minimize without a search or an ablation"),
        ("--params gone", "--params gone"),
    ],
)
def test_what_makes_no_sense_is_one_line(kernel: Kernel, options: str, part: str) -> None:
    """No traceback, no panel, no folder."""
    line = refused(kernel, options)
    assert part in line
    assert "; expected " in line
    assert "; do: " in line


def test_a_name_that_nobody_produced_is_an_error_of_the_cell_and_the_study_is_held(kernel: Kernel) -> None:
    """One sentence; what there is can be looked at."""
    cell = kernel.run('%%oblivious --search "x=float(0,1)" --trials 9 --minimize lost --out held\n' + TRAIN)
    said = cell.evalue or cell.text
    assert "--minimize lost, which the function neither returns nor reports; expected one of loss" in said
    assert kernel.value("(held.status, len(held.trials))") == "('failed', 1)"


def test_kernel_interrupt_ends_a_search_and_keeps_its_trials(kernel: Kernel) -> None:
    """Within five seconds, with no process left; the study is bound to its name."""
    body = """
import threading
def waits(x=0.0):
    print("begun", flush=True)
    threading.Event().wait(60)
    return {"loss": x}
"""
    cell = kernel.run(
        '%%oblivious --search "x=float(0,1)" --trials 9 --minimize loss --workers 2 --engine mpi --out cut\n'
        + body,
        interrupt_after=3.0,
    )
    assert cell.ename == "KeyboardInterrupt"
    assert cell.after_interrupt_s is not None
    assert cell.after_interrupt_s < 15
    assert kernel.children() == []
    assert kernel.value("(cut.status, len(cut.trials))") == "('interrupted', 0)"
    assert kernel.run("cut").ename == ""
