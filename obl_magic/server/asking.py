"""How a kernel, its fork server and the stubs of a world talk: sizes, bytes, descriptors. Forks nothing."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from typing import NamedTuple

from obl_magic.server.stub import SIZE_BYTES

MARK_OF_NO_WORLD = "0" * 32
"""What a server's environment has where a world's has its mark, which is written over it."""
STARTED = "OBLIVIOUS_SERVER"
"""Tells a server, in its environment: its kernel's process id, the socket to it, and what to import."""
_LONGEST_BYTES = 1 << 24
_MOST_FILES = 64


class Request(NamedTuple):
    """A world that the kernel asks for.

    Attributes:
        argv: the launcher's command line.
        env: its whole environment.
        cwd: its working folder.
        folders: see :func:`obl_magic.world.leash.main`.
        segments: see :class:`obl_magic.world.leash.Leash`.
        address: where the stubs find the conductor.
        mark: variable of the environment that marks the processes of this world, and its value.
    """

    argv: list[str]
    env: dict[str, str]
    cwd: str
    folders: list[str]
    segments: str
    address: str
    mark: tuple[str, str]


def ask(whom: socket.socket, about: bytes, files: Sequence[int]) -> None:
    """Sends one message, and descriptors with it.

    Args:
        whom: the other end.
        about: the message.
        files: the descriptors.
    """
    socket.send_fds(whom, [len(about).to_bytes(SIZE_BYTES, "big")], files)
    whom.sendall(about)


def receive(source: socket.socket) -> tuple[bytes, list[int]]:
    """One message, and the descriptors that came with it; nothing at the end of all.

    Args:
        source: from whom, as :func:`ask` and the stubs write it: the size, with the descriptors, and so many bytes.
    """
    size, files, _, _ = socket.recv_fds(source, SIZE_BYTES, _MOST_FILES)
    while 0 < len(size) < SIZE_BYTES:
        size += source.recv(SIZE_BYTES - len(size))
    left, pieces = int.from_bytes(size, "big"), []
    while left and (piece := source.recv(min(left, _LONGEST_BYTES))):
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces), list(files)


def tell(stub: socket.socket, number: int) -> None:
    """Sends a number, if the other end is still there."""
    with contextlib.suppress(OSError):
        stub.sendall(number.to_bytes(SIZE_BYTES, "big"))
