"""What people see in IPython, in a real terminal: tmux draws it, and tells what stands on its screen."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timing,
    pytest.mark.skipif(not shutil.which("tmux"), reason="there is no tmux (Debian: apt-get install tmux)"),
]

FUNCTION = """import time
def counts(epochs=30):
    import keras, numpy as np
    x = np.arange(64.0).reshape(32, 2); y = x.sum(axis=1, keepdims=True)
    class Slowly(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None): time.sleep(0.02)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    model.fit(x, y, batch_size=8, epochs=epochs, verbose=0, callbacks=[Slowly()])
    return model
"""
WIDTH, HEIGHT = 110, 40


class Terminal:
    """IPython in a terminal of its own.

    Args:
        folder: where it is; a file ``counts.py`` there has the function.
    """

    def __init__(self, folder: Path) -> None:
        (folder / "counts.py").write_text(FUNCTION)
        self._socket = str(folder / "tmux")
        ipython = f"exec {sys.executable} -m IPython --no-banner --colors=nocolor"
        self._tmux("new-session", "-d", "-x", str(WIDTH), "-y", str(HEIGHT), "-c", str(folder), ipython)
        until(lambda: "In [1]:" in self.screen())

    def _tmux(self, *arguments: str) -> str:
        variables = {name: value for name, value in os.environ.items() if name not in ("TMUX", "CI")}
        return subprocess.run(
            ["tmux", "-S", self._socket, "-f", os.devnull, *arguments],
            env=variables, capture_output=True, text=True, check=True, timeout=30,
        ).stdout  # fmt: skip

    def screen(self) -> str:
        """What stands on the screen now."""
        return self._tmux("capture-pane", "-p")

    def types(self, text: str, *keys: str) -> None:
        """Types a text, then keys by their names."""
        if text:
            self._tmux("send-keys", "-l", text)
        for key in keys:
            self._tmux("send-keys", key)

    def does(self, line: str) -> None:
        """Types a line and waits until the next prompt."""
        numbers = re.findall(r"In \[(\d+)\]:", self.screen())
        after = f"In [{int(numbers[-1]) + 1}]:"
        self.types(line, "Enter")
        until(lambda: after in self.screen(), 90)

    def close(self) -> None:
        """Ends it and all in it."""
        self._tmux("kill-server")


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    """IPython with the extension loaded and the function imported."""
    shown = Terminal(tmp_path)
    try:
        shown.does("%load_ext obl_magic")
        shown.does("from counts import counts")
        yield shown
    finally:
        shown.close()


def test_one_line_moves_while_it_trains_and_a_table_stays(terminal: Terminal) -> None:
    """The line is drawn again in its place; nothing of it is left below the summary."""
    terminal.types("%oblivious -f counts --workers 2 --engine mpi --out two", "Enter")
    screens = {until(lambda: s if re.search(r"█.*epoch \d+/30", s := terminal.screen()) else "", 90)}
    until(lambda: screens.add(terminal.screen()) or "In [4]:" in terminal.screen(), 90)
    assert len([screen for screen in screens if "epoch" in screen]) > 3
    assert all(len(re.findall(r"epoch \d+/30", screen)) <= 1 for screen in screens)
    end = terminal.screen()
    assert "✓ counts succeeded in" in end
    assert re.search(r"^\s+last\s+best\s+at$", end, re.MULTILINE)
    assert re.search(r"^\s+loss\s+[\d,.]+\s+[\d,.]+\s+epoch \d+", end, re.MULTILINE)
    assert "░" not in end
    terminal.does("print(two.status, type(two.value).__name__)")
    assert "succeeded Sequential" in terminal.screen()


def test_control_c_stops_the_fit_and_keeps_its_model(terminal: Terminal) -> None:
    """As a terminal sends it: to the whole group of processes in front."""
    terminal.types("%oblivious -f counts --arg epochs=2000 --workers 2 --engine mpi --out two", "Enter")
    until(lambda: re.search(r"epoch [2-9]/2,000", terminal.screen()), 90)
    terminal.types("", "C-c")
    until(lambda: "In [4]:" in terminal.screen(), 30)
    assert "■ counts stopped at epoch" in terminal.screen()
    terminal.does("print(two.status, type(two.value).__name__)")
    assert "interrupted Sequential" in terminal.screen()


def test_tab_completes_options_their_choices_and_functions(terminal: Terminal) -> None:
    """What there is only one of is written out; of more one may choose."""
    terminal.types("%oblivious --stall", "Tab")
    until(lambda: "%oblivious --stall-timeout" in terminal.screen(), 20)
    terminal.types("", "C-u")
    terminal.types("%oblivious -f coun", "Tab")
    until(lambda: "%oblivious -f counts" in terminal.screen(), 20)
    terminal.types("", "C-u")
    terminal.types("%oblivious --engine ", "Tab")
    offered = until(lambda: s if "horovod" in (s := terminal.screen()) else "", 20)
    assert "mpi" in offered
    assert "%alias" not in offered
