"""Puts the Keras adapter together: one context that makes this process one rank of a world."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from keras.src.backend.tensorflow.trainer import TensorFlowTrainer

from obl_magic.worker.collectives import Collectives
from obl_magic.worker.keras import data, losses, metrics, randomness
from obl_magic.worker.keras.fits import Fits
from obl_magic.worker.keras.gradients import GradientReducer
from obl_magic.worker.keras.patching import Patches
from obl_magic.worker.keras.state import SharedState, moving_statistics
from obl_magic.worker.keras.steps import ShardedSteps
from obl_magic.worker.report import Reporter


class Adapter:
    """Keras made oblivious; see :func:`oblivious`.

    Args:
        world: the collectives. reporter: this rank's reporter.
    """

    def __init__(self, world: Collectives, reporter: Reporter) -> None:
        self._world, self._reporter = world, reporter
        self._patches = Patches()
        self._state = SharedState(world)
        self._steps = ShardedSteps(world, self._state, reporter.note)
        self._gradients = GradientReducer(world, self._before_apply)
        exact = self._steps.exact_logs if world.size > 1 else _as_they_are
        self._fits = Fits(world, self._state, reporter, exact)

    def enter(self) -> None:
        """Replaces what must be replaced."""
        self._fits.install(self._patches)
        self._patches.replace(TensorFlowTrainer, "_maybe_symbolic_build", _remember_batch_size)
        if self._world.size == 1:
            return
        rank, size = self._world.rank, self._world.size
        data.install(self._patches, rank, size)
        self._steps.install(self._patches)
        self._gradients.install(self._patches)
        losses.install(self._patches, self._world)
        metrics.install(self._patches)
        randomness.install(self._patches, rank)
        self._patches.replace(TensorFlowTrainer, "evaluate", self._average_first)

    def leave(self) -> None:
        """Puts Keras back exactly as it was."""
        self._patches.restore()

    @property
    def distributed(self) -> bool:
        """Whether anything in the function was made distributed."""
        return bool(self._fits.count or self._steps.made or self._gradients.applied)

    def _before_apply(self, optimizer: Any, variables: Sequence[Any]) -> None:
        self._state.broadcast_new(variables)

    def _average_first(self, original: Any) -> Any:
        """Moving statistics are averaged before they are used by an evaluation."""

        def evaluate(model: Any, *args: Any, **kwargs: Any) -> Any:
            self._state.average(moving_statistics(model))
            return original(model, *args, **kwargs)

        return evaluate


@contextmanager
def oblivious(world: Collectives, reporter: Reporter) -> Iterator[Adapter]:
    """Makes this process one rank of ``world`` for whatever Keras does inside; restores everything on leaving."""
    adapter = Adapter(world, reporter)
    adapter.enter()
    try:
        yield adapter
    finally:
        adapter.leave()


def _as_they_are(model: Any, logs: Any) -> Any:
    return logs


def _remember_batch_size(original: Any) -> Any:
    def _maybe_symbolic_build(model: Any, iterator: Any = None, data_batch: Any = None) -> Any:
        if iterator is not None:
            model._obl_batch_size = iterator.data_adapter.batch_size
        return original(model, iterator=iterator, data_batch=data_batch)

    return _maybe_symbolic_build
