"""Puts the Keras adapter together: one context that makes this process one rank of a world."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from keras.src.backend.tensorflow.trainer import TensorFlowTrainer

from obl_magic.rundir import RunDir
from obl_magic.values import Settings
from obl_magic.worker.engines.collectives import Collectives
from obl_magic.worker.frameworks.keras import batchnorm, data, losses, metrics, randomness, refusals, seams
from obl_magic.worker.frameworks.keras.balance import Balance
from obl_magic.worker.frameworks.keras.callbacks import CallbackHooks, Parts
from obl_magic.worker.frameworks.keras.checkpoints import Checkpoints
from obl_magic.worker.frameworks.keras.checksum import Checksum
from obl_magic.worker.frameworks.keras.custom_loops import CustomLoops
from obl_magic.worker.frameworks.keras.gradients import GradientReducer
from obl_magic.worker.frameworks.keras.keeping import Keeping
from obl_magic.worker.frameworks.keras.loop_checkpoints import LoopCheckpoints
from obl_magic.worker.frameworks.keras.model_calls import ModelCalls
from obl_magic.worker.frameworks.keras.monitor import Monitor
from obl_magic.worker.frameworks.keras.noise import Gradients
from obl_magic.worker.frameworks.keras.pipelines import Pipelines
from obl_magic.worker.frameworks.keras.rates import ScaledRate
from obl_magic.worker.frameworks.keras.same_data import SameData
from obl_magic.worker.frameworks.keras.saving import OneWriter
from obl_magic.worker.frameworks.keras.state import SharedState, moving_statistics
from obl_magic.worker.frameworks.keras.steps import SharedSteps
from obl_magic.worker.frameworks.keras.verifying import Verified
from obl_magic.worker.frameworks.keras.weights import BestWeights, InitialWeights
from obl_magic.worker.patching import Patches
from obl_magic.worker.report import Reporter
from obl_magic.worker.written import Written, by_several


class Adapter:
    """Keras made oblivious; see :func:`oblivious`.

    Args:
        world: the collectives.
        reporter: this rank's reporter.
        settings: how.
        folder: where fits are kept, or None.
    """

    def __init__(
        self, world: Collectives, reporter: Reporter, settings: Settings, folder: RunDir | None = None
    ) -> None:
        self._world, self._reporter, self._settings = world, reporter, settings
        self._patches = Patches()
        self._written = Written([] if folder is None else [str(folder.path)])
        self._state = SharedState(world)
        self._calls = ModelCalls(world, self._state, reporter.note, settings.prove, self._progressed)
        self._loops = CustomLoops(self._calls, self._before_batch)
        self._same = SameData(world)
        self._pipelines = Pipelines(world, reporter.note)
        self._steps = SharedSteps(world, self._state, self._calls, reporter.note, self._same)
        self._gradients = GradientReducer(world, self._before_apply, lambda: bool(self._calls.shared))
        reporter.waiting = lambda: world.waited_s
        self._balance = Balance(world, reporter, settings.balance)
        self._checksum = Checksum(world)
        self._rate = ScaledRate(settings.lr_scale, world.size, settings.warmup_epochs)
        self._writer = OneWriter(world)
        self._noise = Gradients()
        exact = self._steps.exact_logs if world.size > 1 else _as_they_are

        def each_epoch() -> bool:
            return settings.keep_each_epoch or reporter.keep_asked

        def keeping() -> Keeping:
            return Keeping(world, folder, settings.goes_on, each_epoch)

        inside_s = None if folder is None else settings.keep_every_s
        kept = Checkpoints(keeping(), inside_s, reporter.note)
        self._loop = LoopCheckpoints(world, keeping(), self._state, reporter.note)
        reporter.checkpoint = self._loop
        self._monitor = Monitor(
            world,
            reporter,
            settings,
            exact,
            self._checksum,
            self._same,
            self._noise,
            kept.is_due,
            self._balance,
        )
        self._best = BestWeights(world, reporter, settings, folder)
        self._initial = InitialWeights(world, reporter, settings.init_from)
        parts = Parts(
            world=world, state=self._state, reporter=reporter, settings=settings, exact_logs=exact,
            checksum=self._checksum, monitor=self._monitor, rate=self._rate, writer=self._writer,
            checkpoints=kept, counts_apart=self._steps.counts_apart,
            best=self._best, initial=self._initial, balance=self._balance,
        )  # fmt: skip
        self._hooks = CallbackHooks(parts)

    def enter(self) -> None:
        """Replaces what must be replaced."""
        refusals.check_backend()
        seams.check()
        self._hooks.install(self._patches)
        self._loop.install(self._patches)
        if self._settings.stop_after is not None:
            self._noise.install(self._patches)
        if self._world.size == 1:
            return
        self._pipelines.install(self._patches)
        data.install(self._patches, self._world, self._settings.batch, self._reporter.note)
        self._steps.install(self._patches)
        self._calls.install(self._patches)
        self._same.install(self._patches)
        self._loops.install(self._patches)
        self._gradients.install(self._patches)
        losses.install(self._patches, self._world)
        metrics.install(self._patches)
        randomness.install(self._patches, self._reporter.note)
        batchnorm.install(self._patches, self._world, every_layer=self._settings.sync_batchnorm)
        self._rate.install(self._patches, self._gradients.applying)
        self._writer.install(self._patches)
        refusals.install(self._patches)
        self._patches.replace(TensorFlowTrainer, "evaluate", self._average_first)
        self._written.begin()

    def leave(self) -> None:
        """Puts Keras back exactly as it was, and writes down the best weights of a fit that did not end."""
        self._written.end()
        self._patches.restore()
        self._pipelines.leave()
        self._best.leave()

    def finish(self) -> None:
        """Compares the ranks' weights a last time, and says so if none could be kept.

        Raises:
            RanksDiverged: the ranks hold different weights.
            NotOblivious: initial weights were given in vain, or another rank goes on.
        """
        if self._world.size > 1:
            self._world.end()
            if said := by_several(self._world.allgather_object(self._written.paths)):
                self._reporter.note("written-by-several", said)
            self._checksum.look(self._state.trained(), self._reporter.steps)
        self._initial.finish()
        self._best.finish()

    def verified(self) -> Verified:
        """What a verification has found when the function ended by itself."""
        return self._monitor.verified(self._state.trained())

    @property
    def distributed(self) -> bool:
        """Whether anything in the function was made distributed."""
        return bool(self._hooks.count or self._steps.made or self._calls.shared)

    def _before_apply(self, optimizer: Any, variables: Sequence[Any]) -> None:
        self._state.broadcast_new(variables)
        if optimizer is not None:
            self._state.trains(optimizer, variables)

    def _progressed(self) -> None:
        self._reporter.ticks += 1

    def _before_batch(self) -> None:
        """What a hand-written loop does before each of its steps."""
        self._progressed()
        self._state.broadcast_late()

    def _average_first(self, original: Any) -> Any:
        """Moving statistics are averaged before they are used by an evaluation."""

        def evaluate(model: Any, *args: Any, **kwargs: Any) -> Any:
            self._state.average(moving_statistics(model))
            return original(model, *args, **kwargs)

        return evaluate


@contextmanager
def oblivious(
    world: Collectives,
    reporter: Reporter,
    settings: Settings = Settings(),  # noqa: B008
    folder: RunDir | None = None,
) -> Iterator[Adapter]:
    """Makes this process one rank of ``world`` for whatever Keras does inside; restores everything on leaving."""
    adapter = Adapter(world, reporter, settings, folder)
    adapter.enter()
    try:
        yield adapter
    except Exception as error:
        if world.failed is None or error is world.failed:
            raise
        raise world.failed.with_traceback(
            error.__traceback__
        ) from None  # TensorFlow made it an error of its own
    finally:
        adapter.leave()


def _as_they_are(model: Any, logs: Any) -> Any:
    return logs
