"""Which rank holds up a world that gets no further: pure, from the folded events. Starts nothing, stops nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import groupby

from obl_magic.events.event import Failed
from obl_magic.events.fold import RankState, RunState

SILENT_SHARE = 0.6
SILENT_S = 2.5
"""A rank without a beat for this long, and for this share of the time in which nothing moved, shows no life."""

NOTED_AFTER_S = 30.0
"""Without a deadline, a world that gets no further is spoken of after this long, and goes on."""

_ABSENT = RankState()


def still_s(state: RunState, now_s: float) -> float:
    """Seconds since any rank got further: came up, did a step, reported a number, returned."""
    moved = [rank.moved_s for rank in state.ranks.values() if rank.moved_s]
    return max(0.0, now_s - max(moved, default=state.started_s or now_s))


def culprit(state: RunState, ranks: int, now_s: float) -> str:
    """Which rank does not come, where it is, and at what the others wait; for a world that gets no further.

    Args:
        state: the events so far, folded. ranks: how many there are. now_s: Unix time in seconds.
    """
    known = {rank: state.ranks.get(rank, _ABSENT) for rank in range(ranks)}
    silent_s = max(SILENT_S, SILENT_SHARE * still_s(state, now_s))
    lowest = min((r.step for r in known.values() if r.state == "running"), default=0)
    causes: tuple[Callable[[RankState], bool], ...] = (
        lambda r: r.state == "waiting" and not r.beat_s,
        lambda r: r.state == "waiting",
        lambda r: r.state == "running" and now_s - r.beat_s > silent_s,
        lambda r: r.state == "running" and not r.waits,
        lambda r: r.state in ("returned", "failed"),
        lambda r: r.state == "running" and r.step == lowest,
    )
    for holds in causes:
        found = [rank for rank, r in known.items() if holds(r)]
        if found:
            break
    others = [rank for rank in known if rank not in found]
    parts = [*_said(found, known, now_s, silent_s), *_said(others, known, now_s, silent_s)]
    return "; ".join(parts)


def lines_of(state: RunState) -> str:
    """The source lines at which ranks still are, each once, one to a line of text; "" where there are none."""
    found = {r.where: r.source for _, r in sorted(state.ranks.items()) if r.state == "running" and r.source}
    return "".join(f"\n  {where}: {source}" for where, source in found.items())


def is_up(state: RunState, ranks: int) -> bool:
    """Whether each of so many ranks has begun its job; what a launcher or a rank said before that does not count."""
    return sum(rank.pid > 0 for rank in state.ranks.values()) == ranks


def one_waits_for_another(state: RunState) -> bool:
    """Whether, of the ranks that are up, some wait in a step or a collective and others do not."""
    running = [rank for rank in state.ranks.values() if rank.pid]
    return any(r.waits for r in running) and any(not r.waits for r in running)


def left_alone(state: RunState, failed: Failed) -> str:
    """That a rank waits for ranks which have returned: they skipped what it is in."""
    gone = [str(rank) for rank, r in sorted(state.ranks.items()) if r.state == "returned"]
    have = f"ranks {', '.join(gone)} have" if len(gone) > 1 else f"rank {gone[0]} has"
    return f"{have} returned, but rank {failed.rank} waits for it at {failed.where or 'a collective'}"


def _said(ranks: Iterable[int], known: dict[int, RankState], now_s: float, silent_s: float) -> list[str]:
    """A sentence for each group of ranks of which the same is true."""
    told = sorted((_what(known[rank], now_s - known[rank].beat_s, silent_s), rank) for rank in ranks)
    said = []
    for what, group in groupby(told, key=lambda pair: pair[0]):
        names = [str(rank) for _, rank in group]
        said.append(f"{'ranks' if len(names) > 1 else 'rank'} {', '.join(names)}: {what}")
    return said


def _what(rank: RankState, since_s: float, silent_s: float) -> str:
    place = (f" at {rank.where}" if rank.where else "") + (f" after step {rank.step}" if rank.step else "")
    if rank.state == "waiting":
        return "waiting for the others to come up" if rank.beat_s else "did not come up"
    if rank.state != "running":
        return "returned" if rank.state == "returned" else "failed"
    if since_s > silent_s:
        return f"no sign of life for {since_s:.0f} s, last seen{place or ' as it began'}"
    return f"waiting{place or ' for the others'}" if rank.waits else f"busy{place or ' outside the cell'}"
