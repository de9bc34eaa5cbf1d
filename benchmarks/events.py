"""Events on their way from ranks to the kernel: how many in a second, how late, and what they cost the training."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ranks
from ratios import Goal, Line, interleaved, ratio

import obl_magic
from obl_magic.runs.run import Ledger

RANKS = 2
EVENTS = 20_000
A_SECOND, SECONDS = 1000, 5
RAW = """
import sys
line = sys.argv[1]
for number in range(int(sys.argv[2])):
    sys.stdout.write(line)
"""
LATE = f"{A_SECOND} numbers a second from each of {RANKS} ranks"


def measure(quick: bool) -> list[Line]:
    """Rates, delays, and what a step takes with and without them."""
    turns = 1 if quick else 5
    taken = interleaved({"ours": _rate, "raw": _raw_rate, "late": _delays_ms}, turns)
    rates, lines = [rate for rate, _ in taken["ours"]], [line for _, line in taken["ours"]]
    bare, told, share = _steps(turns)
    return [
        Line(f"events of {RANKS} ranks, read, kept and folded", "1/s", tuple(rates)),
        Line(f"lines of {len(lines[0])} characters, forwarded by mpirun and read", "1/s", tuple(taken["raw"])),
        ratio("  events / lines", rates, taken["raw"], Goal("at least", 0.5)),
        Line(f"{LATE}: delay, median", "ms", tuple(statistics.median(delays) for delays in taken["late"])),
        Line(
            f"{LATE}: delay, 99 of 100", "ms",
            tuple(statistics.quantiles(delays, n=100)[-1] for delays in taken["late"]), Goal("at most", 100),
        ),
        Line(f"CNN, batch 64, {RANKS} ranks, a step", "ms", bare),
        Line(f"  the same, with {A_SECOND} numbers a second reported", "ms", told),
        Line("  what the numbers cost", "%", share, Goal("at most", 2)),
    ]  # fmt: skip


@contextmanager
def _arrivals() -> Iterator[list[tuple[float, str]]]:
    """(seconds since 1970, text) of each event that a ledger has taken, when it has."""
    came: list[tuple[float, str]] = []
    take = Ledger.take

    def noting(ledger: Ledger, text: str) -> None:
        take(ledger, text)
        came.append((time.time(), text))

    Ledger.take = noting  # type: ignore[method-assign]
    try:
        yield came
    finally:
        Ledger.take = take  # type: ignore[method-assign]


def at_once(events: int) -> None:
    """Reports as fast as it can."""
    for number in range(events):
        obl_magic.report(step=number, loss=0.1234567)


def now_and_then(a_second: int, seconds: float) -> None:
    """Reports when it does so."""
    import time

    began = time.perf_counter()
    for number in range(int(a_second * seconds)):
        time.sleep(max(0.0, began + number / a_second - time.perf_counter()))
        obl_magic.report(step=number, sent_s=time.time())


def _rate() -> tuple[float, str]:
    with _arrivals() as came:
        obl_magic.run(at_once, workers=RANKS, engine="mpi", args={"events": EVENTS}, quiet=True)
    metrics = [(at, text) for at, text in came if '"loss"' in text]
    return len(metrics) / (metrics[-1][0] - metrics[0][0]), metrics[0][1]


def _raw_rate() -> float:
    with _arrivals() as came:
        obl_magic.run(at_once, workers=1, engine="mpi", args={"events": 10}, quiet=True)
    line = next(text for _, text in came if '"loss"' in text) + "\n"
    program = [sys.executable, "-c", RAW, line]
    empty, full = (_wall_s([*program, str(lines)]) for lines in (1, EVENTS))
    return RANKS * EVENTS / (full - empty)


def _wall_s(program: list[str]) -> float:
    began = time.perf_counter()
    ranks.plain(RANKS, program)
    return time.perf_counter() - began


def _delays_ms() -> list[float]:
    with _arrivals() as came:
        obl_magic.run(
            now_and_then, workers=RANKS, engine="mpi", args={"a_second": A_SECOND, "seconds": SECONDS}, quiet=True,
        )  # fmt: skip
    events = [(at, json.loads(text)) for at, text in came if '"sent_s"' in text]
    return [1000 * (at - event["values"]["sent_s"]) for at, event in events]


def train(turns: int, a_second: int) -> dict[str, list[float]]:
    """Milliseconds of a step, the median of each turn, without and with numbers."""
    import keras
    from workloads import WORKLOADS, cnn, loss

    class Clock(keras.callbacks.Callback):
        def __init__(self, tells: bool) -> None:
            super().__init__()
            self.tells, self.ends = tells, [time.perf_counter()]

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            now = time.perf_counter()
            if self.tells:
                numbers = max(1, round(a_second * (now - self.ends[-1])))
                obl_magic.report(step=batch, **{f"number_{n}": 0.5 for n in range(numbers)})
            self.ends.append(now)

    x, y = WORKLOADS["cnn"].data(64 * 40)
    models = {name: cnn() for name in ("bare", "told")}
    for model in models.values():
        model.compile("adam", loss())
    found: dict[str, list[float]] = {name: [] for name in models}
    for turn in range(turns + 1):
        for name, model in models.items():
            clock = Clock(name == "told")
            model.fit(x, y, batch_size=64, verbose=0, callbacks=[clock])
            if turn:
                spans = [
                    1e3 * (later - earlier)
                    for earlier, later in zip(clock.ends[1:], clock.ends[2:], strict=False)
                ]
                found[name].append(statistics.median(spans))
    return found


def _steps(turns: int) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    run = obl_magic.run(
        train, workers=RANKS, engine="mpi", args={"turns": turns, "a_second": A_SECOND}, quiet=True,
    )  # fmt: skip
    bare, told = run.value["bare"], run.value["told"]
    return tuple(bare), tuple(told), tuple(100 * (b / a - 1) for a, b in zip(bare, told, strict=True))
