# ruff: noqa: D103
"""What models, optimizers and layers keep: several models, saved ones, frozen ones, counters."""

import os
import tempfile

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops
from real_data import cancer, diabetes, digit_images, digits, iris, wine


def two_models_one_after_the_other():
    keras.utils.set_random_seed(501)
    x, y = digits(176)
    encoder = keras.Sequential([keras.Input((64,)), layers.Dense(8, activation="tanh")])
    coder = keras.Sequential([encoder, layers.Dense(64)])
    coder.compile("adam", "mse")
    first = coder.fit(x, x, batch_size=35, epochs=2, verbose=0)
    codes = encoder.predict(x, batch_size=35, verbose=0)
    head = keras.Sequential([keras.Input((8,)), layers.Dense(10, activation="softmax")])
    head.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    second = head.fit(codes, y, batch_size=44, epochs=2, verbose=0)
    return {
        "first": first.history,
        "second": second.history,
        "codes": codes,
        "weights": coder.get_weights() + head.get_weights(),
    }


def frozen_then_thawed():
    keras.utils.set_random_seed(502)
    x, y = cancer(206)
    base = layers.Dense(6, activation="relu", trainable=False)
    model = keras.Sequential([keras.Input((30,)), base, layers.Dense(1, activation="sigmoid")])
    model.compile("adam", "binary_crossentropy")
    frozen = model.fit(x, y, batch_size=41, epochs=1, verbose=0)
    base.trainable = True
    model.compile(keras.optimizers.Adam(1e-4), "binary_crossentropy", metrics=["accuracy"])
    thawed = model.fit(x, y, batch_size=41, epochs=2, verbose=0)
    return {"frozen": frozen.history, "thawed": thawed.history, "weights": model.get_weights()}


