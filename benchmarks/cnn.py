"""The oblivious function of the benchmarks and what it is made of. Names no rank, no worker, no Horovod.

Keras is imported inside, so that whoever only sends the function does not pay for it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

CLASSES = 10


def make_model() -> Any:
    """Two convolutions and two dense layers for 28 by 28 by 1 images: 421,642 weights."""
    import keras

    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(32, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Conv2D(64, 3, activation="relu"),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(256, activation="relu"),
            keras.layers.Dense(CLASSES),
        ]
    )


def make_data(samples: int) -> tuple[Any, Any]:
    """Random images, float32 of shape (samples, 28, 28, 1), and labels, int32 of shape (samples,)."""
    import numpy as np

    random = np.random.default_rng(0)
    return random.random((samples, 28, 28, 1), np.float32), random.integers(0, CLASSES, samples, np.int32)


def loss() -> Any:
    """Cross entropy of logits."""
    import keras

    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def samples_per_s(samples: int, epoch_ends_s: Sequence[float]) -> float:
    """Samples of the whole world in a second, from the second epoch on.

    The first epoch holds tracing and compiling. The median is over whole epochs, from one end to the next, so
    that what happens between two epochs counts.
    """
    spans = [later - earlier for earlier, later in pairwise(epoch_ends_s)]
    return samples / statistics.median(spans)


def speed(samples: int, epochs: int, batch: int) -> float:
    """Samples/s of one fresh network with one batch size."""
    import keras

    x, y = make_data(samples)
    ends: list[float] = []
    clock = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: ends.append(time.perf_counter()))
    model = make_model()
    model.compile(keras.optimizers.Adam(), loss(), metrics=["accuracy"])
    model.fit(x, y, batch_size=batch, epochs=epochs, verbose=0, callbacks=[clock])
    return samples_per_s(samples, ends)


def train(samples: int = 6400, epochs: int = 10, batches: Sequence[int] = (64, 256)) -> dict[int, float]:
    """Trains with each batch size; samples/s by batch size."""
    return {batch: speed(samples, epochs, batch) for batch in batches}
