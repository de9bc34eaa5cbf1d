# ruff: noqa: D103
"""Training functions whose ranks would read other data, and some whose ranks read the same in unusual ways."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import layers

X = np.random.default_rng(0).normal(size=(120, 4)).astype("float32")
Y = (X.sum(axis=1, keepdims=True) > 0).astype("float32")


def compiled():
    keras.utils.set_random_seed(3)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(1, activation="sigmoid")])
    model.compile(keras.optimizers.SGD(0.1), "binary_crossentropy")
    return model


class Drawn(keras.utils.PyDataset):
    """Each batch is drawn anew, by a generator that nobody has seeded."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.random = np.random.default_rng()

    def __len__(self):
        return 3

    def __getitem__(self, index):
        rows = self.random.choice(len(X), 40, replace=False)
        return X[rows], Y[rows]


def _drawn_batches():
    random = np.random.default_rng()
    for _ in range(3):
        rows = random.permutation(len(X))[:40]
        yield X[rows], Y[rows]


def unseeded_generator():
    compiled().fit(_drawn_batches(), verbose=0)


def unseeded_from_generator():
    specs = (tf.TensorSpec([None, 4], "float32"), tf.TensorSpec([None, 1], "float32"))
    compiled().fit(tf.data.Dataset.from_generator(_drawn_batches, output_signature=specs), verbose=0)


def unseeded_pydataset():
    compiled().fit(Drawn(), verbose=0)


def unseeded_pydataset_with_workers():
    compiled().fit(Drawn(workers=2), verbose=0)


def unseeded_split_before_slices():
    order = np.random.default_rng().permutation(len(X))
    compiled().fit(tf.data.Dataset.from_tensor_slices((X[order], Y[order])).batch(40), verbose=0)


def unseeded_split_of_arrays():
    order = np.random.default_rng().permutation(len(X))
    compiled().fit(X[order], Y[order], verbose=0)


def one_label_flipped_by_chance():
    labels = np.tile(Y, (50, 1))
    labels[np.random.default_rng().integers(len(labels))] += 1
    compiled().fit(np.tile(X, (50, 1)), labels, verbose=0)


def unseeded_words():
    """Only what is text differs."""
    words = np.random.default_rng().choice(["to", "be", "or", "not"], (120, 1))
    model = keras.Sequential(
        [
            layers.StringLookup(vocabulary=["to", "be", "or", "not"]),
            layers.Embedding(5, 2),
            layers.Flatten(),
            layers.Dense(1),
        ]
    )
    model.compile("sgd", "mse")
    model.fit(tf.data.Dataset.from_tensor_slices((words, Y)).batch(40), verbose=0)


def unseeded_evaluation():
    compiled().evaluate(Drawn(), verbose=0)


def unseeded_prediction():
    compiled().predict(
        tf.data.Dataset.from_tensor_slices(np.random.default_rng().normal(size=(90, 4))).batch(30), verbose=0
    )


def unseeded_validation():
    compiled().fit(X, Y, validation_data=Drawn(), verbose=0)


def unseeded_batch():
    compiled().train_on_batch(*Drawn()[0])


def unseeded_from_the_second_epoch_on():
    """The ranks part when the first epoch is long over."""

    class Later(Drawn):
        epoch = 0

        def __getitem__(self, index):
            return super().__getitem__(index) if self.epoch else (X[:40], Y[:40])

        def on_epoch_end(self):
            self.epoch += 1

    compiled().fit(Later(), epochs=3, verbose=0)


def parts_of_unequal_rows():
    pairs = zip(np.split(X, 6), np.split(Y, 24), strict=False)
    compiled().fit(((x, y) for x, y in pairs), steps_per_epoch=2, verbose=0)


REFUSED = [
    unseeded_generator, unseeded_from_generator, unseeded_pydataset, unseeded_pydataset_with_workers,
    unseeded_split_before_slices, unseeded_split_of_arrays, one_label_flipped_by_chance, unseeded_words,
    unseeded_evaluation, unseeded_prediction, unseeded_validation, unseeded_batch,
    unseeded_from_the_second_epoch_on,
]  # fmt: skip


def refusals():
    """Name of each -> what it was refused with."""
    said = {}
    for function in [*REFUSED, parts_of_unequal_rows]:
        try:
            function()
            said[function.__name__] = ""
        except Exception as error:
            said[function.__name__] = f"{type(error).__name__}: {error}"
    return said


def same_in_unusual_ways():
    """What each gives; the ranks read the same."""
    found = {}
    dataset = tf.data.Dataset.from_tensor_slices((X, Y))
    found["shuffled without a seed"] = (
        compiled().fit(dataset.shuffle(120).batch(25), epochs=3, verbose=0).history["loss"]
    )
    parts = tf.data.Dataset.range(4).interleave(
        lambda part: dataset.skip(part * 30).take(30),
        cycle_length=4,
        num_parallel_calls=4,
        deterministic=False,
    )
    found["interleaved"] = _order(
        parts.map(lambda x, y: (x, y), num_parallel_calls=4, deterministic=False).batch(25)
    )
    options = tf.data.Options()
    options.deterministic = False
    found["options"] = _order(parts.batch(25).with_options(options))
    Path("kept").mkdir(exist_ok=True)
    found["cached"] = (
        compiled().fit(dataset.cache("kept/cache").batch(25), epochs=3, verbose=0).history["loss"]
    )
    found["cached again"] = (
        compiled().fit(dataset.cache("kept/cache").batch(25), epochs=2, verbose=0).history["loss"]
    )
    dataset.batch(25).save("kept/saved")
    found["saved"] = compiled().fit(tf.data.Dataset.load("kept/saved"), epochs=2, verbose=0).history["loss"]
    return found


def _order(dataset):
    return compiled().fit(dataset, verbose=0).history["loss"] and [1.0]


def augmented_in_parallel():
    """As the guides have it: layers that draw, mapped by as many threads as there are."""
    keras.utils.set_random_seed(4)
    noise = layers.GaussianNoise(0.5)
    rows = tf.data.Dataset.from_tensor_slices((X, Y)).batch(6)
    both = rows.map(
        lambda x, y: (noise(x, training=True) + tf.random.normal(tf.shape(x)), y),
        num_parallel_calls=tf.data.AUTOTUNE,
    )
    return compiled().fit(both.prefetch(tf.data.AUTOTUNE), epochs=4, verbose=0).history["loss"]
