"""What happens around a Keras ``fit``: callbacks in their places, exact logs, agreement, progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
from keras.src import utils
from keras.src.backend.tensorflow.trainer import TensorFlowTrainer
from keras.src.callbacks.callback_list import CallbackList
from keras.src.trainers.epoch_iterator import EpochIterator

from obl_magic.events.event import Metric
from obl_magic.values import Settings
from obl_magic.worker.engines.collectives import Collectives
from obl_magic.worker.frameworks.keras import state as states
from obl_magic.worker.frameworks.keras.balance import Balance
from obl_magic.worker.frameworks.keras.checkpoints import Checkpoints, Kept, pass_over, remaining
from obl_magic.worker.frameworks.keras.checksum import Checksum
from obl_magic.worker.frameworks.keras.metrics import combined
from obl_magic.worker.frameworks.keras.monitor import Fit, Monitor, numbers
from obl_magic.worker.frameworks.keras.rates import ScaledRate
from obl_magic.worker.frameworks.keras.saving import OneWriter
from obl_magic.worker.frameworks.keras.steps import build_if_possible as build_if_possible
from obl_magic.worker.frameworks.keras.weights import BestWeights, InitialWeights
from obl_magic.worker.frameworks.keras.writers import WRITERS, Writers, is_keras_own
from obl_magic.worker.patching import Patches
from obl_magic.worker.report import Reporter

_DURING_EPOCHS = (
    "on_epoch_end", "on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end",
    "on_test_begin", "on_test_end", "on_test_batch_begin", "on_test_batch_end",
)  # fmt: skip
_NO_BATCH_LOGS = (*WRITERS, keras.callbacks.ProgbarLogger, keras.callbacks.History)


@dataclass(frozen=True, slots=True)
class Parts:
    """Who has a part in what happens around a fit.

    Attributes:
        world: the collectives.
        state: shared variables.
        reporter: where progress goes.
        settings: of the run.
        exact_logs: (model, logs) -> logs computed from all ranks.
        checksum: compares the ranks' weights.
        monitor: looks at steps.
        rate: the factor on learning rates.
        writer: is told when callbacks run.
        checkpoints: keeps where fits are, and leads them there.
        counts_apart: of a model, the metric variables in which each rank counts its own rows only.
        best: keeps the best epoch's weights.
        initial: gives the first model its weights.
        balance: measures the ranks' paces.
    """

    world: Collectives
    state: states.SharedState
    reporter: Reporter
    settings: Settings
    exact_logs: Callable[[Any, Any], Any]
    checksum: Checksum
    monitor: Monitor
    rate: ScaledRate
    writer: OneWriter
    checkpoints: Checkpoints
    counts_apart: Callable[[Any], list[Any]]
    best: BestWeights
    initial: InitialWeights
    balance: Balance


@dataclass(slots=True)
class _List:
    """What is known of one of Keras' callback lists.

    Attributes:
        batch_logs: a callback may read, or decide by, what happens in single steps.
        test_logs: in those of a test.
        users: hooks of epochs in which a callback of the user's may decide something.
        batch_begins: a callback does anything when a batch begins.
        batch_ends: a callback does anything when a batch ends.
        fit: the fit under way, or None.
    """

    batch_logs: bool
    test_logs: bool
    users: set[str]
    batch_begins: bool = True
    batch_ends: bool = True
    fit: Fit | None = None


class CallbackHooks:
    """Replaces the hooks of Keras' callback list.

    Args:
        parts: who takes part.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._world, self._state, self._reporter = parts.world, parts.state, parts.reporter
        self._writers = Writers(parts.world, parts.reporter.note, parts.writer.own)
        self._iterators: dict[int, Any] = {}
        self.count = 0

    def install(self, patches: Patches) -> None:
        """Replaces the hooks."""
        self._writers.install(patches)
        patches.replace(CallbackList, "__init__", self._init)
        patches.replace(CallbackList, "on_train_begin", self._train_begin)
        patches.replace(CallbackList, "on_epoch_begin", self._epoch_begin)
        patches.replace(CallbackList, "on_train_batch_begin", self._batch_begin)
        patches.replace(CallbackList, "on_train_batch_end", self._batch_end)
        patches.replace(CallbackList, "on_epoch_end", self._epoch_end)
        patches.replace(CallbackList, "on_train_end", self._train_end)
        patches.replace(CallbackList, "on_test_begin", self._test_begin)
        patches.replace(CallbackList, "on_test_end", self._test_end)
        patches.replace(CallbackList, "on_test_batch_end", self._test_batch_end)
        patches.replace(CallbackList, "on_predict_batch_end", self._predict_batch_end)
        patches.replace(TensorFlowTrainer, "_maybe_symbolic_build", self._note_iterator)
        patches.replace(EpochIterator, "_enumerate_iterator", self._remaining)

    def _remaining(self, original: Any) -> Any:
        def _enumerate_iterator(epochs: Any) -> Any:
            return remaining(epochs, original(epochs))

        return _enumerate_iterator

    def _test_begin(self, original: Any) -> Any:
        def on_test_begin(lists: Any, logs: Any = None) -> None:
            self._reporter.validating = True
            original(lists, logs)

        return on_test_begin

    def _test_end(self, original: Any) -> Any:
        def on_test_end(lists: Any, logs: Any = None) -> None:
            self._reporter.validating = False
            original(lists, logs)

        return on_test_end

    def _init(self, original: Any) -> Any:
        def __init__(
            callbacks_list: Any, callbacks: Any = None, add_history: bool = False, add_progbar: bool = False,
            model: Any = None, **params: Any,
        ) -> None:  # fmt: skip
            given = keras.tree.flatten(callbacks) if callbacks else []
            mine = self._writers.arranged(given)
            silent = self._world.rank != 0 or params.get("verbose") == "auto"
            if self._world.rank != 0:
                params = {**params, "verbose": 0}
                mine = [c for c in mine if not isinstance(c, keras.callbacks.ProgbarLogger)]
            original(callbacks_list, mine, add_history, add_progbar and not silent, model, **params)
            several = self._world.size > 1
            callbacks_list._obl = _List(
                several and any(_wants_batch_logs(c) for c in given),
                several and any(_wants_test_logs(c) for c in given),
                _users_hooks(given) if several else set(),
            )

        return __init__

    def _note_iterator(self, original: Any) -> Any:
        def _maybe_symbolic_build(model: Any, iterator: Any = None, data_batch: Any = None) -> Any:
            if iterator is not None:
                self._iterators = {id(model): iterator}
            return original(model, iterator=iterator, data_batch=data_batch)

        return _maybe_symbolic_build

    def _train_begin(self, original: Any) -> Any:
        def on_train_begin(callbacks: Any, logs: Any = None) -> None:
            model, params = callbacks.model, callbacks.params
            self.count += 1
            self._world.during(f"in its {_ordinal(self.count)} fit")
            self._reporter.fits(model)
            kept = self._parts.checkpoints.find()
            iterator = self._iterators.pop(id(model), None)
            self._begin_from_weights(model, iterator, kept)
            _go_on_writing(callbacks, kept)
            with self._parts.writer.in_callbacks():
                original(callbacks, logs)
            callbacks._obl.batch_begins = _any_has(
                callbacks.callbacks, "on_batch_begin", "on_train_batch_begin"
            )
            callbacks._obl.batch_ends = _any_has(callbacks.callbacks, "on_batch_end", "on_train_batch_end")
            if kept is not None:
                self._parts.checkpoints.lead(kept, callbacks, iterator)
            if self._world.size > 1:
                restored = -1 if model._initial_epoch is None else int(model._initial_epoch)
                with self._world.purpose("begin a fit"):
                    ((restored,), *_) = self._state.agree(states.variables_of(model), restored)
                model._initial_epoch = None if restored < 0 else restored
                self._name_deviations(model)
            batch = None if iterator is None else iterator.data_adapter.batch_size
            callbacks._obl.fit = fit = Fit(
                params.get("epochs") or 1, params.get("steps"), batch, data=iterator
            )
            self._parts.checkpoints.begin(model)
            self._parts.balance.begin()
            if kept is not None:
                fit.epoch, fit.stepped, fit.next_look = kept.epoch - 1, kept.stepped, kept.stepped + 1
                if kept.batch and iterator is not None:
                    fit.enters = kept
                    pass_over(iterator, kept)

        return on_train_begin

    def _begin_from_weights(self, model: Any, iterator: Any, kept: Kept | None) -> None:
        """Gives the first model its weights before its callbacks begin, as if it had been built with them."""
        values_wait = kept is not None or self._parts.initial.pending or self._parts.checkpoints.looks_inside
        if values_wait and self._world.size == 1 and iterator is not None:  # several ranks have built
            build_if_possible(model, iterator._distributed_dataset.element_spec)
        if kept is None:
            self._parts.initial.give(model)
        else:
            self._parts.initial.pass_over()

    def _name_deviations(self, model: Any) -> None:
        names = [] if self._parts.settings.sync_batchnorm else states.normalises_batches(model)
        if names:
            self._reporter.note(
                "batchnorm",
                f"batch normalisation ({', '.join(names)}) trains on each rank's own part of the batch, and its moving "
                "statistics are averaged at the end of every epoch: not the single process's numbers "
                "(without --no-sync-batchnorm they are)",
            )

    def _epoch_begin(self, original: Any) -> Any:
        def on_epoch_begin(callbacks: Any, epoch: int, logs: Any = None) -> None:
            if (fit := callbacks._obl.fit) is not None:
                fit.epoch, fit.step = epoch, 0
                self._parts.rate.at(epoch, 0, fit.steps)
            with self._parts.writer.in_callbacks():
                original(callbacks, epoch, logs)
            if fit is not None and fit.enters is not None:
                self._enter(callbacks, fit)
            elif "on_epoch_begin" in callbacks._obl.users:
                self._agree(callbacks)
            self._parts.balance.resume()

        return on_epoch_begin

    def _enter(self, callbacks: Any, fit: Fit) -> None:
        """Goes on inside an epoch, which its callbacks have begun once more."""
        kept, fit.enters = fit.enters, None
        assert kept is not None
        self._parts.checkpoints.enter(kept, callbacks)
        model = callbacks.model
        if self._world.size > 1:
            with self._world.purpose("go on inside an epoch"):
                together = [] if self._parts.counts_apart(model) else model.metrics_variables
                self._state.agree([*states.variables_of(model), *together], 0)
        fit.step = kept.batch
        self._parts.rate.at(fit.epoch, fit.step, fit.steps)

    def _batch_begin(self, original: Any) -> Any:
        def on_train_batch_begin(callbacks: Any, batch: int, logs: Any = None) -> None:
            if callbacks._obl.batch_begins:
                with self._parts.writer.in_callbacks():
                    original(callbacks, batch, logs)

        return on_train_batch_begin

    def _batch_end(self, original: Any) -> Any:
        def on_train_batch_end(callbacks: Any, batch: int, logs: Any = None) -> None:
            fit = callbacks._obl.fit
            if fit is None:
                with self._parts.writer.in_callbacks():
                    return original(callbacks, batch, logs)
            model = callbacks.model
            done = batch + 1 - fit.step
            self._parts.balance.pause(done)
            fit.step, fit.stepped = batch + 1, fit.stepped + done
            self._reporter.stepped(fit.stepped)
            if self._world.size > 1:
                self._state.broadcast_late()
                self._parts.checksum.remember(model, fit.stepped)
            logs = self._parts.monitor.look(callbacks.model, fit, logs, callbacks._obl.batch_logs)
            if callbacks._obl.batch_ends:
                with self._parts.writer.in_callbacks():
                    original(callbacks, batch, logs)
            if callbacks._obl.batch_logs:
                model.stop_training = self._state.any(_asked(model, "stop_training"))
                self._state.broadcast(_learning_rate(model))
            self._parts.rate.at(fit.epoch, fit.step, fit.steps)
            if fit.keeps:
                fit.keeps = False
                with combined(self._world, self._parts.counts_apart(model)):
                    self._parts.checkpoints.keep_inside(callbacks, fit.epoch, fit.stepped, fit.step, fit.data)
            self._parts.monitor.show(fit)
            self._parts.balance.resume()
            return None

        return on_train_batch_end

    def _agree(self, callbacks: Any) -> None:
        """What rank 0's user-made callbacks decided holds everywhere: weights, learning rate, stopping."""
        if callbacks._obl.fit is None:
            return
        model = callbacks.model
        votes = self._state.agree(states.variables_of(model), int(_asked(model, "stop_training")))
        model.stop_training = any(vote for (vote,) in votes)

    def _epoch_end(self, original: Any) -> Any:
        def on_epoch_end(callbacks: Any, epoch: int, logs: Any = None) -> None:
            fit = callbacks._obl.fit
            if fit is not None and self._world.size > 1:
                with self._world.purpose("end an epoch"):
                    self._state.average(states.moving_statistics(callbacks.model))
            if fit is not None:
                fit.logs = numbers(logs)
                fit.steps = fit.steps or fit.step
                if self._reporter.rank == 0:
                    self._reporter.emit(Metric(0, time.time(), dict(fit.logs), fit.stepped, epoch + 1))
                    self._parts.monitor.tell(fit)
            with self._parts.writer.in_callbacks():
                original(callbacks, epoch, logs)
            if fit is not None:  # no rank goes on before it is kept
                self._parts.best.epoch_ended(callbacks, fit)
                self._parts.checkpoints.keep(callbacks, epoch + 1, fit.stepped, done=False)
            if "on_epoch_end" in callbacks._obl.users:
                self._agree(callbacks)
            elif fit is not None and self._world.size > 1:
                with self._world.purpose("end an epoch"):
                    callbacks.model.stop_training = self._state.any(_asked(callbacks.model, "stop_training"))
            if fit is not None:
                self._reporter.judge(fit.logs)

        return on_epoch_end

    def _test_batch_end(self, original: Any) -> Any:
        def on_test_batch_end(callbacks: Any, batch: int, logs: Any = None) -> None:
            self._reporter.ticks += 1
            if callbacks._obl.test_logs:
                logs = self._parts.exact_logs(callbacks.model, logs)
            with self._parts.writer.in_callbacks():
                original(callbacks, batch, logs)
            if callbacks._obl.test_logs:
                callbacks.model.stop_evaluating = self._state.any(_asked(callbacks.model, "stop_evaluating"))

        return on_test_batch_end

    def _predict_batch_end(self, original: Any) -> Any:
        def on_predict_batch_end(callbacks: Any, batch: int, logs: Any = None) -> None:
            self._reporter.ticks += 1
            original(callbacks, batch, logs)

        return on_predict_batch_end

    def _train_end(self, original: Any) -> Any:
        def on_train_end(callbacks: Any, logs: Any = None) -> None:
            with self._parts.writer.in_callbacks():
                original(callbacks, logs)
            fit, callbacks._obl.fit = callbacks._obl.fit, None
            if fit is not None:
                self._parts.best.fit_ended(callbacks, fit)
                self._parts.checkpoints.keep(callbacks, fit.epoch + 1, fit.stepped, done=True)
                callbacks.model._initial_epoch = None
            self._reporter.fits(None)
            self._writers.back()
            if self._world.size > 1:
                with self._world.purpose("end a fit"):
                    self._world.barrier()
            self._world.during(f"after {self.count} fit{'s' if self.count > 1 else ''}")

        return on_train_end


