"""Events as frames on a pipe shared by many ranks: at most 4,096 bytes, one write each.

MPICH tears lines longer than one pipe write and launchers may interleave what others print, so an
event is cut into numbered parts, each a line of its own that arrives whole; see docs/design.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

FRAME_BYTES = 4096
MARK = "\x1eOBL "
_PART_CHARS = FRAME_BYTES - 64


def encode(rank: int, sequence: int, text: str) -> Iterator[bytes]:
    """The frames of one event.

    Args:
        rank: the emitting rank.
        sequence: number of the event on this rank, from 0, without gaps.
        text: ASCII without newlines.
    """
    parts = [text[at : at + _PART_CHARS] for at in range(0, len(text), _PART_CHARS)] or [""]
    for part, piece in enumerate(parts):
        yield f"{MARK}{rank} {sequence} {part} {len(parts)} {piece}\n".encode("ascii")


@dataclass(frozen=True, slots=True)
class Whole:
    """An event that arrived whole: which rank said it, and its text."""

    rank: int
    text: str


@dataclass(frozen=True, slots=True)
class Gap:
    """Frames of a rank that never arrived: events ``first`` to ``last`` (inclusive)."""

    rank: int
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class Stray:
    """A line that is no frame: the launcher's own words, or a print before the rank was set up."""

    text: str


@dataclass(slots=True)
class _FromRank:
    expected: int = 0
    parts: list[str] = field(default_factory=list)
    current: int = -1


@dataclass(slots=True)
class Decoder:
    """Lines in, events out, per rank in order; says when something was lost."""

    _ranks: dict[int, _FromRank] = field(default_factory=dict)

    def feed(self, line: bytes) -> Iterator[Whole | Gap | Stray]:
        """Takes one line (with or without its newline); yields what it completes."""
        text = line.decode("utf-8", "replace").rstrip("\r\n")
        before, mark, frame = text.partition(MARK)
        if not mark:
            if text:
                yield Stray(text)
            return
        if before:
            yield Stray(before)
        fields = frame.split(" ", 4)
        try:
            rank, sequence, part, parts = (int(number) for number in fields[:4])
            piece = fields[4]
        except (ValueError, IndexError):
            yield Stray(mark + frame)
            return
        yield from self._place(rank, sequence, part, parts, piece)

    def _place(self, rank: int, sequence: int, part: int, parts: int, piece: str) -> Iterator[Whole | Gap]:
        state = self._ranks.setdefault(rank, _FromRank())
        if sequence != state.current:
            lost_from = state.expected if state.current < state.expected else state.current
            if sequence > lost_from:
                yield Gap(rank, lost_from, sequence - 1)
            state.current, state.parts = sequence, []
            state.expected = sequence
        if part != len(state.parts):
            return
        state.parts.append(piece)
        if len(state.parts) == parts:
            text, state.parts, state.expected = "".join(state.parts), [], sequence + 1
            yield Whole(rank, text)
