"""Clears what a trial has left in Keras and TensorFlow, so that the next one finds them as they were imported."""

from __future__ import annotations

import keras
from tensorflow.python.framework import ops

_OF_A_GRAPH = "CustomGradient-"
"""TensorFlow registers the gradient of each traced operation of this kind for good, and with it the whole graph."""


def clear() -> None:
    """Forgets Keras' names, policies and seeds, and the gradients of graphs that nobody has any more."""
    keras.backend.clear_session(free_memory=False)
    registered = ops.gradient_registry._registry
    for name in [name for name in registered if name.startswith(_OF_A_GRAPH)]:
        del registered[name]
