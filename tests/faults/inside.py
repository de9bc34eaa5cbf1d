"""Trains in few, long epochs, for tests that end a world in the middle of one. Runs on ranks; tests nothing itself."""

from __future__ import annotations

import os
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

STEPS = 60
BATCH = 12


class Pieces(keras.utils.PyDataset):
    """Batches of its own order."""

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return STEPS

    def __getitem__(self, index):
        rows = slice(((index * 7) % STEPS) * BATCH, ((index * 7) % STEPS + 1) * BATCH)
        return self.x[rows], self.y[rows]


class Own(keras.Model):
    """A step by hand: the calls of its model are shared."""

    def __init__(self):
        super().__init__()
        self.body = _body()

    def call(self, x, training=False):
        return self.body(x, training=training)

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            predicted = self(x, training=True)
            loss = self.compute_loss(x=x, y=y, y_pred=predicted)
        weights = self.trainable_variables
        self.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        for metric in self.metrics:
            metric.update_state(loss) if metric.name == "loss" else metric.update_state(y, predicted)
        return {metric.name: metric.result() for metric in self.metrics}


class Slowly(keras.callbacks.Callback):
    """Writes each step down, and counts what it has seen of an epoch, which a checkpoint must bring back."""

    def __init__(self, folder, pause_s):
        super().__init__()
        self.folder, self.pause_s, self.epoch, self.seen = folder, pause_s, 0, 0
        self.counts = []

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch, self.seen = epoch, 0

    def on_train_batch_end(self, batch, logs=None):
        self.seen += 1
        if os.environ.get("OMPI_COMM_WORLD_RANK", "0") == "0":
            with Path(self.folder, "steps").open("a") as steps:
                steps.write(f"{self.epoch} {batch}\n")
        time.sleep(self.pause_s)

    def on_epoch_end(self, epoch, logs=None):
        self.counts.append(self.seen)


def _body():
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dropout(0.3, seed=5),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(1),
        ]
    )


def long_epochs(kind="arrays", folder=".", pause_s=0.05, epochs=2):
    """Two epochs of sixty steps; the weights, the history, and how many steps its callback has seen in each."""
    keras.utils.set_random_seed(11)
    draw = np.random.default_rng(3)
    x = draw.normal(size=(STEPS * BATCH - 5 * (kind == "arrays"), 6)).astype("float32")
    y = (x @ draw.normal(size=(6, 1)) + 0.1).astype("float32")
    model = Own() if kind == "own step" else _body()
    model.compile(keras.optimizers.Adam(0.01), "mse", metrics=["mae", keras.metrics.RootMeanSquaredError()])
    slowly = Slowly(folder, pause_s)
    given = {"epochs": epochs, "verbose": 0, "callbacks": [slowly]}
    if kind == "tf.data":
        rows = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(200, seed=4).batch(BATCH).prefetch(2)
        history = model.fit(rows, **given)
    elif kind == "PyDataset":
        history = model.fit(Pieces(x, y), **given)
    else:
        history = model.fit(x, y, batch_size=BATCH, validation_split=0.0, **given)
    return {"weights": model.get_weights(), "history": history.history, "counts": slowly.counts}
