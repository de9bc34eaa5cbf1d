"""Breaks the adapter on purpose, inside the ranks: the suite must notice each of these faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock


def _nothing_reduced(patch: Callable[..., None], rank: int) -> None:
    from obl_magic.worker.frameworks.keras.gradients import GradientReducer

    patch(GradientReducer, "_sum", lambda reducer, grads: list(grads))
    patch(GradientReducer, "_mean", lambda reducer, found, sources: found)


def _averaged_not_weighted(patch: Callable[..., None], rank: int) -> None:
    from obl_magic.worker.frameworks.keras import gradients

    def weighted(reducer: Any, grads: Any, scope: Any) -> list[Any]:
        return [g if g is None else gradients._times(g, 1.0 / reducer._world.size) for g in grads]

    patch(gradients.GradientReducer, "_weighted", weighted)


def _gathered_without_gradient(patch: Callable[..., None], rank: int) -> None:
    import tensorflow as tf

    from obl_magic.worker.frameworks.keras import plans, rows

    gather = rows.all_rows
    for module in (plans, rows):
        patch(module, "all_rows", lambda own, part, world: tf.stop_gradient(gather(own, part, world)))


def _parts_added_twice(patch: Callable[..., None], rank: int) -> None:
    from obl_magic.worker.frameworks.keras import rows

    mean = rows.mean_over_ranks
    patch(rows, "mean_over_ranks", lambda values, world: [2 * value for value in mean(values, world)])


def _every_proof_agrees(patch: Callable[..., None], rank: int) -> None:
    from obl_magic.worker.frameworks.keras import call_state, proof

    for module in (call_state, proof):
        patch(module, "alike", lambda mine, whole: True)


def _noise_of_each_ranks_own(patch: Callable[..., None], rank: int) -> None:
    from obl_magic.worker.frameworks.keras import randomness

    patch(randomness, "_rows_of", lambda shape: None)


def _slices_borrow_memory(patch: Callable[..., None], rank: int) -> None:
    """TensorFlow then writes its results into arrays of the user's."""
    from obl_magic.worker.frameworks.keras import data, shards, steps

    for module in (data, shards, steps):
        patch(module, "own", lambda leaf: leaf)


def _nothing_sharded(patch: Callable[..., None], rank: int) -> None:
    from obl_magic.worker.frameworks.keras import balance, shards

    patch(shards, "bounds", lambda total, rank, parts: (total * 0, total))
    patch(balance.Shares, "bounds", lambda shares, total, number: (total * 0, total))


def _nothing_sharded_but_averaged(patch: Callable[..., None], rank: int) -> None:
    """Every rank trains on everything, and the average of equal gradients is right: only what is counted is wrong."""
    _nothing_sharded(patch, rank)
    _averaged_not_weighted(patch, rank)


def _nothing_broadcast(patch: Callable[..., None], rank: int) -> None:
    from obl_magic.worker.frameworks.keras.state import SharedState

    patch(SharedState, "broadcast", lambda state, variables: None)
    _seeds_differ(patch, rank)


def _seeds_differ(patch: Callable[..., None], rank: int) -> None:
    """No fault of the adapter: ranks that begin with other weights, which it has to make equal."""
    import keras

    seed = keras.utils.set_random_seed
    patch(keras.utils, "set_random_seed", lambda number: seed(number + 1000 * rank))


def _metrics_not_combined(patch: Callable[..., None], rank: int) -> None:
    from obl_magic.worker.frameworks.keras import metrics

    patch(metrics, "combine", lambda world, *args, **kwargs: None)


def _denominators_local(patch: Callable[..., None], rank: int) -> None:
    from obl_magic.worker.frameworks.keras import losses

    patch(losses, "_correction", lambda *args, **kwargs: 1.0)


def _stand_ins_counted(patch: Callable[..., None], rank: int) -> None:
    from obl_magic.worker.frameworks.keras import metrics

    patch(metrics, "take_back", lambda *args, **kwargs: None)


def _data_differ(patch: Callable[..., None], rank: int) -> None:
    """No fault of the adapter: a generator that draws other rows on each rank, which must be refused."""
    import numpy as np

    make = np.random.default_rng
    patch(np.random, "default_rng", lambda seed=0: make(seed + 1000 * rank))


def _data_differ_unseen(patch: Callable[..., None], rank: int) -> None:
    from obl_magic.worker.frameworks.keras import proof, same_data

    _data_differ(patch, rank)
    patch(same_data, "_same", lambda mark, other: True)
    patch(proof, "_fingerprint", lambda args, kwargs: 0)


FAULTS = {
    "nothing reduced": _nothing_reduced,
    "averaged, not weighted": _averaged_not_weighted,
    "gathered without gradient": _gathered_without_gradient,
    "parts added twice": _parts_added_twice,
    "every proof agrees": _every_proof_agrees,
    "noise of each rank's own": _noise_of_each_ranks_own,
    "slices borrow memory": _slices_borrow_memory,
    "nothing sharded": _nothing_sharded,
    "nothing sharded, but averaged": _nothing_sharded_but_averaged,
    "nothing broadcast": _nothing_broadcast,
    "metrics not combined": _metrics_not_combined,
    "denominators local": _denominators_local,
    "stand-ins counted": _stand_ins_counted,
}
ORDEALS = {
    "seeds differ": _seeds_differ,
    "data differ": _data_differ,
    "data differ, unseen": _data_differ_unseen,
}
SLUGS = {name.replace(",", "").replace("'", "").replace(" ", "-"): name for name in FAULTS}
"""Faults as they are written behind a case."""


@contextmanager
def applied(name: str | None, rank: int) -> Iterator[None]:
    """Within it the adapter has the named fault; none without a name."""
    patches: list[Any] = []

    def patch(owner: Any, attribute: str, value: Any) -> None:
        patcher = mock.patch.object(owner, attribute, value)
        patcher.start()
        patches.append(patcher)

    if name is not None:
        (FAULTS | ORDEALS)[name](patch, rank)
    try:
        yield
    finally:
        for patcher in reversed(patches):
            patcher.stop()
