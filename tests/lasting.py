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


def _say_now():
    print("now", time.time(), flush=True)


def alone_in_a_reduction():
    """Rank 0 takes a training step that rank 1 never comes to."""
    import keras
    import numpy as np

    class Stays(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if batch == 2 and _rank() == 1:
                time.sleep(600)
            if batch == 2:
                _say_now()

    x = np.ones((64, 4), "float32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(x, x[:, :1], batch_size=8, verbose=0, callbacks=[Stays()])


def computes_in_c():
    """All ranks are in one operation of TensorFlow's that takes for ever."""
    import tensorflow as tf

    matrix = tf.random.normal([1500, 1500])

    @tf.function
    def long():
        return tf.while_loop(lambda i, m: i < 10**9, lambda i, m: (i + 1, tf.tanh(m @ matrix)), (0, matrix))

    _say_now()
    long()


def forks_and_waits():
    """Each rank waits for a child that heeds no signal."""
    import subprocess
    import sys

    deaf = "import signal as s, time; s.signal(s.SIGINT, s.SIG_IGN); s.signal(s.SIGTERM, s.SIG_IGN); time.sleep(600)"
    child = subprocess.Popen([sys.executable, "-c", deaf], start_new_session=True)
    _say_now()
    child.wait()


def imports_for_ever():
    """Each rank imports a module that never ends."""
    import sys
    import tempfile

    folder = tempfile.mkdtemp(dir=".")
    Path(folder, "endless.py").write_text(
        "import time\nprint('now', time.time(), flush=True)\ntime.sleep(600)\n"
    )
    sys.path.insert(0, folder)
    __import__("endless")
