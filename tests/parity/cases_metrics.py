# ruff: noqa: D103
"""Metrics: built-in ones whose states do not average, and users' own."""

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops
from real_data import cancer, diabetes, digits, iris, wine


def curves_under_areas():
    keras.utils.set_random_seed(301)
    x, y = cancer(331)
    model = keras.Sequential([keras.Input((30,)), layers.Dense(1, activation="sigmoid")])
    metrics = [keras.metrics.AUC(), keras.metrics.AUC(curve="PR", num_thresholds=50, name="pr")]
    model.compile(keras.optimizers.SGD(0.02), "binary_crossentropy", metrics=metrics)
    h = model.fit(x, y, batch_size=66, epochs=3, validation_split=0.3, verbose=0)
    return {
        "history": h.history,
        "weights": model.get_weights(),
        "evaluate": model.evaluate(x, y, batch_size=110, return_dict=True, verbose=0),
    }


def precision_and_recall():
    keras.utils.set_random_seed(302)
    x, y = cancer(221)
    model = keras.Sequential(
        [keras.Input((30,)), layers.Dense(4, activation="tanh"), layers.Dense(1, activation="sigmoid")]
    )
    metrics = ["Precision", keras.metrics.Recall(thresholds=0.6), "TruePositives", "FalseNegatives"]
    metrics += [keras.metrics.SensitivityAtSpecificity(0.8), keras.metrics.RecallAtPrecision(0.9)]
    model.compile("adam", "binary_crossentropy", metrics=metrics)
    h = model.fit(x, y, batch_size=44, epochs=2, verbose=0)
    return {"history": h.history, "evaluate": model.evaluate(x, y, batch_size=55, verbose=0)}


