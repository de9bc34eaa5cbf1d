"""What people see in JupyterLab and in Notebook 7: real kernels, real ranks, a real browser.

The pictures go to ``OBL_SCREENSHOTS``, where that is set.
"""

from __future__ import annotations

import os
import re
import time
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

README = Path(__file__).parents[2] / "README.md"
DATA, TRAIN = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)[:2]
"""What the README shows is what is photographed."""
DATA += "import time\n"


def trained(epochs: int, options: str = "--engine mpi") -> str:
    """The README's cell, with as many epochs, and options of its own."""
    cell = TRAIN.replace("epochs=12", f"epochs={epochs}").replace("--out two", f"{options} --out two")
    assert cell.count(str(epochs)) == cell.count(options) == 1
    return cell


SEARCH = """%%oblivious --search "lr=log(1e-4,1e-1) units=int(8,64)" --trials 12 --maximize score --workers 2
def score(lr=0.1, units=8):
    time.sleep(0.4)
    return {"score": units / 64 - abs(lr - 0.01)}
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
CONTRAST = 4.5
NARROW = 500
LOOK = "print(two.status, type(two.value).__name__)"


@pytest.fixture
def open_notebook(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Opens a notebook of some cells; the server, its kernels and the browser go with the test."""
    with (
        jupyter(tmp_path, dark=request.node.get_closest_marker("dark") is not None) as address,
        browser() as page,
    ):
        yield lambda *cells, app="lab": Notebook(page, address, written(tmp_path, *cells), app)


