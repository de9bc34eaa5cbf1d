"""The engine of a world of one rank: every collective is the identity. Needs no MPI."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Alone:
    """Collectives of a single process."""

    name = "alone"
    rank = 0
    size = 1
    local_rank = 0
    local_size = 1

    def allreduce(self, tensors: Sequence[Any]) -> list[Any]:
        return list(tensors)

    def broadcast(self, tensors: Sequence[Any], root: int = 0) -> list[Any]:
        return list(tensors)

    def allgather(self, tensor: Any) -> Any:
        return tensor

    def allgather_object(self, value: Any) -> list[Any]:
        return [value]

    def barrier(self) -> None:
        return None

    def close(self) -> None:
        return None


def connect() -> Alone:
    """The only rank's collectives."""
    return Alone()