def f1_and_top_k():
    keras.utils.set_random_seed(303)
    x, y = digits(271)
    model = keras.Sequential([keras.Input((64,)), layers.Dense(10, activation="softmax")])
    metrics = [keras.metrics.F1Score(average="macro"), keras.metrics.TopKCategoricalAccuracy(3)]
    metrics += [keras.metrics.FBetaScore(beta=2.0, average="weighted"), keras.metrics.F1Score(name="each")]
    model.compile("adam", "categorical_crossentropy", metrics=metrics)
    h = model.fit(x, keras.utils.to_categorical(y, 10), batch_size=54, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def intersection_over_union():
    keras.utils.set_random_seed(304)
    x, y = wine(161)
    model = keras.Sequential([keras.Input((13,)), layers.Dense(3, activation="softmax")])
    metrics = [
        keras.metrics.MeanIoU(3, sparse_y_pred=False),
        keras.metrics.IoU(3, [0, 2], sparse_y_pred=False),
    ]
    model.compile(keras.optimizers.Adam(0.03), "sparse_categorical_crossentropy", metrics=metrics)
    h = model.fit(x, y, batch_size=32, epochs=3, validation_split=0.25, verbose=0)
    return {"history": h.history, "evaluate": model.evaluate(x, y, batch_size=40, verbose=0)}


class LargestMiss(keras.metrics.Metric):
    """Keeps a maximum, a sum and a count."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.total = self.add_weight(name="total", initializer="zeros")
        self.seen = self.add_weight(name="seen", initializer="zeros", dtype="int32")

    def update_state(self, y_true, y_pred, sample_weight=None):
        misses = ops.sum(ops.cast(ops.abs(y_true - y_pred) > 0.5, "float32"))
        self.total.assign_add(misses)
        self.seen.assign_add(ops.shape(y_true)[0])

    def result(self):
        return self.total / ops.cast(self.seen, "float32")


def metric_class():
    keras.utils.set_random_seed(305)
    x, y = diabetes(191)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(5, activation="relu"), layers.Dense(1)])
    model.compile("adam", "mse", metrics=[LargestMiss(name="misses"), "mae"])
    h = model.fit(x, y[:, None], batch_size=38, epochs=3, validation_split=0.2, verbose=0)
    return {"history": h.history, "evaluate": model.evaluate(x, y[:, None], batch_size=95, verbose=0)}


class Confusion(keras.metrics.Metric):
    """A confusion matrix; reports the kappa of Cohen."""

    def __init__(self, classes, name="kappa", **kwargs):
        super().__init__(name=name, **kwargs)
        self.classes = classes
        self.matrix = self.add_weight(name="matrix", shape=(classes, classes), initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        counted = tf.math.confusion_matrix(
            tf.reshape(y_true, [-1]),
            tf.argmax(y_pred, -1),
            self.classes,
            weights=sample_weight,
            dtype="float32",
        )
        self.matrix.assign_add(counted)

    def result(self):
        n = ops.sum(self.matrix)
        seen = ops.trace(self.matrix) / n
        chance = ops.sum(ops.sum(self.matrix, 0) * ops.sum(self.matrix, 1)) / (n * n)
        return (seen - chance) / (1 - chance + 1e-9)

    def reset_state(self):
        self.matrix.assign(ops.zeros_like(self.matrix))


def confusion_matrix_of_ones_own():
    keras.utils.set_random_seed(306)
    x, y = iris(122)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="softmax")])
    kappa = Confusion(3)
    model.compile(keras.optimizers.Adam(0.05), "sparse_categorical_crossentropy", metrics=[kappa])
    h = model.fit(x, y, batch_size=24, epochs=3, verbose=0)
    scores = model.evaluate(x, y, batch_size=61, verbose=0)
    return {"history": h.history, "evaluate": scores, "matrix": kappa.matrix.numpy()}


class Extremes(keras.metrics.Metric):
    """The largest error so far."""

    def __init__(self, name="largest", **kwargs):
        super().__init__(name=name, **kwargs)
        self.largest = self.add_weight(name="largest", initializer=keras.initializers.Constant(-np.inf))

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.largest.assign(ops.maximum(self.largest, ops.max(ops.abs(y_true - y_pred))))

    def result(self):
        return self.largest + 0.0

    def reset_state(self):
        self.largest.assign(-np.inf)


def largest_error():
    keras.utils.set_random_seed(307)
    x, y = diabetes(201)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(1)])
    model.compile("adam", "mse", metrics=[Extremes()])
    h = model.fit(x, y[:, None], batch_size=50, epochs=2, validation_split=0.2, verbose=0)
    return {"history": h.history, "evaluate": model.evaluate(x, y[:, None], batch_size=67, verbose=0)}


class Worst(keras.metrics.Metric):
    """The largest square so far, from zero on: a maximum without an infinity to begin with."""

    def __init__(self, name="worst", **kwargs):
        super().__init__(name=name, **kwargs)
        self.worst = self.add_weight(name="worst", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.worst.assign(ops.maximum(self.worst, ops.max(ops.square(y_true - y_pred))))

    def result(self):
        return ops.sqrt(self.worst)


def largest_error_from_zero():
    keras.utils.set_random_seed(308)
    x, y = diabetes(181)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(1)])
    model.compile("sgd", "mse", metrics=[Worst()])
    h = model.fit(x, y[:, None], batch_size=60, epochs=2, verbose=0)
    return {"history": h.history}


class StartsAtOne(keras.metrics.Metric):
    """Laplace's rule: begins with one success in two."""

    def __init__(self, name="laplace", **kwargs):
        super().__init__(name=name, **kwargs)
        self.hits = self.add_weight(name="hits", initializer="ones")
        self.seen = self.add_weight(name="seen", initializer=keras.initializers.Constant(2.0))

    def update_state(self, y_true, y_pred, sample_weight=None):
        right = ops.equal(
            ops.cast(ops.reshape(y_true, (-1,)), "int32"), ops.cast(ops.argmax(y_pred, -1), "int32")
        )
        self.hits.assign_add(ops.sum(ops.cast(right, "float32")))
        self.seen.assign_add(ops.cast(ops.size(right), "float32"))

    def result(self):
        return self.hits / self.seen

    def reset_state(self):
        self.hits.assign(1.0)
        self.seen.assign(2.0)


def metric_that_starts_at_one():
    keras.utils.set_random_seed(309)
    x, y = wine(97)
    model = keras.Sequential([keras.Input((13,)), layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=[StartsAtOne()])
    h = model.fit(x, y, batch_size=24, epochs=2, verbose=0)
    return {"history": h.history, "evaluate": model.evaluate(x, y, batch_size=32, verbose=0)}


def weighted_metrics():
    keras.utils.set_random_seed(310)
    x, y = cancer(157)
    w = np.random.RandomState(5).choice([0.0, 1.0, 4.0], 157)
    model = keras.Sequential([keras.Input((30,)), layers.Dense(1, activation="sigmoid")])
    weighted = ["accuracy", keras.metrics.AUC(name="auc"), keras.metrics.Precision(name="precision")]
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"], weighted_metrics=weighted)
    h = model.fit(x, y, sample_weight=w, batch_size=39, epochs=2, verbose=0)
    return {
        "history": h.history,
        "evaluate": model.evaluate(x, y, sample_weight=w, batch_size=78, return_dict=True, verbose=0),
    }


def metric_function_per_sample():
    keras.utils.set_random_seed(311)
    x, y = diabetes(209)

    def within_one(y_true, y_pred):
        return ops.cast(ops.abs(y_true - y_pred) < 1.0, "float32")

    def squared(y_true, y_pred):
        return ops.mean(ops.square(y_true - y_pred), axis=-1)

    model = keras.Sequential([keras.Input((10,)), layers.Dense(1)])
    model.compile("rmsprop", "mse", metrics=[within_one, squared])
    h = model.fit(x, y[:, None], batch_size=52, epochs=3, verbose=0)
    return {"history": h.history, "evaluate": model.evaluate(x, y[:, None], batch_size=104, verbose=0)}


def metric_function_with_a_scalar_mean():
    keras.utils.set_random_seed(312)
    x, y = iris(121)

    def confidence(y_true, y_pred):
        return tf.reduce_mean(tf.reduce_max(y_pred, axis=-1))

    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=[confidence, "accuracy"])
    h = model.fit(x, y, batch_size=30, epochs=3, validation_split=0.2, verbose=0)
    return {"history": h.history, "evaluate": model.evaluate(x, y, batch_size=24, verbose=0)}


def explained_variance():
    keras.utils.set_random_seed(313)
    x, y = diabetes(221)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(4, activation="relu"), layers.Dense(1)])
    metrics = [
        keras.metrics.R2Score(),
        keras.metrics.RootMeanSquaredError(),
        keras.metrics.CosineSimilarity(),
    ]
    model.compile(keras.optimizers.Adam(0.01), "mse", metrics=metrics)
    h = model.fit(x, y[:, None], batch_size=44, epochs=3, validation_split=0.2, verbose=0)
    return {"history": h.history, "evaluate": model.evaluate(x, y[:, None], batch_size=55, verbose=0)}


