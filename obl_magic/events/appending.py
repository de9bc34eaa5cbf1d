"""A file that grows by whole pieces or not at all, for the user's eyes only. Knows nothing of what is in it."""

from __future__ import annotations

import os
from pathlib import Path

_LONGEST_LINE = 1 << 16
"""Of what is given up, in bytes."""


class Appending:
    """Appends to a file; where a piece does not fit, as on a full disk, nothing of it stays.

    Args:
        path: the file, made where there is none, readable by its owner alone.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def append(self, piece: bytes) -> None:
        """Adds a piece, which is on its way to the disk when this returns.

        Raises:
            OSError: it could not be written; the file is as before.
        """
        done = 0
        try:
            while done < len(piece):
                done += os.write(self._descriptor, piece[done:] if done else piece)
        except OSError:
            if done:
                os.ftruncate(self._descriptor, os.fstat(self._descriptor).st_size - done)
            raise

    def end_with(self, piece: bytes) -> None:
        """Adds a last piece of lines; where there is no room, in place of the lines before it.

        Raises:
            OSError: it could not be written all the same; the file is as before.
        """
        try:
            self.append(piece)
        except OSError:
            with self._path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - len(piece) - _LONGEST_LINE))
                last = file.read()
            room = last.rfind(b"\n", 0, max(0, len(last) - len(piece))) + 1
            os.ftruncate(self._descriptor, size - len(last) + room)
            try:
                self.append(piece)
            except OSError:
                self.append(last[room:])
                raise

    def sync(self) -> None:
        """Waits until all of it is on the disk itself."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Closes the file; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)
