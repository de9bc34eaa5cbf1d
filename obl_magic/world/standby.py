"""A world that is already up and waits for its job, so that the next cell need not wait for imports.

Its ranks have imported Keras and initialised MPI, but not Horovod, whose thread would burn a core. It is used once,
for a run that would start the very same world, and dropped when nobody comes, when memory is short, or when another
world is wanted (docs/decisions/0007-standby.md).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from obl_magic.environment import setting
from obl_magic.errors import SetupProblem
from obl_magic.worker.ranks import STANDS_BY
from obl_magic.world.channel import Channel
from obl_magic.world.free_memory import available_bytes
from obl_magic.world.threads import begin

IDLE_S = 600.0
LOOK_EVERY_S = 2.0
SPARE_BYTES_A_RANK = 800 * 2**20
"""Memory that must be free for each rank, to start a standby and to keep it."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What makes one world as good as another.

    Attributes:
        argv: the launcher's command line.
        env: its environment.
        cwd: working folder.
        ranks: how many.
        engine: their collectives.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    cwd: Path
    ranks: int
    engine: str


class Standby:
    """At most one waiting world; usable from any thread. ``OBLIVIOUS_STANDBY=off`` forbids it.

    Args:
        idle_s: seconds after which a world that nobody took is dropped.

    Attributes:
        lock: who holds it makes one step of several; all others wait until then.
        allowed: whether runs prepare the next world.
    """

    def __init__(self, idle_s: float = IDLE_S) -> None:
        self.allowed = setting("STANDBY")[1] != "off"
        self._idle_s = idle_s
        self.lock = threading.RLock()
        self._waiting: _Waiting | None = None

    @property
    def ranks(self) -> int:
        """How many ranks wait now; 0 for none."""
        with self.lock:
            return 0 if self._waiting is None else self._waiting.wanted.ranks

    def prepare(self, wanted: Wanted) -> bool:
        """Brings such a world up, in place of another that may wait; whether there is memory for it."""
        with self.lock:
            if self._waiting is not None and self._waiting.serves(wanted):
                return True
            self.drop()
            if available_bytes() < 2 * wanted.ranks * SPARE_BYTES_A_RANK:
                return False
            try:
                env = {**wanted.env, STANDS_BY: wanted.engine}
                waiting = self._waiting = _Waiting(wanted, Channel(wanted.argv, env, wanted.cwd))
            except SetupProblem:  # the next run will say so itself
                return False
        try:
            begin(self._look_after, "obl-standby", waiting)
        except SetupProblem:
            self.drop()
            return False
        return True

    def take(self, wanted: Wanted) -> Channel | None:
        """The waiting world if it is such a one; else none waits any more."""
        waiting = self._give_up()
        if waiting is None:
            return None
        if waiting.serves(wanted):
            return waiting.channel
        waiting.channel.world.stop()
        return None

    def drop(self) -> None:
        """Ends the waiting world."""
        if (waiting := self._give_up()) is not None:
            waiting.channel.world.stop()

    def _give_up(self, only: _Waiting | None = None) -> _Waiting | None:
        """The waiting world, or only this one, which is nobody's from now on."""
        with self.lock:
            waiting = self._waiting
            if waiting is None or only not in (None, waiting):
                return None
            self._waiting = None
            return waiting

    def _look_after(self, waiting: _Waiting) -> None:
        until = time.monotonic() + self._idle_s
        while self._waiting is waiting:
            gone = waiting.channel.world.wait(LOOK_EVERY_S)
            short = available_bytes() < waiting.wanted.ranks * SPARE_BYTES_A_RANK
            if (gone or short or time.monotonic() > until) and self._give_up(waiting):
                waiting.channel.world.stop()


@dataclass(frozen=True, slots=True)
class _Waiting:
    """One waiting world, and what it is good for."""

    wanted: Wanted
    channel: Channel

    def serves(self, wanted: Wanted) -> bool:
        """Whether it is alive, and what is wanted."""
        return self.wanted == wanted and self.channel.world.exit_code is None


STANDBY = Standby()
"""This process's."""
