"""What is done to datasets on ranks, beside what the tests of data and of parity see of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import obl_magic

pytestmark = pytest.mark.slow


def tuned() -> dict[str, Any]:
    """Which iterators have a tuner beside them, and what a fit, a loop and an evaluation read."""
    import keras
    import numpy as np
    import tensorflow as tf
    from tensorflow.python.data.ops.iterator_ops import OwnedIterator

    found, original = [], OwnedIterator.__init__

    def watched(iterator: Any, dataset: Any = None, *args: Any, **kwargs: Any) -> None:
        if dataset is not None:  # one that a trace stands in for has none
            found.append(dataset.options().autotune.enabled)
        original(iterator, dataset, *args, **kwargs)

    OwnedIterator.__init__ = watched
    try:
        x = np.arange(24.0).reshape(12, 2)
        rows = tf.data.Dataset.from_tensor_slices((x, x.sum(1))).map(
            lambda a, b: (a + 1.0, b), num_parallel_calls=tf.data.AUTOTUNE
        )
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile("sgd", "mse")
        model.fit(x, x.sum(1), batch_size=4, verbose=0)
        model.fit(rows.batch(4).prefetch(tf.data.AUTOTUNE), verbose=0)
        model.evaluate(rows.batch(4), verbose=0)
        model.predict(x, batch_size=4, verbose=0)
        read = [float(b) for _, b in rows]
        mine = tf.data.Options()
        mine.autotune.enabled = True
        told = len(found)
        list(rows.with_options(mine))
    finally:
        OwnedIterator.__init__ = original
    return {"read": read, "by itself": found[:told], "asked for": found[told:]}


def test_no_dataset_tunes_itself_on_ranks_unless_the_user_asks_for_it(home: Path) -> None:
    """On ranks that share processors the end of an epoch waited for the tuner, up to a minute."""
    run = obl_magic.run(tuned, workers=2, engine="mpi", quiet=True, timeout=300)
    for told in run.values:
        assert told["read"] == [1.0 + 4.0 * row for row in range(12)]
        assert len(told["by itself"]) >= 5
        assert set(told["by itself"]) == {False}
        assert told["asked for"] == [True]
