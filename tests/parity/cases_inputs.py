# ruff: noqa: D103
"""Everything that ``fit``, ``evaluate`` and ``predict`` take."""

import keras
import numpy as np
import pandas as pd
import tensorflow as tf
from keras import layers
from real_data import cancer, cancer_table, diabetes, digit_images, digits, iris, wine
from scipy import sparse


def arrays_shuffled():
    keras.utils.set_random_seed(1)
    x, y = digits(331)
    model = keras.Sequential([keras.Input((64,)), layers.Dense(16, activation="relu"), layers.Dense(10)])
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    h = model.fit(x, y, batch_size=50, epochs=3, verbose=0)
    return {"history": h.history, "weights": model.get_weights(), "predictions": model.predict(x, verbose=0)}


def arrays_in_order_last_batch_of_one():
    keras.utils.set_random_seed(2)
    x, y = digit_images(301)
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    h = model.fit(x, y, batch_size=50, epochs=2, shuffle=False, verbose=0)
    return {
        "history": h.history,
        "weights": model.get_weights(),
        "evaluate": model.evaluate(x, y, batch_size=60, verbose=0),
    }


def validation_split():
    keras.utils.set_random_seed(3)
    x, y = cancer(283)
    model = keras.Sequential([layers.Dense(8, activation="tanh"), layers.Dense(1, activation="sigmoid")])
    model.compile("rmsprop", "binary_crossentropy", metrics=["accuracy"])
    h = model.fit(x, y, batch_size=32, epochs=3, validation_split=0.21, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def sample_weights():
    keras.utils.set_random_seed(4)
    x, y = diabetes(331)
    w = np.random.RandomState(0).choice([0.0, 0.5, 1.0, 3.0], size=len(x)).astype("float32")
    model = keras.Sequential([keras.Input((10,)), layers.Dense(8, activation="relu"), layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae"], weighted_metrics=["mse"])
    h = model.fit(x, y, sample_weight=w, batch_size=50, epochs=3, verbose=0)
    return {
        "history": h.history,
        "weights": model.get_weights(),
        "evaluate": model.evaluate(x, y, sample_weight=w, batch_size=33, return_dict=True, verbose=0),
    }


def class_weights():
    keras.utils.set_random_seed(5)
    x, y = wine()
    model = keras.Sequential([keras.Input((13,)), layers.Dense(3, activation="softmax")])
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy", metrics=["accuracy"])
    h = model.fit(x, y, class_weight={0: 1.0, 1: 2.5, 2: 0.7}, batch_size=25, epochs=3, verbose=0)
    return {"history": h.history, "weights": model.get_weights(), "predictions": model.predict(x, verbose=0)}


def no_batch_size():
    keras.utils.set_random_seed(6)
    x, y = iris(129)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(6, activation="relu"), layers.Dense(3)])
    model.compile(
        "adam",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["sparse_top_k_categorical_accuracy"],
    )
    h = model.fit(x, y, batch_size=None, epochs=2, verbose=0)
    return {
        "history": h.history,
        "weights": model.get_weights(),
        "predictions": model.predict(x, batch_size=None, verbose=0),
    }


def list_of_two_inputs():
    keras.utils.set_random_seed(7)
    x, y = cancer(253)
    left, right = keras.Input((10,)), keras.Input((20,))
    joined = layers.Concatenate()([layers.Dense(4)(left), layers.Dense(4, activation="relu")(right)])
    model = keras.Model([left, right], layers.Dense(1, activation="sigmoid")(joined))
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    parts = [x[:, :10], x[:, 10:]]
    h = model.fit(parts, y, batch_size=42, epochs=2, verbose=0)
    return {
        "history": h.history,
        "weights": model.get_weights(),
        "predictions": model.predict(parts, batch_size=36, verbose=0),
        "evaluate": model.evaluate(parts, y, verbose=0),
    }


def dict_of_inputs():
    keras.utils.set_random_seed(8)
    x, y = iris(101)
    inputs = {name: keras.Input((2,), name=name) for name in ("sepal", "petal")}
    hidden = layers.Dense(5, activation="tanh")(layers.Concatenate()(list(inputs.values())))
    model = keras.Model(inputs, layers.Dense(3, activation="softmax")(hidden))
    model.compile("nadam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    flowers = {"sepal": x[:, :2], "petal": x[:, 2:]}
    h = model.fit(flowers, y, batch_size=20, epochs=3, validation_data=(flowers, y), verbose=0)
    return {
        "history": h.history,
        "weights": model.get_weights(),
        "predictions": model.predict(flowers, batch_size=11, verbose=0),
    }


def pandas_table():
    keras.utils.set_random_seed(9)
    table, diagnosis = cancer_table(311)
    train, test = table.iloc[:211], table.iloc[211:]
    model = keras.Sequential([layers.Dense(6, activation="relu"), layers.Dense(1, activation="sigmoid")])
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    h = model.fit(
        train,
        diagnosis.iloc[:211],
        batch_size=37,
        epochs=2,
        validation_data=(test, diagnosis.iloc[211:]),
        verbose=0,
    )
    guessed = pd.Series(model.predict(test, verbose=0).ravel(), index=test.index)
    return {"history": h.history, "weights": model.get_weights(), "predictions": guessed.to_numpy()}


def tensors():
    keras.utils.set_random_seed(10)
    x, y = (tf.constant(part) for part in diabetes(202))
    model = keras.Sequential([layers.Dense(7, activation="relu"), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.05), "mean_absolute_error", metrics=["mse"])
    h = model.fit(x, y, batch_size=40, epochs=3, verbose=0)
    return {
        "history": h.history,
        "weights": model.get_weights(),
        "predictions": model.predict(x, batch_size=67, verbose=0),
    }


def float64_arrays_and_column_target():
    keras.utils.set_random_seed(11)
    x, y = diabetes(157)
    x, y = x.astype("float64"), y.astype("float64").reshape(-1, 1)
    model = keras.Sequential([layers.Dense(5, activation="elu"), layers.Dense(1)])
    model.compile("adagrad", "huber", metrics=["mean_squared_logarithmic_error"])
    h = model.fit(x, y, batch_size=52, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def scipy_sparse_matrix():
    keras.utils.set_random_seed(12)
    x, y = digits(253)
    model = keras.Sequential([keras.Input((64,), sparse=True), layers.Dense(10, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    h = model.fit(sparse.csr_matrix(x), y, batch_size=42, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def dataset_batched():
    keras.utils.set_random_seed(13)
    train = tf.data.Dataset.from_tensor_slices(digits(331)).batch(50)
    model = keras.Sequential([keras.Input((64,)), layers.Dense(10, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    h = model.fit(train, epochs=3, verbose=0)
    return {
        "history": h.history,
        "weights": model.get_weights(),
        "evaluate": model.evaluate(train, return_dict=True, verbose=0),
        "predictions": model.predict(train, verbose=0),
    }


def dataset_reshuffled_each_epoch():
    keras.utils.set_random_seed(14)
    x, y = digits(302)
    train = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(302).batch(50).prefetch(2)
    model = keras.Sequential([keras.Input((64,)), layers.Dense(12, activation="relu"), layers.Dense(10)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    h = model.fit(train, epochs=3, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def dataset_shuffled_once():
    keras.utils.set_random_seed(15)
    x, y = cancer(229)
    train = tf.data.Dataset.from_tensor_slices((x, y))
    train = train.shuffle(100, seed=5, reshuffle_each_iteration=False).batch(45)
    model = keras.Sequential([keras.Input((30,)), layers.Dense(1, activation="sigmoid")])
    model.compile("rmsprop", "binary_crossentropy", metrics=["accuracy"])
    h = model.fit(train, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def dataset_mapped_and_cached():
    keras.utils.set_random_seed(16)
    x, y = digit_images(211)
    train = tf.data.Dataset.from_tensor_slices((x, y))
    train = train.map(lambda image, label: (tf.image.flip_up_down(image) * 2 - 1, tf.one_hot(label, 10)))
    train = train.cache().batch(30).prefetch(tf.data.AUTOTUNE)
    model = keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Conv2D(3, 3), layers.GlobalAveragePooling2D(), layers.Dense(10)]
    )
    model.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    h = model.fit(train, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def dataset_repeated_with_steps():
    keras.utils.set_random_seed(17)
    x, y = wine(131)
    train = tf.data.Dataset.from_tensor_slices((x, y)).shuffle(64, seed=1).repeat().batch(33)
    model = keras.Sequential([keras.Input((13,)), layers.Dense(8, activation="relu"), layers.Dense(3)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    h = model.fit(train, epochs=3, steps_per_epoch=5, verbose=0)
    return {
        "history": h.history,
        "weights": model.get_weights(),
        "evaluate": model.evaluate(x, y, batch_size=44, verbose=0),
    }


def dataset_from_generator():
    keras.utils.set_random_seed(18)
    x, y = diabetes(163)

    def rows():
        for features, target in zip(x, y, strict=True):
            yield features, [target]

    spec = (tf.TensorSpec((10,), tf.float32), tf.TensorSpec((1,), tf.float32))
    train = tf.data.Dataset.from_generator(rows, output_signature=spec).batch(40)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(6, activation="relu"), layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    h = model.fit(train, epochs=2, validation_data=train.take(2), verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class BagOfTokens(keras.Model):
    """Averages what is there of each row."""

    def __init__(self):
        super().__init__()
        self.table = layers.Embedding(17, 6)
        self.head = layers.Dense(10)

    def call(self, tokens):
        padded = tokens.to_tensor() if isinstance(tokens, tf.RaggedTensor) else tokens
        there = tf.cast(padded > 0, "float32")[..., None]
        return self.head(tf.reduce_sum(self.table(padded) * there, 1) / tf.reduce_sum(there, 1))


def dataset_of_ragged_rows():
    keras.utils.set_random_seed(19)
    x, y = digits(182)
    counts = np.round(x * 16).astype("int32")
    rows = tf.ragged.constant([row[row > 8] for row in counts], dtype=tf.int32)
    train = tf.data.Dataset.from_tensor_slices((rows, y)).ragged_batch(30)
    model = BagOfTokens()
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    h = model.fit(train, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def dataset_of_sparse_rows():
    keras.utils.set_random_seed(20)
    x, y = digits(181)
    train = tf.data.Dataset.from_tensor_slices((tf.sparse.from_dense(x), y)).batch(36)
    model = keras.Sequential([keras.Input((64,), sparse=True), layers.Dense(10, activation="softmax")])
    model.compile(keras.optimizers.SGD(0.2), "sparse_categorical_crossentropy", metrics=["accuracy"])
    h = model.fit(train, epochs=2, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def dataset_with_weights():
    keras.utils.set_random_seed(21)
    x, y = cancer(201)
    weights = np.where(y > 0, 1.0, 2.5).astype("float32")
    train = tf.data.Dataset.from_tensor_slices((x, y, weights)).batch(40)
    model = keras.Sequential([keras.Input((30,)), layers.Dense(4, activation="gelu"), layers.Dense(1)])
    model.compile(
        "adam",
        keras.losses.BinaryCrossentropy(from_logits=True),
        weighted_metrics=[keras.metrics.BinaryAccuracy(threshold=0)],
    )
    h = model.fit(train, epochs=3, verbose=0)
    return {
        "history": h.history,
        "weights": model.get_weights(),
        "evaluate": model.evaluate(train, return_dict=True, verbose=0),
    }


def dataset_of_dicts():
    keras.utils.set_random_seed(22)
    x, y = cancer(166)
    train = tf.data.Dataset.from_tensor_slices(({"mean": x[:, :10], "worst": x[:, 20:]}, {"malignant": y}))
    mean, worst = keras.Input((10,), name="mean"), keras.Input((10,), name="worst")
    out = layers.Dense(1, activation="sigmoid", name="malignant")(layers.Subtract()([worst, mean]))
    model = keras.Model({"mean": mean, "worst": worst}, {"malignant": out})
    model.compile("adam", {"malignant": "binary_crossentropy"}, metrics={"malignant": ["accuracy", "AUC"]})
    h = model.fit(train.shuffle(50, seed=2).batch(33), epochs=3, verbose=0)
    predicted = model.predict(train.batch(27), verbose=0)
    return {"history": h.history, "weights": model.get_weights(), "predictions": predicted}


class WineBatches(keras.utils.PyDataset):
    """Batches of 31."""

    def __init__(self, x, y, size=31, **kwargs):
        super().__init__(**kwargs)
        self.x, self.y, self.size = x, y, size

    def __len__(self):
        return int(np.ceil(len(self.x) / self.size))

    def __getitem__(self, index):
        rows = slice(index * self.size, (index + 1) * self.size)
        return self.x[rows], self.y[rows]


def pydataset():
    keras.utils.set_random_seed(23)
    x, y = wine(156)
    model = keras.Sequential([layers.Dense(9, activation="swish"), layers.Dense(3, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    h = model.fit(WineBatches(x, y), epochs=3, verbose=0)
    return {
        "history": h.history,
        "weights": model.get_weights(),
        "evaluate": model.evaluate(WineBatches(x, y, 15), verbose=0),
        "predictions": model.predict(WineBatches(x, y, 50), verbose=0),
    }


def pydataset_with_workers():
    keras.utils.set_random_seed(24)
    x, y = wine(125)
    train = WineBatches(x, y, 31, workers=2, max_queue_size=4)
    model = keras.Sequential([layers.Dense(3, activation="softmax")])
    model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy")
    h = model.fit(train, epochs=2, shuffle=False, validation_data=WineBatches(x[:64], y[:64], 21), verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


class NoisyWineBatches(WineBatches):
    """Adds noise that the number of the batch decides."""

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x + np.random.default_rng(index).normal(0, 0.3, x.shape), y


def pydataset_drawing_by_its_index():
    keras.utils.set_random_seed(39)
    x, y = wine(120)
    model = keras.Sequential([keras.Input((x.shape[1],)), layers.Dense(3, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    h = model.fit(
        NoisyWineBatches(x, y), epochs=2, validation_data=NoisyWineBatches(x[:40], y[:40]), verbose=0
    )
    return {"history": h.history, "weights": model.get_weights()}


class EpochwiseBatches(keras.utils.PyDataset):
    """Starts somewhere else every epoch, and gives weights."""

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y, self.epoch = x, y, 0

    def __len__(self):
        return 4

    def __getitem__(self, index):
        rows = (np.arange(index * 23, (index + 1) * 23 - 5 * (index == 3)) + 11 * self.epoch) % len(self.x)
        return self.x[rows], self.y[rows], 1 + self.y[rows]

    def on_epoch_end(self):
        self.epoch += 1


def pydataset_that_changes_by_epoch():
    keras.utils.set_random_seed(25)
    x, y = cancer(113)
    model = keras.Sequential([keras.Input((30,)), layers.Dense(1, activation="sigmoid")])
    model.compile("sgd", "binary_crossentropy", weighted_metrics=["accuracy"])
    h = model.fit(EpochwiseBatches(x, y), epochs=3, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def python_generator():
    keras.utils.set_random_seed(26)
    x, y = iris()
    sizes = [17, 5, 1, 30, 2]

    def batches():
        random = np.random.RandomState(1)
        while True:
            for size in sizes:
                rows = random.choice(len(x), size, replace=False)
                yield x[rows], y[rows]

    model = keras.Sequential([keras.Input((4,)), layers.Dense(5, activation="relu"), layers.Dense(3)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    h = model.fit(batches(), steps_per_epoch=5, epochs=3, verbose=0)
    return {
        "history": h.history,
        "weights": model.get_weights(),
        "evaluate": model.evaluate(batches(), steps=4, verbose=0),
    }


def generator_that_ends():
    keras.utils.set_random_seed(27)
    x, y = iris(97)

    def batches(size):
        for start in range(0, len(x), size):
            yield x[start : start + size], y[start : start + size]

    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    h = model.fit(batches(16), verbose=0)
    predicted = model.predict(((features,) for features, _ in batches(19)), verbose=0)
    return {"history": h.history, "weights": model.get_weights(), "predictions": predicted}


def validation_dataset_now_and_then():
    keras.utils.set_random_seed(28)
    x, y = digits(387)
    check = tf.data.Dataset.from_tensor_slices((x[250:], y[250:])).repeat().batch(23)
    model = keras.Sequential([keras.Input((64,)), layers.Dense(10, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    h = model.fit(
        x[:250],
        y[:250],
        batch_size=83,
        epochs=4,
        validation_data=check,
        validation_steps=3,
        validation_freq=2,
        verbose=0,
    )
    return {"history": h.history, "weights": model.get_weights()}


def validation_weighted_and_in_own_batches():
    keras.utils.set_random_seed(29)
    x, y = diabetes()
    w = np.abs(y) + 0.1
    model = keras.Sequential([keras.Input((10,)), layers.Dense(1)])
    model.compile("adam", "mse", weighted_metrics=["mae"])
    h = model.fit(
        x[:211],
        y[:211],
        batch_size=30,
        epochs=3,
        validation_data=(x[211:], y[211:], w[211:]),
        validation_batch_size=115,
        validation_freq=[1, 3],
        verbose=0,
    )
    return {"history": h.history, "weights": model.get_weights()}


def training_continued():
    keras.utils.set_random_seed(30)
    x, y = cancer(151)
    model = keras.Sequential([keras.Input((30,)), layers.Dense(5, activation="relu"), layers.Dense(1)])
    model.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True), metrics=["accuracy"])
    first = model.fit(x, y, batch_size=30, epochs=1, verbose=0)
    then = model.fit(x, y, batch_size=50, epochs=3, initial_epoch=1, verbose=0)
    return {
        "first": first.history,
        "history": then.history,
        "epochs": then.epoch,
        "weights": model.get_weights(),
        "steps": int(model.optimizer.iterations),
    }


def several_steps_per_execution():
    keras.utils.set_random_seed(31)
    x, y = digits(331)
    model = keras.Sequential([keras.Input((64,)), layers.Dense(10, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"], steps_per_execution=3)
    h = model.fit(x, y, batch_size=50, epochs=2, validation_data=(x[:101], y[:101]), verbose=0)
    return {
        "history": h.history,
        "weights": model.get_weights(),
        "predictions": model.predict(x, batch_size=47, verbose=0),
    }


def evaluate_and_predict_odd_sizes():
    keras.utils.set_random_seed(32)
    x, y = digits(129)
    inputs = keras.Input((64,))
    hidden = layers.Dense(6, activation="relu")(inputs)
    digit = layers.Dense(10, activation="softmax")(hidden)
    model = keras.Model(inputs, digit)
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    both = keras.Model(inputs, [digit, hidden])
    named = keras.Model(inputs, {"digit": digit, "features": hidden})
    return {
        "evaluate": model.evaluate(x, y, batch_size=64, return_dict=True, verbose=0),
        "few": model.evaluate(x, y, batch_size=10, steps=3, verbose=0),
        "dict": named.predict(x, batch_size=43, verbose=0),
        "list": both.predict(x, batch_size=63, verbose=0),
        "one": both.predict(x[:1], verbose=0),
        "steps": both.predict(tf.data.Dataset.from_tensor_slices(x).repeat().batch(5), steps=3, verbose=0),
    }


def batch_by_batch():
    keras.utils.set_random_seed(33)
    x, y = cancer(155)
    model = keras.Sequential([keras.Input((30,)), layers.Dense(4, activation="relu"), layers.Dense(1)])
    model.compile(
        keras.optimizers.SGD(0.1), keras.losses.BinaryCrossentropy(from_logits=True), metrics=["mae"]
    )
    curve, check, predicted = [], [], []
    for epoch in range(2):
        for start in range(0, len(x), 51):
            rows = slice(start, start + 51)
            curve.append(model.train_on_batch(x[rows], y[rows]))
        model.reset_metrics()
        check.append(model.test_on_batch(x[:37], y[:37], return_dict=True))
        model.reset_metrics()
        predicted.append(model.predict_on_batch(x[: 7 + epoch]))
    weighted = model.train_on_batch(x[:9], y[:9], sample_weight=np.linspace(0, 1, 9).astype("float32"))
    return {
        "curve": curve,
        "check": check,
        "predictions": predicted,
        "weighted": weighted,
        "weights": model.get_weights(),
    }


def time_series_windows():
    keras.utils.set_random_seed(34)
    series = diabetes(206)[0][:, :3]
    windows = keras.utils.timeseries_dataset_from_array(
        series[:-5], series[5:, 0], sequence_length=5, batch_size=48
    )
    model = keras.Sequential([keras.Input((5, 3)), layers.LSTM(4), layers.Dense(1)])
    model.compile("adam", "mse")
    h = model.fit(windows, epochs=2, verbose=0)
    return {
        "history": h.history,
        "weights": model.get_weights(),
        "predictions": model.predict(windows, verbose=0),
    }


class TwoTowers(keras.Model):
    """Takes a nested structure."""

    def __init__(self):
        super().__init__()
        self.left, self.right, self.head = (
            layers.Dense(3),
            layers.Dense(3, activation="tanh"),
            layers.Dense(1),
        )

    def call(self, data):
        a, b = data["pair"]
        return self.head(self.left(a) + self.right(b) * data["gate"])


def nested_inputs():
    keras.utils.set_random_seed(35)
    x, y = diabetes(137)
    data = {"pair": (x[:, :4], x[:, 4:8]), "gate": x[:, 8:9]}
    model = TwoTowers()
    model.compile("adam", "mse", metrics=["mae"])
    h = model.fit(data, y, batch_size=34, epochs=2, verbose=0)
    return {
        "history": h.history,
        "weights": model.get_weights(),
        "predictions": model.predict(data, batch_size=45, verbose=0),
    }


def dataset_split_in_two():
    keras.utils.set_random_seed(36)
    whole = tf.data.Dataset.from_tensor_slices(wine())
    train, test = keras.utils.split_dataset(whole, left_size=0.7, shuffle=True, seed=4)
    model = keras.Sequential([layers.Dense(6, activation="relu"), layers.Dense(3, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    h = model.fit(train.batch(41), validation_data=test.batch(26), epochs=3, verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def autoencoder_without_targets():
    keras.utils.set_random_seed(37)
    x, _ = digits(262)
    model = keras.Sequential(
        [keras.Input((64,)), layers.Dense(8, activation="relu"), layers.Dense(64, activation="sigmoid")]
    )
    model.compile("adam", "binary_crossentropy")
    train = tf.data.Dataset.from_tensor_slices(x).batch(65).map(lambda batch: (batch, batch))
    h = model.fit(train, epochs=2, verbose=0)
    return {
        "history": h.history,
        "weights": model.get_weights(),
        "predictions": model.predict(x[:53], batch_size=26, verbose=0),
    }


def fewer_samples_than_ranks():
    keras.utils.set_random_seed(38)
    x, y = iris(5)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4, activation="tanh"), layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    h = model.fit(x, y, batch_size=2, epochs=3, verbose=0)
    return {
        "history": h.history,
        "weights": model.get_weights(),
        "evaluate": model.evaluate(x[:1], y[:1], verbose=0),
        "predictions": model.predict(x, batch_size=1, verbose=0),
    }
