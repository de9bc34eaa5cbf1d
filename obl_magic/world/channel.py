"""A world as its conductor sees it: what its ranks say, decoded, goes to whoever listens now. Ends nothing.

What is said before somebody listens waits for him. One may listen after another, since a world may take one job
after another, or wait for its only one.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from obl_magic.events.frames import Decoder, Gap, Stray, Whole
from obl_magic.hosts.places import Hosts
from obl_magic.launchers.mpirun import exported
from obl_magic.world.process import MARK, Start, World

Piece = Whole | Gap | Stray


@dataclass(frozen=True, slots=True)
class Wanted:
    """A world that somebody needs.

    Attributes:
        argv: the launcher's command line, up to the ranks' own.
        program: a rank's.
        env: its environment.
        cwd: working folder.
        imports: its ranks import the frameworks.
        hosts: where they are, if not all here.
        queued: where they are is not known before Slurm grants an allocation.
    """

    argv: tuple[str, ...]
    program: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    cwd: Path
    imports: bool
    hosts: Hosts | None = None
    queued: bool = False


class Listener(Protocol):
    """Hears one world; called from its threads."""

    def on_piece(self, piece: Piece) -> None:
        """An event, or what came in place of one."""

    def on_word(self, line: bytes) -> None:
        """A line of the launcher's own."""

    def on_end(self) -> None:
        """The launcher has ended; what it has said last may still come."""


class Channel:
    """A world that was just started, and who hears it.

    Args:
        want: which world.
        start: as for :class:`obl_magic.world.process.World`.

    Attributes:
        world: the world.

    Raises:
        SetupProblem: the launcher could not be started.
    """

    def __init__(self, want: Wanted, start: Start | None = None) -> None:
        self._lock = threading.RLock()
        self._decoder = Decoder()
        self._listener: Listener | None = None
        self._said: list[Piece | bytes | None] = []
        self.world = World(
            want.argv if want.hosts is None else (*want.argv, *exported({**want.env, MARK: ""})),
            want.env,
            want.cwd,
            self._on_line,
            self._say,
            lambda: self._say(None),
            want.program,
            start,
        )

    def speak_to(self, listener: Listener) -> None:
        """Passes on what was said to nobody, and what will be said."""
        with self._lock:
            self._listener = listener
            waiting, self._said = self._said, []
            for what in waiting:
                self._say(what)

    def _on_line(self, line: bytes) -> None:
        for piece in self._decoder.feed(line):
            self._say(piece)

    def _say(self, what: Piece | bytes | None) -> None:
        with self._lock:
            if self._listener is None:
                self._said.append(what)
            elif what is None:
                self._listener.on_end()
            elif isinstance(what, bytes):
                self._listener.on_word(what)
            else:
                self._listener.on_piece(what)
