"""The engine of a world of one rank: every collective is the identity. Needs no MPI."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from obl_magic.worker import tracebacks
from obl_magic.worker.engines.agreement import AttemptFailed


class Alone:
    """Collectives of a single process."""

    name = "alone"
    rank = 0
    size = 1
    local_rank = 0
    local_size = 1
    failed = None
    waited_s = 0.0
    parts: tuple[int, ...] = (1,)

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

    def purpose(self, what: str, of: Sequence[str] = ()) -> AbstractContextManager[None]:
        return nullcontext()

    def during(self, what: str) -> None:
        return None

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        try:
            yield
        except AttemptFailed:
            raise
        except Exception as error:
            raise AttemptFailed(f"rank 0 failed: {tracebacks.one_line(error)}") from error

    def end(self) -> None:
        return None

    def begin(self) -> None:
        return None

    def close(self) -> None:
        return None


def connect() -> Alone:
    """The only rank's collectives."""
    return Alone()
