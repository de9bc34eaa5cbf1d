"""Hand-written loops: their traced functions run eagerly now and then, so that model calls can prove themselves.

The first call of a function of the user's, and calls 2, 4, 8, …; not again where no model was called in it.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import tensorflow as tf
from tensorflow.python.eager.polymorphic_function.polymorphic_function import Function

from obl_magic.worker.frameworks.keras import scope as scopes
from obl_magic.worker.frameworks.keras.model_calls import ModelCalls
from obl_magic.worker.patching import Patches

_LIBRARIES = ("keras", "tensorflow", "obl_magic")


class CustomLoops:
    """Replaces how traced functions are called.

    Args:
        calls: the model calls.
        between: called before each call of a function that calls models.
    """

    def __init__(self, calls: ModelCalls, between: Callable[[], None]) -> None:
        self._calls, self._between = calls, between
        self._made: WeakKeyDictionary[Any, int] = WeakKeyDictionary()

    def install(self, patches: Patches) -> None:
        """Replaces it."""
        patches.replace(Function, "__call__", self._make)

    def _make(self, original: Any) -> Any:
        @functools.wraps(original)
        def __call__(function: Any, *args: Any, **kwargs: Any) -> Any:
            if not tf.executing_eagerly() or threading.current_thread() is not threading.main_thread():
                return original(function, *args, **kwargs)
            with self._calls.called():
                return call(function, *args, **kwargs)

        def call(function: Any, *args: Any, **kwargs: Any) -> Any:
            made = self._made.get(function, 0)
            if made < 0 or not self._is_step(function):
                return original(function, *args, **kwargs)
            self._between()
            self._made[function] = made = made + 1
            if not self._calls.proves or made & (made - 1):
                return original(function, *args, **kwargs)
            before = self._calls.seen
            with self._calls.proving():
                found = original(function, *args, **kwargs)
            if self._calls.seen == before:
                self._made[function] = -1
            return found

        return __call__

    def _is_step(self, function: Any) -> bool:
        """Whether code of the user's calls a function of the user's."""
        module = str(getattr(function._python_function, "__module__", "")).split(".")[0]
        return module not in _LIBRARIES and scopes.may_share() and not tf.config.functions_run_eagerly()
