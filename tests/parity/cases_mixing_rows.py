# ruff: noqa: D103
"""Layers whose rows meet, and batches of a fixed size: nothing of these can be cut."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops
from real_data import cancer, diabetes, digit_images, digits, iris, wine


class Centred(layers.Layer):
    """Takes the batch's mean away."""

    def call(self, x):
        return x - ops.mean(x, axis=0, keepdims=True)


class OwnNormalization(layers.Layer):
    """Batch normalisation by hand, with moving statistics."""

    def build(self, shape):
        width = shape[-1]
        self.gamma = self.add_weight(shape=(width,), initializer="ones", name="gamma")
        self.beta = self.add_weight(shape=(width,), initializer="zeros", name="beta")
        self.mean = self.add_weight(shape=(width,), initializer="zeros", trainable=False, name="mean")
        self.variance = self.add_weight(shape=(width,), initializer="ones", trainable=False, name="variance")

    def call(self, x, training=False):
        if training:
            mean, variance = ops.mean(x, axis=0), ops.var(x, axis=0)
            self.mean.assign(0.8 * self.mean + 0.2 * mean)
            self.variance.assign(0.8 * self.variance + 0.2 * variance)
        else:
            mean, variance = self.mean, self.variance
        return self.gamma * (x - mean) / ops.sqrt(variance + 1e-3) + self.beta


class BatchSpread(layers.Layer):
    """Adds the batch's standard deviation as a feature, as progressive GANs do."""

    def call(self, x):
        spread = ops.mean(ops.sqrt(ops.var(x, axis=0) + 1e-6))
        return ops.concatenate([x, ops.ones_like(x[:, :1]) * spread], axis=-1)


class AcrossRows(layers.Layer):
    """Every row attends to all rows of its batch."""

    def __init__(self, width):
        super().__init__()
        self.query, self.key, self.value = (layers.Dense(width) for _ in range(3))

    def call(self, x):
        weights = ops.softmax(ops.matmul(self.query(x), ops.transpose(self.key(x))), axis=-1)
        return x + ops.tensordot(weights, self.value(x), axes=[[1], [0]])


def _regression(hidden, batch_size=33):
    x, y = diabetes(132)
    model = keras.Sequential([keras.Input((10,)), *hidden, layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.02), "mse", metrics=["mae"])
    h = model.fit(x, y, batch_size=batch_size, epochs=2, validation_split=0.1, verbose=0)
    return {
        "history": h.history,
        "weights": model.get_weights(),
        "predictions": model.predict(x, batch_size=44, verbose=0),
    }


def mean_of_the_batch_taken_away():
    keras.utils.set_random_seed(1001)
    return _regression([layers.Dense(6, activation="relu"), Centred()])


def batch_normalization_by_hand():
    keras.utils.set_random_seed(1002)
    return _regression([layers.Dense(5), OwnNormalization(), layers.Activation("relu")], batch_size=37)


def spread_of_the_batch_as_a_feature():
    keras.utils.set_random_seed(1003)
    return _regression([layers.Dense(6, activation="tanh"), BatchSpread()])


def attention_across_rows():
    keras.utils.set_random_seed(1004)
    return _regression([layers.Dense(4), AcrossRows(4), layers.Activation("tanh")])


def neighbours_rolled_in_a_lambda():
    keras.utils.set_random_seed(1005)
    roll = layers.Lambda(lambda x: x + 0.5 * tf.roll(x, 1, axis=0))
    return _regression([layers.Dense(4, activation="relu"), roll])


class DecorrelatedCode(keras.Model):
    """Mixes rows in a sub-model, within a step of the user's."""

    def __init__(self):
        super().__init__()
        self.code = keras.Sequential([layers.Dense(5), OwnNormalization()])
        self.head = layers.Dense(3)

    def call(self, x, training=False):
        return self.head(self.code(x, training=training))

    def train_step(self, data):
        x, y = data
        with tf.GradientTape() as tape:
            code = self.code(x, training=True)
            correlations = ops.matmul(ops.transpose(code), code) / ops.cast(ops.shape(x)[0], "float32")
            each = keras.losses.sparse_categorical_crossentropy(y, self.head(code), from_logits=True)
            loss = ops.mean(each) + 0.01 * ops.sum(ops.square(correlations))
        self.optimizer.apply(tape.gradient(loss, self.trainable_variables), self.trainable_variables)
        return {"loss": loss, "correlations": correlations[0, 1]}


