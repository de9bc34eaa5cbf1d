"""The oblivious functions of the benchmarks and what they are made of. They name no rank, no worker, no Horovod.

Keras is imported inside, so that whoever only sends a function does not pay for it. The data are random: what a step
takes does not depend on them.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

CLASSES = 10
WORDS, LENGTH = 20_000, 40


@dataclass(frozen=True, slots=True)
class Workload:
    """A network and its data.

    Attributes:
        what: in words.
        model: makes the network.
        data: (samples) -> inputs and labels.
        steps: of an epoch, by the global batch sizes that it is measured with.
        goal: the least share of the limit that it should reach.
        way: how it is trained: by ``fit`` with ``keras``' own step, by ``fit`` with an ``own step``, or by a ``loop``.
    """

    what: str
    model: Callable[[], Any]
    data: Callable[[int], tuple[Any, Any]]
    steps: Mapping[int, int]
    goal: float
    way: str = "keras"


def cnn() -> Any:
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


def mlp() -> Any:
    """Four dense layers, 10 million weights: much to exchange for little to compute."""
    import keras

    wide = [keras.layers.Dense(2048, activation="relu") for _ in range(3)]
    return keras.Sequential([keras.Input((784,)), *wide, keras.layers.Dense(CLASSES)])


def resnet() -> Any:
    """Three stages of two residual blocks on 32 by 32 by 3 images: 11 million weights."""
    import keras

    layers = keras.layers
    image = x = keras.Input((32, 32, 3))
    x = layers.Conv2D(64, 7, strides=4, padding="same", activation="relu")(x)
    for filters in (128, 256, 512):
        for number in range(2):
            strides = 1 if number else 2
            within = layers.Conv2D(filters, 3, strides=strides, padding="same", activation="relu")(x)
            within = layers.Conv2D(filters, 3, padding="same")(within)
            if number == 0:
                x = layers.Conv2D(filters, 1, strides=strides)(x)
            x = layers.ReLU()(layers.Add()([x, within]))
    return keras.Model(image, layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x)))


def lstm() -> Any:
    """A recurrent network of 128 units over 40 steps of 32 features."""
    import keras

    return keras.Sequential([keras.Input((LENGTH, 32)), keras.layers.LSTM(128), keras.layers.Dense(CLASSES)])


def embedding() -> Any:
    """The mean of 40 words out of 20,000, each a row of 128: sparse gradients."""
    import keras

    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((LENGTH,), dtype="int32"),
            layers.Embedding(WORDS, 128),
            layers.GlobalAveragePooling1D(),
            layers.Dense(64, activation="relu"),
            layers.Dense(CLASSES),
        ]
    )


def floats(*shape: int) -> Callable[[int], tuple[Any, Any]]:
    """Makes random inputs of a shape, and labels below ten."""

    def data(samples: int) -> tuple[Any, Any]:
        import numpy as np

        random = np.random.default_rng(0)
        return random.random((samples, *shape), np.float32), random.integers(0, CLASSES, samples, np.int32)

    return data


def words(samples: int) -> tuple[Any, Any]:
    """Random words, int32 of shape (samples, 40), and labels."""
    import numpy as np

    random = np.random.default_rng(0)
    inputs = random.integers(0, WORDS, (samples, LENGTH), np.int32)
    return inputs, random.integers(0, CLASSES, samples, np.int32)


_CNN = "CNN, 0.4 M weights"
WORKLOADS = {
    "cnn": Workload(_CNN, cnn, floats(28, 28, 1), {64: 16, 256: 6, 1024: 2}, 0.97),
    "mlp": Workload("MLP, 10 M weights", mlp, floats(784), {256: 4}, 0.88),
    "resnet": Workload("residual network, 11 M weights", resnet, floats(32, 32, 3), {32: 2}, 0.88),
    "lstm": Workload("LSTM of 128 units", lstm, floats(LENGTH, 32), {128: 12}, 0.88),
    "embedding": Workload("embedding of 20,000 words", embedding, words, {256: 16}, 0.88),
    "own step": Workload(f"{_CNN}, a train_step", cnn, floats(28, 28, 1), {256: 6}, 0.97, "own step"),
    "loop": Workload(f"{_CNN}, a loop by hand", cnn, floats(28, 28, 1), {256: 6}, 0.97, "loop"),
}


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


def with_own_step(model: Any) -> Any:
    """The same network with a ``train_step`` as Keras' guides write it."""
    import keras
    import tensorflow as tf

    class OwnStep(keras.Model):
        def train_step(self, data: Any) -> Any:
            x, y = data
            with tf.GradientTape() as tape:
                y_pred = self(x, training=True)
                loss = self.compute_loss(x=x, y=y, y_pred=y_pred)
            gradients = tape.gradient(loss, self.trainable_variables)
            self.optimizer.apply_gradients(zip(gradients, self.trainable_variables, strict=True))
            return self.compute_metrics(x, y, y_pred)

    return OwnStep(model.inputs, model.outputs)


def loop(model: Any, x: Any, y: Any, batch: int, epochs: int, optimizer: Any) -> list[float]:
    """Trains as TensorFlow's guides write it; when each epoch ended, in seconds."""
    import tensorflow as tf

    objective, ends = loss(), []

    @tf.function
    def step(inputs: Any, labels: Any) -> Any:
        with tf.GradientTape() as tape:
            value = objective(labels, model(inputs, training=True))
        optimizer.apply(tape.gradient(value, model.trainable_variables), model.trainable_variables)
        return value

    batches = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(len(x), seed=0).batch(batch)
    for _ in range(epochs):
        for inputs, labels in batches:
            step(inputs, labels)
        ends.append(time.perf_counter())
    return ends


def speed(workload: str, epochs: int, batch: int) -> float:
    """Samples/s of one fresh network with one batch size."""
    import keras

    about = WORKLOADS[workload]
    samples = about.steps[batch] * batch
    x, y = about.data(samples)
    model = about.model()
    if about.way == "loop":
        return samples_per_s(samples, loop(model, x, y, batch, epochs, keras.optimizers.Adam()))
    ends: list[float] = []
    clock = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: ends.append(time.perf_counter()))
    model = with_own_step(model) if about.way == "own step" else model
    model.compile(keras.optimizers.Adam(), loss(), metrics=["accuracy"])
    model.fit(x, y, batch_size=batch, epochs=epochs, verbose=0, callbacks=[clock])
    return samples_per_s(samples, ends)


def train(workload: str, epochs: int) -> dict[int, float]:
    """Trains with each batch size; samples/s by batch size."""
    return {batch: speed(workload, epochs, batch) for batch in WORKLOADS[workload].steps}
