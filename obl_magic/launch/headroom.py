"""Whether so many ranks fit into memory, before any is started.

What a rank takes is what ranks of the same function were seen to take earlier in this process, or else what Python
takes by itself, with Keras where the function names it.
"""

from __future__ import annotations

from obl_magic.errors import UsageProblem
from obl_magic.events.fold import RunState
from obl_magic.values import Captured
from obl_magic.worker.on_import import uses_keras
from obl_magic.world.free_memory import available_bytes

PLAIN_BYTES = 16 * 2**20
KERAS_BYTES = 295 * 2**20
"""What a rank had in use for itself that called an empty function; one that trained a small model, by either engine."""
GB = 10**9


class Headroom:
    """Knows what ranks take, and which worlds the user wants although they may not fit."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}
        self._told: set[tuple[str, int, str]] = set()

    def learn(self, state: RunState) -> None:
        """Takes in what the ranks of a run had in use."""
        for rank in state.ranks.values():
            if rank.digest and rank.memory_bytes:
                self._seen[rank.digest] = max(rank.memory_bytes, self._seen.get(rank.digest, 0))

    def check(self, captured: Captured, ranks: int, free: int | None = None, host: str = "") -> None:
        """Asks before a world is started that memory does not hold; asked a second time it is let through.

        Args:
            captured: the function.
            ranks: of all worlds that run at a time.
            free: memory of their host that is free, in bytes; asked of this one by default.
            host: its name, or "" for this one.

        Raises:
            UsageProblem: they do not fit, and nobody has been told so yet.
        """
        asked = captured.digest, ranks, host
        free = available_bytes() if free is None else free
        each, how = KERAS_BYTES if uses_keras(captured.payload) else PLAIN_BYTES, "before they hold any data"
        if captured.digest in self._seen:
            each, how = self._seen[captured.digest], "as the last ones did"
        if ranks * each <= free or asked in self._told:
            return
        self._told.add(asked)
        raise UsageProblem(
            f"{ranks} ranks that take {each / GB:.2g} GB each ({how}), {ranks * each / GB:,.1f} GB in all, with "
            f"{free / GB:.1f} GB of memory free{host and f' on {host}'}",
            "as many as fit",
            f"workers={max(1, free // each)}, or the same once more to run it all the same",
        )


HEADROOM = Headroom()
"""This process's."""
