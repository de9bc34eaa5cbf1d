"""Weights that go from one run to the next: kept at the best epoch, taken before the first step. No collectives.

Rank 0 alone reads and writes: the weights it has are everyone's, and those it takes reach the others when the ranks
agree on their variables at the beginning of a fit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

from obl_magic.errors import NotOblivious, SetupProblem
from obl_magic.payload import weights_file
from obl_magic.rundir import RunDir
from obl_magic.values import Settings
from obl_magic.worker.engines.collectives import Collectives
from obl_magic.worker.report import Reporter

if TYPE_CHECKING:
    from obl_magic.worker.frameworks.keras.monitor import Fit

CHEAP_SHARE = 0.02
"""Of the time, that writing may cost before a fit has ended."""
SLOW_DISK = 100e6
"""Bytes a second, as long as nothing was written."""
NAMED = 5
"""Variables that a refusal names."""
_NO_FIT = "the function has no Keras fit"


class BestWeights:
    """Keeps the weights of the best epoch in the run's folder; on rank 0, if the settings ask for it.

    The best so far are held in memory until they are written: at the end of a fit, now and then before it, and
    when the function fails or is stopped. With restarts they are written at once, so that none is lost.

    Args:
        world: the collectives; none is called.
        reporter: is told what was not kept.
        settings: of the run.
        folder: of the run, or None: nothing is kept.
        clock: gives seconds.
    """

    def __init__(
        self,
        world: Collectives,
        reporter: Reporter,
        settings: Settings,
        folder: RunDir | None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._folder = folder if settings.keep_weights and world.rank == 0 else None
        self._reporter, self._settings, self._clock = reporter, settings, clock
        self._held: weights_file.Weights | None = None
        self._best: float | None = None
        self._logged = self._any = False
        self._written_s, self._cost_s = clock(), 0.0
        if self._folder is not None and settings.goes_on and self._folder.weights.is_file():
            self._best, self._any = weights_file.header(self._folder.weights).value, True
            self._logged = self._best is not None

    def epoch_ended(self, callbacks: Any, fit: Fit) -> None:
        """Keeps the weights if no epoch was better; after the user's callbacks.

        Args:
            callbacks: Keras' list of them.
            fit: the fit under way, with the epoch's exact logs.
        """
        if self._folder is None:
            return
        value = _logged(callbacks, fit, self._settings.keep_weights_of)
        self._logged = self._logged or value is not None
        if value is not None and self._is_better(value):
            self._best = value
            self._hold(callbacks, fit, value)
        if self._held is not None and (self._settings.keep_each_epoch or self._is_cheap(self._held)):
            self._write()

    def fit_ended(self, callbacks: Any, fit: Fit) -> None:
        """Writes what is held; the weights as they are now, if the quantity is none that fits log."""
        if self._folder is None:
            return
        if not self._logged:
            self._hold(callbacks, fit, None)
        self._write()

    def finish(self) -> None:
        """Says so if there was nothing to keep."""
        if self._folder is not None and not self._any:
            why = f"{self._settings.keep_weights_of} was never a number" if self._logged else _NO_FIT
            self._reporter.note("no-weights", f"no weights were kept: {why}")

    def leave(self) -> None:
        """Writes what a fit that did not end has left; never raises, since an error may be under way."""
        try:
            self._write()
        except SetupProblem as problem:
            self._reporter.note("no-weights", f"the best weights are lost: {problem}")

    def _is_better(self, value: float) -> bool:
        if math.isnan(value) or self._best is None:
            return not math.isnan(value)
        return value > self._best if self._settings.keep_largest else value < self._best

    def _hold(self, callbacks: Any, fit: Fit, value: float | None) -> None:
        assert self._folder is not None
        self._held = None  # one copy at a time
        epoch = fit.epoch + 1 if fit.stepped else None
        taken = weights_file.of_model(callbacks.model, epoch, value, self._folder.id)
        if value is not None and self._settings.keep_weights_of.startswith("val_"):
            taken = replace(taken, arrays=tuple(_as_validated(callbacks, taken.arrays)))
        self._held, self._any = taken, True

    def _is_cheap(self, held: weights_file.Weights) -> bool:
        cost_s = self._cost_s or held.size_bytes / SLOW_DISK
        return self._clock() - self._written_s >= cost_s / CHEAP_SHARE

    def _write(self) -> None:
        if self._held is None or self._folder is None:
            return
        held, self._held = self._held, None
        began_s = self._clock()
        weights_file.save(held, self._folder, self._folder.weights)
        self._written_s = self._clock()
        self._cost_s = self._written_s - began_s


class InitialWeights:
    """Gives the first model that is fitted the weights of an earlier run.

    Args:
        world: the collectives; none is called.
        reporter: is told.
        path: the file of weights, or "": nothing is given.
    """

    def __init__(self, world: Collectives, reporter: Reporter, path: str) -> None:
        self._world, self._reporter, self._path = world, reporter, path
        self._asked = bool(path)

    @property
    def pending(self) -> bool:
        """Whether the next fit is the one that takes them."""
        return self._asked

    def pass_over(self) -> None:
        """The first fit goes on from where it was: what it began from is part of that."""
        self._asked = False

    def give(self, model: Any) -> None:
        """Assigns the weights to a model whose variables exist, before its first step; once, on rank 0.

        Raises:
            NotOblivious: they do not fit it; none was assigned.
            SetupProblem: they cannot be read.
        """
        if not self._asked:
            return
        self._asked = False
        if self._world.rank != 0:
            return
        header = weights_file.header(self._path)
        source = header.label or Path(self._path).name
        _check(header, model, source)
        taken = weights_file.load(self._path)
        for variable, array in zip(model.weights, taken.arrays, strict=True):
            variable.assign(array)
        _begin_there(model.optimizer)
        epoch = "" if header.epoch is None else f", epoch {header.epoch}"
        self._reporter.note("init-from", f"began from the weights of {source}{epoch}")

    def finish(self) -> None:
        """Refuses to have been asked in vain.

        Raises:
            NotOblivious: no fit has taken the weights.
        """
        if self._asked:
            raise _in_vain()


def without_keras(settings: Settings, reporter: Reporter) -> None:
    """What is to be said of weights where the function never imported Keras.

    Raises:
        NotOblivious: it was to begin from weights.
    """
    if settings.keep_weights and reporter.rank == 0:
        reporter.note("no-weights", f"no weights were kept: {_NO_FIT}")
    if settings.init_from:
        raise _in_vain()


def _in_vain() -> NotOblivious:
    return NotOblivious(
        "initial weights were given, but the function has no Keras fit that could take them",
        "call model.fit, or leave out --init-from",
    )


def _logged(callbacks: Any, fit: Fit, name: str) -> float | None:
    """A quantity of the epoch that has just ended: among the exact logs, or put there by a callback of the user's."""
    if name in fit.logs:
        return fit.logs[name]
    history = callbacks._history
    if history is None or history.epoch[-1:] != [fit.epoch]:
        return None
    values = history.history.get(name, ())
    complete = len(values) == len(history.epoch)  # else this epoch's may be missing
    return float(values[-1]) if complete and isinstance(values[-1], (int, float)) else None


