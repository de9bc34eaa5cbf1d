"""The collectives an engine must offer, and the registry of engines. Imports no engine until it is asked for.

An engine is a module with ``connect() -> Collectives``. Tensors are TensorFlow tensors; every call works
eagerly and inside a traced function, and every rank must make the same calls in the same order.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Any, Protocol

ENGINES = {
    "horovod": "obl_magic.worker.horovod",
    "mpi": "obl_magic.worker.mpi",
    "alone": "obl_magic.worker.alone",
}


class Collectives(Protocol):
    """What the adapters need of an engine.

    Attributes:
        name: the engine's name. rank, size: this process in the world.
        local_rank, local_size: this process on its host.
    """

    @property
    def name(self) -> str: ...
    @property
    def rank(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def local_rank(self) -> int: ...
    @property
    def local_size(self) -> int: ...

    def allreduce(self, tensors: Sequence[Any]) -> list[Any]:
        """Elementwise sums over all ranks, on every rank; shapes and dtypes as given, equal on all ranks."""
        ...

    def broadcast(self, tensors: Sequence[Any], root: int = 0) -> list[Any]:
        """The root's values on every rank; shapes and dtypes equal on all ranks."""
        ...

    def allgather(self, tensor: Any) -> Any:
        """All ranks' tensors one after another along axis 0, in rank order; axis 0 may differ between ranks."""
        ...

    def allgather_object(self, value: Any) -> list[Any]:
        """Every rank's picklable value, in rank order (outside traced functions only)."""
        ...

    def barrier(self) -> None:
        """Returns when every rank has called it (outside traced functions only)."""
        ...

    def close(self) -> None:
        """Ends the engine on this rank; nothing may be called after it."""
        ...


def connect(engine: str) -> Collectives:
    """The collectives of a named engine, ready for use. Every rank must call it."""
    module = importlib.import_module(ENGINES[engine])
    connected: Collectives = module.connect()
    return connected


class Connections:
    """The engines of a process, each connected when first asked for.

    Args:
        stay: they stay connected from job to job; else each ends with its job.
    """

    def __init__(self, stay: bool = False) -> None:
        self.stay = stay
        self._open: dict[str, Collectives] = {}

    def get(self, engine: str) -> Collectives:
        """The collectives of a named engine; every rank must call it."""
        if engine not in self._open:
            self._open[engine] = connect(engine)
        return self._open[engine]

    def done(self) -> None:
        """A job is over."""
        if not self.stay:
            self.close()

    def close(self) -> None:
        """Ends all."""
        while self._open:
            self._open.popitem()[1].close()
