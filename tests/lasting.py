"""Training functions that last a while, and such that lose a rank on the way; both give the same numbers."""

import os
import signal
import time
from pathlib import Path


def _rank():
    return int(os.environ.get("OMPI_COMM_WORLD_RANK", "0"))


def _digits():
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return (x[:330] / 16).astype("float32"), y[:330]


def _model():
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((64,)), layers.Dense(24, "relu"), layers.Dropout(0.2), layers.Dense(10)]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
    return model


def two_fits(killed_at=(), folder="."):
    """Two fits with callbacks that remember; rank 1 is killed once at each (fit, epoch) of ``killed_at``."""
    import keras

    class Killed(keras.callbacks.Callback):
        def __init__(self, fit):
            super().__init__()
            self.fit = fit
            self.seen = []

        def on_epoch_begin(self, epoch, logs=None):
            self.seen.append(epoch)
            mark = Path(folder, f"killed-{self.fit}-{epoch}")
            if _rank() == 1 and (self.fit, epoch) in killed_at and not mark.exists():
                mark.touch()
                os.kill(os.getpid(), signal.SIGKILL)

    x, y = _digits()
    model, curves, seen = _model(), [], []
    for fit in (1, 2):
        watch = Killed(fit)
        patient = keras.callbacks.ReduceLROnPlateau(monitor="loss", patience=1, min_delta=0.5)
        log = keras.callbacks.CSVLogger(str(Path(folder, f"log-{fit}.csv")))
        history = model.fit(
            x, y, batch_size=33, epochs=4, validation_split=0.2, verbose=0, callbacks=[watch, patient, log]
        )
        curves.append(history.history)
        seen.append(watch.seen)
    return {"curves": curves, "weights": model.get_weights(), "seen": seen}


def steps_of(seconds, epochs=1000):
    """A fit whose steps take so long, and that would go on for long."""
    import keras

    class Slow(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            time.sleep(seconds)

    x, y = _digits()
    model = _model()
    model.fit(x, y, batch_size=33, epochs=epochs, verbose=0, callbacks=[Slow()])
    return model


def saves_when_interrupted():
    """A function that catches the interrupt itself, and returns what it likes."""
    try:
        steps_of(0.01)
    except KeyboardInterrupt:
        return "caught"


def raises_always():
    """Fails the same way in every world."""
    raise OSError("no such luck")
