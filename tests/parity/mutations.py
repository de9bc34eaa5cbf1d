"""Breaks the adapter on purpose, inside the ranks: the suite must notice each of these faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock


def _nothing_reduced(patch: Callable[..., None], rank: int) -> None:
    from obl_magic.worker.keras.gradients import GradientReducer

    patch(GradientReducer, "_sum", lambda reducer, grads: list(grads))


def _averaged_not_weighted(patch: Callable[..., None], rank: int) -> None:
    import tensorflow as tf

    from obl_magic.worker.keras import gradients

    def shares(reducer: Any, grads: Any) -> list[Any]:
        share = tf.constant(1.0 / reducer._world.size)
        return [g if g is None else gradients._weighted(g, share) for g in grads]

    patch(gradients.GradientReducer, "_shares", shares)


def _nothing_sharded(patch: Callable[..., None], rank: int) -> None:
    from obl_magic.worker.keras import data, shards

    for module in (data, shards):
        patch(module, "bounds", lambda total, rank, size: (total * 0, total))


def _nothing_sharded_but_averaged(patch: Callable[..., None], rank: int) -> None:
    """Every rank trains on everything, and the average of equal gradients is right: only what is counted is wrong."""
    _nothing_sharded(patch, rank)
    _averaged_not_weighted(patch, rank)


def _nothing_broadcast(patch: Callable[..., None], rank: int) -> None:
    from obl_magic.worker.keras.state import SharedState

    patch(SharedState, "broadcast", lambda state, variables: None)
    _seeds_differ(patch, rank)


def _seeds_differ(patch: Callable[..., None], rank: int) -> None:
    """No fault of the adapter: ranks that begin with other weights, which it has to make equal."""
    import keras

    seed = keras.utils.set_random_seed
    patch(keras.utils, "set_random_seed", lambda number: seed(number + 1000 * rank))


def _metrics_not_combined(patch: Callable[..., None], rank: int) -> None:
    from obl_magic.worker.keras import metrics

    patch(metrics, "combine", lambda world, *args, **kwargs: None)


def _denominators_local(patch: Callable[..., None], rank: int) -> None:
    from obl_magic.worker.keras import losses

    patch(losses, "_correction", lambda *args, **kwargs: 1.0)


def _stand_ins_counted(patch: Callable[..., None], rank: int) -> None:
    from obl_magic.worker.keras import metrics

    patch(metrics, "take_back", lambda *args, **kwargs: None)


FAULTS = {
    "nothing reduced": _nothing_reduced,
    "averaged, not weighted": _averaged_not_weighted,
    "nothing sharded": _nothing_sharded,
    "nothing sharded, but averaged": _nothing_sharded_but_averaged,
    "nothing broadcast": _nothing_broadcast,
    "metrics not combined": _metrics_not_combined,
    "denominators local": _denominators_local,
    "stand-ins counted": _stand_ins_counted,
}
ORDEALS = {"seeds differ": _seeds_differ}


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
