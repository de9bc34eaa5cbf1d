"""JupyterLab and Notebook 7 in a real browser, on loopback, for tests. Tests nothing itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), "")
"""Debian's browser."""
COMES_UP_S = 60
PANEL = ".jp-OutputArea-output div.mathjax_ignore"
"""Every panel and still stands in a frame that asks to be left alone by MathJax."""


FAINTEST = """root => {
    const canvas = document.createElement('canvas'); canvas.width = canvas.height = 1;
    const draw = canvas.getContext('2d', {willReadFrequently: true});
    const rgba = colour => {
        draw.clearRect(0, 0, 1, 1); draw.fillStyle = colour; draw.fillRect(0, 0, 1, 1);
        const [r, g, b, a] = draw.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255];
    };
    const light = ([r, g, b]) => [[r, .2126], [g, .7152], [b, .0722]].reduce((sum, [value, weight]) => {
        const share = value / 255;
        return sum + weight * (share <= .04045 ? share / 12.92 : ((share + .055) / 1.055) ** 2.4);
    }, 0);
    const ground = element => {
        for (let at = element; at; at = at.parentElement) {
            const found = rgba(getComputedStyle(at).backgroundColor);
            if (found[3] > .99) return found;
        }
        return [255, 255, 255, 1];
    };
    const words = document.createTreeWalker(root, NodeFilter.SHOW_TEXT), found = [];
    while (words.nextNode()) {
        const text = words.currentNode.textContent.trim(), element = words.currentNode.parentElement;
        if (!text || !element.getClientRects().length) continue;
        const style = getComputedStyle(element), drawn = element.namespaceURI.endsWith('svg');
        const ink = rgba(drawn ? style.fill : style.color), below = ground(element);
        let shows = ink[3] * (drawn ? parseFloat(style.fillOpacity) : 1);
        for (let at = element; at && at !== root.parentElement; at = at.parentElement)
            shows *= parseFloat(getComputedStyle(at).opacity);
        const seen = ink.slice(0, 3).map((value, at) => value * shows + below[at] * (1 - shows));
        const [high, low] = [light(seen), light(below)].sort((one, other) => other - one);
        found.push([Math.round(100 * (high + .05) / (low + .05)) / 100, text]);
    }
    return found.sort((one, other) => one[0] - other[0])[0];
}"""
"""The word with the least contrast to what is below it, by WCAG 2's formula: [ratio, word]."""
JUTS_OUT = """root => [...root.querySelectorAll('*')].filter(
    element => element.scrollWidth > element.clientWidth + 1 && getComputedStyle(element).overflowX === 'visible'
        && element.clientWidth > 0 && !element.closest('svg')
).concat(root.getBoundingClientRect().right > innerWidth ? [root] : []).map(each => each.innerText.slice(0, 60))"""
"""The parts whose inside is wider than they are, and which neither scroll nor cut it."""


@contextmanager
def jupyter(folder: Path, dark: bool = False) -> Iterator[str]:
    """A Jupyter server over a folder, which has settings of its own; its address."""
    settings = folder / ".jupyter-config" / "lab" / "user-settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    theme = {"theme": "JupyterLab Dark" if dark else "JupyterLab Light"}
    (settings / "themes.jupyterlab-settings").write_text(json.dumps(theme))
    (settings / "notification.jupyterlab-settings").write_text(
        '{"fetchNews": "false", "checkForUpdates": false}'
    )
    own = {
        f"JUPYTER_{name}_DIR": str(folder / f".jupyter-{name.lower()}")
        for name in ("CONFIG", "DATA", "RUNTIME")
    }
    asked = [
        "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0", "--IdentityProvider.token=",
        f"--ServerApp.root_dir={folder}", "--ServerApp.disable_check_xsrf=True",
    ]  # fmt: skip
    env = {**os.environ, **own, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    with (folder / ".server.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", *asked], env=env, stdout=log, stderr=log, cwd=folder
        )
        try:
            yield until(lambda: _address(Path(own["JUPYTER_RUNTIME_DIR"])), COMES_UP_S)
        finally:
            process.terminate()  # it ends its kernels
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _address(folder: Path) -> str:
    for path in folder.glob("jpserver-*.json"):
        found = json.loads(path.read_text() or "{}")
        if found:
            return f"http://127.0.0.1:{found['port']}"
    return ""


