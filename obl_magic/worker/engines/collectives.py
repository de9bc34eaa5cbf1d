"""The collectives an engine must offer, and the engines of a process. Imports no engine until it is asked for.

An engine is a module with ``connect() -> Collectives``. Tensors are TensorFlow tensors; every call works
eagerly and inside a traced function, and every rank must make the same calls in the same order: where it does not,
every rank is told so, in words, instead of waiting for ever.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from obl_magic.engines import ENGINES
from obl_magic.errors import OblError
from obl_magic.worker.engines.agreement import AttemptFailed as AttemptFailed


class Collectives(Protocol):
    """What the adapters need of an engine.

    Attributes:
        name: the engine's name.
        rank: this process in the world.
        size: this process in the world.
        local_rank: this process on its host.
        local_size: this process on its host.
        parts: what each rank has of the rows of a batch, of their sum; equal until ranks are found to differ in pace.
    """

    parts: tuple[int, ...]

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

    def purpose(self, what: str, of: Sequence[str] = ()) -> AbstractContextManager[None]:
        """Within the block exchanges are said to be for this, should the ranks be found to do different things.

        Args:
            what: as it follows "was about to", e.g. ``sum the gradients``.
            of: names of what is exchanged.
        """
        ...

    def during(self, what: str) -> None:
        """From now on this is said of whatever this rank exchanges, e.g. ``in its 2nd fit``; for people only."""
        ...

    def attempt(self, what: str) -> AbstractContextManager[None]:
        """All ranks do the block, or all leave it: what one raises inside ends it for all.

        Every rank must enter it. A rank that raises inside answers the others' next exchange (eager, traced, or the
        one that ends the block), whatever that is; so does a rank that is about to exchange something else.
        Afterwards the ranks are in step and may exchange again. What is no ``Exception`` passes through, unanswered.

        Args:
            what: as it follows "give up", e.g. ``the proof of dense``; the same on every rank.

        Raises:
            AttemptFailed: on every rank, with the same reason; on the rank that raised, from its own exception.
        """
        ...

    def end(self) -> None:
        """This rank has ended its function; returns when all have (outside traced functions only).

        Raises:
            NotOblivious: on every rank, if another one is about to exchange something.
        """
        ...

    @property
    def failed(self) -> OblError | None:
        """Why the ranks have parted; a traced function raises it as an error of TensorFlow's. None while they agree."""
        ...

    @property
    def waited_s(self) -> float:
        """Seconds that this rank has waited so far for others to come to what it exchanges with them."""
        ...

    def begin(self) -> None:
        """A job begins on this rank; nothing has failed yet."""
        ...

    def close(self) -> None:
        """Ends the engine on this rank; nothing may be called after it."""
        ...


def connect(engine: str) -> Collectives:
    """The collectives of a named engine, ready for use. Every rank must call it."""
    module = importlib.import_module(ENGINES[engine].module)
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
        self._open[engine].begin()
        return self._open[engine]

    def done(self) -> None:
        """A job is over."""
        if not self.stay:
            self.close()

    def close(self) -> None:
        """Ends all."""
        while self._open:
            self._open.popitem()[1].close()
