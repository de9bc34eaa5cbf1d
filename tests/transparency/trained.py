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
