"""What more ranks bring and cost on this machine: throughput, launch and memory of 1, 2, 4 and 8 of them."""

from __future__ import annotations

from functools import partial

import startup
import throughput
from ratios import Goal, Line, interleaved, ratio

from obl_magic.hosts.cores import cores
from obl_magic.server.server import SERVER

RANKS = (1, 2, 4, 8)
FORKED, AFRESH = "forked", "started afresh"
BATCH = 256


def measure(quick: bool) -> list[Line]:
    """Samples/s, seconds to the first line of the function, and megabytes of all ranks, by number of ranks."""
    turns = 1 if quick else 5
    return [*_throughput(turns), *_launches(turns, quick), *_memory(1 if quick else 3)]


def _throughput(turns: int) -> list[Line]:
    ours = {str(n): partial(throughput.oblivious, "cnn", 4, n, "horovod") for n in RANKS}
    limits = {f"limit {n}": partial(throughput.by_hand, "cnn", 4, "limit", n) for n in RANKS}
    found = interleaved({**ours, **limits}, turns)
    taken = {side: tuple(speeds[BATCH] for speeds in each) for side, each in found.items()}
    lines = []
    for n in RANKS:
        lines += [
            Line(f"{n} ranks: CNN, batch {BATCH}", "samples/s", taken[str(n)]),
            Line(f"{n} ranks that exchange nothing", "samples/s", taken[f"limit {n}"]),
        ]
    full = str(min(cores(), RANKS[-1]))
    for n in RANKS:
        if n > int(full):
            what = f"{n} ranks on {full} processors / {full} ranks"
            lines += [
                ratio(what, taken[str(n)], taken[full], Goal("at least", 0.9)),
                ratio(f"{what}, exchanging nothing", taken[f"limit {n}"], taken[f"limit {full}"]),
            ]
    return lines


def _launches(turns: int, quick: bool) -> list[Line]:
    def launch(how_many: int, forked: bool) -> float:
        SERVER.allowed = forked
        return startup.until(startup.ready, "horovod", how_many)

    SERVER.allow()
    launch(1, True)  # the server is there; not counted
    lines = []
    for how, forked in ((FORKED, True), (AFRESH, False)):
        sides = {n: partial(launch, n, forked) for n in (RANKS[:2] if quick and not forked else RANKS)}
        for n, seconds in interleaved(
            {str(n): side for n, side in sides.items()}, turns if forked else 1 + turns // 3
        ).items():
            lines.append(Line(f"{n} ranks: first line, {how}", "s", tuple(seconds)))
    SERVER.allow()
    return lines


def _memory(turns: int) -> list[Line]:
    found: dict[tuple[int, str], list[float]] = {}
    for _ in range(turns):
        for how, forked in ((FORKED, True), (AFRESH, False)):
            for n in RANKS:
                SERVER.allowed = forked
                found.setdefault((n, how), []).append(startup.memory_of(n, "mpi"))
    SERVER.allow()
    return [Line(f"{n} ranks: memory, {how}", "MB", tuple(values)) for (n, how), values in found.items()]
