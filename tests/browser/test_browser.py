"""What people see in JupyterLab and in Notebook 7: real kernels, real ranks, a real browser.

The pictures go to ``OBL_SCREENSHOTS``, where that is set.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import CHROMIUM, Notebook, browser, jupyter, until, written

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timing,
    pytest.mark.skipif(not CHROMIUM, reason="there is no Chromium (Debian: apt-get install chromium)"),
]

DATA = """%load_ext obl_magic
import keras, numpy as np, time
x = np.random.default_rng(0).normal(size=(512, 8)); y = x.sum(axis=1, keepdims=True)
class Slowly(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None): time.sleep(0.02)
"""
TRAIN = """%%oblivious --workers 2 --engine mpi --out two
def train(lr=0.01, epochs={epochs}):
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(lr), "mse")
    model.fit(x, y, batch_size=32, epochs=epochs, validation_split=0.25, verbose=0, callbacks=[Slowly()])
    return model
"""
SEARCH = """%%oblivious --search "lr=log(1e-3,1e-1)" --trials 4 --sampler random --minimize loss --workers 2
def score(lr=0.1):
    time.sleep(0.5)
    return {"loss": lr}
"""
ABLATE = """%%oblivious --ablate "flags=bias" --maximize score --repeats 2 --workers 2
def flagged(bias=True):
    time.sleep(0.5)
    return {"score": 1.0 if bias else 0.5}
"""
BOOM = """%%oblivious --workers 2 --engine mpi
def boom():
    raise ValueError("boom at my line")
"""
LOOK = "print(two.status, type(two.value).__name__)"


@pytest.fixture
def open_notebook(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Opens a notebook of some cells; the server, its kernels and the browser go with the test."""
    with (
        jupyter(tmp_path, dark=request.node.get_closest_marker("dark") is not None) as address,
        browser() as page,
    ):
        yield lambda *cells, app="lab": Notebook(page, address, written(tmp_path, *cells), app)


def picture(notebook: Notebook, name: str) -> None:
    """Keeps what the page looks like, where somebody wants to see it."""
    if folder := os.environ.get("OBL_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        notebook.page.screenshot(path=f"{folder}/{name}.png")


LENGTHS = """all => all.reduce(
    (sum, each) => sum + (each.getAttribute('points') || each.getAttribute('d') || '').length, 0
)"""


def watched(notebook: Notebook, cell: int, name: str) -> tuple[set[float], list[str], list[int]]:
    """(heights, texts, how much is drawn) of a panel from its first second to its still."""
    heights, texts, drawn = set(), [], []
    until(lambda: notebook.height(cell), 90)
    while True:
        over = notebook.done(cell)
        if height := notebook.height(cell):  # none in the instant in which Lab puts the new output in place
            heights.add(height)
        if text := notebook.text(cell):
            texts.append(text)
            drawn.append(notebook.panel(cell).locator("svg polyline, svg path").evaluate_all(LENGTHS))
        if len(texts) in (2, 40):
            picture(notebook, f"{name}-{len(texts):03}")
        if over:
            break
        notebook.page.wait_for_timeout(100)
    picture(notebook, f"{name}-end")
    return heights, texts, drawn


@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_a_runs_panel_keeps_its_height_and_its_curves_move_before_its_end(
    open_notebook: Any, app: str
) -> None:
    """From the first second to the still that stays."""
    notebook = open_notebook(DATA, TRAIN.format(epochs=8), app=app)
    notebook.run(0)
    until(lambda: notebook.done(0), 90)
    notebook.run(1)
    heights, texts, points = watched(notebook, 1, f"run-{app}")
    assert max(heights) - min(heights) <= 1, heights
    assert "succeeded" in texts[-1]
    live = [drawn for drawn, text in zip(points, texts, strict=True) if "succeeded" not in text]
    assert len(set(live)) > 2, "the curves did not move"
    assert any("epoch" in text and "left" in text for text in texts)


def test_interrupting_keeps_the_model_and_reads_as_a_stop(open_notebook: Any) -> None:
    """As the menu's Interrupt Kernel does it."""
    notebook = open_notebook(DATA, TRAIN.format(epochs=500), LOOK)
    notebook.run(0)
    until(lambda: notebook.done(0), 90)
    notebook.run(1)
    until(lambda: "epoch 2/" in notebook.text(1), 90)
    notebook.page.get_by_role("menuitem", name="Kernel").click()
    notebook.page.get_by_role("menuitem", name="Interrupt Kernel").click()
    until(lambda: notebook.done(1), 30)
    assert "stopped at epoch" in until(lambda: notebook.text(1))
    picture(notebook, "interrupted")
    notebook.run(2)
    until(lambda: notebook.done(2), 30)
    assert notebook.outputs(2).strip() == "interrupted Sequential"


def test_a_page_that_is_reloaded_while_a_run_goes_on_sees_it_again_by_attach(open_notebook: Any) -> None:
    """What the panel's foot names is typed as it stands there."""
    background = TRAIN.format(epochs=30).replace("--workers 2", "--workers 2 --background")
    notebook = open_notebook(DATA, background, "%oblivious attach two")
    notebook.run(0)
    until(lambda: notebook.done(0), 90)
    notebook.run(1)
    until(lambda: "epoch 2/" in notebook.text(1), 90)
    assert "page reloaded? %oblivious attach" in notebook.text(1)
    notebook.page.keyboard.press("Control+s")
    notebook.page.reload()
    notebook.page.wait_for_selector(".jp-Notebook .jp-Cell")
    until(lambda: notebook.page.locator(".jp-Notebook-ExecutionIndicator[data-status]").count(), 60)
    notebook.run(2)
    heights, texts, _ = watched(notebook, 2, "attached")
    assert "succeeded" in texts[-1]
    assert max(heights) - min(heights) <= 1, heights


@pytest.mark.dark
def test_searches_ablations_and_failures_read_well_and_keep_their_height(open_notebook: Any) -> None:
    """In Lab's dark theme."""
    notebook = open_notebook(DATA, SEARCH, ABLATE, BOOM)
    assert notebook.page.evaluate("document.body.dataset.jpThemeLight") == "false"
    notebook.run(0)
    until(lambda: notebook.done(0), 90)
    notebook.run(1)
    heights, texts, _ = watched(notebook, 1, "search")
    assert max(heights) - min(heights) <= 1, heights
    assert "best" in texts[-1]
    notebook.run(2)
    heights, texts, _ = watched(notebook, 2, "ablation")
    assert max(heights) - min(heights) <= 1, heights
    assert "bias" in texts[-1]
    notebook.run(3)
    until(lambda: notebook.done(3), 60)
    assert "failed" in notebook.text(3)
    assert "boom at my line" in notebook.outputs(3)
    picture(notebook, "failure")


def test_options_are_completed_in_a_cell(open_notebook: Any) -> None:
    """After Tab, among what else Lab offers."""
    notebook = open_notebook(DATA, "")
    notebook.run(0)
    until(lambda: notebook.done(0), 90)
    notebook.cell(1).locator(".jp-InputArea-editor").click()
    notebook.page.keyboard.type("%%oblivious --stall")
    notebook.page.keyboard.press("Tab")
    until(lambda: "--stall-timeout" in notebook.cell(1).inner_text() or _offered(notebook), 20)
    picture(notebook, "completion")


def _offered(notebook: Notebook) -> bool:
    offers = notebook.page.locator(".jp-Completer-item")
    return any("--stall-timeout" in text for text in offers.all_inner_texts())
