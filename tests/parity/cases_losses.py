# ruff: noqa: D103
"""Every reduction, mask, weight and extra term that a loss can have."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops
from real_data import cancer, diabetes, digit_tokens, digits, iris, wine


def loss_summed():
    keras.utils.set_random_seed(101)
    x, y = diabetes(211)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(4, activation="tanh"), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.002), keras.losses.MeanSquaredError(reduction="sum"))
    h = model.fit(x, y, batch_size=30, epochs=3, verbose=0)
    return {"history": h.history, "weights": model.get_weights(), "evaluate": model.evaluate(x, y, verbose=0)}


def loss_summed_with_weights():
    keras.utils.set_random_seed(102)
    x, y = wine(101)
    w = np.where(y == 1, 0.3, 1.7)
    model = keras.Sequential([keras.Input((13,)), layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")
    model.compile(keras.optimizers.SGD(0.005, momentum=0.5), loss, metrics=["accuracy"])
    h = model.fit(x, y, sample_weight=w, batch_size=25, epochs=3, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def loss_plain_mean_with_weights():
    keras.utils.set_random_seed(103)
    x, y = cancer(202)
    w = np.random.RandomState(3).rand(202)
    model = keras.Sequential([keras.Input((30,)), layers.Dense(1, activation="sigmoid")])
    model.compile("adam", keras.losses.BinaryCrossentropy(reduction="mean"), metrics=["accuracy"])
    h = model.fit(x, y, sample_weight=w, batch_size=40, epochs=3, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def loss_mean_over_the_weights():
    keras.utils.set_random_seed(104)
    x, y = diabetes(251)
    w = np.exp(y)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(6, activation="relu"), layers.Dense(1)])
    model.compile("adam", keras.losses.MeanAbsoluteError(reduction="mean_with_sample_weight"))
    h = model.fit(x, y, sample_weight=w, batch_size=50, epochs=3, verbose=0)
    return {
        "history": h.history,
        "weights": model.get_weights(),
        "evaluate": model.evaluate(x, y, sample_weight=w, batch_size=62, verbose=0),
    }


def loss_mean_over_weights_that_are_often_zero():
    keras.utils.set_random_seed(105)
    x, y = iris(73)
    w = (np.arange(73) % 12 == 0).astype("float32")
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    model.compile(
        keras.optimizers.SGD(0.3),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="mean_with_sample_weight"),
        weighted_metrics=["accuracy"],
    )
    h = model.fit(x, y, sample_weight=w, batch_size=9, epochs=2, shuffle=False, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def masked_sequences_lstm():
    keras.utils.set_random_seed(106)
    tokens, y = digit_tokens(133)
    model = keras.Sequential(
        [keras.Input((16,)), layers.Embedding(17, 5, mask_zero=True), layers.LSTM(6), layers.Dense(10)]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    h = model.fit(tokens, y, batch_size=33, epochs=2, verbose=0)
    return {
        "history": h.history,
        "weights": model.get_weights(),
        "predictions": model.predict(tokens, batch_size=44, verbose=0),
    }


def masked_next_token():
    keras.utils.set_random_seed(107)
    tokens, _ = digit_tokens(111)
    model = keras.Sequential(
        [
            keras.Input((15,)),
            layers.Embedding(17, 6, mask_zero=True),
            layers.GRU(7, return_sequences=True),
            layers.Dense(17, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    h = model.fit(tokens[:, :-1], tokens[:, 1:], batch_size=22, epochs=2, verbose=0)
    return {
        "history": h.history,
        "weights": model.get_weights(),
        "evaluate": model.evaluate(tokens[:, :-1], tokens[:, 1:], batch_size=55, verbose=0),
    }


def masked_average_pooling():
    keras.utils.set_random_seed(108)
    tokens, y = digit_tokens(201)
    inputs = keras.Input((None,), dtype="int32")
    embedded = layers.Embedding(17, 4, mask_zero=True)(inputs)
    model = keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling1D()(embedded)))
    model.compile("rmsprop", keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum"))
    h = model.fit(tokens, y, batch_size=40, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def masked_with_a_mean_over_weights():
    keras.utils.set_random_seed(109)
    tokens, _ = digit_tokens(85)
    model = keras.Sequential(
        [
            keras.Input((16,)),
            layers.Embedding(17, 4, mask_zero=True),
            layers.SimpleRNN(5, return_sequences=True),
            layers.Dense(1),
        ]
    )
    loss = keras.losses.MeanSquaredError(reduction="mean_with_sample_weight")
    model.compile("adam", loss, metrics=["mae"])
    following = (np.roll(tokens, -1, 1) / 16).astype("float32")[..., None]
    w = np.linspace(0.1, 2, 85)[:, None] * np.ones((1, 16))
    h = model.fit(tokens, following, sample_weight=w, batch_size=28, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def weights_in_time():
    keras.utils.set_random_seed(110)
    x = diabetes(128)[0].reshape(-1, 5, 2)
    y = np.cumsum(x[:, :, :1], axis=1)
    w = np.random.RandomState(2).choice([0.0, 1.0, 2.0], size=(128, 5))
    model = keras.Sequential([keras.Input((5, 2)), layers.GRU(4, return_sequences=True), layers.Dense(1)])
    model.compile("adam", "mse", weighted_metrics=["mae"])
    h = model.fit(x, y, sample_weight=w, batch_size=31, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def masking_layer():
    keras.utils.set_random_seed(111)
    x = digits(117)[0].reshape(-1, 8, 8)
    model = keras.Sequential(
        [
            keras.Input((8, 8)),
            layers.Masking(0.0),
            layers.TimeDistributed(layers.Dense(5, activation="relu")),
            layers.TimeDistributed(layers.Dense(8)),
        ]
    )
    x[:, :2] = np.where(np.random.RandomState(0).rand(117, 1, 1) > 0.5, x[:, :2], 0)
    model.compile("adam", "mae", metrics=["mse"])
    h = model.fit(x, x, batch_size=29, epochs=2, validation_split=0.3, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def two_outputs_two_losses():
    keras.utils.set_random_seed(112)
    x, y = digits(203)
    inputs = keras.Input((64,))
    hidden = layers.Dense(9, activation="relu")(inputs)
    digit = layers.Dense(10, activation="softmax", name="digit")(hidden)
    ink = layers.Dense(1, name="ink")(hidden)
    model = keras.Model(inputs, {"digit": digit, "ink": ink})
    model.compile(
        "adam",
        loss={"digit": "sparse_categorical_crossentropy", "ink": "mse"},
        loss_weights={"digit": 0.7, "ink": 3.0},
        metrics={"digit": ["accuracy"], "ink": ["mae"]},
    )
    targets = {"digit": y, "ink": x.mean(1)}
    h = model.fit(x, targets, batch_size=40, epochs=2, validation_split=0.2, verbose=0)
    return {
        "history": h.history,
        "weights": model.get_weights(),
        "evaluate": model.evaluate(x, targets, batch_size=101, return_dict=True, verbose=0),
        "predictions": model.predict(x, verbose=0),
    }


def two_outputs_with_different_denominators():
    keras.utils.set_random_seed(113)
    x, y = cancer(182)
    inputs = keras.Input((30,))
    hidden = layers.Dense(6, activation="tanh")(inputs)
    outputs = [layers.Dense(1, activation="sigmoid")(hidden), layers.Dense(2)(hidden)]
    model = keras.Model(inputs, outputs)
    model.compile(
        keras.optimizers.SGD(0.02),
        loss=[
            keras.losses.BinaryCrossentropy(reduction="mean_with_sample_weight"),
            keras.losses.MeanSquaredError(reduction="sum"),
        ],
        loss_weights=[1.0, 0.01],
    )
    weights = [np.where(y > 0, 0.2, 1.0), np.linspace(0.0, 1.0, 182)]
    h = model.fit(x, [y, x[:, :2]], sample_weight=weights, batch_size=45, epochs=3, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def loss_function_with_a_scalar_mean():
    keras.utils.set_random_seed(114)
    x, y = diabetes(301)

    def smooth_error(target, guess):
        return tf.reduce_mean(tf.sqrt(1.0 + tf.square(target - guess)) - 1.0)

    model = keras.Sequential([keras.Input((10,)), layers.Dense(5, activation="relu"), layers.Dense(1)])
    model.compile("adam", smooth_error)
    h = model.fit(x, y[:, None], batch_size=60, epochs=3, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def loss_function_per_sample():
    keras.utils.set_random_seed(115)
    x, y = wine(157)

    def focal(target, guess):
        p = ops.take_along_axis(guess, ops.cast(target, "int32"), axis=-1)
        return ops.squeeze(-ops.square(1 - p) * ops.log(p + 1e-7), -1)

    model = keras.Sequential([keras.Input((13,)), layers.Dense(3, activation="softmax")])
    model.compile("adam", focal, metrics=["sparse_categorical_accuracy"])
    h = model.fit(x, y[:, None], sample_weight=1 + y, batch_size=39, epochs=3, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class Pinball(keras.losses.Loss):
    """The loss of a quantile."""

    def __init__(self, quantile, **kwargs):
        super().__init__(**kwargs)
        self.quantile = quantile

    def call(self, y_true, y_pred):
        error = y_true - y_pred
        return ops.mean(ops.maximum(self.quantile * error, (self.quantile - 1) * error), axis=-1)


def loss_class():
    keras.utils.set_random_seed(116)
    x, y = diabetes(281)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.01), Pinball(0.8, name="pinball"), metrics=[Pinball(0.2)])
    h = model.fit(x, y[:, None], batch_size=56, epochs=3, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def loss_class_summed():
    keras.utils.set_random_seed(117)
    x, y = diabetes(91)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(3, activation="elu"), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.003), Pinball(0.5, reduction="sum"))
    h = model.fit(x, y[:, None], batch_size=18, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class Contrary(keras.Model):
    """Adds its own term to the compiled loss."""

    def __init__(self):
        super().__init__()
        self.hidden, self.head = layers.Dense(5, activation="relu"), layers.Dense(1)

    def call(self, x):
        return self.head(self.hidden(x))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        loss = super().compute_loss(x, y, y_pred, sample_weight)
        return loss + 0.1 * ops.mean(ops.square(ops.mean(x, axis=1, keepdims=True) - y_pred))


def own_compute_loss():
    keras.utils.set_random_seed(118)
    x, y = diabetes(172)
    model = Contrary()
    model.compile("adam", "mse", metrics=["mae"])
    h = model.fit(x, y, sample_weight=np.abs(y), batch_size=34, epochs=2, validation_split=0.25, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class SparseCode(layers.Layer):
    """Asks for small activities."""

    def __init__(self, units, rate):
        super().__init__()
        self.dense, self.rate = layers.Dense(units, activation="relu"), rate

    def call(self, x):
        code = self.dense(x)
        self.add_loss(self.rate * ops.mean(ops.sum(ops.abs(code), axis=-1)))
        return code


def add_loss_in_a_layer():
    keras.utils.set_random_seed(119)
    x, _ = digits(183)
    model = keras.Sequential([keras.Input((64,)), SparseCode(12, 0.05), layers.Dense(64)])
    model.compile("adam", "mse")
    h = model.fit(x, x, batch_size=26, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights(), "evaluate": model.evaluate(x, x, verbose=0)}


def only_added_losses():
    keras.utils.set_random_seed(120)
    x, _ = wine(106)
    inputs = keras.Input((13,))
    model = keras.Model(inputs, SparseCode(4, 0.5)(inputs))
    model.compile("sgd")
    h = model.fit(x, batch_size=21, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def kernel_regularizer():
    keras.utils.set_random_seed(121)
    x, y = cancer(233)
    model = keras.Sequential(
        [
            keras.Input((30,)),
            layers.Dense(8, activation="relu", kernel_regularizer=keras.regularizers.L2(0.01)),
            layers.Dense(1, kernel_regularizer="l1", bias_regularizer=keras.regularizers.L1L2(0.001, 0.002)),
        ]
    )
    model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True), metrics=["mae"])
    h = model.fit(x, y, batch_size=46, epochs=3, validation_split=0.2, verbose=0)
    return {"history": h.history, "weights": model.get_weights(), "evaluate": model.evaluate(x, y, verbose=0)}


def activity_regularizer():
    keras.utils.set_random_seed(122)
    x, y = digits(156)
    model = keras.Sequential(
        [
            keras.Input((64,)),
            layers.Dense(10, activation="relu", activity_regularizer=keras.regularizers.L2(0.02)),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    h = model.fit(x, y, batch_size=31, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def regularizer_beside_a_summed_loss():
    keras.utils.set_random_seed(123)
    x, y = diabetes(121)
    regularizer = keras.regularizers.L2(0.3)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(1, kernel_regularizer=regularizer)])
    model.compile(keras.optimizers.SGD(0.002), keras.losses.LogCosh(reduction="sum"))
    h = model.fit(x, y, batch_size=24, epochs=3, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def label_smoothing():
    keras.utils.set_random_seed(124)
    x, y = iris(131)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    model.compile("adam", loss, metrics=["categorical_accuracy", "kl_divergence"])
    h = model.fit(x, keras.utils.to_categorical(y), batch_size=26, epochs=3, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def similarity_and_hinge():
    keras.utils.set_random_seed(125)
    x, y = cancer(157)
    inputs = keras.Input((30,))
    code = layers.Dense(3, name="code")(inputs)
    sign = layers.Dense(1, activation="tanh", name="sign")(code)
    model = keras.Model(inputs, (code, sign))
    model.compile("adam", (keras.losses.CosineSimilarity(), "squared_hinge"))
    h = model.fit(x, (x[:, 3:6], 2 * y - 1), batch_size=52, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def variational_autoencoder_terms():
    keras.utils.set_random_seed(126)
    x, _ = digits(141)

    class Divergence(layers.Layer):
        def call(self, inputs):
            mean, log_var = inputs
            kl = -0.5 * ops.sum(1 + log_var - ops.square(mean) - ops.exp(log_var), axis=1)
            self.add_loss(0.01 * ops.mean(kl))
            return mean

    inputs = keras.Input((64,))
    hidden = layers.Dense(12, activation="relu")(inputs)
    z = Divergence()([layers.Dense(2)(hidden), layers.Dense(2)(hidden)])
    model = keras.Model(inputs, layers.Dense(64, activation="sigmoid")(z))
    model.compile("adam", "binary_crossentropy")
    h = model.fit(x, x, batch_size=28, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def endpoint_layer_with_targets():
    keras.utils.set_random_seed(127)
    x, y = iris(112)

    class Endpoint(layers.Layer):
        def __init__(self):
            super().__init__()
            self.loss_fn = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
            self.right = keras.metrics.SparseCategoricalAccuracy(name="right")

        def call(self, logits, targets):
            self.add_loss(self.loss_fn(targets, logits))
            self.right.update_state(targets, logits)
            return ops.softmax(logits)

    features, targets = keras.Input((4,), name="features"), keras.Input((1,), name="targets")
    model = keras.Model([features, targets], Endpoint()(layers.Dense(3)(features), targets))
    model.compile("adam")
    h = model.fit([x, y[:, None]], batch_size=37, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def _two_tasks(seed, **compiled):
    """A plain model whose masks make its calls shared; the last batch is smaller than the others."""
    keras.utils.set_random_seed(seed)
    tokens, labels = digit_tokens(117)
    shown = keras.Input((tokens.shape[1],), dtype="int32")
    words = layers.Embedding(int(tokens.max()) + 1, 4, mask_zero=True)(shown)
    summary = layers.GRU(5)(words)
    model = keras.Model(
        shown,
        {"digit": layers.Dense(10, name="digit")(summary), "even": layers.Dense(1, name="even")(summary)},
    )
    digit = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    even = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(
        "rmsprop", {"digit": digit, "even": even}, loss_weights={"digit": 1.0, "even": 0.3},
        metrics={"even": [keras.metrics.AUC(name="auc")]}, **compiled,
    )  # fmt: skip
    answers = {"digit": labels, "even": (labels % 2 == 0).astype("float32")[:, None]}
    return model, tokens, answers


def losses_of_masked_outputs_with_a_small_last_batch():
    model, tokens, answers = _two_tasks(391)
    h = model.fit(tokens, answers, batch_size=25, epochs=3, validation_split=0.2, verbose=0)
    weights = {"digit": np.linspace(0.5, 1.5, 117), "even": np.ones(117)}
    more = model.fit(tokens, answers, sample_weight=weights, batch_size=40, verbose=0)
    scores = model.evaluate(tokens, answers, batch_size=50, verbose=0, return_dict=True)
    return {"history": h.history, "more": more.history, "scores": scores}


def losses_of_masked_outputs_eagerly():
    model, tokens, answers = _two_tasks(392, run_eagerly=True)
    h = model.fit(tokens, answers, batch_size=25, epochs=2, verbose=0)
    return {"history": h.history}


def losses_of_masked_outputs_batch_by_batch():
    model, tokens, answers = _two_tasks(393)
    logs = {}
    for step, (first, end) in enumerate([(0, 30), (30, 60), (60, 71), (71, 101), (101, 117)]):
        answered = {name: of[first:end] for name, of in answers.items()}
        logs[str(step)] = list(model.train_on_batch(tokens[first:end], answered, return_dict=True).values())
    return {"logs": logs}
