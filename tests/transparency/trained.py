"""Training functions for the tests of this folder, as users write them; no test itself."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits


def digits(samples=331):
    """Some digits: an odd number, so that nothing divides."""
    images, labels = load_digits(return_X_y=True)
    return (images / 16).astype("float32")[:samples], labels[:samples].astype("int64")


def dense_model(*between):
    """A small classifier."""
    return keras.Sequential(
        [
            keras.layers.Input((64,)),
            keras.layers.Dense(24, activation="relu"),
            *between,
            keras.layers.Dense(10, activation="softmax"),
        ]
    )


def fitted(model, optimizer, epochs=2, **options):
    """What a fit gives: history and weights."""
    x, y = digits()
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    history = model.fit(x, y, batch_size=50, epochs=epochs, validation_split=0.1, **options)
    return {"history": history.history, "weights": model.get_weights()}


def plain():
    """Adam on dense layers."""
    keras.utils.set_random_seed(7)
    return fitted(dense_model(), keras.optimizers.Adam(0.01))


def normalised():
    """Batch normalisation, accumulated gradients, clipping."""
    keras.utils.set_random_seed(7)
    optimizer = keras.optimizers.Adam(0.01, gradient_accumulation_steps=2, global_clipnorm=1.0)
    return fitted(dense_model(keras.layers.BatchNormalization()), optimizer)


def taken_away_again():
    """Biases before batch normalization, under Adam."""
    keras.utils.set_random_seed(7)
    x, y = digits()
    model = keras.Sequential(
        [
            keras.layers.Input((8, 8, 1)),
            keras.layers.Conv2D(6, 3, name="conv"),
            keras.layers.BatchNormalization(),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dense(12, name="hidden"),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(10, name="last"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    return model.fit(x.reshape(-1, 8, 8, 1), y, batch_size=50, epochs=1, verbose=0).history


def own_start():
    """Initial weights that are others in each process."""
    model = dense_model()
    weights = [np.random.default_rng().normal(size=each.shape) for each in model.get_weights()]
    model.set_weights(weights)
    return fitted(model, "sgd")


def with_dropout():
    """Dropout and noise: random in every step."""
    model = dense_model(keras.layers.Dropout(0.4), keras.layers.GaussianNoise(0.1))
    return fitted(model, keras.optimizers.SGD(0.05))


def dataset_fn():
    """Batches of digits, shuffled."""
    return tf.data.Dataset.from_tensor_slices(digits()).shuffle(331, seed=1).batch(50)


def by_hand(dataset_fn, epochs=2):
    """A GradientTape loop over what dataset_fn gives."""
    keras.utils.set_random_seed(7)
    model = keras.Sequential([keras.layers.Dense(24, activation="relu"), keras.layers.Dense(10)])
    optimizer = keras.optimizers.Adam(0.01)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    accuracy = keras.metrics.SparseCategoricalAccuracy()

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            logits = model(x, training=True)
            loss = loss_of(y, logits)
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        accuracy.update_state(y, logits)
        return loss

    losses, accuracies, rows = [], [], 0
    for _ in range(epochs):
        accuracy.reset_state()
        for x, y in dataset_fn():
            losses.append(float(step(x, y)))
            rows += len(x)
        accuracies.append(float(accuracy.result()))
    return {"history": {"loss": losses, "accuracy": accuracies}, "weights": model.get_weights(), "rows": rows}


def per_worker(batch=20, rate=0.01):
    """A fit on a dataset, then one on arrays; the batch is what a rank takes."""
    keras.utils.set_random_seed(7)
    x, y = digits()
    model = dense_model()
    model.compile(keras.optimizers.SGD(rate), "sparse_categorical_crossentropy")
    first = model.fit(tf.data.Dataset.from_tensor_slices((x, y)).batch(batch), epochs=2).history
    second = model.fit(x, y, batch_size=batch, epochs=1, shuffle=False).history
    rate_seen = float(model.optimizer.learning_rate)
    steps = int(model.optimizer.iterations)
    return {
        "history": {**first, "again": second["loss"]},
        "weights": model.get_weights(),
        "seen": (rate_seen, steps),
    }


def everything():
    """Several of the above in one world."""
    return {"plain": plain(), "by_hand": by_hand(dataset_fn), "twice": [with_dropout(), with_dropout()]}


def drifting():
    """A callback that changes the weights of one rank only, in the middle of a step."""
    import os

    class Bug(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 3 and os.environ.get("OMPI_COMM_WORLD_RANK") == "1":
                self.model.layers[0].bias.assign(np.full(24, 7.0, "float32"))

    model = dense_model()
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(*digits(), batch_size=50, epochs=2, callbacks=[Bug()])


def uses_horovod():
    """Sets up Horovod by itself."""
    import horovod.tensorflow as hvd

    hvd.init()


def uses_a_strategy():
    """Makes a tf.distribute strategy, by a name that no one can see in the code."""
    getattr(tf.distribute, "Mirrored" + "Strategy")()


def nothing():
    """Trains nothing."""
    return 3


class LargestError(keras.metrics.Metric):
    """A metric of one's own that no sum can combine."""

    def __init__(self):
        super().__init__(name="largest_error")
        self.largest = self.add_variable((), "zeros")

    def update_state(self, y, logits, sample_weight=None):
        self.largest.assign(tf.maximum(self.largest, tf.reduce_max(tf.cast(y, tf.float32) - logits[:, 0])))

    def result(self):
        return self.largest


