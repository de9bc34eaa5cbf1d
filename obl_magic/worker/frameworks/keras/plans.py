"""How one kind of model call is divided: which arguments have rows, how outputs and added losses are put together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import tensorflow as tf
from keras import tree
from keras.src.backend.common import global_state

from obl_magic.worker.engines.collectives import Collectives
from obl_magic.worker.frameworks.keras import scope as scopes
from obl_magic.worker.frameworks.keras.rows import Division, all_rows, own_rows, row_count, scalar_over_ranks

ROWS, SAME, MEAN, SUM = "rows", "same", "mean", "sum"


@dataclass(frozen=True, slots=True)
class Plan:
    """How calls of one kind are divided.

    Attributes:
        divided: for each leaf of the arguments, whether a rank gets its own rows of it.
        outputs: for each leaf of the result, ``rows`` or ``same``; none while that is not known.
        losses: for each loss that layers add in the call, ``rows``, ``mean`` or ``sum``; none while not known.
    """

    divided: tuple[bool, ...]
    outputs: tuple[str, ...] = ()
    losses: tuple[str, ...] = ()

    @classmethod
    def assumed(cls, args: Any, kwargs: Any) -> Plan:
        """A plan that nothing has proven: whatever has as many rows as the first argument is divided."""
        return next(candidates(args, kwargs), OPENED)

    def run(self, original: Any, layer: Any, args: Any, kwargs: Any, world: Collectives) -> Any:
        """Calls a layer with own rows; its result and its losses are the whole batch's afterwards."""
        before = counted(layer)
        outputs, part = self.call(original, layer, args, kwargs, world)
        self.gather_losses(layer, before, part, world)
        return self.gather(outputs, part, world)

    def call(
        self, original: Any, layer: Any, args: Any, kwargs: Any, world: Collectives
    ) -> tuple[Any, Division]:
        """Calls a layer with own rows."""
        leaves = tree.flatten((args, kwargs))
        first = next(leaf for leaf, divided in zip(leaves, self.divided, strict=True) if divided)
        part = Division.of(first, world)
        own = [
            own_rows(leaf, part, world) if divided else leaf
            for leaf, divided in zip(leaves, self.divided, strict=True)
        ]
        own_args, own_kwargs = tree.pack_sequence_as((args, kwargs), own)
        with scopes.entered(part.scope()):
            return original(layer, *own_args, **own_kwargs), part

    def gather(self, outputs: Any, part: Division, world: Collectives) -> Any:
        """The whole batch's outputs from own ones."""
        leaves = tree.flatten(outputs)
        modes = self.outputs or tuple(ROWS if has_rows(leaf) else SAME for leaf in leaves)
        return tree.pack_sequence_as(
            outputs,
            [
                all_rows(leaf, part, world) if mode == ROWS else leaf
                for leaf, mode in zip(leaves, modes, strict=True)
            ],
        )

    def gather_losses(self, layer: Any, before: dict[int, int], part: Division, world: Collectives) -> None:
        """Puts what layers have added to the loss together over the ranks."""
        places = list(added(layer, before))
        modes = self.losses or (MEAN,) * len(places)
        for (losses, index), mode in zip(places, modes, strict=True):
            losses[index] = together(losses[index], mode, part, world)


OPENED = Plan(())
"""A call that is not divided itself; those inside it may be."""


def candidates(args: Any, kwargs: Any) -> Iterator[Plan]:
    """Ways to divide a call, likeliest first: all arguments with as many rows as the first, or the first one only."""
    leaves = tree.flatten((args, kwargs))
    with_rows = [has_rows(leaf) for leaf in leaves]
    if not any(with_rows):
        return
    rows = row_count(leaves[with_rows.index(True)])
    alike = tuple(has and _equal(row_count(leaf), rows) for has, leaf in zip(with_rows, leaves, strict=True))
    yield Plan(alike)
    of_first = len(tree.flatten(args[0])) if args else 0
    only_first = tuple(one and index < of_first for index, one in enumerate(alike))
    if any(only_first) and only_first != alike:
        yield Plan(only_first)


def has_rows(leaf: Any) -> bool:
    """Whether a tensor or array has a first axis."""
    if isinstance(leaf, (tf.RaggedTensor, tf.SparseTensor)):
        return True
    shape = getattr(leaf, "shape", None)
    if shape is None or not hasattr(leaf, "dtype"):
        return False
    return shape.rank != 0 if isinstance(shape, tf.TensorShape) else len(shape) > 0


def counted(layer: Any) -> dict[int, int]:
    """How many losses each layer has added before a call; an outermost call of Keras' forgets them all."""
    if global_state.get_global_attribute("current_call_ctx") is None:
        return {}
    return {id(one): len(one._losses) for one in layer._flatten_layers()}


def added(layer: Any, before: dict[int, int]) -> Iterator[tuple[list[Any], int]]:
    """The places of losses that layers have added since ``before`` was counted."""
    for one in layer._flatten_layers():
        for index in range(before.get(id(one), 0), len(one._losses)):
            yield one._losses, index


def together(loss: Any, mode: str, part: Division, world: Collectives) -> Any:
    """A loss of the whole batch from what each rank has of it."""
    if mode == SAME:
        return loss
    if mode == ROWS:
        return all_rows(loss, part, world)
    counts = tf.cast(tf.convert_to_tensor(part.local) > 0, tf.float32)
    return scalar_over_ranks(loss, part.scope().weight if mode == MEAN else counts, world)


def known(plan: Plan, outputs: Sequence[str], losses: Sequence[str]) -> Plan:
    """A plan with what a proof has found out."""
    return replace(plan, outputs=tuple(outputs), losses=tuple(losses))


def _equal(a: Any, b: Any) -> bool:
    """Whether two numbers of rows are known to be equal; of unknown ones it is assumed."""
    return a == b if isinstance(a, int) and isinstance(b, int) else True