def _as_validated(callbacks: Any, arrays: Sequence[Any]) -> Iterator[Any]:
    """The arrays of the weights that a validation has just used: averaged ones, where a callback swaps them in."""
    import keras

    swaps = [c for c in callbacks.callbacks if isinstance(c, keras.callbacks.SwapEMAWeights)]
    if not swaps or any(callback._ema_weights_in_model for callback in swaps):
        yield from arrays
        return
    averages = {
        id(variable): average
        for optimizer in _optimizers(callbacks.model.optimizer)
        if optimizer.use_ema
        for variable, average in zip(
            optimizer._trainable_variables, optimizer._model_variables_moving_average, strict=True
        )
    }
    for variable, array in zip(callbacks.model.weights, arrays, strict=True):
        average = averages.get(id(variable))
        yield array if average is None else average.numpy()


def _check(there: weights_file.Header, model: Any, source: str) -> None:
    """Raises NotOblivious unless the weights fit the model's, one by one."""
    shapes = (tuple(variable.shape) for variable in model.weights)
    here = list(zip(weights_file.names_of(model), shapes, strict=True))
    wrong = list(_differences(list(zip(there.names, there.shapes, strict=True)), here))
    if not wrong:
        return
    unbuilt = [layer.name for layer in model._flatten_layers(include_self=False) if not layer.built]
    if unbuilt and len(here) < len(there.names):
        raise NotOblivious(
            f"the weights of {source} cannot be given to the model: it has no variables yet when its fit begins "
            f"({', '.join(unbuilt[:NAMED])})",
            "give it a keras.Input, or call it on a batch before it is fitted",
        )
    more = [f"and {len(wrong) - NAMED} more"] if len(wrong) > NAMED else []
    raise NotOblivious(
        f"the weights of {source} do not fit the model: {'; '.join([*wrong[:NAMED], *more])}",
        "build the model with the same hyperparameters (--params), or leave out --init-from",
    )


def _differences(
    there: Sequence[tuple[str, tuple[int, ...]]], here: Sequence[tuple[str, tuple[int, ...]]]
) -> Iterator[str]:
    for kept, own in zip_longest(there, here):
        if own is None:
            yield f"{kept[0]} {kept[1]} is only there"
        elif kept is None:
            yield f"{own[0]} {own[1]} is only here"
        elif kept[1] != own[1]:
            yield f"{own[0]} is {kept[1]} there and {own[1]} here"


def _begin_there(optimizer: Any) -> None:
    """A schedule-free optimizer that is built remembers the weights it found, and would go back to them."""
    import keras

    kind = getattr(keras.optimizers, "ScheduleFreeAdamW", None)
    for inner in _optimizers(optimizer):
        if kind is not None and isinstance(inner, kind) and inner.built and not int(inner.iterations):
            for momentum, variable in zip(inner._momentums, inner._trainable_variables, strict=True):
                momentum.assign(variable)


def _optimizers(optimizer: Any) -> list[Any]:
    """The optimizers that hold slots of variables, inside those that scale losses or share variables out."""
    if optimizer is None:
        return []
    if (inner := getattr(optimizer, "inner_optimizer", None)) is not None:
        return _optimizers(inner)
    several = getattr(optimizer, "optimizers", None)
    return [optimizer] if several is None else [one for each in several for one in _optimizers(each)]