def rows_meet_in_a_model_and_in_its_step():
    keras.utils.set_random_seed(1006)
    x, y = wine(130)
    model = DecorrelatedCode()
    model.compile(keras.optimizers.SGD(0.05))
    h = model.fit(x, y, batch_size=33, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class BalancedUse(layers.Layer):
    """An added loss that is a product of means over the batch, in a model with Keras' own step."""

    def __init__(self, units):
        super().__init__()
        self.gate = layers.Dense(units, activation="softmax")

    def call(self, x):
        gates = self.gate(x)
        self.add_loss(0.5 * ops.prod(3 * ops.mean(gates, axis=0)))
        self.add_loss(0.01 * ops.sum(ops.square(ops.mean(x, axis=0))))
        return ops.concatenate([x, gates], axis=-1)


def added_losses_that_are_no_means():
    keras.utils.set_random_seed(1007)
    x, y = iris(127)
    model = keras.Sequential([keras.Input((4,)), BalancedUse(3), layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, metrics=["accuracy"])
    h = model.fit(x, y, batch_size=32, epochs=2, validation_split=0.2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def stateful_recurrence_over_fixed_batches():
    keras.utils.set_random_seed(1008)
    series = digits(120)[0].reshape(20, 6, 64)[:, :, :5]
    targets = series[:, -1:, 0] - series[:, :1, 1]
    model = keras.Sequential(
        [keras.Input(batch_shape=(5, 6, 5)), layers.SimpleRNN(4, stateful=True), layers.Dense(1)]
    )
    model.compile(keras.optimizers.SGD(0.05), "mse")
    curve = []
    for _ in range(2):
        curve += model.fit(series, targets, batch_size=5, epochs=1, shuffle=False, verbose=0).history["loss"]
        model.layers[0].reset_state()
    return {
        "curve": curve,
        "weights": model.get_weights(),
        "predictions": model.predict(series, batch_size=5, verbose=0),
    }


def shapes_of_a_constant_batch():
    keras.utils.set_random_seed(1009)
    x, y = digits(96)
    batch = 16

    class Folded(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner, self.head = layers.Dense(3, activation="relu"), layers.Dense(10)

        def call(self, x):
            rows = tf.reshape(x, (batch * 8, 8))
            return self.head(tf.reshape(self.inner(rows), (batch, 24)))

    model = Folded()
    model.compile(
        keras.optimizers.SGD(0.1),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    h = model.fit(x, y, batch_size=batch, epochs=2, verbose=0)
    return {
        "history": h.history,
        "weights": model.get_weights(),
        "evaluate": model.evaluate(x, y, batch_size=batch, verbose=0),
    }


def noise_of_a_constant_batch():
    keras.utils.set_random_seed(1010)
    x, y = cancer(100)

    class Jitter(layers.Layer):
        def __init__(self):
            super().__init__()
            self.seed_generator = keras.random.SeedGenerator(6)

        def call(self, x, training=False):
            return x + 0.1 * keras.random.normal((25, 30), seed=self.seed_generator) if training else x

    model = keras.Sequential([keras.Input((30,)), Jitter(), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.1), keras.losses.BinaryCrossentropy(from_logits=True))
    h = model.fit(x, y, batch_size=25, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def graph_whose_nodes_are_the_batch():
    keras.utils.set_random_seed(1011)
    x, y = iris(120)
    near = np.exp(-((x[:, None] - x[None]) ** 2).sum(-1))
    near = tf.constant((near / near.sum(1, keepdims=True)).astype("float32"))

    class GraphNet(keras.Model):
        def __init__(self):
            super().__init__()
            self.features, self.hidden, self.head = tf.constant(x), layers.Dense(6), layers.Dense(3)

        def call(self, nodes):
            hidden = ops.relu(near @ self.hidden(self.features))
            return tf.gather(self.head(near @ hidden), tf.squeeze(nodes, -1))

    model = GraphNet()
    model.compile(
        keras.optimizers.Adam(0.02),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["acc"],
    )
    nodes = np.arange(120)[:, None]
    h = model.fit(
        nodes[:80], y[:80], batch_size=32, epochs=2, validation_data=(nodes[80:], y[80:]), verbose=0
    )
    return {"history": h.history, "weights": model.get_weights()}


def contrast_over_rows_of_two_inputs():
    keras.utils.set_random_seed(1012)
    x, _ = digit_images(90)
    left, right = keras.Input((8, 4, 1)), keras.Input((8, 4, 1))
    encode = keras.Sequential([layers.Conv2D(3, 3, activation="relu"), layers.Flatten(), layers.Dense(4)])
    scores = layers.Lambda(lambda pair: ops.matmul(pair[0], ops.transpose(pair[1])))
    model = keras.Model([left, right], scores([encode(left), encode(right)]))

    def own_row(y_true, y_pred):
        n = ops.shape(y_pred)[0]
        return keras.losses.sparse_categorical_crossentropy(ops.arange(n), y_pred, from_logits=True)

    model.compile(keras.optimizers.SGD(0.05), own_row)
    h = model.fit([x[:, :, :4], x[:, :, 4:]], np.zeros(90), batch_size=30, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}
