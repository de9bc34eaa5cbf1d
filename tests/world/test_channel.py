"""A world's output reaches its listener: nothing is lost before there is one, and each hears what comes in its time."""

from __future__ import annotations

import os
import queue
import sys
from pathlib import Path

from obl_magic.events.frames import Stray, Whole
from obl_magic.world.channel import Channel, Piece, Wanted

PROGRAM = """
import os, sys
from obl_magic.events.frames import encode

def say(number, text):
    for frame in encode(0, number, text):
        os.write(1, frame)

say(0, "one")
say(1, "two")
os.write(1, b"no frame\\n")
os.write(2, b"a word\\n")
for line in sys.stdin:
    say(2, line.strip())
"""


class Hears:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.heard: queue.Queue[object] = queue.Queue()

    def on_piece(self, piece: Piece) -> None:
        """An event, or what came in its place."""
        self.heard.put(piece)

    def on_word(self, line: bytes) -> None:
        """A word of the launcher's."""
        self.heard.put(line)

    def on_end(self) -> None:
        """The end."""
        self.heard.put(None)

    def next(self, how_many: int) -> list[object]:
        """What came next, within a deadline."""
        return [self.heard.get(timeout=30) for _ in range(how_many)]


def test_what_was_said_before_waits_for_the_first_listener_and_the_rest_is_the_next_ones(
    tmp_path: Path,
) -> None:
    """In order; the numbering of events goes on from one listener to the next."""
    channel = Channel(Wanted((sys.executable,), ("-c", PROGRAM), dict(os.environ), tmp_path, imports=False))
    first, second = Hears(), Hears()
    try:
        channel.speak_to(first)
        said = first.next(4)
        assert [piece for piece in said if not isinstance(piece, bytes)] == [
            Whole(0, "one"), Whole(0, "two"), Stray("no frame"),
        ]  # fmt: skip
        assert b"a word\n" in said
        channel.speak_to(second)
        channel.world.give(Path("job"))
        (piece,) = second.next(1)
        assert isinstance(piece, Whole)
        assert '"job": "job"' in piece.text
    finally:
        channel.world.stop()
    assert second.next(1) == [None]
    assert first.heard.empty()
