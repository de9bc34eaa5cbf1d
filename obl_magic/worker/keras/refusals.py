"""Refuses, in the user's own line, what sets up distributed training by itself; names a way out."""

from __future__ import annotations

import sys
from typing import Any

import keras
import tensorflow as tf

from obl_magic.errors import NotOblivious
from obl_magic.worker.keras.patching import Patches
from obl_magic.worker.strategies import HOROVOD, TF_STRATEGIES, WAY_OUT


def check_backend() -> None:
    """Raises NotOblivious unless Keras runs on TensorFlow."""
    if keras.backend.backend() != "tensorflow":
        raise NotOblivious(
            f"Keras runs on {keras.backend.backend()}; only its TensorFlow backend can be made oblivious",
            "set KERAS_BACKEND=tensorflow before Keras is imported, and restart the kernel",
        )


def install(patches: Patches) -> None:
    """Makes the ways to set up distribution by hand raise NotOblivious."""
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


def _refusing(what: str) -> Any:
    def make(original: Any) -> Any:
        def refuse(*args: Any, **kwargs: Any) -> Any:
            raise NotOblivious(what, WAY_OUT)

        return refuse

    return make
