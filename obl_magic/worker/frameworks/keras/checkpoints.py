"""Continues a function where an earlier world left it: fits that were done are passed over, the next one goes on.

The function runs again from its top, unchanged. Each of its fits, in order, finds what the earlier world kept of it:
weights, optimizer, epoch, history, the state of its callbacks and of Python's and NumPy's random numbers. The data of
epochs that were done are drawn again without being trained on, so that shuffles come out as they would have; so are the
first batches of an epoch in which it was kept.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np

from obl_magic import payload
from obl_magic.errors import NotOblivious
from obl_magic.worker.frameworks.keras.keeping import Keeping
from obl_magic.worker.frameworks.keras.state import variables_of

WHOLE_EPOCHS = "this fit is kept after whole epochs only: {why}"
_FRAMEWORKS_OWN = {"_model", "params", "_params", "_saved_model"}


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of one fit.

    Attributes:
        epoch: epochs done.
        stepped: optimizer steps done.
        done: the fit has ended.
        values: arrays of the model's and the optimizer's variables.
        names: what they belong to.
        callbacks: (class, attributes) of each callback.
        python: states of their random generators.
        numpy: states of their random generators.
        batch: steps done of the epoch under way; 0 where it was kept at the end of one.
        counted: what the metrics of all ranks have counted in that epoch, the arrays of their variables.
        counts: what these belong to.
        began: states of Python's and NumPy's random generators when that epoch's data began.
    """

    epoch: int
    stepped: int
    done: bool
    values: list[Any] = field(repr=False)
    names: list[str] = field(repr=False)
    callbacks: list[tuple[str, dict[str, Any]]] = field(repr=False)
    python: Any = field(repr=False)
    numpy: Any = field(repr=False)
    batch: int = 0
    counted: list[Any] = field(default_factory=list, repr=False)
    counts: list[str] = field(default_factory=list, repr=False)
    began: Any = field(default=None, repr=False)


class Checkpoints:
    """Keeps and continues the fits of one function.

    Args:
        keeping: where they are written down.
        inside_s: seconds after which a fit is kept inside an epoch, too, or None.
        note: says a sentence about the run.
    """

    def __init__(self, keeping: Keeping, inside_s: float | None, note: Callable[[str, str], None]) -> None:
        self._keeping, self._inside_s, self._note = keeping, inside_s, note
        self._counts: list[str] = []
        self._number = 0

    def find(self) -> Kept | None:
        """What an earlier world kept of the fit that begins now, the values on rank 0 only; None if nothing."""
        self._number += 1
        return self._keeping.find(self._number, _without_values)

    def lead(self, kept: Kept, callbacks: Any, iterator: Any) -> None:
        """Leads a fit to where it was.

        Args:
            kept: what :meth:`find` found.
            callbacks: Keras' list of them, begun.
            iterator: over the fit's data.

        Raises:
            NotOblivious: the model is not the one that was kept.
        """
        self._restore(kept, callbacks)
        model = callbacks.model
        if kept.done:
            model._initial_epoch = max(callbacks.params.get("epochs") or 1, kept.epoch)
            return
        for _ in range(model._initial_epoch or 0, kept.epoch):
            _draw_an_epoch(iterator)
        model._initial_epoch = kept.epoch
        _chance((kept.python, kept.numpy))

    @property
    def looks_inside(self) -> bool:
        """Whether fits are to be kept inside epochs, too; so their metrics must be built before the first step."""
        return self._inside_s is not None

    def begin(self, model: Any) -> None:
        """A fit begins, and its model is built, if that is possible before its first step."""
        self._counts = names_of(model.metrics_variables)

    def is_due(self, model: Any, step: int, steps: int | None) -> bool:
        """Whether a fit is to be kept now that an epoch has come to a step; rank 0 decides.

        Args:
            model: that is fitted.
            step: steps done of the epoch.
            steps: of the epoch, or None.
        """
        if self._inside_s is None or self._keeping.ago_s() < self._inside_s:
            return False
        if steps is None:
            self._note("whole-epochs", WHOLE_EPOCHS.format(why="how long an epoch is, is not known"))
            return False
        if names_of(model.metrics_variables) != self._counts:
            self._note("whole-epochs", WHOLE_EPOCHS.format(why="the model is built by its own first step"))
            return False
        return step < steps

    def keep_inside(self, callbacks: Any, epoch: int, stepped: int, batch: int, data: Any) -> None:
        """Writes down where a fit is inside an epoch; on rank 0, whose metrics have counted what all ranks have.

        Args:
            callbacks: Keras' list of them.
            epoch: epochs done.
            stepped: optimizer steps done.
            batch: of these, steps of the epoch under way.
            data: Keras' epoch iterator.
        """
        if self._keeping.writes:
            self._write(callbacks, epoch, stepped, done=False, batch=batch, began=data._obl_began)

    def keep(self, callbacks: Any, epoch: int, stepped: int, done: bool) -> None:
        """Writes down where a fit is after an epoch, if that is due; on rank 0."""
        if self._keeping.is_due():
            self._write(callbacks, epoch, stepped, done)

    def _write(
        self, callbacks: Any, epoch: int, stepped: int, done: bool, batch: int = 0, began: Any = None
    ) -> None:
        def made() -> Kept:
            variables = variables_of(callbacks.model)
            counting = callbacks.model.metrics_variables if batch else []
            return Kept(
                epoch, stepped, done, [variable.numpy() for variable in variables], names_of(variables),
                [
                    (_kind(callback), _plain(callback))
                    for callback in callbacks.callbacks
                    if not isinstance(callback, keras.callbacks.CSVLogger)  # its file remembers
                ],
                random.getstate(), np.random.get_state(),
                batch, [variable.numpy() for variable in counting], names_of(counting), began,
            )  # fmt: skip

        self._keeping.write(self._number, made)

    def enter(self, kept: Kept, callbacks: Any) -> None:
        """Makes an epoch that has begun what it was when it was kept; the variables on rank 0.

        Raises:
            NotOblivious: the model is not the one that was kept.
        """
        self._restore(kept, callbacks)
        counting = callbacks.model.metrics_variables
        if kept.counts != names_of(counting):
            raise NotOblivious(
                f"the checkpoint of fit {self._number} holds other metrics than the fit has now",
                "run it anew, without resuming, or compile the same metrics",
            )
        for variable, value in zip(counting, kept.counted, strict=False):
            variable.assign(value)

    def _restore(self, kept: Kept, callbacks: Any) -> None:
        variables = variables_of(callbacks.model)
        if kept.names != names_of(variables):
            first = next((name for name in kept.names if name not in names_of(variables)), "their order")
            raise NotOblivious(
                f"the checkpoint of fit {self._number} belongs to another model than the one it fits now "
                f"(it holds {first})",
                "run it anew, without resuming, or build the same model",
            )
        for variable, value in zip(
            variables, kept.values, strict=False
        ):  # none on other ranks: rank 0's are sent
            variable.assign(value)
        for callback, attributes in _pairs(callbacks.callbacks, kept.callbacks):
            vars(callback).update(attributes)


