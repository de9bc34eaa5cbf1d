"""A training whose last rank is slow: each of its rows takes so many times as long as one of another rank's."""

import os
import time

ROW_S = 0.001
ROWS, BATCH = 1280, 64


def _slow_layer(times):
    """A Dense of Keras' own, as far as anybody can see, that waits for its rows."""
    import keras
    import numpy as np
    import tensorflow as tf

    last = (
        int(os.environ.get("OMPI_COMM_WORLD_RANK", "0"))
        == int(os.environ.get("OMPI_COMM_WORLD_SIZE", "0")) - 1
    )
    original = keras.layers.Dense.call

    def wait(rows):
        time.sleep(len(rows) * ROW_S * (times if last else 1.0))
        return np.float32(0)

    def call(layer, inputs, training=None):
        zero = tf.numpy_function(wait, [inputs], tf.float32)
        zero.set_shape([])
        return original(layer, inputs + zero, training)

    class Dense(keras.layers.Dense):
        pass

    call.__module__ = Dense.__module__ = original.__module__
    Dense.call = call
    return Dense(16, "relu")


def _data(kind):
    import keras
    import numpy as np
    import tensorflow as tf

    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 20)).astype("float32")
    y = (x[:, :1] > 0).astype("float32")
    if kind == "arrays":
        return {"x": x, "y": y, "batch_size": BATCH}
    if kind == "tf.data":
        return {"x": tf.data.Dataset.from_tensor_slices((x, y)).shuffle(ROWS, seed=3).batch(BATCH)}
    if kind == "generator":

        def batches():
            while True:
                for first in range(0, ROWS, BATCH):
                    yield x[first : first + BATCH], y[first : first + BATCH]

        return {"x": batches(), "steps_per_epoch": ROWS // BATCH}

    class Batches(keras.utils.PyDataset):
        def __len__(self):
            return ROWS // BATCH

        def __getitem__(self, index):
            rows = slice(index * BATCH, (index + 1) * BATCH)
            return x[rows], y[rows]

    return {"x": Batches()}


def fit(kind="arrays", times=0.0, epochs=6):
    """Weights, history, and the seconds that each epoch took. ``times`` 0: nobody waits for anything."""
    import keras

    keras.utils.set_random_seed(1)
    layers = keras.layers
    first = _slow_layer(times) if times else layers.Dense(16, "relu")
    model = keras.Sequential([keras.Input((20,)), first, layers.Dropout(0.2), layers.Dense(1, "sigmoid")])
    model.compile("adam", "binary_crossentropy", metrics=["accuracy", keras.metrics.AUC()])
    began, took = [], []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: began.append(time.monotonic()),
        on_epoch_end=lambda epoch, logs: took.append(time.monotonic() - began[-1]),
    )
    history = model.fit(**_data(kind), epochs=epochs, callbacks=[watch], verbose=0).history
    return {"weights": model.get_weights(), "history": history, "took": took}
