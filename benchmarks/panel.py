"""What the panel costs the kernel: a redraw of a large run, its bytes, how often, and the share of a core in all."""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from ratios import Goal, Line

from obl_magic import rundir
from obl_magic.display.notebook import NotebookDisplay
from obl_magic.events.event import Metric, Progress, Started, to_json
from obl_magic.rundir.record import RunRecord
from obl_magic.runs.run import Ledger

RANKS, EPOCHS, SECONDS, NUMBERS_A_SECOND, LOOKS_A_SECOND = 8, 1000, 10, 100, 10
NAMES = ("loss", "val_loss", "accuracy", "val_accuracy", "mae", "val_mae")


class Counted:
    """Stands where the notebook's output is: keeps the sizes of what is shown."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def show(self, bundle: dict[str, str]) -> Counted:
        """A new output."""
        self.update(bundle)
        return self

    def update(self, obj: dict[str, str], **_: Any) -> None:
        """The output again."""
        self.sizes.append(len(json.dumps(obj)))


def measure(quick: bool) -> list[Line]:
    """The lines of the table."""
    redraws, kilobytes, rates, shares = [], [], [], []
    for _ in range(2 if quick else 5):
        with tempfile.TemporaryDirectory() as folder:
            redraw_ms, kb = _redraw(_ledger(Path(folder) / "a"))
            rate, share = _while_numbers_come(_ledger(Path(folder) / "b"))
        redraws.append(redraw_ms)
        kilobytes.append(kb)
        rates.append(rate)
        shares.append(share)
    what = f"a redraw after {EPOCHS:,} epochs of {len(NAMES)} metrics on {RANKS} ranks"
    return [
        Line(what, "ms", tuple(redraws), Goal("at most", 5)),
        Line("its size", "kB", tuple(kilobytes), Goal("at most", 50)),
        Line("redraws a second", "1/s", tuple(rates), Goal("at most", 4)),
        Line(
            f"share of a core: {RANKS} ranks x {NUMBERS_A_SECOND} numbers a second, read, kept and shown", "%",
            tuple(shares), Goal("at most", 2),
        ),
    ]  # fmt: skip


def _ledger(home: Path) -> Ledger:
    home.mkdir(mode=0o700)
    ledger = Ledger(rundir.RunDir.at(home))
    ledger.open()
    for rank in range(RANKS):
        ledger.add(Started(rank, time.time(), rank, "here", "d" * 64, "mpi", 0, 1))
    return ledger


def _display(now_s: float) -> tuple[NotebookDisplay, Counted]:
    shown = Counted()
    display = NotebookDisplay(shown.show)
    display.begin(RunRecord("a-run", "train", "d" * 64, RANKS, "mpi", started_s=now_s, draws=True))
    return display, shown


def _redraw(ledger: Ledger) -> tuple[float, float]:
    """(milliseconds, kB) of a redraw of a run that has gone on for long."""
    now_s = time.time()
    for epoch in range(1, EPOCHS + 1):
        values = {name: 1.0 / (epoch + at) for at, name in enumerate(NAMES)}
        ledger.add(Metric(0, now_s + epoch, values, 20 * epoch, epoch))
    display, shown = _display(now_s)
    taken = []
    for at in range(20):
        ledger.add(
            Progress(0, now_s + at, EPOCHS, 2 * EPOCHS, at, 20, 1000.0, {"loss": 0.1}, 20 * EPOCHS + at)
        )
        began = time.perf_counter()
        display.update(ledger.state, ledger.rows, now_s + at)
        taken.append(1000 * (time.perf_counter() - began))
    ledger.close()
    return sorted(taken)[len(taken) // 2], shown.sizes[-1] / 1000


def _while_numbers_come(ledger: Ledger) -> tuple[float, float]:
    """(redraws a second, per cent of a core) of a kernel to which all ranks report at a steady rate."""
    display, shown = _display(0.0)
    lines = [
        to_json(Metric(rank, at / NUMBERS_A_SECOND, {"loss": 1.0 / (at + 1)}, at, 1 + at // 100))
        for at in range(SECONDS * NUMBERS_A_SECOND)
        for rank in range(RANKS)
    ]
    each = RANKS * NUMBERS_A_SECOND // LOOKS_A_SECOND
    began = time.process_time()
    for look in range(SECONDS * LOOKS_A_SECOND):
        for line in lines[look * each : (look + 1) * each]:
            ledger.take(line)
        display.update(ledger.state, ledger.rows, 1.0 + look / LOOKS_A_SECOND)
    used_s = time.process_time() - began
    ledger.close()
    return (len(shown.sizes) - 1) / SECONDS, 100 * used_s / SECONDS
