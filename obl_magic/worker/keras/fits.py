"""What happens around a Keras ``fit``: callbacks in their places, exact logs, agreement, progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
from keras.src import utils
from keras.src.backend.tensorflow.trainer import TensorFlowTrainer
from keras.src.callbacks.callback_list import CallbackList
from keras.src.utils import python_utils

from obl_magic.events.event import Metric, Progress
from obl_magic.events.fold import SINGLE_STEP
from obl_magic.values import Settings
from obl_magic.worker.collectives import Collectives
from obl_magic.worker.keras import state as states
from obl_magic.worker.keras.checksum import Checksum
from obl_magic.worker.keras.patching import Patches
from obl_magic.worker.keras.rates import ScaledRate
from obl_magic.worker.keras.saving import OneWriter
from obl_magic.worker.keras.verifying import Verified
from obl_magic.worker.report import Reporter

PROGRESS_EVERY_S = 0.2
_CHEAP_SHARE = 0.01
FIRST_GAP = 5
"""Steps after which the second look comes, by which time the length of a step is known."""
_WRITERS = tuple(
    getattr(keras.callbacks, name)
    for name in (
        "ModelCheckpoint", "CSVLogger", "TensorBoard", "BackupAndRestore", "RemoteMonitor", "OrbaxCheckpoint",
    )
    if hasattr(keras.callbacks, name)
)  # fmt: skip
_NO_BATCH_LOGS = (*_WRITERS, keras.callbacks.ProgbarLogger, keras.callbacks.History)


@dataclass(slots=True)
class Fit:
    """One ``fit`` under way.

    Attributes:
        epoch, step: 0-based now. stepped: optimizer steps so far. logs: last exact logs.
        next_look: step at which the logs are made exact for display next. looked_s: what that cost last time.
    """

    epochs: int
    steps: int | None
    batch: int | None
    epoch: int = 0
    step: int = 0
    stepped: int = 0
    logs: dict[str, float] = field(default_factory=dict)
    next_look: int = 1
    shown_s: float = 0.0
    began_s: float = field(default_factory=time.perf_counter)
    began_step: int = 0
    looked: bool = False
    looking_since: float = 0.0
    looking_from: int = 0


class Fits:
    """Replaces the hooks of Keras' callback list.

    Args:
        world: the collectives. state: shared variables. reporter: where progress goes. settings: of the run.
        exact_logs: (model, logs) -> logs computed from all ranks. checksum: compares the ranks' weights.
        rate: the factor on learning rates. writer: is told when callbacks run.
    """

    def __init__(
        self,
        world: Collectives,
        state: states.SharedState,
        reporter: Reporter,
        settings: Settings,
        exact_logs: Callable[[Any, Any], Any],
        checksum: Checksum,
        rate: ScaledRate,
        writer: OneWriter,
    ) -> None:
        self._world, self._state, self._reporter, self._settings = world, state, reporter, settings
        self._exact_logs, self._checksum, self._rate, self._writer = exact_logs, checksum, rate, writer
        self._verified: list[dict[str, float]] = []
        self._batch_sizes: dict[int, int | None] = {}
        self.count = 0

    def install(self, patches: Patches) -> None:
        """Replaces the hooks."""
        patches.replace(CallbackList, "__init__", self._init)
        patches.replace(CallbackList, "on_train_begin", self._train_begin)
        patches.replace(CallbackList, "on_epoch_begin", self._epoch_begin)
        patches.replace(CallbackList, "on_train_batch_end", self._batch_end)
        patches.replace(CallbackList, "on_epoch_end", self._epoch_end)
        patches.replace(CallbackList, "on_train_end", self._train_end)
        patches.replace(CallbackList, "on_test_batch_end", self._test_batch_end)
        patches.replace(TensorFlowTrainer, "_maybe_symbolic_build", self._note_batch_size)

    def _init(self, original: Any) -> Any:
        def __init__(
            callbacks_list: Any, callbacks: Any = None, add_history: bool = False, add_progbar: bool = False,
            model: Any = None, **params: Any,
        ) -> None:  # fmt: skip
            given = keras.tree.flatten(callbacks) if callbacks else []
            mine = given if self._world.rank == 0 else [c for c in given if not isinstance(c, _WRITERS)]
            silent = self._world.rank != 0 or params.get("verbose") == "auto"
            if self._world.rank != 0:
                params = {**params, "verbose": 0}
                mine = [c for c in mine if not isinstance(c, keras.callbacks.ProgbarLogger)]
            original(callbacks_list, mine, add_history, add_progbar and not silent, model, **params)
            callbacks_list._obl_batch_logs = self._world.size > 1 and any(_wants_batch_logs(c) for c in given)
            callbacks_list._obl_test_logs = self._world.size > 1 and any(_wants_test_logs(c) for c in given)
            callbacks_list._obl_users = self._world.size > 1 and any(_is_users(c) for c in given)
            callbacks_list._obl_fit = None

        return __init__

    def _note_batch_size(self, original: Any) -> Any:
        def _maybe_symbolic_build(model: Any, iterator: Any = None, data_batch: Any = None) -> Any:
            if iterator is not None:
                self._batch_sizes = {id(model): iterator.data_adapter.batch_size}
            return original(model, iterator=iterator, data_batch=data_batch)

        return _maybe_symbolic_build

    def _train_begin(self, original: Any) -> Any:
        def on_train_begin(callbacks: Any, logs: Any = None) -> None:
            with self._writer.in_callbacks():
                original(callbacks, logs)
            model, params = callbacks.model, callbacks.params
            self.count += 1
            if self._world.size > 1:
                model._initial_epoch = self._world.allgather_object(model._initial_epoch)[0]
                optimizer = model.optimizer
                self._state.broadcast([*model.variables, *(optimizer.variables if optimizer else ())])
                self._name_deviations(model)
                self._checksum.look(model.trainable_variables, 0)
            batch = self._batch_sizes.get(id(model))
            callbacks._obl_fit = Fit(params.get("epochs") or 1, params.get("steps"), batch)

        return on_train_begin

    def _name_deviations(self, model: Any) -> None:
        names = [] if self._settings.sync_batchnorm else states.normalises_batches(model)
        if names:
            self._reporter.note(
                "batchnorm",
                f"batch normalisation ({', '.join(names)}) trains on each rank's own part of the batch, and its moving "
                "statistics are averaged at the end of every epoch: not the single process's numbers "
                "(--sync-batchnorm makes them so)",
            )

    def _epoch_begin(self, original: Any) -> Any:
        def on_epoch_begin(callbacks: Any, epoch: int, logs: Any = None) -> None:
            if (fit := callbacks._obl_fit) is not None:
                fit.epoch, fit.step = epoch, 0
                self._rate.at(epoch, 0, fit.steps)
            with self._writer.in_callbacks():
                original(callbacks, epoch, logs)
            self._agree(callbacks)

        return on_epoch_begin

    def _batch_end(self, original: Any) -> Any:
        def on_train_batch_end(callbacks: Any, batch: int, logs: Any = None) -> None:
            fit = callbacks._obl_fit
            if fit is None:
                with self._writer.in_callbacks():
                    return original(callbacks, batch, logs)
            done = batch + 1 - fit.step
            fit.step, fit.stepped = batch + 1, fit.stepped + done
            self._reporter.stepped(fit.stepped)
            if self._world.size > 1:
                self._state.broadcast_new(())
            logs = self._look(callbacks, fit, logs)
            with self._writer.in_callbacks():
                original(callbacks, batch, logs)
            if callbacks._obl_batch_logs:
                callbacks.model.stop_training = self._state.any(bool(callbacks.model.stop_training))
                self._state.broadcast(_learning_rate(callbacks.model))
            self._rate.at(fit.epoch, fit.step, fit.steps)
            self._show(fit)
            return None

        return on_train_batch_end

    def _look(self, callbacks: Any, fit: Fit, logs: Any) -> Any:
        """Exact logs where a user's callback reads them, and now and then for display.

        All ranks look at the same steps: rank 0 decides how far the next look is away, so that looking stays a
        small share of the time.
        """
        if self._settings.stop_after is not None:
            self._verify(callbacks.model, fit, logs)
        due = fit.stepped >= fit.next_look
        if not (due or callbacks._obl_batch_logs):
            return logs
        began = time.perf_counter()
        logs = self._exact_logs(callbacks.model, logs)
        fit.logs = _numbers(logs)
        if due:
            if self._reporter.rank == 0:
                named = {f"{SINGLE_STEP}{name}": value for name, value in fit.logs.items()}
                self._reporter.emit(Metric(0, time.time(), named, fit.stepped, fit.epoch + 1))
            if self._world.size > 1:
                self._checksum.look(callbacks.model.trainable_variables, fit.stepped)
            fit.next_look = fit.stepped + self._steps_until_next(fit, time.perf_counter() - began)
        return logs

    def _verify(self, model: Any, fit: Fit, logs: Any) -> None:
        """Records a step's exact logs; after the last one to be verified, ends the function with what it found."""
        self._verified.append(_numbers(self._exact_logs(model, logs)))
        if len(self._verified) >= (self._settings.stop_after or 0):
            raise self.verified(model.trainable_variables)

    def verified(self, variables: Sequence[Any]) -> Verified:
        """The steps verified so far, and the weights as they are now."""
        return Verified(self._verified, {f"{i}: {v.path}": v.numpy() for i, v in enumerate(variables)})

    def _agree(self, callbacks: Any) -> None:
        """What rank 0's user-made callbacks decided holds everywhere: weights, learning rate, stopping."""
        if callbacks._obl_fit is None or not callbacks._obl_users:
            return
        model = callbacks.model
        optimizer = model.optimizer
        self._state.broadcast([*model.variables, *(optimizer.variables if optimizer else ())])

    def _steps_until_next(self, fit: Fit, cost_s: float) -> int:
        now = time.perf_counter()
        if not fit.looked:  # what came before was building and tracing
            fit.looked, fit.looking_since, fit.looking_from = True, now, fit.stepped
            return FIRST_GAP
        step_s = (now - fit.looking_since) / max(1, fit.stepped - fit.looking_from)
        wish = max(1, int(max(PROGRESS_EVERY_S, cost_s / _CHEAP_SHARE) / max(step_s, 1e-6)))
        if self._world.size == 1:
            return wish
        return int(self._world.allgather_object(wish)[0])

    def _show(self, fit: Fit) -> None:
        now = time.perf_counter()
        if self._reporter.rank != 0 or now - fit.shown_s < PROGRESS_EVERY_S:
            return
        self._emit_progress(fit, now)

    def _emit_progress(self, fit: Fit, now: float) -> None:
        steps, seconds = fit.stepped - fit.began_step, now - fit.began_s
        speed = fit.batch * steps / seconds if fit.batch and seconds > 0 and steps > 0 else None
        fit.shown_s = now
        if fit.began_step == 0:
            fit.began_step, fit.began_s = fit.stepped, now
        self._reporter.emit(
            Progress(
                0,
                time.time(),
                fit.epoch + 1,
                fit.epochs,
                fit.step,
                fit.steps,
                speed,
                dict(fit.logs),
                fit.stepped,
            )
        )

    def _epoch_end(self, original: Any) -> Any:
        def on_epoch_end(callbacks: Any, epoch: int, logs: Any = None) -> None:
            fit = callbacks._obl_fit
            if fit is not None and self._world.size > 1:
                self._state.average(states.moving_statistics(callbacks.model))
            if fit is not None:
                fit.logs = _numbers(logs)
                fit.steps = fit.steps or fit.step
                if self._reporter.rank == 0:
                    self._reporter.emit(Metric(0, time.time(), dict(fit.logs), fit.stepped, epoch + 1))
                    self._emit_progress(fit, time.perf_counter())
            with self._writer.in_callbacks():
                original(callbacks, epoch, logs)
            if fit is not None and self._world.size > 1:
                self._agree(callbacks)
                callbacks.model.stop_training = self._state.any(bool(callbacks.model.stop_training))

        return on_epoch_end

    def _test_batch_end(self, original: Any) -> Any:
        def on_test_batch_end(callbacks: Any, batch: int, logs: Any = None) -> None:
            if callbacks._obl_test_logs:
                logs = self._exact_logs(callbacks.model, logs)
            with self._writer.in_callbacks():
                original(callbacks, batch, logs)

        return on_test_batch_end

    def _train_end(self, original: Any) -> Any:
        def on_train_end(callbacks: Any, logs: Any = None) -> None:
            with self._writer.in_callbacks():
                original(callbacks, logs)
            callbacks._obl_fit = None
            if self._world.size > 1:
                self._world.barrier()

        return on_train_end


def _wants_batch_logs(callback: Any) -> bool:
    if isinstance(callback, _NO_BATCH_LOGS):
        return False
    return not (utils.is_default(callback.on_batch_end) and utils.is_default(callback.on_train_batch_end))


def _wants_test_logs(callback: Any) -> bool:
    return not isinstance(callback, _NO_BATCH_LOGS) and not utils.is_default(callback.on_test_batch_end)


def _is_users(callback: Any) -> bool:
    """Whether a callback may decide by anything but the logs: one that Keras does not ship, or a lambda."""
    kind = type(callback)
    return not kind.__module__.startswith("keras.") or isinstance(callback, keras.callbacks.LambdaCallback)


def _learning_rate(model: Any) -> list[Any]:
    """The optimizer's learning rate, if it is a variable."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    rate = getattr(optimizer, "_learning_rate", None)
    return [rate] if isinstance(rate, keras.Variable) else []


def _numbers(logs: Any) -> dict[str, float]:
    plain = python_utils.pythonify_logs(logs)
    return {name: float(value) for name, value in plain.items() if isinstance(value, (int, float))}
