"""Files that ranks on other hosts leave for the run's folder: they come in pieces, and appear when they are whole."""

from __future__ import annotations

import base64
import binascii
import os
import re
from collections.abc import Callable

from obl_magic.events.event import Sent
from obl_magic.rundir import RunDir, private

_EXPECTED = re.compile(r"(?:value|error|stacks)-\d+\.(?:pkl|bin|txt)")
"""A rank sends nothing else, and nothing that lies elsewhere."""


class Arrivals:
    """Takes the pieces of one run.

    Args:
        folder: the run's.
        note: says what could not be kept.
    """

    def __init__(self, folder: RunDir, note: Callable[[str], None]) -> None:
        self._folder, self._note = folder, note
        self._lost: set[str] = set()

    def take(self, piece: Sent) -> None:
        """Adds a piece to its file."""
        if not _EXPECTED.fullmatch(piece.file) or piece.file in self._lost:
            return
        path = self._folder.path / piece.file
        begun = path.with_name(f".{piece.file}.part")
        try:
            with open(begun, "ab", opener=private) as file:
                file.write(base64.b64decode(piece.data, validate=True))
            if piece.last:
                os.replace(begun, path)
        except (OSError, binascii.Error) as error:
            self._lost.add(piece.file)
            begun.unlink(missing_ok=True)
            why = getattr(error, "strerror", None) or error
            self._note(f"{piece.file} of rank {piece.rank} could not be kept ({why})")
