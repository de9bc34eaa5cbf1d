"""``--workers auto``: a few steps of the function on worlds of several sizes, and which of them is the fastest.

Safe, because the numbers do not depend on it. What the function does up to these steps it does once for each size.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

from obl_magic.errors import SetupProblem, UsageProblem
from obl_magic.events.event import Event, Progress
from obl_magic.events.fold import RunState
from obl_magic.hosts.cores import cores
from obl_magic.hosts.where import everywhere
from obl_magic.launch.one_run import Call, launch
from obl_magic.options import RunOptions
from obl_magic.runs.run import Run

AUTO = "auto"
WARM_STEPS = 5
"""Steps that are not counted: they trace, build and fill caches."""
MEASURES_S = 1.5
LEAST_STEPS = 10
COMES_WITHIN_S = 120.0
"""A function that makes no step of a fit for so long has none to measure."""
_LOOKS_EVERY_S = 0.01
_MUCH = 0.95
"""One rank is said to be faster where it takes at most so much of what several take."""
_PLAIN = (int, float, str, type(None))
_PACES: dict[object, dict[int, float]] = {}
"""Seconds a step took in this session, by the call and the number of ranks."""


@dataclass(frozen=True, slots=True)
class Fastest:
    """What was measured.

    Attributes:
        workers: the fastest number of ranks.
        step_s: seconds a step takes, by number of ranks.
    """

    workers: int
    step_s: dict[int, float]

    @property
    def told(self) -> str:
        """One sentence."""
        if not self.step_s:
            return "workers=auto: no steps of a fit to measure, so it runs on 1 rank"
        return f"workers=auto took {self.workers} ({self.figures})"

    @property
    def figures(self) -> str:
        """``1 rank 23 ms a step, 2 ranks 13 ms``."""
        each = [f"{n} rank{'' if n == 1 else 's'} {s * 1e3:.3g} ms" for n, s in sorted(self.step_s.items())]
        return ", ".join([f"{each[0]} a step", *each[1:]])


def fastest(call: Call, options: RunOptions) -> Fastest:
    """Measures a function on 1, 2, 4 … ranks, as far as there are processors, or places on the hosts.

    Args:
        call: the function and what it is called with.
        options: of the run; how many workers it says does not count.

    Raises:
        KeyboardInterrupt: the user did not want to wait; nothing is left.
        BaseException: what the function raised in its first steps on one rank.
    """
    measured: dict[int, float] = {}
    for ranks in _candidates(options):
        try:
            step_s = _step_s(call, replace(options, workers=ranks))
        except (SetupProblem, UsageProblem):  # more ranks than memory holds, say
            if not measured:
                raise
            break
        if step_s is None:
            break
        measured[ranks] = step_s
    _PACES.setdefault(_key(call), {}).update(measured)
    return Fastest(min(measured, key=lambda ranks: measured[ranks], default=1), measured)


def remember(call: Call, workers: int | None, state: RunState) -> None:
    """Keeps how fast the steps of a run were, if it made enough to tell.

    Args:
        call: the function.
        workers: its ranks; None: it ran in this process.
        state: of the run, which is over.
    """
    first, last = state.trains, state.progress
    if first is None or last is None or last.stepped - first.stepped < LEAST_STEPS:
        return
    if (took_s := last.time_s - first.time_s) >= MEASURES_S and state.status == "succeeded":
        _PACES.setdefault(_key(call), {})[workers or 1] = took_s / (last.stepped - first.stepped)


def hint(call: Call, workers: int) -> str:
    """That one rank is faster, of a call that was made on both in this session, or measured; "" where it is not.

    Args:
        call: the function.
        workers: ranks that were asked for.
    """
    paces = _PACES.get(_key(call), {})
    if 1 not in paces or workers not in paces or paces[1] > _MUCH * paces[workers]:
        return ""
    return f"{workers} ranks are slower than one here ({Fastest(1, paces).figures}); do: --workers auto"


def _key(call: Call) -> object:
    """Code is compared by what it says, so that a cell that was run again is known; so are arguments."""
    given = [
        (name, value if isinstance(value, _PLAIN) else id(value)) for name, value in call.all_args.items()
    ]
    return getattr(call.fn, "__code__", call.fn), tuple(given)


def _candidates(options: RunOptions) -> Iterator[int]:
    most = _places(options)
    ranks = 1
    while ranks < most:
        yield ranks
        ranks *= 2
    yield most


def _places(options: RunOptions) -> int:
    found = everywhere(options.hosts, options.hostfile)
    return cores() if found is None else found.ranks


def _step_s(call: Call, options: RunOptions) -> float | None:
    """Seconds a step takes in a world of this size; None where the function makes too few to tell."""
    quietly = replace(
        options, quiet=True, background=True, tensorboard=None, retries=0, min_workers=None, timeout=None,
        stall_timeout=None, show_ranks="0", verify="off" if options.verify == "off" else "auto",
    )  # fmt: skip
    run = launch(call, quietly)
    try:
        return _watched(run)
    finally:
        run.stop()
        shutil.rmtree(run.dir, ignore_errors=True)


def _watched(run: Run) -> float | None:
    """Seconds a step takes, by the clock of rank 0, which says after which step it was when."""
    said: list[tuple[int, float]] = []

    def hear(event: Event) -> None:
        if isinstance(event, Progress) and event.rank == 0 and event.stepped >= WARM_STEPS:
            said.append((event.stepped, event.time_s))

    run.ledger.listen(hear)
    began = time.monotonic()
    while run.status == "running" and (said or time.monotonic() - began < COMES_WITHIN_S):
        time.sleep(_LOOKS_EVERY_S)
        if said and said[-1][1] - said[0][1] >= MEASURES_S and said[-1][0] - said[0][0] >= LEAST_STEPS:
            break
    if run.status == "failed" and run.error is not None:
        raise run.error
    if not said or said[-1][0] - said[0][0] < LEAST_STEPS:
        return None
    return (said[-1][1] - said[0][1]) / (said[-1][0] - said[0][0])
