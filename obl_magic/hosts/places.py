"""Hosts with their places for ranks, as users write them: ``a:4,b:4``, a hostfile. Asks nobody."""

from __future__ import annotations

import re
import socket
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from obl_magic.errors import UsageProblem

LOCAL = ("localhost", "127.0.0.1", "[::1]")
_NAME = r"(?:[A-Za-z0-9_][\w.-]*@)?(?:[A-Za-z0-9_][\w.-]*|\[[0-9A-Fa-f:]+\])"
_PLACE = re.compile(rf"({_NAME})(?::(\d+))?")
_LINE = re.compile(rf"({_NAME})(?:(?:\s+slots\s*=\s*|:)(\d+))?(?:\s+max[-_]slots\s*=\s*\d+)?")
EXPECTED = "NAME or NAME:RANKS with commas"
EXAMPLE = "--hosts a:4,b:4"


@dataclass(frozen=True, slots=True)
class Place:
    """A host with its ranks.

    Attributes:
        host: its name, as it was written.
        ranks: how many.
    """

    host: str
    ranks: int


@dataclass(frozen=True, slots=True)
class Hosts:
    """Where a world's ranks are, in the order of their numbers.

    Attributes:
        places: one a host.
        of: what they are hosts of (``Slurm job 4711``), or "".
    """

    places: tuple[Place, ...]
    of: str = ""

    @property
    def ranks(self) -> int:
        """Of all hosts."""
        return sum(place.ranks for place in self.places)

    @property
    def names(self) -> tuple[str, ...]:
        """Of the hosts, in order."""
        return tuple(place.host for place in self.places)

    @property
    def is_here(self) -> bool:
        """Whether all ranks are on this host."""
        return all(map(is_this_host, self.names))

    @property
    def typed(self) -> str:
        """As a user types it and mpirun reads it: ``a:4,b:4``."""
        return ",".join(f"{place.host}:{place.ranks}" for place in self.places)

    @property
    def in_words(self) -> str:
        """``a 4, b 4``."""
        return ", ".join(f"{place.host} {place.ranks}" for place in self.places)

    @property
    def told(self) -> str:
        """``8 ranks on 2 hosts of Slurm job 4711: a 4, b 4``."""
        hosts = "1 host" if len(self.places) == 1 else f"{len(self.places)} hosts"
        ranks = "1 rank" if self.ranks == 1 else f"{self.ranks} ranks"
        return f"{ranks} on {hosts}{f' of {self.of}' if self.of else ''}: {self.in_words}"

    def take(self, ranks: int) -> Self:
        """The first so many places.

        Raises:
            UsageProblem: there are fewer.
        """
        if ranks > self.ranks:
            each = -(-ranks // len(self.places))
            more = ",".join(f"{name}:{each}" for name in self.names)
            raise UsageProblem(
                f"{ranks} workers on hosts with {self.ranks} places ({self.in_words})",
                "as many places as workers",
                f"--hosts {more}",
            )
        return self._with(_filled([place.ranks for place in self.places], ranks))

    def spread(self, ranks: int) -> Self:
        """So many places, as evenly as the hosts have them; none more than there are."""
        return self._with(_spread([place.ranks for place in self.places], min(ranks, self.ranks)))

    def without(self, host: str) -> Self:
        """All but one host."""
        return self._with([place.ranks * (place.host != host) for place in self.places])

    def worlds(self, worlds: int, each: int) -> list[Self]:
        """Places for so many worlds of ``each`` ranks; none is on several hosts while one has room for it."""
        room = {place.host: place.ranks for place in self.places}
        found = []
        for _ in range(worlds):
            whole = next((host for host, free in room.items() if free >= each), None)
            taken = (
                _filled([*room.values()], each)
                if whole is None
                else [each * (host == whole) for host in room]
            )
            found.append(self._with(taken))
            room = {host: free - of for (host, free), of in zip(room.items(), taken, strict=True)}
        return found

    def _with(self, counts: Sequence[int]) -> Self:
        kept = zip(self.names, counts, strict=True)
        return type(self)(tuple(Place(host, ranks) for host, ranks in kept if ranks), self.of)


def beside(worlds: Sequence[Hosts]) -> list[str]:
    """For each world, of each of its ranks: its number among all worlds' ranks on its host, and how many these are.

    Args:
        worlds: that run at a time.

    Returns:
        For a world of two ranks ``0/4,1/4``.
    """
    everyone: Counter[str] = Counter()
    for place in (place for world in worlds for place in world.places):
        everyone[place.host] += place.ranks
    before: Counter[str] = Counter()
    told = []
    for world in worlds:
        each = []
        for place in world.places:
            each += [f"{before[place.host] + number}/{everyone[place.host]}" for number in range(place.ranks)]
            before[place.host] += place.ranks
        told.append(",".join(each))
    return told


def parse(text: str | Sequence[str], workers: int | None = None) -> Hosts:
    """Hosts as they are typed.

    Args:
        text: names with commas, or a sequence of them; with a number of ranks each (``a:4,b:4``), or without one.
        workers: ranks in all, or None. Hosts without numbers share them.

    Raises:
        UsageProblem: it is nothing of the kind, or has fewer places than there are workers.
    """
    entries = text.split(",") if isinstance(text, str) else list(text)
    found = [_PLACE.fullmatch(entry.strip()) if isinstance(entry, str) else None for entry in entries]
    numbered = [bool(each and each[2]) for each in found]
    if not found or not all(found) or any(each and each[2] and int(each[2]) < 1 for each in found):
        raise _wrong(text, EXPECTED)
    if any(numbered) and not all(numbered):
        raise _wrong(text, "a number of ranks after each name, or after none")
    return _placed([(each[1], int(each[2] or 1)) for each in found if each], all(numbered), workers)


def read_hostfile(path: str | Path, workers: int | None = None) -> Hosts:
    """Hosts as Open MPI and horovodrun read them from a file: a line each, ``a slots=4``.

    Args:
        path: the file.
        workers: as for :func:`parse`.

    Raises:
        UsageProblem: there is no such file, or a line is none of these.
    """
    try:
        text = Path(path).expanduser().read_text()
    except OSError as error:
        raise UsageProblem(
            f"hostfile {str(path)!r} ({error.strerror})",
            "a file with a host on each line",
            "--hostfile hosts.txt",
        ) from None
    found, numbered = [], []
    for number, line in enumerate(text.splitlines(), 1):
        said = line.partition("#")[0].strip()
        if not said:
            continue
        match = _LINE.fullmatch(said)
        if match is None or match[2] == "0":
            raise UsageProblem(f"{path}, line {number}: {said!r}", "NAME or NAME slots=RANKS", "a slots=4")
        found.append((match[1], int(match[2] or 1)))
        numbered.append(match[2] is not None)
    if not found:
        raise UsageProblem(f"hostfile {str(path)!r} without a host", "a host on each line", "a slots=4")
    return _placed(found, any(numbered), workers)


def is_this_host(name: str) -> bool:
    """Whether a host's name means the one that this process is on."""
    bare = name.rpartition("@")[2]
    mine = socket.gethostname()
    return bare in (*LOCAL, mine, mine.partition(".")[0])


def _placed(found: Iterable[tuple[str, int]], numbered: bool, workers: int | None) -> Hosts:
    """Each host once, this one first: rank 0 is where the run's folder is, and mpirun begins here, too."""
    counts: dict[str, int] = {}
    for name, ranks in found:
        counts[name] = counts.get(name, 0) + ranks
    ordered = sorted(counts.items(), key=lambda entry: not is_this_host(entry[0]))
    hosts = Hosts(tuple(Place(name, ranks) for name, ranks in ordered))
    if workers is None:
        return hosts
    if numbered:
        return hosts.take(workers)
    counted = _spread([workers] * len(ordered), workers)
    return Hosts(
        tuple(Place(name, ranks) for (name, _), ranks in zip(ordered, counted, strict=True) if ranks)
    )


def _filled(room: Sequence[int], ranks: int) -> list[int]:
    """The first places that have room for so many ranks."""
    counts = []
    for each in room:
        counts.append(min(each, ranks))
        ranks -= counts[-1]
    return counts


def _spread(room: Sequence[int], ranks: int) -> list[int]:
    """So many ranks, one to a host in turn, none more than it has room for."""
    counts = [0] * len(room)
    while sum(counts) < ranks:
        for at, each in enumerate(room):
            if counts[at] < each and sum(counts) < ranks:
                counts[at] += 1
    return counts


def _wrong(text: Any, expected: str) -> UsageProblem:
    shown = text if isinstance(text, str) else ",".join(map(str, text))
    return UsageProblem(f"hosts {shown!r}", expected, EXAMPLE)