def saved_and_loaded():
    keras.utils.set_random_seed(503)
    x, y = wine(129)
    model = keras.Sequential([keras.Input((13,)), layers.Dense(3, activation="softmax")])
    model.compile("nadam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    first = model.fit(x, y, batch_size=32, epochs=1, verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "wine.keras")
        model.save(path)
        again = keras.models.load_model(path)
    second = again.fit(x, y, batch_size=32, epochs=2, verbose=0)
    return {"first": first.history, "second": second.history, "weights": again.get_weights()}


def saved_and_loaded_under_one_name():
    keras.utils.set_random_seed(504)
    x, y = wine(113)
    model = keras.Sequential([keras.Input((13,)), layers.Dense(3, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, batch_size=28, epochs=1, verbose=0)
    model.save("saved-by-a-case.keras")
    model.save_weights("saved-by-a-case.weights.h5")
    again = keras.models.load_model("saved-by-a-case.keras")
    other = keras.Sequential([keras.Input((13,)), layers.Dense(3, activation="softmax")])
    other.load_weights("saved-by-a-case.weights.h5")
    return {
        "weights": again.get_weights() + other.get_weights(),
        "evaluate": again.evaluate(x, y, batch_size=37, verbose=0),
    }


def normalization_layer_adapted():
    keras.utils.set_random_seed(505)
    x, y = diabetes(213)
    scale = layers.Normalization()
    scale.adapt(tf.data.Dataset.from_tensor_slices(3 * x + 2).batch(32))
    model = keras.Sequential([keras.Input((10,)), scale, layers.Dense(1)])
    model.compile("adam", "mse")
    h = model.fit(3 * x + 2, y, batch_size=53, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def text_vectorized():
    keras.utils.set_random_seed(506)
    x, y = digits(159)
    ink = np.array(["none", "grey", "black"])
    words = np.array([" ".join(ink[np.digitize(row[20:32], [0.2, 0.7])]) for row in x])
    vectorize = layers.TextVectorization(output_sequence_length=12)
    vectorize.adapt(words)
    train = (
        tf.data.Dataset.from_tensor_slices((words, y)).batch(38).map(lambda t, label: (vectorize(t), label))
    )
    model = keras.Sequential([layers.Embedding(6, 4), layers.GlobalAveragePooling1D(), layers.Dense(10)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    h = model.fit(train, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class CountsSteps(layers.Layer):
    """A layer that keeps a number which is no weight."""

    def __init__(self):
        super().__init__()
        self.steps = self.add_weight(
            name="steps", shape=(), dtype="int32", initializer="zeros", trainable=False
        )

    def call(self, x, training=False):
        if training:
            self.steps.assign_add(1)
        return x * ops.minimum(1.0, 0.2 + ops.cast(self.steps, x.dtype) / 6)


def layer_that_counts_steps():
    keras.utils.set_random_seed(507)
    x, y = iris(107)
    model = keras.Sequential([keras.Input((4,)), CountsSteps(), layers.Dense(3, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    h = model.fit(x, y, batch_size=26, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def weights_set_and_copied():
    keras.utils.set_random_seed(508)
    x, y = diabetes(139)

    def build():
        return keras.Sequential([keras.Input((10,)), layers.Dense(3, activation="tanh"), layers.Dense(1)])

    source, copy = build(), build()
    source.compile("adam", "mse")
    source.fit(x, y, batch_size=27, epochs=1, verbose=0)
    copy.set_weights([0.5 * weight for weight in source.get_weights()])
    twin = keras.models.clone_model(source)
    twin.set_weights(copy.get_weights())
    twin.compile("sgd", "mse")
    h = twin.fit(x, y, batch_size=46, epochs=1, verbose=0)
    return {"history": h.history, "weights": source.get_weights() + twin.get_weights()}


def cross_validation():
    keras.utils.set_random_seed(509)
    x, y = cancer(161)
    scores = []
    for part in range(3):
        held_out = np.arange(len(x)) % 3 == part
        model = keras.Sequential([keras.Input((30,)), layers.Dense(1, activation="sigmoid")])
        model.compile(keras.optimizers.Adam(0.01), "binary_crossentropy", metrics=["accuracy"])
        model.fit(x[~held_out], y[~held_out], batch_size=36, epochs=1, verbose=0)
        scores.append(model.evaluate(x[held_out], y[held_out], batch_size=26, verbose=0))
    return {"scores": scores, "mean": np.mean(scores, axis=0)}


def learning_in_rounds():
    keras.utils.set_random_seed(510)
    x, y = wine(158)
    model = keras.Sequential([keras.Input((13,)), layers.Dense(4, activation="relu"), layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])
    known, curve = list(range(31)), []
    for _ in range(3):
        h = model.fit(x[known], y[known], batch_size=16, epochs=1, verbose=0)
        curve.append(h.history)
        rest = [i for i in range(len(x)) if i not in known]
        logits = model.predict(x[rest], batch_size=32, verbose=0)
        surest = np.sort(logits, axis=1)
        known += [rest[i] for i in np.argsort(surest[:, -1] - surest[:, -2], kind="stable")[:17]]
    return {"curve": curve, "known": known, "weights": model.get_weights()}


def layers_of_many_kinds():
    keras.utils.set_random_seed(511)
    x, y = digit_images(104)
    inputs = keras.Input((8, 8, 1))
    a = layers.SeparableConv2D(3, 3, padding="same", activation="relu")(inputs)
    b = layers.DepthwiseConv2D(2, activation="relu")(layers.ZeroPadding2D(((0, 1), (0, 1)))(inputs))
    joined = layers.GroupNormalization(1)(layers.Add()([a, layers.Conv2D(3, 1)(b)]))
    hidden = layers.Flatten()(layers.AveragePooling2D(2)(joined))
    gate = layers.Dense(12, activation="sigmoid")(hidden)
    hidden = layers.Multiply()([gate, layers.Dense(12)(hidden)])
    model = keras.Model(inputs, layers.Dense(10, activation="softmax")(layers.UnitNormalization()(hidden)))
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    h = model.fit(x, y, batch_size=25, epochs=1, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def constrained_weights():
    keras.utils.set_random_seed(512)
    x, y = diabetes(161)
    model = keras.Sequential(
        [
            keras.Input((10,)),
            layers.Dense(4, activation="relu", kernel_constraint="non_neg"),
            layers.Dense(1, kernel_constraint=keras.constraints.MaxNorm(0.5)),
        ]
    )
    model.compile(keras.optimizers.SGD(0.1), "mae")
    h = model.fit(x, y, batch_size=32, epochs=3, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def optimizer_with_a_state_of_its_own():
    keras.utils.set_random_seed(513)
    x, y = iris(119)

    class SignDescent(keras.optimizers.Optimizer):
        def build(self, variables):
            super().build(variables)
            self.velocities = self.add_optimizer_variables(variables, "velocity")

        def update_step(self, gradient, variable, learning_rate):
            velocity = self.velocities[self._get_variable_index(variable)]
            self.assign(velocity, 0.9 * velocity + gradient)
            self.assign_sub(variable, learning_rate * ops.tanh(10 * velocity))

        def get_config(self):
            return super().get_config()

    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="softmax")])
    model.compile(SignDescent(learning_rate=0.02), "sparse_categorical_crossentropy")
    h = model.fit(x, y, batch_size=39, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def returned_model_predicts():
    keras.utils.set_random_seed(514)
    x, y = wine(144)
    inputs = keras.Input((13,))
    model = keras.Model(
        inputs, layers.Dense(3, activation="softmax")(layers.Dense(5, activation="mish")(inputs))
    )
    model.compile("adamax", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(x, y, batch_size=47, epochs=2, verbose=0)
    inner = keras.Model(model.input, model.layers[1].output)
    return {
        "inner": inner.predict(x, batch_size=71, verbose=0),
        "called": np.asarray(model(x[:7])),
        "parameters": model.count_params(),
        "weights": model.get_weights(),
    }
