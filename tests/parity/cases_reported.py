# ruff: noqa: D103
"""Situations of bug reports: data that are shared with arrays, recompiling, steps that go on, odd inputs."""

import os
import tempfile

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops
from real_data import cancer, diabetes, digits, iris, wine
from scipy import sparse


def _aligned(values):
    """A copy that begins on a 64-byte boundary, where TensorFlow borrows memory instead of copying it."""
    room = np.empty(values.nbytes + 64, np.uint8)
    start = -room.ctypes.data % 64
    out = room[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    out[...] = values
    return out


class SlicesOf(keras.utils.PyDataset):
    """Batches that are slices of one array."""

    def __init__(self, x, y, size):
        super().__init__()
        self.x, self.y, self.size = x, y, size

    def __len__(self):
        return len(self.x) // self.size

    def __getitem__(self, index):
        rows = slice(index * self.size, (index + 1) * self.size)
        return self.x[rows], self.y[rows]


def _pixels():
    x, y = digits(480)
    return _aligned(np.tile((255 * x).round().astype("float32"), (1, 8)).reshape(-1, 16, 32)), (y > 4).astype(
        "float32"
    )


def _scaled_model(first):
    hidden = [first, layers.Flatten(), layers.Dense(1, activation="sigmoid")]
    model = keras.Sequential([keras.Input((16, 32)), *hidden])
    model.compile(keras.optimizers.SGD(0.02), "binary_crossentropy", metrics=["accuracy"])
    return model


def _seen_and_untouched(model, h, x, before):
    return {
        "history": h.history,
        "weights": model.get_weights(),
        "untouched": bool(np.array_equal(x, before)),
        "predictions": model.predict(x[:90], batch_size=40, verbose=0),
    }


def slices_of_ones_own_array_in_a_pydataset():
    keras.utils.set_random_seed(1101)
    x, y = _pixels()
    before = x.copy()
    model = _scaled_model(layers.Rescaling(1 / 255))
    h = model.fit(SlicesOf(x, y, 80), epochs=2, shuffle=False, verbose=0)
    return _seen_and_untouched(model, h, x, before)


def slices_of_ones_own_array_in_a_generator():
    keras.utils.set_random_seed(1102)
    x, y = _pixels()
    before = x.copy()

    def batches():
        while True:
            for start in range(0, len(x), 96):
                yield x[start : start + 96], y[start : start + 96]

    model = _scaled_model(layers.Lambda(lambda x: x / 255.0))
    h = model.fit(batches(), steps_per_epoch=5, epochs=2, verbose=0)
    score = model.evaluate(batches(), steps=5, verbose=0)
    return _seen_and_untouched(model, h, x, before) | {"evaluate": score}


def slices_of_ones_own_array_by_from_generator():
    keras.utils.set_random_seed(1103)
    x, y = _pixels()
    before = x.copy()

    def batches():
        for start in range(0, len(x), 120):
            yield x[start : start + 120], y[start : start + 120]

    spec = (tf.TensorSpec((None, 16, 32), tf.float32), tf.TensorSpec((None,), tf.float32))
    train = tf.data.Dataset.from_generator(batches, output_signature=spec)
    model = _scaled_model(layers.LayerNormalization())
    h = model.fit(train, epochs=2, verbose=0)
    return _seen_and_untouched(model, h, x, before)


def recompiled_after_a_validation():
    keras.utils.set_random_seed(1104)
    x, y = diabetes(123)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    first = model.fit(x, y, batch_size=31, epochs=1, validation_data=(x[:40], y[:40]), verbose=0)
    model.compile(keras.optimizers.SGD(0.01), "mse", metrics=["mae"])
    stop = keras.callbacks.EarlyStopping(monitor="loss", patience=1)
    second = model.fit(x, y, batch_size=31, epochs=4, callbacks=[stop], verbose=0)
    model.evaluate(x, y, verbose=0)
    model.compile(keras.optimizers.SGD(0.05), "mae")
    third = model.fit(x, y, batch_size=41, epochs=2, validation_data=(x[:40], y[:40]), verbose=0)
    return {
        "first": first.history,
        "second": second.history,
        "history": third.history,
        "weights": model.get_weights(),
    }


def steps_that_go_on_in_finite_data():
    keras.utils.set_random_seed(1105)
    x, y = wine(140)
    model = keras.Sequential([keras.Input((13,)), layers.Dense(3)])
    model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    h = model.fit(x, y, batch_size=20, steps_per_epoch=3, epochs=3, shuffle=False, verbose=0)
    train = tf.data.Dataset.from_tensor_slices((x, y)).batch(22)
    second = model.fit(train, steps_per_epoch=2, epochs=3, verbose=0)
    return {"history": h.history, "second": second.history, "weights": model.get_weights()}


def steps_that_go_on_in_a_shuffled_array():
    keras.utils.set_random_seed(1106)
    x, y = iris(130)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, metrics=["accuracy"])
    h = model.fit(x, y, batch_size=13, steps_per_epoch=4, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def sparse_rows_under_a_loss_function():
    keras.utils.set_random_seed(1107)
    x, y = digits(131)
    x = np.where(x > 0.6, x, 0)

    def rms(y_true, y_pred):
        return ops.sqrt(ops.mean(ops.square(y_true - y_pred)))

    inputs = keras.Input((64,), sparse=True)
    model = keras.Model(inputs, layers.Dense(2)(inputs))
    model.compile(keras.optimizers.SGD(0.1), rms, metrics=["mae"])
    targets = np.stack([y / 10, y % 2], 1).astype("float32")
    h = model.fit(sparse.csr_matrix(x), targets, batch_size=32, epochs=2, verbose=0)
    tensor = tf.sparse.from_dense(x)
    second = model.fit(tensor, targets, batch_size=45, epochs=1, verbose=0)
    return {
        "history": h.history,
        "second": second.history,
        "weights": model.get_weights(),
        "predictions": model.predict(sparse.csr_matrix(x), batch_size=50, verbose=0),
    }


def ragged_rows_under_a_loss_function():
    keras.utils.set_random_seed(1108)
    x, y = digits(112)
    rows = tf.ragged.constant([np.flatnonzero(row > 0.5)[:9] for row in x], dtype=tf.int32)

    class Bag(keras.Model):
        def __init__(self):
            super().__init__()
            self.table, self.head = layers.Embedding(65, 4), layers.Dense(1)

        def call(self, rows):
            padded = rows.to_tensor(default_value=64) if isinstance(rows, tf.RaggedTensor) else rows
            there = tf.cast(padded < 64, "float32")[..., None]
            return self.head(tf.reduce_sum(self.table(padded) * there, axis=1))

    def spread(y_true, y_pred):
        return tf.reduce_mean(tf.abs(y_true - y_pred)) + 0.1 * tf.math.reduce_std(y_pred)

    def largest(y_true, y_pred):
        return tf.reduce_max(tf.abs(y_true - y_pred))

    train = tf.data.Dataset.from_tensor_slices((rows, (y / 10).astype("float32")[:, None])).ragged_batch(28)
    model = Bag()
    model.compile(keras.optimizers.SGD(0.05), spread, metrics=[largest])
    h = model.fit(train, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def dataset_interleaved_in_parallel():
    keras.utils.set_random_seed(1109)
    x, y = cancer(160)
    parts = tf.data.Dataset.range(4).interleave(
        lambda i: tf.data.Dataset.from_tensor_slices((x, y)).shard(4, i),
        cycle_length=2,
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    model = keras.Sequential([keras.Input((30,)), layers.Dense(1, activation="sigmoid")])
    model.compile(keras.optimizers.SGD(0.1), "binary_crossentropy", metrics=["accuracy"])
    h = model.fit(parts.batch(39), epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def dataset_cached_in_a_file():
    keras.utils.set_random_seed(1110)
    x, y = wine(117)
    with tempfile.TemporaryDirectory() as folder:
        train = tf.data.Dataset.from_tensor_slices((x, y)).map(lambda x, y: (2 * x, y))
        train = train.cache(os.path.join(folder, "rows")).batch(30)
        model = keras.Sequential([keras.Input((13,)), layers.Dense(3)])
        model.compile(
            "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
        )
        h = model.fit(train, epochs=3, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def dataset_cached_in_a_file_of_a_name():
    keras.utils.set_random_seed(1111)
    x, y = wine(108)
    train = tf.data.Dataset.from_tensor_slices((x, y)).cache("cached-by-a-case").batch(27)
    model = keras.Sequential([keras.Input((13,)), layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    h = model.fit(train, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def stateful_metric_of_an_earlier_line():
    keras.utils.set_random_seed(1112)
    x, y = diabetes(100)
    seen = keras.metrics.Mean()
    seen.update_state(3.0)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse")

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.update_state(logs["loss"])
            seen.update_state(ops.mean(self.model(x[:10])))

    h = model.fit(x, y, batch_size=32, epochs=2, callbacks=[Watch()], verbose=0)
    return {"history": h.history, "seen": float(seen.result()), "weights": model.get_weights()}


class PredictingLogger(keras.callbacks.CSVLogger):
    """A subclass of a writing callback that also predicts and decides."""

    def __init__(self, path, x):
        super().__init__(path)
        self.x, self.means = x, []

    def on_epoch_end(self, epoch, logs=None):
        self.means.append(float(np.mean(self.model.predict(self.x, batch_size=30, verbose=0))))
        super().on_epoch_end(epoch, {**(logs or {}), "mean": self.means[-1]})
        if epoch == 1:
            self.model.stop_training = True


def subclass_of_a_logger_that_predicts():
    keras.utils.set_random_seed(1113)
    x, y = diabetes(109)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    logger = PredictingLogger("logged-by-a-case.csv", x)
    h = model.fit(x, y, batch_size=28, epochs=4, callbacks=[logger], verbose=0)
    with open("logged-by-a-case.csv") as file:
        lines = len(file.readlines())
    return {"history": h.history, "means": logger.means, "lines": lines, "weights": model.get_weights()}


def in_double_precision():
    keras.utils.set_random_seed(1114)
    x, y = cancer(126)
    keras.config.set_floatx("float64")
    try:
        model = keras.Sequential([keras.Input((30,)), layers.Dense(4, activation="relu"), layers.Dense(1)])
        model.compile(keras.optimizers.Adam(0.01), keras.losses.BinaryCrossentropy(from_logits=True))
        h = model.fit(x.astype("float64"), y, batch_size=33, epochs=2, verbose=0)
        weights = model.get_weights()
    finally:
        keras.config.set_floatx("float32")
    return {"history": h.history, "weights": weights, "kind": weights[0].dtype.name}


def convolution_before_batch_normalization_under_adam():
    keras.utils.set_random_seed(1115)
    x, y = digits(98)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(3, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.001), loss, metrics=["accuracy"])
    h = model.fit(x.reshape(-1, 8, 8, 1), y, batch_size=33, epochs=1, verbose=0)
    return {"history": h.history, "evaluate": model.evaluate(x.reshape(-1, 8, 8, 1), y, verbose=0)}


def trained_again_after_its_layers_changed():
    keras.utils.set_random_seed(1116)
    x, y = iris(122)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(5, activation="relu"), layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, metrics=["accuracy"])
    first = model.fit(x, y, batch_size=31, epochs=1, verbose=0)
    model.pop()
    model.add(layers.Dense(4, activation="relu"))
    model.add(layers.Dense(3))
    model.compile(keras.optimizers.SGD(0.2), loss, metrics=["accuracy"])
    second = model.fit(x, y, batch_size=31, epochs=2, validation_split=0.2, verbose=0)
    return {"first": first.history, "second": second.history, "weights": model.get_weights()}
