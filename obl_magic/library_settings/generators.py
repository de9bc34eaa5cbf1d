"""Where the random generators stand that earlier cells have seeded. Draws nothing.

A cell's ``keras.utils.set_random_seed``, ``tf.random.set_seed`` and ``numpy.random.seed`` leave a trace, Python's own
``random.seed`` does not. Of what was seeded the *state* travels rather than the seed: the function begins where a plain
call of it would begin, whatever was drawn since.
"""

from __future__ import annotations

import contextlib
import random
import sys
from typing import Any

from obl_magic import payload
from obl_magic.values import CarriedGenerators

GLOBAL_SEED_GENERATOR, GLOBAL_RANDOM_SEED = "global_seed_generator", "global_random_seed"
"""Where Keras keeps its generator and the seed of it; not every version has names for these."""

PYTHON, NUMPY, TENSORFLOW, KERAS = "random", "numpy", "tensorflow", "keras"

_States = dict[str, Any]


def notebook_seed() -> int | None:
    """The seed that a cell gave to Keras for everything, or None."""
    seed = _keras_attribute(GLOBAL_RANDOM_SEED) if KERAS in sys.modules else None
    return seed if isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 else None


def carried() -> CarriedGenerators:
    """The states of those that were seeded in this process."""
    states: _States = {}
    told: dict[str, str] = {}
    with contextlib.suppress(Exception):  # a library with other insides; the base seed holds then
        if (seed := notebook_seed()) is not None:
            states[KERAS], told["keras.utils.set_random_seed"] = _keras(seed), str(seed)
            states[PYTHON] = random.getstate()
        if TENSORFLOW in sys.modules and (found := _tensorflow()) is not None:
            states[TENSORFLOW], told["tensorflow.random.set_seed"] = found, str(found[0])
        if NUMPY in sys.modules and _numpy_is_seeded():
            states[NUMPY] = sys.modules[NUMPY].random.get_state()
            told["numpy.random.seed"] = "the state of its global generator"
    return CarriedGenerators(payload.dumps(states), told) if states else CarriedGenerators()


def write(states: _States, library: str) -> None:
    """Puts a library's generators where they stood; with Keras' also Python's, which it draws seeds from.

    Args:
        states: as :func:`carried` has found them.
        library: one that is imported.
    """
    if library == PYTHON and PYTHON in states:
        random.setstate(states[PYTHON])
    elif library == NUMPY and NUMPY in states:
        sys.modules[NUMPY].random.set_state(states[NUMPY])
    elif library == TENSORFLOW and TENSORFLOW in states:
        _write_tensorflow(*states[TENSORFLOW])
    elif library == KERAS and KERAS in states:
        _write_keras(*states[KERAS])


def _numpy_is_seeded() -> bool:
    """Whether somebody has called ``numpy.random.seed``: its generator then forgets what it was born with."""
    generator: Any = sys.modules[NUMPY].random.get_bit_generator()
    return getattr(generator, "_seed_seq", generator) is None


def _tensorflow() -> tuple[Any, Any] | None:
    from tensorflow.python.eager import context

    here = context.context()
    return None if here._seed is None else (here._seed, here._rng.getstate())


def _write_tensorflow(seed: Any, drawn: Any) -> None:
    from tensorflow.python.eager import context

    here = context.context()
    here._set_global_seed(seed)
    here._rng.setstate(drawn)


def _keras(seed: int) -> tuple[int, list[int] | None]:
    generator = _keras_attribute(GLOBAL_SEED_GENERATOR)
    return seed, None if generator is None else [int(each) for each in generator.state.numpy()]


def _write_keras(seed: int, state: list[int] | None) -> None:
    from keras.src.backend.common import global_state
    from keras.src.random.seed_generator import SeedGenerator

    global_state.set_global_attribute(GLOBAL_RANDOM_SEED, seed)
    generator = None
    if state is not None:
        generator = SeedGenerator(state[0])  # with a seed: else it would draw one
        generator.state.assign(state)
    global_state.set_global_attribute(GLOBAL_SEED_GENERATOR, generator)


def _keras_attribute(name: str) -> Any:
    from keras.src.backend.common import global_state

    return global_state.get_global_attribute(name)
