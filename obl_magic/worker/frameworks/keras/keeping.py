"""When and where it is written down how far a function is, and how another world reads it; of fits and loops alike."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from obl_magic import payload
from obl_magic.rundir import RunDir
from obl_magic.worker.engines.collectives import Collectives

CHEAP_SHARE = 0.005
"""Of the time, that keeping may cost where nobody asked for restarts."""
SELDOM_S = 10.0

Kept = TypeVar("Kept")


class Keeping:
    """Files of a run's folder by number; written by rank 0, read by all.

    Args:
        world: the collectives.
        folder: the run's folder, or None: nothing is kept.
        goes_on: an earlier world may have kept something.
        each_epoch: whether every epoch is kept now, whatever it costs; else only as often as costs little.
    """

    def __init__(
        self, world: Collectives, folder: RunDir | None, goes_on: bool, each_epoch: Callable[[], bool]
    ) -> None:
        self._world, self._folder, self._goes_on, self._each_epoch = world, folder, goes_on, each_epoch
        self._kept_s, self._cost_s = time.perf_counter(), 0.0

    def find(self, number: int, without_values: Callable[[Kept], Kept]) -> Kept | None:
        """What an earlier world has kept, with its arrays on rank 0 only; None if nothing.

        Args:
            number: of the fit, from 1; 0: the loop by hand.
            without_values: what other ranks get of it.
        """
        if self._folder is None or not self._goes_on:
            return None
        path = self._folder.checkpoint(number)
        kept: Kept | None = None
        if self._world.rank == 0 and path.is_file():
            kept = payload.loads(path.read_bytes())
        if self._world.size > 1:
            (light, *_) = self._world.allgather_object(None if kept is None else without_values(kept))
            kept = kept if self._world.rank == 0 else light
        return kept

    @property
    def writes(self) -> bool:
        """Whether this rank writes down what is kept."""
        return self._folder is not None and self._world.rank == 0

    def is_due(self) -> bool:
        """Whether the end of an epoch is to be written down, by this rank."""
        wait_s = 0.0 if self._each_epoch() else max(SELDOM_S, self._cost_s / CHEAP_SHARE)
        return self.writes and self.ago_s() >= wait_s

    def ago_s(self) -> float:
        """Seconds since something was kept last, or could have been."""
        return time.perf_counter() - self._kept_s

    def write(self, number: int, make: Callable[[], Any]) -> None:
        """Writes down what ``make`` returns; its time counts as the cost, too."""
        assert self._folder is not None
        began_s = time.perf_counter()
        path = self._folder.checkpoint(number)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        self._folder.write_bytes(path, payload.dumps(make()))
        self._kept_s = time.perf_counter()
        self._cost_s = self._kept_s - began_s