def until(look: Callable[[], Any], within_s: float = 60) -> Any:
    """What ``look`` gives as soon as it is true of anything."""
    ends = time.monotonic() + within_s
    while not (found := look()):
        assert time.monotonic() < ends, f"not within {within_s} s"
        time.sleep(0.05)
    return found


@contextmanager
def browser(width: int = 1280) -> Iterator[Any]:
    """A page of a browser without a window."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        )
        try:
            page = chromium.new_page(viewport={"width": width, "height": 1400})
            page.set_default_timeout(60_000)
            yield page
        finally:
            chromium.close()


def _listens(address: str) -> bool:
    """Whether the page is connected to a kernel that has come up."""
    try:
        with urllib.request.urlopen(f"{address}/api/kernels", timeout=10) as answer:
            kernels = json.load(answer)
    except urllib.error.HTTPError:  # while a kernel starts
        return False
    return any(each["execution_state"] == "idle" and each["connections"] > 0 for each in kernels)


class Notebook:
    """A notebook open in a page.

    Args:
        page: the page.
        address: of the server.
        path: of the notebook.
        app: ``lab`` or ``notebook``.
    """

    def __init__(self, page: Any, address: str, path: Path, app: str = "lab") -> None:
        self.page = page
        where = f"{address}/lab/tree/{path.name}" if app == "lab" else f"{address}/notebooks/{path.name}"
        page.goto(where)
        page.wait_for_selector(".jp-Notebook .jp-Cell")
        until(lambda: _listens(address))
        page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]')

    def run(self, cell: int) -> None:
        """Begins to execute a cell; a page that has just been loaded may not listen yet."""
        before = self._prompt(cell)
        for _ in range(5):
            self.cell(cell).locator(".jp-InputArea-editor").click()
            self.page.keyboard.press("Shift+Enter")
            ends = time.monotonic() + 5
            while time.monotonic() < ends:
                if self._prompt(cell) != before:
                    return
                self.page.wait_for_timeout(50)
        raise AssertionError(f"cell {cell} was not executed: {self._prompt(cell)}")

    def _prompt(self, cell: int) -> str:
        return str(self.cell(cell).locator(".jp-InputPrompt").inner_text())

    def cell(self, number: int) -> Any:
        """A cell."""
        return self.page.locator(".jp-Notebook .jp-Cell").nth(number)

    def panel(self, cell: int) -> Any:
        """The first panel below a cell."""
        return self.cell(cell).locator(PANEL).first

    def text(self, cell: int) -> str:
        """What that panel says, or ""."""
        panel = self.panel(cell)
        return str(panel.inner_text()) if panel.count() else ""

    def height(self, cell: int) -> float:
        """How high it is in pixels, or 0."""
        panel = self.panel(cell)
        box = panel.bounding_box() if panel.count() else None
        return float(box["height"]) if box else 0.0

    def faintest(self, cell: int) -> tuple[float, str]:
        """(contrast, word) of what is read worst on the panel."""
        ratio, word = until(
            lambda: self.panel(cell).evaluate(FAINTEST)
        )  # none in the instant in which it is replaced
        return float(ratio), str(word)

    def juts_out(self, cell: int) -> list[str]:
        """What does not fit into the panel's width."""
        return list(self.panel(cell).evaluate(JUTS_OUT))

    def done(self, cell: int) -> bool:
        """Whether the cell has ended."""
        return any(sign.isdigit() for sign in self._prompt(cell))

    def outputs(self, cell: int) -> str:
        """All that stands below the cell."""
        return str(self.cell(cell).locator(".jp-OutputArea").first.inner_text())


def written(folder: Path, *cells: str) -> Path:
    """A notebook of these cells."""
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])
    notebook.metadata.kernelspec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    path = folder / "here.ipynb"
    nbformat.write(notebook, path)
    return path
