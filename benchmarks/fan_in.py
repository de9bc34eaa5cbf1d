"""What one more rank costs the kernel: events of 8 to 1,024 ranks through the reader, the fold and the panel.

Ranks are simulated: their events are encoded as ranks encode them, and come mixed, as from one pipe.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from ratios import Goal, Line

from obl_magic import rundir
from obl_magic.display.notebook import NotebookDisplay
from obl_magic.events.event import Event, Heartbeat, Metric, Progress, Started, to_json
from obl_magic.events.frames import Decoder, Whole, encode
from obl_magic.rundir.record import RunRecord
from obl_magic.runs.run import Ledger

RANKS = (64, 256, 1024)
EVENTS = 20_000
ROUND_EVENTS = 250
"""The panel looks at the state once in so many events."""


def measure(quick: bool) -> list[Line]:
    """The lines of the table."""
    costs: dict[int, list[float]] = {ranks: [] for ranks in RANKS}
    panels: dict[int, list[float]] = {ranks: [] for ranks in RANKS}
    for _ in range(2 if quick else 5):
        for ranks in RANKS:
            cost_us, panel_ms = _through(ranks)
            costs[ranks].append(cost_us)
            panels[ranks].append(panel_ms)
    lines = [
        Line(f"an event of {ranks:,} ranks, read, kept and folded", "us", tuple(costs[ranks]))
        for ranks in RANKS
    ]
    for ranks in RANKS[1:]:
        ratios = tuple(mine / least for mine, least in zip(costs[ranks], costs[RANKS[0]], strict=True))
        lines.append(Line(f"the same, {ranks:,} ranks to {RANKS[0]}", "ratio", ratios, Goal("at most", 1.2)))
    return lines + [Line(f"a redraw with {ranks:,} ranks", "ms", tuple(panels[ranks])) for ranks in RANKS]


def _through(ranks: int) -> tuple[float, float]:
    """(microseconds an event takes, milliseconds a redraw takes)."""
    lines = _lines(ranks)
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(rundir.RunDir.at(Path(folder)))
        ledger.open()
        decoder = Decoder()
        began = time.perf_counter()
        for number, line in enumerate(lines):
            for piece in decoder.feed(line):
                assert isinstance(piece, Whole)
                ledger.take(piece.text)
            if number % ROUND_EVENTS == 0:
                _ = ledger.state
        cost_us = (time.perf_counter() - began) / len(lines) * 1e6
        display = NotebookDisplay(lambda bundle: _Nowhere())
        now_s = time.time()
        display.begin(RunRecord("a-run", "train", "d" * 64, ranks, "mpi", started_s=now_s, draws=True))
        taken = []
        for at in range(5):
            began = time.perf_counter()
            display.update(ledger.state, ledger.rows, now_s + at)
            taken.append(1000 * (time.perf_counter() - began))
        ledger.close()
    return cost_us, sorted(taken)[2]


class _Nowhere:
    """A notebook's output that nobody sees."""

    def update(self, obj: dict[str, str], **_: object) -> None:
        """The output again."""


def _lines(ranks: int) -> list[bytes]:
    """What the ranks say: they come up, then each beats once a step and rank 0 tells how far it is."""
    now_s = time.time()
    sequence = [0] * ranks
    lines: list[bytes] = []

    def say(event: Event) -> None:
        lines.extend(encode(event.rank, sequence[event.rank], to_json(event)))
        sequence[event.rank] += 1

    for rank in range(ranks):
        say(Started(rank, now_s, 1000 + rank, f"host{rank // 8}", "d" * 64, "mpi", rank % 8, 1))
    step = 0
    while len(lines) < EVENTS + ranks:
        step += 1
        say(Progress(0, now_s, 1, 3, step, None, 1000.0, {"loss": 1.0 / step}, step))
        say(Metric(0, now_s, {"loss": 1.0 / step}, step, 1))
        for rank in range(ranks):
            say(
                Heartbeat(
                    rank,
                    now_s,
                    step,
                    "In [1], line 3",
                    step,
                    True,
                    True,
                    0.02,
                    0.1,
                    "model.fit(x)",
                    10**9,
                    1.0,
                )
            )
    return lines
