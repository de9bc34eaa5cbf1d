"""What the panel costs the kernel: a redraw of a large run, its bytes, how often, and the share of a core in all."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from ratios import Goal, Line

from obl_magic import rundir
from obl_magic.display.notebook import NotebookDisplay
from obl_magic.events.event import Log, Metric, Progress, Started, to_json
from obl_magic.rundir.record import RunRecord
from obl_magic.runs.run import Ledger

RANKS, EPOCHS, SECONDS, NUMBERS_A_SECOND, LOOKS_A_SECOND = 8, 1000, 10, 100, 10
PRINTED, STRETCH = 10_000, 1_000
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
    redraws, kilobytes, rates, shares, slower, printed_us = [], [], [], [], [], []
    for _ in range(2 if quick else 5):
        with tempfile.TemporaryDirectory() as folder:
            redraw_ms, kb = _redraw(_ledger(Path(folder) / "a"))
            rate, share = _while_numbers_come(_ledger(Path(folder) / "b"))
            first_us, last_us = _while_ranks_print(_ledger(Path(folder) / "c"))
        redraws.append(redraw_ms)
        kilobytes.append(kb)
        rates.append(rate)
        shares.append(share)
        slower.append(last_us / first_us)
        printed_us.append(last_us)
    what = f"a redraw after {EPOCHS:,} epochs of {len(NAMES)} metrics on {RANKS} ranks"
    return [
        Line(what, "ms", tuple(redraws), Goal("at most", 5)),
        Line("its size", "kB", tuple(kilobytes), Goal("at most", 50)),
        Line("redraws a second", "1/s", tuple(rates), Goal("at most", 4)),
        Line(
            f"share of a core: {RANKS} ranks x {NUMBERS_A_SECOND} numbers a second, read, kept and shown", "%",
            tuple(shares), Goal("at most", 2),
        ),
        Line(f"a printed line, read, kept and shown, after {PRINTED:,} of them", "us", tuple(printed_us)),
        Line(
            f"the last {STRETCH:,} of {PRINTED:,} printed lines to the first", "ratio",
            tuple(slower), Goal("at most", 1.25),
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


def _while_ranks_print(ledger: Ledger) -> tuple[float, float]:
    """Microseconds that a line costs, (among the first, among the last), where all ranks print much."""
    display, _ = _display(0.0)
    costs = []
    with contextlib.redirect_stdout(io.StringIO()):
        for stretch in range(PRINTED // STRETCH):
            printed = [
                Log(at % RANKS, 1.0 + stretch, "stdout", f"step {stretch * STRETCH + at}: loss 0.123\n")
                for at in range(STRETCH)
            ]
            lines = [to_json(log) for log in printed]
            began = time.process_time()
            for at, (log, line) in enumerate(zip(printed, lines, strict=True)):
                ledger.take(line)
                if log.rank == 0:
                    display.text(log.rank, log.stream, log.text, many=False)
                display.update(ledger.state, ledger.rows, 1.0 + stretch + at / STRETCH)
            costs.append(1e6 * (time.process_time() - began) / STRETCH)
    ledger.close()
    return costs[0], costs[-1]