def picture(notebook: Notebook, name: str, cell: int | None = None) -> None:
    """Keeps what a cell, or the page, looks like, where somebody wants to see it."""
    if folder := os.environ.get("OBL_SCREENSHOTS"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        shown = notebook.page if cell is None else notebook.cell(cell)
        shown.screenshot(path=f"{folder}/{name}.png")


LENGTHS = """all => all.reduce(
    (sum, each) => sum + (each.getAttribute('points') || each.getAttribute('d') || '').length, 0
)"""


def watched(notebook: Notebook, cell: int, name: str) -> tuple[set[float], list[str], list[int]]:
    """(heights, texts, how much is drawn) of a panel from its first second to its still."""
    heights, texts, drawn = set(), [], []
    until(lambda: notebook.height(cell), 90)
    moments = {"1s": lambda: spent > 1, "5s": lambda: spent > 5, "middle": lambda: HALF.search(texts[-1])}
    began = time.monotonic()
    while True:
        over = notebook.done(cell)
        if height := notebook.height(cell):  # none in the instant in which Lab puts the new output in place
            heights.add(height)
        if text := notebook.text(cell):
            texts.append(text)
            drawn.append(notebook.panel(cell).locator("svg polyline, svg path").evaluate_all(LENGTHS))
        if over:
            break
        spent = time.monotonic() - began
        if came := next((moment for moment, now in moments.items() if texts and now()), ""):
            del moments[came]
            picture(notebook, f"{name}-{came}", cell)
        notebook.page.wait_for_timeout(100)
    picture(notebook, f"{name}-end", cell)
    return heights, texts, drawn


HALF = re.compile(r"\b[5-7]\d %|\b[67]/12 trials|\b[23]/4 runs")


def reads_well(notebook: Notebook, cell: int) -> None:
    """Every word has the contrast that WCAG asks of text, on the screen and on paper, and everything has its place."""
    for medium in ("screen", "print"):
        notebook.page.emulate_media(media=medium)
        ratio, word = notebook.faintest(cell)
        assert ratio >= CONTRAST, f"{word!r} has a contrast of {ratio} on {medium}"
    notebook.page.emulate_media(media="screen")
    assert not notebook.juts_out(cell)


@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_a_runs_panel_keeps_its_height_and_its_curves_move_before_its_end(
    open_notebook: Any, app: str
) -> None:
    """From the first second to the still that stays."""
    notebook = open_notebook(DATA, trained(20), app=app)
    notebook.run(0)
    until(lambda: notebook.done(0), 90)
    notebook.run(1)
    heights, texts, points = watched(notebook, 1, f"run-{app}")
    assert max(heights) - min(heights) <= 1, heights
    assert "succeeded" in texts[-1]
    live = [drawn for drawn, text in zip(points, texts, strict=True) if "succeeded" not in text]
    assert len(set(live)) > 2, "the curves did not move"
    assert any("epoch" in text and "left" in text for text in texts)
    reads_well(notebook, 1)


def test_a_panel_is_good_at_500_pixels(open_notebook: Any) -> None:
    """Live and as a still: one height, nothing juts out, nothing that counts is cut off."""
    notebook = open_notebook(DATA, trained(20), app="notebook")
    notebook.run(0)
    until(lambda: notebook.done(0), 90)
    notebook.run(1)
    until(lambda: notebook.panel(1).count(), 90)
    for _ in range(3):  # margins depend on the window, too
        shown = until(lambda: notebook.panel(1).bounding_box())["width"]
        beside = notebook.page.viewport_size["width"] - shown
        notebook.page.set_viewport_size({"width": int(NARROW + beside), "height": 1400})
    assert until(lambda: notebook.panel(1).bounding_box())["width"] <= NARROW + 1
    until(lambda: "epoch 2/" in notebook.text(1), 90)
    assert not notebook.juts_out(1)
    heights, texts, _ = watched(notebook, 1, "narrow")
    assert max(heights) - min(heights) <= 1, heights
    assert "val_accuracy" in texts[-1]
    reads_well(notebook, 1)


def test_interrupting_keeps_the_model_and_reads_as_a_stop(open_notebook: Any) -> None:
    """As the menu's Interrupt Kernel does it."""
    notebook = open_notebook(DATA, trained(5000), LOOK)
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
    notebook = open_notebook(DATA, trained(80, "--background --engine mpi"), "%oblivious attach two")
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
    reads_well(notebook, 1)
    notebook.run(2)
    heights, texts, _ = watched(notebook, 2, "ablation")
    assert max(heights) - min(heights) <= 1, heights
    assert "bias" in texts[-1]
    reads_well(notebook, 2)
    notebook.run(3)
    heights, texts, _ = watched(notebook, 3, "failure")
    assert max(heights) - min(heights) <= 1, heights
    assert "failed" in texts[-1]
    assert "boom at my line" in notebook.outputs(3)
    reads_well(notebook, 3)


@pytest.mark.dark
def test_a_run_reads_well_in_the_dark(open_notebook: Any) -> None:
    """In Lab's dark theme, from the first second to the still."""
    notebook = open_notebook(DATA, trained(20))
    notebook.run(0)
    until(lambda: notebook.done(0), 90)
    notebook.run(1)
    until(lambda: "epoch 2/" in notebook.text(1), 90)
    reads_well(notebook, 1)
    heights, *_ = watched(notebook, 1, "run-dark")
    assert max(heights) - min(heights) <= 1, heights
    reads_well(notebook, 1)


@pytest.mark.parametrize("app", ["lab", "notebook"])
def test_options_are_completed_in_a_cell(open_notebook: Any, app: str) -> None:
    """After Tab, among what else is offered."""
    notebook = open_notebook(DATA, "", app=app)
    notebook.run(0)
    until(lambda: notebook.done(0), 90)
    notebook.cell(1).locator(".jp-InputArea-editor").click()
    notebook.page.keyboard.type("%%oblivious --stall")
    notebook.page.keyboard.press("Tab")
    until(lambda: "--stall-timeout" in notebook.cell(1).inner_text() or _offered(notebook), 20)
    picture(notebook, f"completion-{app}")


def _offered(notebook: Notebook) -> bool:
    offers = notebook.page.locator(".jp-Completer-item")
    return any("--stall-timeout" in text for text in offers.all_inner_texts())
