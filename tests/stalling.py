"""Training functions that hang on one rank, each in its own way."""

import os
import re
import signal
import time


def _rank():
    return int(os.environ.get("OMPI_COMM_WORLD_RANK", "0"))


def _fit(at_batch=lambda batch: None, data=None):
    import keras
    import numpy as np

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            at_batch(batch)

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    x, y = data if data else (np.ones((64, 4), "float32"), np.ones((64, 1), "float32"))
    model.fit(x, y, batch_size=8, epochs=3, verbose=0, callbacks=[Watch()])


def loops_for_ever():
    """Rank 1 stays in a Python loop."""

    def hang(batch):
        while batch == 2 and _rank() == 1:
            time.sleep(0.01)

    _fit(hang)


def stopped_by_a_signal():
    """Rank 1 is stopped, as by a debugger."""

    def stop(batch):
        if batch == 2 and _rank() == 1:
            os.kill(os.getpid(), signal.SIGSTOP)

    _fit(stop)


def hangs_in_c():
    """Rank 1 holds Python's lock in C code."""

    def backtrack(batch):
        if batch == 2 and _rank() == 1:
            re.match(r"(a+)+$", "a" * 60 + "b")

    _fit(backtrack)


def waits_in_a_generator():
    """Rank 1's data never come."""
    import keras
    import numpy as np
    import tensorflow as tf

    def rows():
        for number in range(64):
            while number == 40 and _rank() == 1:
                time.sleep(0.01)
            yield np.ones(4, "float32"), np.ones(1, "float32")

    signature = (tf.TensorSpec([4]), tf.TensorSpec([1]))
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(tf.data.Dataset.from_generator(rows, output_signature=signature).batch(8), epochs=2, verbose=0)


def returns_early():
    """Rank 1 skips what rank 0 takes part in."""
    if _rank() == 1:
        return
    _fit()
