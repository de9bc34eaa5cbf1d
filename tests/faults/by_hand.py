"""A training loop by hand that keeps where it is; one rank is killed once, in the middle of its fourth epoch."""

import os
import random
import signal
from pathlib import Path

EPOCHS = 6
KILLED_IN = 3


def loop(folder=".", kills=False, when="before", data="shuffled once"):
    """Weights, what the loop remembers, and which epochs were trained in this world.

    Args:
        folder: where the kill is noted.
        kills: the last rank is killed.
        when: the loop's checkpoint is called "before" it, too, or only at the "end" of epochs.
        data: "shuffled once" and passed over in each epoch, "anew" in each epoch, "permuted" by NumPy, an "iterator"
            over all epochs, or a shuffle that is "repeated".
    """
    import keras
    import numpy as np
    import tensorflow as tf

    import obl_magic

    keras.utils.set_random_seed(2)
    rng = np.random.default_rng(5)
    x = rng.normal(size=(96, 6)).astype("float32")
    y = (x.sum(axis=1, keepdims=True) > 0).astype("float32")
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(12, "relu"), layers.Dropout(0.3), layers.Dense(1)]
    )
    optimizer, loss_fn = keras.optimizers.Adam(0.01), keras.losses.BinaryCrossentropy(from_logits=True)
    seen = keras.metrics.Mean()
    losses, best, trained = [], {}, []
    rows = tf.data.Dataset.from_tensor_slices((x, y))
    shuffled = rows.shuffle(96).map(lambda a, b: (a * 1.0, b)).batch(16)
    endless = iter(rows.shuffle(96).batch(16).repeat()) if data == "iterator" else None
    repeated = rows.shuffle(96).repeat().batch(16)

    def batches():
        if data == "anew":
            return rows.shuffle(96).batch(16)
        if data == "permuted":
            order = rng.permutation(96)
            return ((x[order[at : at + 16]], y[order[at : at + 16]]) for at in range(0, 96, 16))
        if data == "iterator":
            return (next(endless) for _ in range(6))
        return repeated.take(6) if data == "repeated" else shuffled

    @tf.function
    def step(a, b):
        with tf.GradientTape() as tape:
            loss = loss_fn(b, model(a, training=True))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return loss

    kept = (model, optimizer, seen, losses, best, rng)
    first = obl_magic.checkpoint(*kept) if when == "before" else 0
    rank = int(os.environ.get("OMPI_COMM_WORLD_RANK", "0"))
    last = rank == int(os.environ.get("OMPI_COMM_WORLD_SIZE", "1")) - 1
    for epoch in range(first, EPOCHS):
        trained.append(epoch)
        seen.reset_state()
        for number, (a, b) in enumerate(batches()):
            if kills and last and (epoch, number) == (KILLED_IN, 2) and not Path(folder, "killed").exists():
                Path(folder, "killed").touch()
                os.kill(os.getpid(), signal.SIGKILL)
            seen.update_state(step(a, b))
        losses.append(float(seen.result()) + random.random() + np.random.random())
        best[epoch] = min(losses)
        obl_magic.checkpoint(*kept)
    return {"weights": model.get_weights(), "losses": losses, "best": best, "trained": trained}
