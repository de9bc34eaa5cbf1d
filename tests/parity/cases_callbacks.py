# ruff: noqa: D103
"""Callbacks: those that decide, those that write, and users' own."""

import csv
import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from real_data import cancer, diabetes, digits, iris, wine


def early_stopping():
    keras.utils.set_random_seed(401)
    x, y = iris(131)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="softmax")])
    model.compile(keras.optimizers.SGD(1.5), "sparse_categorical_crossentropy", metrics=["accuracy"])
    stop = keras.callbacks.EarlyStopping(patience=1, restore_best_weights=True, min_delta=0.02)
    h = model.fit(x, y, batch_size=35, epochs=12, validation_split=0.3, callbacks=[stop], verbose=0)
    return {
        "history": h.history,
        "weights": model.get_weights(),
        "stopped": stop.stopped_epoch,
        "best": stop.best_epoch,
    }


def reduce_on_plateau():
    keras.utils.set_random_seed(402)
    x, y = diabetes(202)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(1)])
    model.compile(keras.optimizers.SGD(0.2, momentum=0.9), "mse")
    slower = keras.callbacks.ReduceLROnPlateau(monitor="val_loss", factor=0.3, patience=1, min_delta=0.05)
    h = model.fit(x, y, batch_size=50, epochs=6, validation_split=0.2, callbacks=[slower], verbose=0)
    return {
        "history": h.history,
        "weights": model.get_weights(),
        "rate": float(model.optimizer.learning_rate),
    }


