"""Training functions as a notebook has them, with what they use of it: imports, constants, helpers, data."""
# ruff: noqa: D103

import functools
import math as maths
import os

import numpy as np

from obl_magic import report

rate = 0.25
table = {"a": [1, 2]}
scale = 2.0
x = np.linspace(-1, 1, 330, dtype="float32").reshape(110, 3)
y = (x.sum(axis=1) > 0).astype("float32")
large = np.arange(300_000, dtype="float64")


def rank():
    return int(os.environ.get("OMPI_COMM_WORLD_RANK", "0"))


@functools.cache
def slowly(n):
    return n * scale


def helper(n, k=2 * 3):
    # a comment that is read in the script
    return maths.floor(n * rate) + k


def model_fn(n):
    return ["layer"] * helper(n)


def train(model_fn, lr=0.1, n=3, *, names=("a", "b")):
    """Plain Python, with everything that there is."""
    report(loss=lr, epoch=1)
    print("printed by rank", rank())
    return {"layers": model_fn(n), "lr": lr, "table": table["a"], "slowly": slowly(n), "names": names}


def adder(n):
    def add(lr=0.5):
        return lr + n

    return add


def sums():
    return float(large.sum()), large[:3]


def one_raises():
    from mpi4py import MPI

    if MPI.COMM_WORLD.rank == 1:
        raise ValueError("of rank 1")
    MPI.COMM_WORLD.Barrier()


def make_model():
    import keras

    return keras.Sequential(
        [keras.Input((3,)), keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(1)]
    )


def fits(lr=0.1, epochs=3):
    """A real fit, whose 110 samples divide by nothing."""
    import keras

    model = make_model()
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(lr), loss, metrics=["mae"])
    history = model.fit(x, y, batch_size=32, epochs=epochs, verbose=0)
    return {name: [float(value) for value in values] for name, values in history.history.items()}


def fits_and_tells(lr=0.1, epochs=2):
    return {"last": fits(lr, epochs)["loss"][-1]}


def counts_flags(loud=True):
    return int(loud)