def _without_values(kept: Kept) -> Kept:
    return replace(kept, values=[], counted=[])


def pass_over(iterator: Any, kept: Kept) -> None:
    """The next epoch that is read from an iterator begins after the batches that were done of it."""
    iterator._obl_done = kept


def remaining(epochs: Any, steps: Iterable[tuple[int, int, Any]]) -> Iterator[tuple[int, int, Any]]:
    """The steps of an epoch that are left to do; the data of those that were done are drawn and forgotten.

    Args:
        epochs: Keras' epoch iterator.
        steps: (first, last, iterator over batches) of each of its steps.
    """
    kept: Kept | None = vars(epochs).pop("_obl_done", None)
    if kept is not None:
        _chance(kept.began)
    epochs._obl_began = random.getstate(), np.random.get_state()
    for first, last, batches in steps:
        if kept is not None and first < kept.batch:
            for _ in range(first, last + 1):
                next(batches, None)
            continue
        if kept is not None:
            _chance((kept.python, kept.numpy))
            kept = None
        yield first, last, batches


def _chance(states: tuple[Any, Any]) -> None:
    """Gives Python's and NumPy's random generators these states."""
    python, numpy = states
    random.setstate(python)
    np.random.set_state(numpy)


def _draw_an_epoch(iterator: Any) -> None:
    with iterator.catch_stop_iteration():
        for _ in iterator:
            pass


def names_of(variables: Sequence[Any]) -> list[str]:
    """Names and shapes of variables of Keras' or TensorFlow's."""
    return [f"{getattr(v, 'path', v.name).partition(':')[0]} {tuple(v.shape)}" for v in variables]


def _kind(callback: Any) -> str:
    return f"{type(callback).__module__}.{type(callback).__qualname__}"


def _plain(callback: Any) -> dict[str, Any]:
    """What a callback remembers: its attributes, but for the model, open files and the like."""
    found = {}
    for name, value in vars(callback).items():
        if name in _FRAMEWORKS_OWN or isinstance(value, (keras.Model, keras.callbacks.Callback)):
            continue
        try:
            payload.loads(payload.dumps(value))
        except Exception:
            continue
        found[name] = value
    return found


def _pairs(
    callbacks: Sequence[Any], kept: Sequence[tuple[str, dict[str, Any]]]
) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Each callback with what was kept of it: the first of its class with the first of that class, and so on."""
    left = list(kept)
    for callback in callbacks:
        for index, (kind, attributes) in enumerate(left):
            if kind == _kind(callback):
                yield callback, attributes
                del left[index]
                break