def learning_rate_scheduler():
    keras.utils.set_random_seed(403)
    x, y = wine(145)
    model = keras.Sequential([keras.Input((13,)), layers.Dense(3, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.05 if epoch == 0 else rate * 0.5)
    h = model.fit(x, y, batch_size=36, epochs=3, callbacks=[schedule], verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def checkpoint_and_load():
    keras.utils.set_random_seed(404)
    x, y = cancer(171)
    model = keras.Sequential([keras.Input((30,)), layers.Dense(1, activation="sigmoid")])
    model.compile(keras.optimizers.SGD(0.4), "binary_crossentropy", metrics=["accuracy"])
    folder = Path("checkpoints-of-a-case")
    keep = keras.callbacks.ModelCheckpoint(
        folder / "epoch-{epoch}.weights.h5", save_weights_only=True, save_best_only=False
    )
    h = model.fit(x, y, batch_size=34, epochs=3, callbacks=[keep], verbose=0)
    last = model.get_weights()
    model.load_weights(folder / "epoch-2.weights.h5")
    return {
        "history": h.history,
        "last": last,
        "weights": model.get_weights(),
        "evaluate": model.evaluate(x, y, batch_size=85, verbose=0),
    }


def checkpoint_in_a_temporary_folder():
    keras.utils.set_random_seed(405)
    x, y = cancer(151)
    model = keras.Sequential([keras.Input((30,)), layers.Dense(3, activation="relu"), layers.Dense(1)])
    model.compile("adam", keras.losses.BinaryCrossentropy(from_logits=True), metrics=["mae"])
    with tempfile.TemporaryDirectory() as folder:
        best = f"{folder}/best.weights.h5"
        keep = keras.callbacks.ModelCheckpoint(best, "val_loss", save_weights_only=True, save_best_only=True)
        h = model.fit(x, y, batch_size=30, epochs=3, validation_split=0.2, callbacks=[keep], verbose=0)
        model.load_weights(best)
    return {
        "history": h.history,
        "weights": model.get_weights(),
        "predictions": model.predict(x, batch_size=50, verbose=0),
    }


def csv_log_read_back():
    keras.utils.set_random_seed(406)
    x, y = wine(118)
    model = keras.Sequential([keras.Input((13,)), layers.Dense(3, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    path = Path("log-of-a-case.csv")
    h = model.fit(
        x,
        y,
        batch_size=29,
        epochs=3,
        validation_split=0.2,
        callbacks=[keras.callbacks.CSVLogger(path)],
        verbose=0,
    )
    with path.open() as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    return {"history": h.history, "rows": rows}


def lambda_callback_collects():
    keras.utils.set_random_seed(407)
    x, y = digits(173)
    model = keras.Sequential([keras.Input((64,)), layers.Dense(10, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    collected = []
    collect = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: collected.append((epoch, dict(logs)))
    )
    model.fit(x, y, batch_size=43, epochs=3, validation_split=0.25, callbacks=[collect], verbose=0)
    return {"collected": collected, "weights": model.get_weights()}


class StopBelow(keras.callbacks.Callback):
    """Reads the loss of every batch; stops when it is low enough."""

    def __init__(self, threshold):
        super().__init__()
        self.threshold, self.curve = threshold, []

    def on_train_batch_end(self, batch, logs=None):
        self.curve.append(logs["loss"])
        if logs["loss"] < self.threshold:
            self.model.stop_training = True


def callback_reading_every_batch():
    keras.utils.set_random_seed(408)
    x, y = iris(127)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="softmax")])
    model.compile(keras.optimizers.Adam(0.1), "sparse_categorical_crossentropy")
    stop = StopBelow(0.5)
    h = model.fit(x, y, batch_size=21, epochs=5, callbacks=[stop], verbose=0)
    return {"history": h.history, "curve": stop.curve, "weights": model.get_weights()}


def terminate_on_nan():
    keras.utils.set_random_seed(409)
    x, y = diabetes(157)
    x[120, 3] = np.nan
    model = keras.Sequential([keras.Input((10,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    h = model.fit(
        x, y, batch_size=26, epochs=3, shuffle=False, callbacks=[keras.callbacks.TerminateOnNaN()], verbose=0
    )
    return {"history": h.history, "steps": int(model.optimizer.iterations)}


class BreaksOnce(keras.callbacks.Callback):
    """Stands for a power failure."""

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise RuntimeError("the light went out")


def backup_and_restore():
    keras.utils.set_random_seed(410)
    x, y = wine(137)
    model = keras.Sequential([keras.Input((13,)), layers.Dense(3, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy")
    backup = keras.callbacks.BackupAndRestore("backup-of-a-case")
    try:  # noqa: SIM105
        model.fit(x, y, batch_size=45, epochs=4, callbacks=[backup, BreaksOnce()], shuffle=False, verbose=0)
    except RuntimeError:
        pass
    h = model.fit(x, y, batch_size=45, epochs=4, callbacks=[backup], shuffle=False, verbose=0)
    return {"history": h.history, "epochs": h.epoch, "weights": model.get_weights()}


class StopAfter(keras.callbacks.Callback):
    """Enough is enough."""

    def __init__(self, epochs):
        super().__init__()
        self.epochs = epochs

    def on_epoch_end(self, epoch, logs=None):
        if epoch + 1 >= self.epochs:
            self.model.stop_training = True


def callback_stopping_after_an_epoch():
    keras.utils.set_random_seed(411)
    x, y = cancer(127)
    model = keras.Sequential([keras.Input((30,)), layers.Dense(1, activation="sigmoid")])
    model.compile("sgd", "binary_crossentropy", metrics=["accuracy"])
    h = model.fit(x, y, batch_size=42, epochs=5, callbacks=[StopAfter(2)], verbose=0)
    return {"history": h.history, "epochs": h.epoch, "weights": model.get_weights()}


class Warmup(keras.callbacks.Callback):
    """Sets the learning rate by hand, batch by batch."""

    def __init__(self, target, steps):
        super().__init__()
        self.target, self.steps, self.done, self.rates = target, steps, 0, []

    def on_train_batch_begin(self, batch, logs=None):
        self.done += 1
        self.model.optimizer.learning_rate = self.target * min(1.0, self.done / self.steps)
        self.rates.append(float(self.model.optimizer.learning_rate))


def callback_setting_the_learning_rate():
    keras.utils.set_random_seed(412)
    x, y = digits(187)
    model = keras.Sequential([keras.Input((64,)), layers.Dense(10, activation="softmax")])
    model.compile(keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy")
    warmup = Warmup(0.5, 6)
    h = model.fit(x, y, batch_size=46, epochs=2, callbacks=[warmup], verbose=0)
    return {"history": h.history, "rates": warmup.rates, "weights": model.get_weights()}


class RateByLoss(keras.callbacks.Callback):
    """Halves the learning rate whenever the loss of an epoch is above a mark; sets weights too."""

    def on_epoch_end(self, epoch, logs=None):
        rate = self.model.optimizer.learning_rate
        rate.assign(rate * (0.5 if logs["loss"] > 0.6 else 0.9))
        kernel, bias = self.model.layers[-1].get_weights()
        self.model.layers[-1].set_weights([np.clip(kernel, -0.3, 0.3), bias])


def callback_changing_rate_and_weights():
    keras.utils.set_random_seed(413)
    x, y = cancer(149)
    model = keras.Sequential([keras.Input((30,)), layers.Dense(4, activation="tanh"), layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.05), keras.losses.BinaryCrossentropy(from_logits=True))
    h = model.fit(x, y, batch_size=37, epochs=3, callbacks=[RateByLoss()], verbose=0)
    return {
        "history": h.history,
        "weights": model.get_weights(),
        "rate": float(model.optimizer.learning_rate),
    }


class PredictsEachEpoch(keras.callbacks.Callback):
    """Evaluates and predicts in the middle of training."""

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y, self.scores, self.means = x, y, [], []

    def on_epoch_end(self, epoch, logs=None):
        self.scores.append(self.model.evaluate(self.x, self.y, batch_size=19, verbose=0))
        self.means.append(self.model.predict(self.x, batch_size=20, verbose=0).mean(0))
        logs["own"] = float(self.means[-1][0])


def callback_that_predicts():
    keras.utils.set_random_seed(414)
    x, y = iris(141)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    look = PredictsEachEpoch(x[100:], y[100:])
    h = model.fit(x[:100], y[:100], batch_size=33, epochs=3, callbacks=[look], verbose=0)
    return {"history": h.history, "scores": look.scores, "means": look.means, "weights": model.get_weights()}


def checkpoint_of_a_whole_model():
    keras.utils.set_random_seed(415)
    x, y = diabetes(133)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(4, activation="elu"), layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    path = "model-of-a-case.keras"
    keep = keras.callbacks.ModelCheckpoint(path, monitor="mae", mode="min", save_best_only=True)
    model.fit(x, y, batch_size=44, epochs=2, callbacks=[keep], verbose=0)
    again = keras.models.load_model(path)
    h = again.fit(x, y, batch_size=33, epochs=1, verbose=0)
    return {"history": h.history, "weights": again.get_weights(), "steps": int(again.optimizer.iterations)}


def swap_of_averaged_weights():
    keras.utils.set_random_seed(416)
    x, y = wine(151)
    model = keras.Sequential([keras.Input((13,)), layers.Dense(3, activation="softmax")])
    model.compile(
        keras.optimizers.SGD(0.2, use_ema=True, ema_momentum=0.7), "sparse_categorical_crossentropy"
    )
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    h = model.fit(x, y, batch_size=50, epochs=3, validation_split=0.2, callbacks=[swap], verbose=0)
    return {"history": h.history, "weights": model.get_weights()}


def callback_list_watching_everything():
    keras.utils.set_random_seed(417)
    x, y = cancer(116)
    order = []

    class Watch(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            order.append("train")

        def on_epoch_begin(self, epoch, logs=None):
            order.append(f"epoch {epoch}")

        def on_train_batch_end(self, batch, logs=None):
            order.append((batch, logs["loss"], logs["accuracy"]))

        def on_test_begin(self, logs=None):
            order.append("test")

        def on_test_batch_end(self, batch, logs=None):
            order.append(("test", batch, logs["loss"]))

        def on_predict_batch_end(self, batch, logs=None):
            order.append(("predict", batch, logs["outputs"].shape))

    model = keras.Sequential([keras.Input((30,)), layers.Dense(1, activation="sigmoid")])
    model.compile("adam", "binary_crossentropy", metrics=["accuracy"])
    h = model.fit(
        x,
        y,
        batch_size=27,
        epochs=2,
        validation_split=0.3,
        validation_batch_size=12,
        callbacks=[Watch()],
        verbose=0,
    )
    model.predict(x, batch_size=39, callbacks=[Watch()], verbose=0)
    return {"history": h.history, "order": order}


def callback_list_of_a_hand_written_loop():
    """Keras' guide on writing a loop from scratch, with the callbacks that people add to it by hand."""
    keras.utils.set_random_seed(418)
    x, y = wine(150)
    model = keras.Sequential([keras.Input((13,)), layers.Dense(3)])  # never compiled
    model.optimizer = optimizer = keras.optimizers.SGD(0.3)
    entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    batches = tf.data.Dataset.from_tensor_slices((x[:100], y[:100])).batch(25)
    stop = keras.callbacks.EarlyStopping(monitor="val_loss", patience=1, min_delta=0.2)
    told = keras.callbacks.CallbackList([stop], add_history=True, model=model, epochs=6, steps=4, verbose=0)
    told.on_train_begin()
    for epoch in range(6):
        told.on_epoch_begin(epoch)
        for step, (some, truth) in enumerate(batches):
            told.on_train_batch_begin(step)
            with tf.GradientTape() as tape:
                loss = entropy(truth, model(some, training=True))
            weights = model.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
            told.on_train_batch_end(step, {"loss": float(loss)})
        told.on_test_begin()
        told.on_test_batch_begin(0)
        held_out = float(entropy(y[100:], model(x[100:])))
        told.on_test_batch_end(0, {"loss": held_out})
        told.on_test_end({"loss": held_out})
        told.on_epoch_end(epoch, {"loss": float(loss), "val_loss": held_out})
        if getattr(model, "stop_training", False):
            break
    told.on_train_end()
    return {"history": model.history.history, "weights": model.get_weights(), "stopped": stop.stopped_epoch}
