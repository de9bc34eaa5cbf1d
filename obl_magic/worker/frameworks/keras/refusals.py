"""Refuses, in the user's own line, what ranks cannot do: distribution set up by hand, models used by two threads."""

from __future__ import annotations

import functools
import inspect
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

import keras
import tensorflow as tf
from keras.src.backend.tensorflow.trainer import TensorFlowTrainer, TFEpochIterator

from obl_magic.errors import NotOblivious
from obl_magic.worker.patching import Patches
from obl_magic.worker.strategies import HOROVOD, TF_STRATEGIES, WAY_OUT

_CALLS = {
    inspect.unwrap(getattr(TensorFlowTrainer, name)).__code__ for name in ("fit", "evaluate", "predict")
}


def check_backend() -> None:
    """Raises NotOblivious unless Keras runs on TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        raise NotOblivious(
            f"Keras runs on {keras.backend.backend()}; only its TensorFlow backend can be made oblivious",
            "set KERAS_BACKEND=tensorflow before Keras is imported, and restart the kernel",
        )


def install(patches: Patches) -> None:
    """Makes raise NotOblivious what ranks cannot do."""
    patches.replace(TFEpochIterator, "__init__", _in_one_thread)
    for name in TF_STRATEGIES:
        owner = getattr(tf.distribute, name, None) or getattr(tf.distribute.experimental, name, None)
        if owner is not None:
            patches.replace(owner, "__init__", _refusing(f"the function makes a tf.distribute.{name}"))
    for module in ("horovod.tensorflow", "horovod.tensorflow.keras", "horovod.keras"):
        if module in sys.modules:
            for name in ("init", *HOROVOD):
                if hasattr(sys.modules[module], name):
                    patches.replace(
                        sys.modules[module], name, _refusing(f"the function calls {module}.{name}")
                    )
    if hasattr(keras, "distribution"):
        patches.replace(
            keras.distribution,
            "set_distribution",
            _refusing("the function calls keras.distribution.set_distribution"),
        )


def _in_one_thread(original: Any) -> Any:
    @functools.wraps(original)
    def __init__(iterator: Any, *args: Any, **kwargs: Any) -> None:
        me = threading.get_ident()
        for ident, frame in sys._current_frames().items():
            called = [each.f_code.co_name for each in _outwards(frame) if each.f_code in _CALLS]
            if ident != me and called:
                raise NotOblivious(
                    f"two threads of the function use models at the same time (the other is in a {called[-1]}): "
                    "each rank would meet the others in an order of its own",
                    "use one after the other, or --search, which runs trials side by side",
                )
        original(iterator, *args, **kwargs)

    return __init__


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


def _refusing(what: str) -> Any:
    def make(original: Any) -> Any:
        def refuse(*args: Any, **kwargs: Any) -> Any:
            raise NotOblivious(what, WAY_OUT)

        return refuse

    return make