def _asked(model: Any, wish: str) -> bool:
    """Whether the model shall stop; one that was never compiled has no such flag until a callback sets it."""
    return bool(getattr(model, wish, False))


def _go_on_writing(callbacks: Any, kept: Kept | None) -> None:
    """A log that an earlier world began is continued after the last epoch that was kept, not begun anew."""
    if kept is None:
        return
    for callback in callbacks.callbacks:
        if isinstance(callback, keras.callbacks.CSVLogger):
            callback.append = True
            _forget_epochs(Path(callback.filename), callback.sep, kept.epoch)


def _forget_epochs(log: Path, separator: str, kept: int) -> None:
    """Takes the rows of epochs that will be trained again out of a log."""
    if log.is_file():
        header, *rows = log.read_text().splitlines(keepends=True) or [""]
        log.write_text(header + "".join(row for row in rows if int(row.split(separator)[0]) < kept))


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _any_has(callbacks: Sequence[Any], *hooks: str) -> bool:
    """Whether a callback does anything there; for those that do not, Keras hands a thread every step's logs in vain."""
    return any(not utils.is_default(getattr(callback, hook)) for callback in callbacks for hook in hooks)


def _wants_batch_logs(callback: Any) -> bool:
    """Whether a callback may read, or decide by, what happens in single steps."""
    if (
        getattr(callback, "save_freq", "epoch") != "epoch"
        or getattr(callback, "update_freq", "epoch") != "epoch"
    ):
        return True
    if isinstance(callback, _NO_BATCH_LOGS) and not _is_users(callback):
        return False
    hooks = ("on_batch_begin", "on_train_batch_begin", "on_batch_end", "on_train_batch_end")
    return not all(utils.is_default(getattr(callback, hook)) for hook in hooks)


def _wants_test_logs(callback: Any) -> bool:
    if isinstance(callback, _NO_BATCH_LOGS) and not _is_users(callback):
        return False
    return not all(
        utils.is_default(getattr(callback, hook)) for hook in ("on_test_batch_begin", "on_test_batch_end")
    )


def _is_users(callback: Any) -> bool:
    """Whether a callback may decide by anything but the logs: one that Keras does not ship, or a lambda."""
    return not is_keras_own(callback) or isinstance(callback, keras.callbacks.LambdaCallback)


def _users_hooks(callbacks: Sequence[Any]) -> set[str]:
    """The hooks of epochs after which ranks must agree, since a user's callback may have decided something by then."""
    found = set()
    for callback in filter(_is_users, callbacks):
        if not utils.is_default(callback.on_epoch_begin):
            found.add("on_epoch_begin")
        if any(not utils.is_default(getattr(callback, hook)) for hook in _DURING_EPOCHS):
            found.add("on_epoch_end")
    return found


def _learning_rate(model: Any) -> list[Any]:
    """The optimizer's learning rate, if it is a variable."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    rate = getattr(optimizer, "_learning_rate", None)
    return [rate] if isinstance(rate, keras.Variable) else []
