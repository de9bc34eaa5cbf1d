"""What happens around a Keras ``fit``: callbacks in their places, exact logs, agreement, progress."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import keras
from keras.src import utils
from keras.src.callbacks.callback_list import CallbackList
from keras.src.utils import python_utils

from obl_magic.events.event import Metric, Progress
from obl_magic.events.fold import SINGLE_STEP
from obl_magic.worker.collectives import Collectives
from obl_magic.worker.keras import state as states
from obl_magic.worker.keras.patching import Patches
from obl_magic.worker.report import Reporter

PROGRESS_EVERY_S = 0.2
_CHEAP_SHARE = 0.01
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


class Fits:
    """Replaces the hooks of Keras' callback list.

    Args:
        world: the collectives. state: shared variables. reporter: where progress goes.
        exact_logs: (model, logs) -> logs computed from all ranks.
    """

    def __init__(
        self,
        world: Collectives,
        state: states.SharedState,
        reporter: Reporter,
        exact_logs: Callable[[Any, Any], Any],
    ) -> None:
        self._world, self._state, self._reporter, self._exact_logs = world, state, reporter, exact_logs
        self.count = 0

    def install(self, patches: Patches) -> None:
        """Replaces the hooks."""
        patches.replace(CallbackList, "__init__", self._init)
        patches.replace(CallbackList, "on_train_begin", self._train_begin)
        patches.replace(CallbackList, "on_epoch_begin", self._epoch_begin)
        patches.replace(CallbackList, "on_train_batch_end", self._batch_end)
        patches.replace(CallbackList, "on_epoch_end", self._epoch_end)
        patches.replace(CallbackList, "on_train_end", self._train_end)

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
            callbacks_list._obl_fit = None

        return __init__

    def _train_begin(self, original: Any) -> Any:
        def on_train_begin(callbacks: Any, logs: Any = None) -> None:
            original(callbacks, logs)
            model, params = callbacks.model, callbacks.params
            self.count += 1
            if self._world.size > 1:
                model._initial_epoch = self._world.allgather_object(model._initial_epoch)[0]
                optimizer = model.optimizer
                self._state.broadcast([*model.variables, *(optimizer.variables if optimizer else ())])
                self._name_deviations(model)
            callbacks._obl_fit = Fit(params.get("epochs") or 1, params.get("steps"), _batch_size(model))

        return on_train_begin

    def _name_deviations(self, model: Any) -> None:
        names = states.normalises_batches(model)
        if names:
            self._reporter.note(
                "batchnorm",
                f"batch normalisation ({', '.join(names)}) trains on each rank's own part of the batch, and its moving "
                "statistics are averaged at the end of every epoch: not the single process's numbers",
            )

    def _epoch_begin(self, original: Any) -> Any:
        def on_epoch_begin(callbacks: Any, epoch: int, logs: Any = None) -> None:
            if (fit := callbacks._obl_fit) is not None:
                fit.epoch, fit.step = epoch, 0
            original(callbacks, epoch, logs)

        return on_epoch_begin

    def _batch_end(self, original: Any) -> Any:
        def on_train_batch_end(callbacks: Any, batch: int, logs: Any = None) -> None:
            fit = callbacks._obl_fit
            if fit is None:
                return original(callbacks, batch, logs)
            done = batch + 1 - fit.step
            fit.step, fit.stepped = batch + 1, fit.stepped + done
            self._reporter.stepped(fit.stepped)
            logs = self._look(callbacks, fit, logs)
            original(callbacks, batch, logs)
            if callbacks._obl_batch_logs:
                callbacks.model.stop_training = self._state.any(callbacks.model.stop_training)
            self._show(fit)
            return None

        return on_train_batch_end

    def _look(self, callbacks: Any, fit: Fit, logs: Any) -> Any:
        """Exact logs where a user's callback reads them, and now and then for display.

        All ranks look at the same steps: rank 0 decides how far the next look is away, so that looking stays a
        small share of the time.
        """
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
            fit.next_look = fit.stepped + self._steps_until_next(fit, time.perf_counter() - began)
        return logs

    def _steps_until_next(self, fit: Fit, cost_s: float) -> int:
        step_s = (time.perf_counter() - fit.began_s) / max(1, fit.stepped)
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
            original(callbacks, epoch, logs)
            if fit is not None and self._world.size > 1:
                callbacks.model.stop_training = self._state.any(bool(callbacks.model.stop_training))

        return on_epoch_end

    def _train_end(self, original: Any) -> Any:
        def on_train_end(callbacks: Any, logs: Any = None) -> None:
            original(callbacks, logs)
            callbacks._obl_fit = None
            if self._world.size > 1:
                self._world.barrier()

        return on_train_end


def _wants_batch_logs(callback: Any) -> bool:
    if isinstance(callback, _NO_BATCH_LOGS):
        return False
    return not (utils.is_default(callback.on_batch_end) and utils.is_default(callback.on_train_batch_end))


def _batch_size(model: Any) -> int | None:
    size = getattr(model, "_obl_batch_size", None)
    return int(size) if size else None


def _numbers(logs: Any) -> dict[str, float]:
    plain = python_utils.pythonify_logs(logs)
    return {name: float(value) for name, value in plain.items() if isinstance(value, (int, float))}
