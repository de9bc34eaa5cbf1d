"""A planted truth: does an ablation study find out which parts of a function matter, and which do not?

One feature is vital, one useful, two are noise, one layer is spare. Each repeat draws a sample of its own, by the
run's seed, so that the spread of the repeats is that of the data and of the initialisation alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import ranks
from ratios import Goal, Line

import obl_magic

if TYPE_CHECKING:
    import pandas as pd

    from obl_magic.study.search_result import AblationResult

SEEDS = 10
REPEATS = 5
WORKERS = 2
SAMPLES = 8000
"""So many that what does not matter does no harm either: noise to fit costs accuracy where samples are few."""
VITAL, USEFUL, NOTHING, SPARE = "vital", "useful", ("noise1", "noise2"), "spare"
IDLE = (*NOTHING, SPARE)
ASKED = f"features={VITAL},{USEFUL},{','.join(NOTHING)} layers={SPARE}"
WEIGHTS = {VITAL: 3.0, USEFUL: 1.2}
"""Of the features in the log odds of the label."""


def dataset_fn() -> tuple[Any, Any]:
    """Four columns drawn from the normal distribution, float32, and a label that two of them decide in part."""
    import random

    import numpy as np
    import pandas as pd

    draw = np.random.default_rng(random.getrandbits(64))  # seeded by the run
    x = pd.DataFrame({name: draw.normal(size=SAMPLES) for name in (VITAL, USEFUL, *NOTHING)}, dtype="float32")
    odds = sum(weight * x[name] for name, weight in WEIGHTS.items())
    return x, (draw.random(SAMPLES) < 1 / (1 + np.exp(-odds))).astype("float32")


def model_fn() -> Any:
    """A small network with one layer more than it needs."""
    import keras

    layers = [
        keras.layers.Dense(16, "relu"),
        keras.layers.Dense(16, "relu", name=SPARE),
        keras.layers.Dense(1),
    ]
    return keras.Sequential([keras.Input((4,)), *layers])


def train(epochs: int = 4) -> float:
    """Accuracy on the half of the sample that was not trained on."""
    import keras

    x, y = dataset_fn()
    model = model_fn()
    accuracy = keras.metrics.BinaryAccuracy(threshold=0.0, name="accuracy")
    model.compile(
        keras.optimizers.Adam(0.01), keras.losses.BinaryCrossentropy(from_logits=True), metrics=[accuracy]
    )
    fit = model.fit(x.to_numpy(), y, batch_size=64, epochs=epochs, validation_split=0.5, verbose=0)
    return float(fit.history["val_accuracy"][-1])


def study(seed: int) -> AblationResult:
    """One ablation study of the planted function."""
    return obl_magic.ablate(
        train, ASKED, maximize="value", repeats=REPEATS, workers=WORKERS, seed=1000 * seed, quiet=True,
        timeout=ranks.TIMEOUT_S,
    )  # fmt: skip


def ranked_rightly(table: pd.DataFrame) -> bool:
    """Whether losing the vital feature harms most, the useful one second, and all else does less than another seed.

    Args:
        table: of an ablation result. What another seed does is the standard deviation over the repeats, of the base
            run and of those without a part that does not matter, pooled: one row's alone is a guess from few numbers.
    """
    rows = table.set_index("component")
    spread = float((rows["std"][["base", *IDLE]] ** 2).mean() ** 0.5)
    found = [name for name in rows.index if name != "base"]
    harms = rows["delta"][[VITAL, USEFUL]] < -spread
    idle = rows["delta"][[*IDLE]].abs() <= spread
    return found[:2] == [VITAL, USEFUL] and bool(harms.all()) and bool(idle.all())


def taken_for_noise(table: pd.DataFrame) -> int:
    """How many of the three that do not matter the table itself calls noise."""
    rows = table.set_index("component")
    return sum(rows.loc[name, "within_noise"] in (True,) for name in IDLE)


def taken_for_effects(table: pd.DataFrame) -> int:
    """How many of the two that matter the table itself does not call noise."""
    rows = table.set_index("component")
    return sum(rows.loc[name, "within_noise"] in (False,) for name in (VITAL, USEFUL))


def measure(quick: bool) -> list[Line]:
    """How many studies rank rightly, what the table's own test says, and the mean deltas."""
    seeds = 2 if quick else SEEDS
    tables = [study(seed).table for seed in range(seeds)]
    deltas = [table.set_index("component")["delta"] for table in tables]
    right = float(sum(map(ranked_rightly, tables)))
    noise, effects = float(sum(map(taken_for_noise, tables))), float(sum(map(taken_for_effects, tables)))
    return [
        Line(
            f"planted studies ranked rightly, of {seeds} ({REPEATS} repeats)",
            "studies",
            (right,),
            Goal("at least", seeds),
        ),
        Line(f"what does not matter, called noise by the table, of {3 * seeds}", "parts", (noise,)),
        Line(
            f"what matters, not called noise by the table, of {2 * seeds}",
            "parts",
            (effects,),
            Goal("at least", 2 * seeds),
        ),
        *(
            Line(f"delta of {name}", "% accuracy", tuple(100 * delta[name] for delta in deltas))
            for name in (VITAL, USEFUL, *IDLE)
        ),
    ]
