"""Which rank holds up a world that gets no further, from the folded events. Starts nothing, stops nothing.

Whoever asks brings the time: what ranks say is counted, and never compared with another process's clock.
"""

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


class Lookout:
    """Knows since when ranks have shown no life, and since when none has got further.

    Args:
        ranks: how many there are.
        now_s: seconds on the clock by which it looks.
    """

    def __init__(self, ranks: int, now_s: float) -> None:
        self._ranks, self._now_s, self._moved_s = ranks, now_s, now_s
        self._beats: dict[int, tuple[int, float]] = {}
        self._moves = 0

    def look(self, state: RunState, now_s: float) -> None:
        """Takes in what has changed since the last look."""
        self._now_s = now_s
        moves = sum(rank.moves for rank in state.ranks.values())
        if moves != self._moves:
            self._moves, self._moved_s = moves, now_s
        for number, rank in state.ranks.items():
            if rank.beats != self._beats.get(number, (0, 0.0))[0]:
                self._beats[number] = rank.beats, now_s

    @property
    def still_s(self) -> float:
        """Seconds since any rank got further: came up, did a step, reported a number, returned."""
        return self._now_s - self._moved_s

    def culprit(self, state: RunState) -> str:
        """Which rank does not come, where it is, and at what the others wait; for a world that gets no further."""
        since_s = {rank: self._now_s - at_s for rank, (_, at_s) in self._beats.items()}
        return _culprit(state, self._ranks, since_s, max(SILENT_S, SILENT_SHARE * self.still_s))


def _culprit(state: RunState, ranks: int, since_s: dict[int, float], silent_s: float) -> str:
    known = {rank: state.ranks.get(rank, _ABSENT) for rank in range(ranks)}
    heard_s = {rank: since_s.get(rank, 0.0) for rank in known}
    lowest = min((r.step for r in known.values() if r.state == "running"), default=0)
    causes: tuple[Callable[[RankState, float], bool], ...] = (
        lambda r, _: r.state == "waiting" and not r.beats,
        lambda r, _: r.state == "waiting",
        lambda r, heard_s: r.state == "running" and heard_s > silent_s,
        lambda r, _: r.state == "running" and not r.waits,
        lambda r, _: r.state in ("returned", "failed"),
        lambda r, _: r.state == "running" and r.step == lowest,
    )
    for holds in causes:
        found = [rank for rank, r in known.items() if holds(r, heard_s[rank])]
        if found:
            break
    others = [rank for rank in known if rank not in found]
    what = {rank: _what(r, heard_s[rank], silent_s) for rank, r in known.items()}
    return "; ".join([*_said(found, what, state), *_said(others, what, state)])


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


def _said(ranks: Iterable[int], what: dict[int, str], state: RunState) -> list[str]:
    """A sentence for each group of ranks of which the same is true."""
    told = sorted((what[rank], rank) for rank in ranks)
    said = []
    for each, group in groupby(told, key=lambda pair: pair[0]):
        names = [state.name(rank).removeprefix("rank ") for _, rank in group]
        said.append(f"{'ranks' if len(names) > 1 else 'rank'} {', '.join(names)}: {each}")
    return said


def _what(rank: RankState, heard_s: float, silent_s: float) -> str:
    place = (f" at {rank.where}" if rank.where else "") + (f" after step {rank.step}" if rank.step else "")
    if rank.state == "waiting":
        return "waiting for the others to come up" if rank.beats else "did not come up"
    if rank.state != "running":
        return "returned" if rank.state == "returned" else "failed"
    if heard_s > silent_s:
        return f"no sign of life for {heard_s:.0f} s, last seen{place or ' as it began'}"
    return f"waiting{place or ' for the others'}" if rank.waits else f"busy{place or ' outside the cell'}"
