"""Makes libraries stand as earlier cells left them, from their import to the end of a job; then as they were before.

Serves ranks and the kernel alike. A library that a job imports is put back to what it was right after its import.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from obl_magic import payload
from obl_magic.library_settings import ADDED_TO, LIBRARIES, generators
from obl_magic.values import CarriedGenerators, CarriedSettings
from obl_magic.worker.on_import import on_import


@contextmanager
def in_force(carried: Iterable[CarriedSettings] = ()) -> Iterator[Callable[[], None]]:
    """Within it the settings hold; afterwards those of before, whatever the job has changed.

    Args:
        carried: the settings; without any, each library stays as it is.

    Yields:
        What writes those settings again that other libraries' imports have added to.
    """
    given = {each.library: each.values for each in carried}
    loaded: dict[str, Any] = {}

    def write(name: str) -> None:
        if name in given:
            with contextlib.suppress(Exception):  # a version with other insides keeps its own settings
                if name not in loaded:
                    loaded[name] = payload.loads(given[name])
                LIBRARIES[name].write(loaded[name])

    def again() -> None:
        for name in ADDED_TO:
            write(name)

    with ExitStack() as stack:

        def keep(name: str) -> None:
            with contextlib.suppress(Exception):
                stack.callback(_quietly(LIBRARIES[name].keep()))

        def arrived(name: str) -> None:
            if name not in ADDED_TO:
                keep(name)
            write(name)
            if name not in ADDED_TO:
                again()

        for name in ADDED_TO:  # Python's own, so they are there, and written with every library that comes
            keep(name)
        for name, library in LIBRARIES.items():
            stack.callback(on_import(library.module, functools.partial(arrived, name)))
        yield again


def _quietly(put_back: Callable[[], None]) -> Callable[[], None]:
    def quiet() -> None:
        with contextlib.suppress(Exception):
            put_back()

    return quiet


def seeded_as_in_the_notebook(carried: CarriedGenerators) -> Callable[[], None]:
    """Puts random generators where the notebook's stand, each as soon as its library is there.

    Returns:
        What forgets those that have not come yet.
    """
    if not carried.states:
        return lambda: None
    states: dict[str, Any] = payload.loads(carried.states)
    libraries = (generators.NUMPY, generators.TENSORFLOW, generators.KERAS)
    generators.write(states, generators.PYTHON)

    def keras_came() -> None:
        for library in (generators.PYTHON, *libraries):  # who made Keras oblivious has seeded them all
            generators.write(states, library)

    stack = ExitStack()
    for library in libraries:
        came = (
            keras_came
            if library == generators.KERAS
            else functools.partial(generators.write, states, library)
        )
        stack.callback(on_import(library, came))
    return stack.close
