"""Ranks agree on what they exchange before they do: ranks that part are named, and nobody waits for ever.

Before its data every exchange sends a few numbers: what it is, how many rows, whether this rank still can. Only when
they differ do the ranks tell one another in words what each was about to do. Knows small MPI messages and no tensors.
"""

from __future__ import annotations

import hashlib
import struct
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from obl_magic.errors import NotOblivious, OblError
from obl_magic.worker import tracebacks

END = "end its function"
_GIVE_UP = "give up"
_CLOCKS = {"time", "time_ns", "perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "now", "utcnow"}
_NAP_S = 0.001
_NUMBERS = struct.Struct("3q")
"""What a rank sends before an exchange: its key, its rows, how many attempts it is in."""

_REASON = 300
"""Characters of an error that are told to the others."""

_NAMED = 4
"""Tensors that a sentence names one by one."""


class AttemptFailed(OblError):
    """What the ranks attempted together failed on at least one of them; all have left it.

    Args:
        reason: which rank failed, and why.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


@dataclass(frozen=True, slots=True)
class Exchange:
    """One exchange, as it must be the same on every rank.

    Attributes:
        verb: what is done, e.g. ``sum``.
        dtypes: of the tensors.
        shapes: one after another, each as its number of axes and their lengths; -1 for an axis that may differ.
        name: what else must be the same, e.g. for the engine.
        purpose: what it is for, in words.
        of: names of what it carries. Both are for people.
    """

    verb: str
    dtypes: tuple[str, ...] = ()
    shapes: tuple[int, ...] = ()
    name: str = ""
    purpose: str = ""
    of: tuple[str, ...] = ()

    def key(self) -> int:
        """A number that is the same for the same exchange."""
        told = f"{self.verb}|{self.dtypes}|{self.shapes}|{self.name}".encode()
        return int.from_bytes(hashlib.blake2b(told, digest_size=8).digest(), "little", signed=True)

    def __str__(self) -> str:
        if not self.dtypes:
            return self.purpose or self.verb
        tensors = [f"{d} {s}" for d, s in zip(self.dtypes, self._shapes(), strict=True)]
        carried = _some(tensors)
        if not self.purpose:
            count = "a tensor" if len(tensors) == 1 else f"{len(tensors)} tensors"
            return f"{self.verb} {count}: {carried}"
        of = f" of {_some(self.of)}" if self.of else ""
        return f"{self.purpose}{of}: {carried}"

    def _shapes(self) -> Iterator[str]:
        lengths = list(self.shapes)
        while lengths:
            rank, *lengths = lengths
            shape, lengths = lengths[:rank], lengths[rank:]
            yield f"({', '.join('n' if n < 0 else str(n) for n in shape)}{',' if rank == 1 else ''})"


@dataclass(frozen=True, slots=True)
class _Told:
    """What a rank says in words when the ranks have parted.

    Attributes:
        kind: what it was about to do, in short.
        what: with what.
        where: at which line.
        clock: the code there reads the clock.
        failed: why it gives up what it attempts, if it does.
    """

    kind: str
    what: str
    where: str
    clock: bool
    failed: str = ""


class Agreement:
    """Makes ranks agree. All exchanges of a world go through one, in the same order on every rank.

    Args:
        comm: an MPI communicator that nothing else uses.

    Attributes:
        waited_s: seconds spent so far in waiting for other ranks to come to the same exchange.
    """

    def __init__(self, comm: Any) -> None:
        self._comm = comm
        self._depth = 0
        self._failed: OblError | None = None
        self._purpose: tuple[str, tuple[str, ...]] = ("", ())
        self._during = ""
        self.waited_s = 0.0

    def begin(self) -> None:
        """A job begins: nothing has failed yet."""
        self._depth, self._failed, self._during = 0, None, ""

    def during(self, what: str) -> None:
        """From now on this is said of whatever this rank exchanges: ``in its 2nd fit``; for people only."""
        self._during = what

    @property
    def failed(self) -> OblError | None:
        """Why the ranks have parted, or why what they attempt has failed; None as long as they agree."""
        return self._failed

    @property
    def purpose(self) -> tuple[str, tuple[str, ...]]:
        """What exchanges made now are for, and names of what they carry."""
        return self._purpose

    @contextmanager
    def purposeful(self, purpose: str, of: Sequence[str] = ()) -> Iterator[None]:
        """Within it exchanges are said to be for this: ``sum the gradients``. Eager ones must be so on every rank."""
        before, self._purpose = self._purpose, (purpose, tuple(of))
        try:
            yield
        finally:
            self._purpose = before

    def meet(self, exchange: Exchange, rows: int = 0, key: int | None = None) -> list[int]:
        """Returns when every rank is about to make the same exchange.

        Args:
            exchange: what this rank is about to do.
            rows: of this rank, where they may differ.
            key: the exchange's, if it is known.

        Returns:
            Every rank's rows.

        Raises:
            NotOblivious: the ranks are about to do different things; on every rank.
            AttemptFailed: so are they inside an attempt, or a rank has failed in it; on every rank.
        """
        if self._failed is not None:
            raise self._failed
        return self._same(self._told(exchange.key() if key is None else key, rows), exchange)

    def end(self) -> None:
        """Tells the others that this rank has ended its function, and waits, at rest, until they have too."""
        if self._failed is not None:
            raise self._failed
        exchange = Exchange(END)
        self._same(self._told(exchange.key(), 0, rests=True), exchange)

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """All ranks do the block or leave it together; see :meth:`Collectives.attempt`."""
        self._depth += 1
        try:
            try:
                yield
            except Exception as error:
                if self._failed is None:
                    self._give_up(what, error)
                assert self._failed is not None
                if error is self._failed:
                    raise
                raise self._failed from error
            self.meet(Exchange(f"end what it attempts: {what}"))
        finally:
            self._depth -= 1
            if isinstance(self._failed, AttemptFailed):
                self._failed = None

    def _give_up(self, what: str, error: Exception) -> None:
        """Answers the others' next exchange with why this rank cannot go on."""
        _, _, depths = self._told(Exchange(_GIVE_UP).key(), 0)
        self._parted(depths, Exchange(f"{_GIVE_UP} {what}"), tracebacks.one_line(error)[:_REASON])

    def _told(self, key: int, rows: int, rests: bool = False) -> tuple[list[int], list[int], list[int]]:
        """Every rank's keys, rows and depths. All ranks call it, whatever they are about to do.

        Args:
            key: this rank's.
            rows: this rank's.
            rests: it leaves the processor to others while it waits.
        """
        everyone = bytearray(_NUMBERS.size * self._comm.size)
        began_s = time.perf_counter()
        # never the blocking call: MPI does not let one rank's match another's that can be waited for at rest
        request = self._comm.Iallgather(_NUMBERS.pack(key, rows, self._depth), everyone)
        while rests and not request.Test():
            time.sleep(_NAP_S)
        request.Wait()
        self.waited_s += time.perf_counter() - began_s
        keys, rows_of, depths = zip(*_NUMBERS.iter_unpack(everyone), strict=True)
        return list(keys), list(rows_of), list(depths)

    def _same(self, told: tuple[list[int], list[int], list[int]], exchange: Exchange) -> list[int]:
        keys, rows, depths = told
        if keys.count(keys[0]) == len(keys) == depths.count(depths[0]):
            return rows
        self._parted(depths, exchange)
        assert self._failed is not None
        raise self._failed

    def _parted(self, depths: Sequence[int], exchange: Exchange, failed: str = "") -> None:
        """Keeps the error that says, on every rank alike, what each was about to do."""
        where, clock = _place()
        what = f"{exchange}{f' {self._during}' if self._during else ''}"
        mine = _Told(exchange.purpose or exchange.verb, what, where, clock, failed)
        told: list[_Told] = self._comm.allgather(mine)
        if depths[0] > 0 and depths.count(depths[0]) == len(depths):
            reasons = [f"rank {rank} failed: {one.failed}" for rank, one in enumerate(told) if one.failed]
            self._failed = AttemptFailed("; ".join(reasons) or parted(told))
        else:
            self._failed = NotOblivious(parted(told), _cure(told))


class Agreed:
    """What collectives over an agreement have in common.

    Args:
        comm: an MPI communicator that nothing else uses.
    """

    def __init__(self, comm: Any) -> None:
        self._comm = comm
        self._agreement = Agreement(comm)
        self.parts: tuple[int, ...] = (1,) * comm.Get_size()

    def allgather_object(self, value: Any) -> list[Any]:
        self._agreement.meet(self._exchange("tell the others an object"))
        everyone: list[Any] = self._comm.allgather(value)
        return everyone

    def barrier(self) -> None:
        self._agreement.meet(self._exchange("wait for the others"))

    def purpose(self, what: str, of: Sequence[str] = ()) -> AbstractContextManager[None]:
        return self._agreement.purposeful(what, of)

    def during(self, what: str) -> None:
        self._agreement.during(what)

    def attempt(self, what: str) -> AbstractContextManager[None]:
        return self._agreement.attempt(what)

    def end(self) -> None:
        self._agreement.end()

    @property
    def failed(self) -> OblError | None:
        return self._agreement.failed

    @property
    def waited_s(self) -> float:
        return self._agreement.waited_s

    def begin(self) -> None:
        self.parts = (1,) * self._comm.Get_size()
        self._agreement.begin()

    def _exchange(self, verb: str) -> Exchange:
        """An exchange without tensors, made now."""
        purpose, of = self._agreement.purpose
        return Exchange(verb, name=purpose, purpose=purpose, of=of)


def parted(told: Sequence[Any]) -> str:
    """One sentence that says what each rank was about to do."""
    groups: dict[str, list[int]] = {}
    for rank, one in enumerate(told):
        does = f"{one.what}{f' ({one.where})' if one.where else ''}"
        groups.setdefault(does, []).append(rank)
    said = [f"{_ranks(ranks)} to {does}" for does, ranks in groups.items()]
    first, *others = said
    _, _, does = first.partition(" to ")
    ranks = groups[next(iter(groups))]
    first = f"{_ranks(ranks)} {'was' if len(ranks) == 1 else 'were'} about to {does}"
    return "the ranks no longer do the same: " + ", ".join([first, *others])


def _cure(told: Sequence[_Told]) -> str:
    general = "look for code that acts on one rank only, or for unseeded random numbers"
    if any(one.clock for one in told) and any(one.kind != told[0].kind for one in told):
        return (
            "let it not depend on the clock, which the function reads and which differs between ranks "
            f"(count epochs or steps, or give --timeout); else {general}"
        )
    return general


def _place() -> tuple[str, bool]:
    """(the line of the user's that the main thread is at, whether the user's functions around it read the clock)."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    frames = list(tracebacks.users_frames(frame))
    clock = any(not _CLOCKS.isdisjoint(each.f_code.co_names) for each in frames)
    return (tracebacks.line_of(frames[0]) if frames else ""), clock


def _ranks(ranks: Sequence[int]) -> str:
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    return f"ranks {', '.join(map(str, ranks[:-1]))} and {ranks[-1]}"


def _some(names: Sequence[str]) -> str:
    more = f", … ({len(names) - _NAMED} more)" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
