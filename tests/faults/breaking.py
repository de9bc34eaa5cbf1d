"""A training function that breaks at a named place, in a named way, on rank 1. Written as a user might write it."""

import ctypes
import os
import signal
import time
from pathlib import Path

PLACES = ("start", "model", "tracing", "step", "data", "evaluation", "end", "returning")
WAYS = ("raises", "exits", "is killed", "crashes")


def breaks(way, folder):
    """Breaks now, having said when."""
    print("about to break", flush=True)
    Path(folder, "broke").write_text(repr(time.time()))
    if way == "raises":
        raise ValueError("broken on purpose")
    if way == "exits":
        os._exit(7)
    if way == "is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    ctypes.string_at(0)


class Returned:
    """A value that breaks while it is pickled."""

    def __init__(self, at):
        self.at = at

    def __reduce__(self):
        self.at("returning")
        return (str, ("whole",))


def train(place="step", way="raises", folder="."):
    """Trains, and breaks on rank 1."""
    rank = int(os.environ.get("OMPI_COMM_WORLD_RANK", "0"))

    def at(here):
        if here == place and rank == 1:
            breaks(way, folder)

    at("start")
    import keras
    import numpy as np
    import tensorflow as tf

    class Model(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(1)

        def call(self, x):
            return self.dense(x)

        def train_step(self, data):
            at("tracing")
            return super().train_step(data)

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 2:
                at("step")

        def on_test_batch_end(self, batch, logs=None):
            at("evaluation")

    def rows():
        for number in range(32):
            if number == 20:
                at("data")
            yield np.ones(4, "float32"), np.ones(1, "float32")

    model = Model()
    model.compile("sgd", "mse")
    at("model")
    signature = (tf.TensorSpec([4]), tf.TensorSpec([1]))
    batches = tf.data.Dataset.from_generator(rows, output_signature=signature).batch(4)
    model.fit(batches, epochs=1, verbose=0, callbacks=[Watch()])
    model.evaluate(batches, verbose=0, callbacks=[Watch()])
    at("end")
    return Returned(at)
