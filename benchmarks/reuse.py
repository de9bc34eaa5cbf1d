"""Weights that go on: does the final training need fewer epochs when it begins with the best trial's weights?

The idea is Sheikholeslami et al., ICONIP 2024. What it brings here is told as it is measured; there is no goal.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import ranks
from ratios import Line

import obl_magic

SEEDS = 5
TRIALS = 6
TRIAL_EPOCHS = 3
MOST_EPOCHS = 60
TARGET = 0.98
WORKERS = 2
SPACE = "lr=log(1e-3,1e-2) units=int(32,128)"


def train(
    lr: float = 1e-3, units: int = 64, epochs: int = TRIAL_EPOCHS, target: float = 2.0
) -> dict[str, object]:
    """A small network on scikit-learn's digits, until it is good enough; its last accuracy, and all of them."""
    import keras
    import numpy as np
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))  # writers follow one another: the last are others
    x, y = x[order], y[order]
    layers = [keras.layers.Dense(units, "relu"), keras.layers.Dropout(0.2), keras.layers.Dense(10)]
    model = keras.Sequential([keras.Input((64,)), *layers])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(lr), loss, metrics=["accuracy"])

    class Enough(keras.callbacks.Callback):  # type: ignore[misc]
        def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
            if (logs or {}).get("val_accuracy", 0.0) >= target:
                self.model.stop_training = True

    inside, outside = slice(0, 1400), slice(1400, None)
    fit = model.fit(
        x[inside] / 16.0, y[inside], batch_size=64, epochs=epochs, verbose=0, callbacks=[Enough()],
        validation_data=(x[outside] / 16.0, y[outside]),
    )  # fmt: skip
    curve = fit.history["val_accuracy"]
    return {"val_accuracy": curve[-1], "curve": list(curve)}


def epochs_to(target: float, curve: Sequence[float]) -> int | None:
    """The first epoch, from 1, after which the target was reached; None where it never was."""
    return next((epoch for epoch, value in enumerate(curve, 1) if value >= target), None)


def measure(quick: bool) -> list[Line]:
    """Epochs of the final training with and without the weights, and their ratio."""
    pairs = [_pair(seed) for seed in range(1 if quick else SEEDS)]
    without, given = (tuple(float(epochs) for epochs in side) for side in zip(*pairs, strict=True))
    case = f"digits, epochs to {TARGET:g} validation accuracy ({MOST_EPOCHS + 1} where it never came)"
    spent = f"after {TRIALS} trials of {TRIAL_EPOCHS} epochs, which do not count"
    fewer = statistics.median(without) / statistics.median(given)
    return [
        Line(f"{case}: best parameters, fresh weights", "epochs", without),
        Line(f"{case}: best parameters, best weights", "epochs", given),
        Line(f"fresh / best weights, medians, {spent}", "ratio", (fewer,)),
    ]


def _pair(seed: int) -> tuple[int, int]:
    """Epochs of the final training without the weights and with them, after one search."""
    study = obl_magic.search(
        train, SPACE, trials=TRIALS, maximize="val_accuracy", workers=WORKERS, seed=1000 * seed, quiet=True,
        timeout=ranks.TIMEOUT_S,
    )  # fmt: skip
    return _final(study, seed, None), _final(study, seed, study)


def _final(study: obl_magic.Study, seed: int, weights: obl_magic.Study | None) -> int:
    run = obl_magic.run(
        train, workers=1, params=study, init_from=weights, args={"epochs": MOST_EPOCHS, "target": TARGET},
        seed=1000 * seed + 999, quiet=True, timeout=ranks.TIMEOUT_S,
    )  # fmt: skip
    epochs = epochs_to(TARGET, run.value["curve"])
    return MOST_EPOCHS + 1 if epochs is None else epochs