def correlation():
    keras.utils.set_random_seed(314)
    x, y = diabetes(172)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(2)])
    metrics = [keras.metrics.PearsonCorrelation(), keras.metrics.ConcordanceCorrelation()]
    model.compile("sgd", "mse", metrics=metrics)
    targets = np.stack([y, x[:, 2]], 1)
    h = model.fit(x, targets, batch_size=43, epochs=2, verbose=0)
    return {"history": h.history, "evaluate": model.evaluate(x, targets, batch_size=57, verbose=0)}


def metrics_by_output():
    keras.utils.set_random_seed(315)
    x, y = wine(133)
    inputs = keras.Input((13,))
    kind = layers.Dense(3, activation="softmax", name="kind")(inputs)
    proof = layers.Dense(1, name="proof")(inputs)
    model = keras.Model(inputs, [kind, proof])
    model.compile(
        "adam",
        ["sparse_categorical_crossentropy", "mae"],
        metrics=[["accuracy", "sparse_top_k_categorical_accuracy"], [keras.metrics.RootMeanSquaredError()]],
    )
    h = model.fit(x, [y, x[:, 0]], batch_size=33, epochs=2, verbose=0)
    return {"history": h.history, "evaluate": model.evaluate(x, [y, x[:, 0]], return_dict=True, verbose=0)}


class Watched(layers.Layer):
    """A layer that keeps a metric of its own."""

    def __init__(self, units):
        super().__init__()
        self.dense = layers.Dense(units, activation="relu")
        self.alive = keras.metrics.Mean(name="alive")
        self.rows = keras.metrics.Sum(name="rows")

    def call(self, x):
        hidden = self.dense(x)
        self.alive.update_state(ops.cast(hidden > 0, "float32"))
        self.rows.update_state(ops.ones_like(hidden[:, 0]))
        return hidden


def metric_in_a_layer():
    keras.utils.set_random_seed(316)
    x, y = cancer(188)
    model = keras.Sequential([keras.Input((30,)), Watched(5), layers.Dense(1, activation="sigmoid")])
    model.compile("adam", "binary_crossentropy")
    h = model.fit(x, y, batch_size=47, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def metrics_outside_of_fit():
    keras.utils.set_random_seed(317)
    x, y = iris(146)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, batch_size=29, epochs=1, verbose=0)
    predicted = model.predict(x, batch_size=29, verbose=0)
    accuracy, entropy = keras.metrics.SparseCategoricalAccuracy(), keras.metrics.Mean()
    for start in range(0, len(x), 49):
        rows = slice(start, start + 49)
        accuracy.update_state(y[rows], predicted[rows])
        entropy.update_state(keras.losses.sparse_categorical_crossentropy(y[rows], predicted[rows]))
    by_hand = model(x, training=False)
    return {
        "accuracy": float(accuracy.result()),
        "entropy": float(entropy.result()),
        "predictions": predicted,
        "called": np.asarray(by_hand),
    }
