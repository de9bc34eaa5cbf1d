"""Goes on with a loop by hand where an earlier world left it: what ``obl_magic.checkpoint`` does inside a run.

Its first call, before the loop, gives back what an earlier world kept, and says how many epochs that were; each later
one keeps. Beside what the loop names, random generators and passes over shuffled datasets are led to where they were.
Where that cannot be done exactly, nothing is kept, the loop begins anew, and a note says why.
"""

from __future__ import annotations

import random
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from obl_magic import payload
from obl_magic.errors import UsageProblem
from obl_magic.library_settings import generators
from obl_magic.worker.engines.collectives import Collectives
from obl_magic.worker.frameworks.keras.checkpoints import names_of
from obl_magic.worker.frameworks.keras.keeping import Keeping
from obl_magic.worker.frameworks.keras.state import SharedState
from obl_magic.worker.patching import Patches

ANEW = "a loop with obl_magic.checkpoint begins anew after a restart: {why}"
CALLED_LATE = (
    "it is first called when training has begun; call it before the loop, too, and begin at what it returns"
)
NOT_BUILT = "{name} has no variables yet when it is first called; build it before (keras.Input, model.build)"
OTHER = "what it was given then does not fit what it is given now ({name})"
REPEATED = (
    "its data repeat a shuffled dataset, so the passes over it cannot be counted; repeat in the loop instead"
)
ITERATOR = "an iterator that was made before it goes on inside the loop; make it in each epoch"
_LOOP = 0
"""Its number among what is kept of a function's fits, which count from 1."""
_Dataset = tf.data.Dataset


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of a loop.

    Attributes:
        calls: how often it was kept, this time included.
        variables: of each thing that has some, their arrays.
        names: what these belong to.
        contents: of each thing that has none, what is in it.
        passes: over each dataset that was shuffled before the loop.
        python: states of random generators: Python's, NumPy's global one, Keras' and TensorFlow's.
        numpy: as above.
        libraries: as above.
    """

    calls: int
    variables: list[list[Any]] = field(repr=False)
    names: list[list[str]]
    contents: list[Any] = field(repr=False)
    passes: list[int]
    python: Any = field(repr=False)
    numpy: Any = field(repr=False)
    libraries: bytes = field(repr=False)


class LoopCheckpoints:
    """Keeps and continues the loop by hand of one function.

    Args:
        world: the collectives.
        keeping: where it is written down.
        state: makes variables rank 0's.
        note: says a sentence about the run.
    """

    def __init__(
        self,
        world: Collectives,
        keeping: Keeping,
        state: SharedState,
        note: Callable[[str, str], None],
    ) -> None:
        self._world, self._keeping, self._state, self._note = world, keeping, state, note
        self._begun = False
        self._calls = 0
        self._why = ""
        self._shuffled: list[weakref.ref[Any]] = []
        self._passes: list[int] = []
        self._early: weakref.WeakSet[Any] = weakref.WeakSet()

    def install(self, patches: Patches) -> None:
        """Watches which datasets are shuffled, and passes over them."""
        patches.replace(_Dataset, "shuffle", self._note_shuffle)
        patches.replace(_Dataset, "__iter__", self._iterate)

    def __call__(self, what: Sequence[Any]) -> int:
        """Gives back at the first call, keeps at later ones; how often the loop was kept before.

        Raises:
            UsageProblem: one of these cannot be kept.
        """
        kinds = [_kind(each) for each in what]
        if self._begun:
            self._calls += 1
            self._keep(what, kinds)
            return self._calls
        self._begun, self._passes = True, [0] * len(self._shuffled)
        if any(int(each.iterations) for each in what if isinstance(each, keras.Optimizer)):
            self._give_up(CALLED_LATE)
        elif (kept := self._keeping.find(_LOOP, _without_values)) is not None:
            self._restore(kept, what, kinds)
        return self._calls

    def _give_up(self, why: str) -> None:
        self._why = why
        self._note("loop-anew", ANEW.format(why=why))

    def _restore(self, kept: Kept, what: Sequence[Any], kinds: Sequence[str]) -> None:
        _build_optimizers(what)
        holding = [each for each, kind in zip(what, kinds, strict=True) if kind == "variables"]
        for each, names in zip(holding, kept.names, strict=False):
            if names and not _held_by(each):
                return self._give_up(NOT_BUILT.format(name=_named(each)))
        mine = [names_of(_held_by(each)) for each in holding]
        if mine != kept.names or len(kept.contents) != len(what) - len(holding):
            differ = (_named(each) for each, a, b in zip(holding, mine, kept.names, strict=False) if a != b)
            return self._give_up(OTHER.format(name=next(differ, "their number")))
        # other ranks have no arrays: rank 0's are sent
        for each, arrays in zip(holding, kept.variables, strict=False):
            for variable, array in zip(_held_by(each), arrays, strict=True):
                variable.assign(array)
        if self._world.size > 1:
            with self._world.purpose("go on with a loop"):
                self._state.broadcast(variable for each in holding for variable in _held_by(each))
        others = [(each, kind) for each, kind in zip(what, kinds, strict=True) if kind != "variables"]
        for (each, kind), content in zip(others, kept.contents, strict=True):
            _KINDS[kind].put(each, content)
        for ref, passes in zip(self._shuffled, kept.passes, strict=False):
            dataset: Any = ref() or ()
            for _ in range(passes):
                next(iter(dataset), None)  # each pass draws its own order
        self._passes = list(kept.passes)
        random.setstate(kept.python)
        np.random.set_state(kept.numpy)
        states = payload.loads(kept.libraries)
        for library in (generators.TENSORFLOW, generators.KERAS):
            generators.write(states, library)
        self._calls = kept.calls
        return None

    def _keep(self, what: Sequence[Any], kinds: Sequence[str]) -> None:
        if not self._why and len(self._early) > 0:
            self._give_up(ITERATOR)
        if not self._why and self._keeping.is_due():
            self._keeping.write(_LOOP, lambda: self._kept(what, kinds))

    def _kept(self, what: Sequence[Any], kinds: Sequence[str]) -> Kept:
        given = list(zip(what, kinds, strict=True))
        holding = [_held_by(each) for each, kind in given if kind == "variables"]
        return Kept(
            self._calls, [[variable.numpy() for variable in each] for each in holding],
            [names_of(each) for each in holding],
            [_KINDS[kind].take(each) for each, kind in given if kind != "variables"],
            self._passes, random.getstate(), np.random.get_state(), generators.carried().states,
        )  # fmt: skip

    def _note_shuffle(self, original: Any) -> Any:
        def shuffle(dataset: Any, *args: Any, **kwargs: Any) -> Any:
            made = original(dataset, *args, **kwargs)
            if not self._begun and tf.executing_eagerly():
                made._obl_shuffled = len(self._shuffled)
                self._shuffled.append(weakref.ref(made))
            return made

        shuffle.__name__, shuffle.__doc__ = original.__name__, original.__doc__
        return shuffle

    def _iterate(self, original: Any) -> Any:
        def __iter__(dataset: Any) -> Any:
            iterator = original(dataset)
            if not tf.executing_eagerly():
                return iterator
            if not self._begun:
                self._early.add(iterator)
                return iterator
            for number, repeats in _shuffles_in(dataset):
                self._passes[number] += 1
                if repeats and not self._why:
                    self._give_up(REPEATED)
            return iterator

        return __iter__


@dataclass(frozen=True, slots=True)
class _Kind:
    """How the content of one kind of thing is taken, and put back in place."""

    of: tuple[type, ...]
    take: Callable[[Any], Any]
    put: Callable[[Any, Any], None]


def _put_list(mine: list[Any], kept: list[Any]) -> None:
    mine[:] = kept


def _put_others(mine: Any, kept: Any) -> None:
    mine.clear()
    mine.update(kept)


def _put_array(mine: Any, kept: Any) -> None:
    mine[...] = kept


def _put_generator(mine: np.random.Generator, kept: Any) -> None:
    mine.bit_generator.state = kept


_KINDS = {
    "list": _Kind((list,), lambda it: it, _put_list),
    "dict or set": _Kind((dict, set), lambda it: it, _put_others),
    "array": _Kind((np.ndarray,), lambda it: it, _put_array),
    "NumPy's generator": _Kind((np.random.Generator,), lambda it: it.bit_generator.state, _put_generator),
    "NumPy's older generator": _Kind(
        (np.random.RandomState,), lambda it: it.get_state(), lambda it, kept: it.set_state(kept)
    ),
    "Python's generator": _Kind(
        (random.Random,), lambda it: it.getstate(), lambda it, kept: it.setstate(kept)
    ),
}


def _kind(each: Any) -> str:
    """``variables``, or one of the kinds above.

    Raises:
        UsageProblem: it is none of them.
    """
    if isinstance(each, (tf.Variable, keras.Variable)) or hasattr(each, "variables"):
        return "variables"
    for name, kind in _KINDS.items():
        if isinstance(each, kind.of):
            return name
    if isinstance(each, keras.random.SeedGenerator):
        return "variables"
    raise UsageProblem(
        f"obl_magic.checkpoint({_named(each)})",
        "models, optimizers, metrics, variables, random generators, lists, dicts, sets and arrays",
        "obl_magic.checkpoint(model, optimizer, history)",
    )


def _held_by(each: Any) -> list[Any]:
    """The variables of something that has some; a compiled model's optimizer's are not among them."""
    if isinstance(each, (tf.Variable, keras.Variable)):
        return [each]
    return [each.state] if isinstance(each, keras.random.SeedGenerator) else list(each.variables)


def _build_optimizers(what: Sequence[Any]) -> None:
    """An optimizer has no variables before its first step, unless it is told what it is going to train."""
    trained = [v for each in what if isinstance(each, keras.Model) for v in each.trainable_variables]
    for each in what:
        if isinstance(each, keras.Optimizer) and not each.built and trained:
            each.build(trained)


def _without_values(kept: Kept) -> Kept:
    return replace(kept, variables=[])


def _named(each: Any) -> str:
    return f"{type(each).__name__} {each.name!r}" if hasattr(each, "name") else type(each).__name__


def _shuffles_in(dataset: Any) -> Iterator[tuple[int, bool]]:
    """(number, whether it is repeated) of each dataset shuffled before the loop that another one reads."""
    waiting = [(dataset, False)]
    while waiting:
        one, repeats = waiting.pop()
        if (number := getattr(one, "_obl_shuffled", None)) is not None:
            yield number, repeats
        repeats = repeats or "Repeat" in type(one).__name__
        waiting.extend((each, repeats) for each in one._inputs())
