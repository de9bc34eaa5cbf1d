"""Large buffers of a pickle as a file, and back as memory: mapped, so that processes of a host share its pages.

The mapping is private: who writes into an array gets pages of its own, and the file stays as it is. In the file each
buffer follows a line of 64 bytes with its size, and begins at a multiple of 64 bytes, as numerical code likes it.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator
from pathlib import Path
from pickle import PickleBuffer
from typing import Any

ALIGNED = 64


def parts(buffers: Iterable[PickleBuffer]) -> Iterator[bytes | memoryview]:
    """The contents of a file that holds these buffers; none of them is copied."""
    for buffer in buffers:
        raw = buffer.raw()
        yield f"{raw.nbytes:<{ALIGNED - 1}}\n".encode("ascii")
        yield raw
        yield bytes(-raw.nbytes % ALIGNED)


def mapped(path: Path | str) -> list[memoryview]:
    """The buffers in a file, in order; what is written into them is this process's own.

    Raises:
        ValueError: it is not such a file, or not a whole one.
    """
    with open(path, "rb") as file:
        return split(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))


def split(memory: Any) -> list[memoryview]:
    """The buffers in the contents of a file."""
    whole, found, at = memoryview(memory), [], 0
    while at < len(whole):
        size = int(bytes(whole[at : at + ALIGNED]))
        at += ALIGNED
        if size < 0 or at + size > len(whole):
            raise ValueError(f"a buffer of {size} bytes is cut short")
        found.append(whole[at : at + size])
        at += size + -size % ALIGNED
    return found
