"""Random numbers: equal where ranks must agree (weights, shuffles), different where they must not (dropout).

Everything derives from one recorded seed. Inside a training step a rank's own offset is mixed into what a
Keras ``SeedGenerator`` gives out and into the seed of TensorFlow's random operations; the generators' states
stay equal. Rank 0's offset is zero, so its draws are the single process's.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf
from keras.src.random.seed_generator import SeedGenerator

from obl_magic.worker.keras import scope as scopes
from obl_magic.worker.keras.patching import Patches

_STRIDE = 1_000_003


def seed_all(seed: int) -> None:
    """Seeds Python, NumPy and TensorFlow, the same on every rank."""
    keras.utils.set_random_seed(seed % 2**32)


def install(patches: Patches, rank: int) -> None:
    """Makes draws inside steps differ between ranks."""

    def make(original: Any) -> Any:
        def next(generator: Any, ordered: bool = True) -> Any:
            drawn = original(generator, ordered)
            scope = scopes.current()
            if rank == 0 or scope is None or scope.whole:
                return drawn
            return drawn + tf.cast(tf.constant([rank * _STRIDE, 0]), drawn.dtype)

        return next

    patches.replace(SeedGenerator, "next", make)


@contextmanager
def operations_differ(rank: int) -> Iterator[None]:
    """Within it, TensorFlow's own random operations that are traced get seeds of this rank."""
    graph = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    if rank == 0 or graph is None or graph.seed is None:
        yield
        return
    before = graph.seed
    graph.seed = (before + rank * _STRIDE) % 2**31
    try:
        yield
    finally:
        graph.seed = before
