"""A training function that feeds slices of arrays on 64-byte boundaries in every way, and sums them up afterwards."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from keras import layers

ROWS, BATCH = 96, 24
"""Every batch, and every rank's part of one on 2 and 3 ranks, begins on a 64-byte boundary too."""


def on_a_boundary(values):
    """A copy that begins on a 64-byte boundary, as what a notebook hands to its ranks does from 1 MiB on."""
    room = np.zeros(values.nbytes + 64, np.uint8)
    begin = -room.ctypes.data % 64
    array = room[begin : begin + values.nbytes].view(values.dtype).reshape(values.shape)
    array[...] = values
    return array


class Slices(keras.utils.PyDataset):
    """Batches that are slices of the arrays."""

    def __init__(self, *arrays, **kwargs):
        super().__init__(**kwargs)
        self.arrays = arrays

    def __len__(self):
        return ROWS // BATCH

    def __getitem__(self, index):
        return tuple(array[index * BATCH : (index + 1) * BATCH] for array in self.arrays)


def elementwise_model():
    """Layers whose operations may write their result where their input was."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            layers.Rescaling(1 / 255),
            layers.GaussianNoise(0.0),
            layers.BatchNormalization(),
            layers.Flatten(),
            layers.Dense(16, activation="sigmoid"),
        ]
    )
    model.compile(keras.optimizers.SGD(0.05), "binary_crossentropy", weighted_metrics=["mae"])
    return model


def untouched():
    """Kind of call -> what its arrays were changed by; and what the losses were."""
    draw = np.random.default_rng(0)
    pictures = draw.integers(1, 255, (ROWS, 4, 4, 1)).astype("float32")
    x = on_a_boundary(pictures)
    y = on_a_boundary(draw.integers(0, 2, (ROWS, 16)).astype("float32"))
    w = on_a_boundary(draw.uniform(0.5, 2, ROWS).astype("float32"))
    arrays = {"x": (x, x.copy()), "y": (y, y.copy()), "w": (w, w.copy())}
    changed, numbers = {}, {}

    def batches():
        for begin in range(0, ROWS, BATCH):
            rows = slice(begin, begin + BATCH)
            yield x[rows], y[rows], w[rows]

    def dataset(make):
        specs = tuple(tf.TensorSpec([None, *a.shape[1:]], "float32") for a in (x, y, w))
        return make(specs)

    def sliced_by_numpy(index):
        parts = tf.numpy_function(
            lambda i: [a[i * BATCH : (i + 1) * BATCH] for a in (x, y, w)], [index], [tf.float32] * 3
        )
        return tuple(
            tf.ensure_shape(part, [None, *a.shape[1:]]) for part, a in zip(parts, (x, y, w), strict=True)
        )

    kinds = {
        "arrays": lambda: (x, y, w),
        "generator": batches,
        "PyDataset": lambda: Slices(x, y, w),
        "PyDataset with workers": lambda: Slices(x, y, w, workers=2),
        "from_generator": lambda: dataset(
            lambda specs: tf.data.Dataset.from_generator(batches, output_signature=specs)
        ),
        "from_generator, prefetched": lambda: dataset(
            lambda specs: tf.data.Dataset.from_generator(batches, output_signature=specs).prefetch(2)
        ),
        "numpy_function": lambda: tf.data.Dataset.range(ROWS // BATCH).map(sliced_by_numpy),
        "from_tensor_slices of batches": lambda: tf.data.Dataset.from_tensor_slices(
            tuple(a.reshape(-1, BATCH, *a.shape[1:]) for a in (x, y, w))
        ),
        "from_tensors": lambda: tf.data.Dataset.from_tensors((x, y, w)),
        "batched": lambda: tf.data.Dataset.from_tensor_slices((x, y, w)).batch(BATCH),
    }
    for kind, made in kinds.items():
        model = elementwise_model()
        as_arrays = kind == "arrays"

        def given(made=made, as_arrays=as_arrays):
            if not as_arrays:
                return {"x": made()}
            return dict(zip(("x", "y", "sample_weight"), made(), strict=True), batch_size=BATCH)

        fitted = given() if kind != "generator" else {"x": batches()}
        history = model.fit(**fitted, epochs=1, shuffle=False, verbose=0).history
        numbers[kind] = [
            *history["loss"],
            *model.evaluate(**given(), verbose=0),
            float(
                np.sum(
                    model.predict(
                        x if as_arrays else made(), batch_size=BATCH if as_arrays else None, verbose=0
                    )
                )
            ),
        ]
        changed[kind] = _changes(arrays)
    model = elementwise_model()
    for eagerly in (False, True):
        model.compile(keras.optimizers.SGD(0.05), "binary_crossentropy", run_eagerly=eagerly)
        kind = "batch by batch" + ", eagerly" * eagerly
        numbers[kind] = [
            *np.ravel(model.train_on_batch(x[:BATCH], y[:BATCH], w[:BATCH])).tolist(),
            *np.ravel(model.test_on_batch(x[BATCH : 2 * BATCH], y[BATCH : 2 * BATCH])).tolist(),
            float(np.sum(model.predict_on_batch(x[:BATCH]))),
            *model.fit(Slices(x, y), epochs=1, shuffle=False, verbose=0).history["loss"],
        ]
        changed[kind] = _changes(arrays)
    return {"changed": changed, "numbers": numbers}


def _changes(arrays):
    changed = {name: float(np.abs(a - before).sum()) for name, (a, before) in arrays.items()}
    for a, before in arrays.values():
        a[...] = before
    return {name: by for name, by in changed.items() if by}
