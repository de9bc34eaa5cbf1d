"""Continues a function where an earlier world left it: fits that were done are passed over, the next one goes on.

The function runs again from its top, unchanged. Each of its fits, in order, finds what the earlier world kept of it:
weights, optimizer, epoch, history, the state of its callbacks and of Python's and NumPy's random numbers. The data of
epochs that were done are drawn again without being trained on, so that shuffles come out as they would have.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from obl_magic import payload
from obl_magic.errors import NotOblivious
from obl_magic.rundir import RunDir
from obl_magic.worker.engines.collectives import Collectives
from obl_magic.worker.frameworks.keras.state import variables_of

CHEAP_SHARE = 0.005
"""Of the time, that keeping may cost where nobody asked for restarts."""
SELDOM_S = 10.0
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
    """

    epoch: int
    stepped: int
    done: bool
    values: list[Any] = field(repr=False)
    names: list[str] = field(repr=False)
    callbacks: list[tuple[str, dict[str, Any]]] = field(repr=False)
    python: Any = field(repr=False)
    numpy: Any = field(repr=False)


class Checkpoints:
    """Keeps and continues the fits of one function.

    Args:
        world: the collectives.
        folder: the run's folder, or None: nothing is kept.
        goes_on: an earlier world may have kept something.
        each_epoch: keep every epoch, whatever it costs; else only as often as costs little.
    """

    def __init__(self, world: Collectives, folder: RunDir | None, goes_on: bool, each_epoch: bool) -> None:
        self._world, self._folder, self._each_epoch = world, folder, each_epoch
        self._goes_on = goes_on
        self._number = 0
        self._kept_s, self._cost_s = time.perf_counter(), 0.0

    def find(self) -> Kept | None:
        """What an earlier world kept of the fit that begins now, the values on rank 0 only; None if nothing."""
        self._number += 1
        if self._folder is None or not self._goes_on:
            return None
        path = self._folder.checkpoint(self._number)
        kept: Kept | None = None
        if self._world.rank == 0 and path.is_file():
            kept = payload.loads(path.read_bytes())
        if self._world.size > 1:
            light = None if kept is None else _without_values(kept)
            (light, *_) = self._world.allgather_object(light)
            kept = kept if self._world.rank == 0 else light
        return kept

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
        random.setstate(kept.python)
        np.random.set_state(kept.numpy)

    def keep(self, callbacks: Any, epoch: int, stepped: int, done: bool) -> None:
        """Writes down where a fit is, if that is due; on rank 0."""
        now = time.perf_counter()
        wait = 0.0 if self._each_epoch else max(SELDOM_S, self._cost_s / CHEAP_SHARE)
        if self._folder is None or self._world.rank != 0 or now - self._kept_s < wait:
            return
        variables = variables_of(callbacks.model)
        kept = Kept(
            epoch, stepped, done, [variable.numpy() for variable in variables], _names(variables),
            [
                (_kind(callback), _plain(callback))
                for callback in callbacks.callbacks
                if not isinstance(callback, keras.callbacks.CSVLogger)  # its file remembers
            ],
            random.getstate(), np.random.get_state(),
        )  # fmt: skip
        self._folder.checkpoint(self._number).parent.mkdir(mode=0o700, exist_ok=True)
        self._folder.write_bytes(self._folder.checkpoint(self._number), payload.dumps(kept))
        self._kept_s = time.perf_counter()
        self._cost_s = self._kept_s - now

    def _restore(self, kept: Kept, callbacks: Any) -> None:
        variables = variables_of(callbacks.model)
        if kept.names != _names(variables):
            first = next((name for name in kept.names if name not in _names(variables)), "their order")
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
    return Kept(kept.epoch, kept.stepped, kept.done, [], kept.names, kept.callbacks, kept.python, kept.numpy)


def _draw_an_epoch(iterator: Any) -> None:
    with iterator.catch_stop_iteration():
        for _ in iterator:
            pass


def _names(variables: Sequence[Any]) -> list[str]:
    return [f"{variable.path} {tuple(variable.shape)}" for variable in variables]


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