def two_datasets():
    """Training and validation batches; 101 samples, so that a last batch is of one."""
    x, y = digits(101)
    whole = tf.data.Dataset.from_tensor_slices((x, y))
    return whole.batch(50), whole.batch(25)


def everything_by_hand(dataset_fn):
    """Batch normalisation, an adapted layer, clipping, metrics of all kinds, validation, and a fit after it."""
    keras.utils.set_random_seed(7)
    train, val = dataset_fn()
    scale = keras.layers.Normalization()
    scale.adapt(train.map(lambda x, y: x))
    model = keras.Sequential(
        [scale, keras.layers.Dense(24), keras.layers.BatchNormalization(), keras.layers.Dense(10)]
    )
    optimizer = keras.optimizers.SGD(0.05)
    loss_of = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    accuracy, largest = keras.metrics.SparseCategoricalAccuracy(), LargestError()
    total, mean = keras.metrics.Sum(), keras.metrics.Mean()

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            logits = model(x, training=True)
            loss = loss_of(y, logits)
        gradients, _ = tf.clip_by_global_norm(tape.gradient(loss, model.trainable_variables), 0.5)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        accuracy.update_state(y, logits)
        largest.update_state(y, logits)
        total.update_state(tf.cast(y, tf.float32))
        mean.update_state(loss)
        return loss

    said = []
    for _ in range(2):
        for metric in (accuracy, largest, total, mean):
            metric.reset_state()
        said += [float(step(x, y)) for x, y in train]
        said += [float(metric.result()) for metric in (accuracy, largest, total, mean)]
        accuracy.reset_state()
        for x, y in val:
            accuracy.update_state(y, model(x, training=False))
        said.append(float(accuracy.result()))
    total.reset_state()
    total.update_state(digits(60)[1].astype("float32"))
    said.append(float(total.result()))
    model.compile("sgd", loss_of, metrics=["accuracy"])
    history = model.fit(train, epochs=1, verbose=0, validation_data=val).history
    said += [history[name][0] for name in sorted(history)]
    return {"history": {"all": said}, "weights": model.get_weights()}


class LogsUnderOtherNames(keras.Model):
    """Logs a tracker under another name than its own, and a raw number."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(10, activation="softmax")
        self.tracker = keras.metrics.Mean(name="total_loss")

    def call(self, x):
        return self.dense(x)

    @property
    def metrics(self):
        return [self.tracker]

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, self(x)))
        gradients = tape.gradient(loss, self.trainable_weights)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_weights, strict=True))
        self.tracker.update_state(loss)
        return {"loss": self.tracker.result(), "raw": loss}


class BestWithPrediction(keras.callbacks.ModelCheckpoint):
    """A user's checkpoint that predicts before it saves."""

    def on_epoch_end(self, epoch, logs=None):
        logs["mean"] = float(self.model.predict(digits(33)[0], verbose=0)[:, 0].mean())
        super().on_epoch_end(epoch, logs)


class StopsOnOneRank(keras.callbacks.Callback):
    """Runs out of its budget on one rank only, at the beginning of a batch."""

    def on_train_batch_begin(self, batch, logs=None):
        import os

        if batch == 1 and os.environ.get("OMPI_COMM_WORLD_RANK", "0") == "1":
            self.model.stop_training = True


def logged_and_checkpointed():
    """A last batch of one, logs under other names, a checkpoint that takes part in collectives."""
    keras.utils.set_random_seed(3)
    x, y = digits(101)
    model = LogsUnderOtherNames()
    model.compile(keras.optimizers.SGD(0.1))
    first = model.fit(x, y, batch_size=50, epochs=2, verbose=0).history
    keeps = BestWithPrediction("best.weights.h5", save_weights_only=True)
    second = model.fit(x, y, batch_size=20, epochs=2, verbose=0, callbacks=[keeps]).history
    again = {f"{name} again": curve for name, curve in second.items()}
    return {"history": {**first, **again}, "weights": model.get_weights()}


def stopped_by_one():
    """How many steps each rank did."""
    model = dense_model()
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(*digits(), batch_size=50, epochs=3, callbacks=[StopsOnOneRank()])
    return int(model.optimizer.iterations)


def split_unseeded():
    """Draws its split from the machine's own entropy."""
    x, y = digits()
    order = np.random.default_rng().permutation(len(x))
    model = dense_model()
    model.compile("sgd", "sparse_categorical_crossentropy")
    model.fit(x[order], y[order])
