"""What a ``train_step`` of the user's costs on two ranks against Keras' own step of the same network, and its proof.

Both models stand in one function, so that they share ranks; their epochs take turns.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from ratios import Goal, Line, ratio
from workloads import with_own_step

import obl_magic

BATCHES = (64, 256)
PROOF_S = 1.5


def train(batch: int, turns: int) -> dict[str, list[float]]:
    """Milliseconds of a step of both kinds, the median of each turn, and the seconds of their first epochs."""
    import keras
    from sklearn.datasets import load_digits

    class Clock(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            self.began = time.perf_counter()

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            spans.append(1e3 * (time.perf_counter() - self.began))

    x, y = load_digits(return_X_y=True)
    x = (x / 16).astype("float32").reshape(-1, 8, 8, 1)
    models = {}
    for name in ("keras", "own"):
        model = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                keras.layers.Conv2D(32, 3, padding="same", activation="relu"),
                keras.layers.Conv2D(64, 3, padding="same", activation="relu"),
                keras.layers.MaxPooling2D(),
                keras.layers.Flatten(),
                keras.layers.Dense(128, activation="relu"),
                keras.layers.Dense(10),
            ]
        )
        models[name] = with_own_step(model) if name == "own" else model
        models[name].compile(
            "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
        )
    found: dict[str, list[float]] = {"keras": [], "own": [], "first keras": [], "first own": []}
    for turn in range(turns + 2):
        for name, model in models.items():
            spans: list[float] = []
            began = time.perf_counter()
            model.fit(x, y, batch_size=batch, verbose=0, callbacks=[Clock()])
            if turn == 0:
                found[f"first {name}"].append(time.perf_counter() - began)
            elif turn > 1:  # the proofs of calls 1, 2, 4, 8, … are then rare
                found[name].append(statistics.median(spans))
    return found


def measure(quick: bool) -> list[Line]:
    """Milliseconds of a step, their ratio, and the seconds that the proofs of the first epoch take."""
    lines = []
    for batch in BATCHES:
        run = obl_magic.run(train, workers=2, args={"batch": batch, "turns": 2 if quick else 8}, quiet=True)
        taken = run.value
        proofs = [own - keras for own, keras in zip(taken["first own"], taken["first keras"], strict=True)]
        lines += [
            Line(f"digits CNN, batch {batch}, 2 ranks, a step: Keras' own", "ms", tuple(taken["keras"])),
            Line(f"digits CNN, batch {batch}, 2 ranks, a step: a train_step", "ms", tuple(taken["own"])),
            ratio(
                f"digits CNN, batch {batch}: train_step / Keras' own",
                taken["own"],
                taken["keras"],
                Goal("at most", 1.1),
            ),
            Line(
                f"digits CNN, batch {batch}: proofs in the first epoch",
                "s",
                tuple(proofs),
                Goal("at most", PROOF_S),
            ),
        ]
    return lines
