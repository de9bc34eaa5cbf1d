"""Proves that a model call may be divided: computes it whole too, without gradients, and compares all that it leaves.

What must agree: outputs, the losses that layers add, the variables that are not trained, the state of random
generators. The first way to divide the call that agrees on every rank is taken; where none does, the call is opened.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from keras import tree
from keras.src import backend
from tensorflow.python.eager import record

from obl_magic.errors import NotOblivious, RanksDiverged
from obl_magic.worker.engines.agreement import AttemptFailed
from obl_magic.worker.engines.collectives import Collectives
from obl_magic.worker.frameworks.keras import plans, rows
from obl_magic.worker.frameworks.keras import scope as scopes
from obl_magic.worker.frameworks.keras.alike import alike
from obl_magic.worker.frameworks.keras.call_state import State
from obl_magic.worker.frameworks.keras.plans import MEAN, OPENED, ROWS, SAME, SUM, Plan

NO_PART = "cannot be given a part of the batch"
_SENTENCE = 160
"""Characters of another library's sentence that are repeated in ours."""
DIFFERENT_DATA = "the ranks hold different data, so some samples would be seen twice and others never"
CURE = "seed what splits or draws it: numpy.random.default_rng(0), random_state=0"


@dataclass(frozen=True, slots=True)
class Found:
    """What a proof has found.

    Attributes:
        plan: how calls of the kind are divided.
        outputs: of this call.
        why: it cannot be divided, as a verb phrase.
    """

    plan: Plan
    outputs: Any = None
    why: str = ""


def prove(
    original: Any,
    layer: Any,
    args: Any,
    kwargs: Any,
    world: Collectives,
    relied_on: Plan | None,
    built: Callable[[Any], None],
) -> Found:
    """Makes a call whole and divided, eagerly; every rank must come here.

    Args:
        original: the plain ``__call__``.
        layer: whose.
        args: of the call.
        kwargs: of the call.
        world: the collectives.
        relied_on: the plan by which calls of this kind were divided until now, or None.
        built: called when the layer's variables are there.

    Raises:
        NotOblivious: the ranks were given different data.
        RanksDiverged: a call that was proven before cannot be divided any more.
    """
    if len(set(world.allgather_object(_fingerprint(args, kwargs)))) > 1:
        raise NotOblivious(DIFFERENT_DATA, CURE)
    _build(original, layer, args, kwargs)
    built(layer)
    before, losses_before = State.of(layer), plans.counted(layer)
    with record.stop_recording(), scopes.entered(scopes.WHOLE):
        expected = original(layer, *args, **kwargs)
    if not layer.weights:
        before.restore(layer)
        return Found(OPENED)
    expected_losses = [losses[i] for losses, i in plans.added(layer, losses_before)]
    after = State.of(layer)
    why = "needs a fixed number of rows, or mixes rows"
    for plan in [relied_on] if relied_on is not None else plans.candidates(args, kwargs):
        _forget(layer, losses_before)
        before.restore(layer)
        outputs, found, why = _attempt(
            original, layer, args, kwargs, world, plan, expected, expected_losses, after
        )
        if all(world.allgather_object(found is not None)):
            assert found is not None
            return Found(found, outputs)
    if relied_on is not None:
        raise RanksDiverged(0, f"a call of {layer.name} that was divided over the ranks {why}")
    _forget(layer, losses_before)
    before.restore(layer)
    return Found(OPENED, why=why)


def _attempt(
    original: Any, layer: Any, args: Any, kwargs: Any, world: Collectives, plan: Plan, expected: Any,
    expected_losses: Sequence[Any], after: State,
) -> tuple[Any, Plan | None, str]:  # fmt: skip
    """Divides the call; its outputs and what the plan has become, or why it does not do. All ranks agree on how."""
    losses_before = plans.counted(layer)
    try:
        with world.attempt(f"a call of {layer.name} with parts of the batch"):
            own, part = plan.call(original, layer, args, kwargs, world)
    except AttemptFailed as failed:
        return None, None, f"{NO_PART} ({_sentence(failed)})"
    leaves, whole = tree.flatten(own), tree.flatten(expected)
    fits = len(leaves) == len(whole) and not any(_is_text(leaf) for leaf in leaves)
    modes = tuple(_mode(mine, it, part) for mine, it in zip(leaves, whole, strict=True)) if fits else ()
    if len(set(world.allgather_object((fits, modes)))) > 1 or not fits:
        return None, None, "returns what cannot be put together from parts of the batch"
    outputs = [
        rows.all_rows(mine, part, world) if mode == ROWS else mine
        for mine, mode in zip(leaves, modes, strict=True)
    ]
    same = [alike(a, b) for a, b in zip(outputs, whole, strict=True)]
    kinds, why = _losses(layer, losses_before, part, world, expected_losses)
    if not all(same):
        why = "mixes the rows of a batch, or draws random numbers that Keras does not know"
    elif not why and not after.alike(State.of(layer)):
        why = "keeps state that depends on all rows"
    proven = None if why else plans.known(plan, modes, kinds)
    return tree.pack_sequence_as(own, outputs), proven, why


def _sentence(error: Exception) -> str:
    """The sentence of an exception of Keras' or TensorFlow's that says what is wrong."""
    said = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    said = re.sub(r"^rank \d+ failed: ", "", said)
    said = re.sub(r"^Exception encountered when calling [^\n]*\n+", "", said).strip()
    sentence = re.split(r"(?<=\w)\.\s|\n", said)[0]
    return sentence if len(sentence) <= _SENTENCE else f"{sentence[:_SENTENCE]}…"


def _losses(
    layer: Any, before: dict[int, int], part: Any, world: Collectives, expected: Sequence[Any]
) -> tuple[list[str], str]:
    """How each added loss is put together, and puts it together; or why one cannot be."""
    places = list(plans.added(layer, before))
    if len(places) != len(expected):
        return [], "adds other losses for a part of the batch"
    kinds: list[str] = []
    for (losses, index), whole in zip(places, expected, strict=True):
        own = losses[index]
        for kind in (ROWS,) if len(own.shape) else (MEAN, SUM):
            put = plans.together(own, kind, part, world)
            if alike(put, whole):
                losses[index] = put
                kinds.append(kind)
                break
        else:
            return [], "adds a loss that is no sum over rows"
    return kinds, ""


def _mode(mine: Any, whole: Any, part: Any) -> str:
    """Whether an output has the batch on its first axis."""
    if not plans.has_rows(whole) or not plans.has_rows(mine):
        return SAME
    divided = rows.row_count(mine) == part.end - part.first and rows.row_count(whole) == part.total
    return ROWS if divided or tuple(mine.shape) != tuple(whole.shape) else SAME


def _is_text(leaf: Any) -> bool:
    return tf.is_tensor(leaf) and leaf.dtype == tf.string


def _build(original: Any, layer: Any, args: Any, kwargs: Any) -> None:
    """Makes the variables of a layer without running it, so that no call has changed them before it is proven."""
    if all(one.built for one in layer._flatten_layers()):
        return
    with scopes.entered(scopes.WHOLE):
        try:
            backend.compute_output_spec(lambda *a, **k: original(layer, *a, **k), *args, **kwargs)
        except Exception:
            return


def _forget(layer: Any, before: dict[int, int]) -> None:
    """Takes losses that a call has added away again."""
    for one in layer._flatten_layers():
        del one._losses[before.get(id(one), 0) :]


def _fingerprint(args: Any, kwargs: Any) -> int:
    """A number for what a call is given."""
    found = 0
    for leaf in tree.flatten((args, kwargs)):
        for part in _dense(leaf):
            found = zlib.crc32(f"{part.dtype}{part.shape}".encode(), found)
            data = repr(part.ravel()[:4096].tolist()).encode() if part.dtype == object else part.tobytes()
            found = zlib.crc32(data, found)
    return found


def _dense(leaf: Any) -> list[Any]:
    if isinstance(leaf, tf.RaggedTensor):
        return [leaf.flat_values.numpy(), *(lengths.numpy() for lengths in leaf.nested_row_lengths())]
    if isinstance(leaf, tf.SparseTensor):
        return [leaf.indices.numpy(), leaf.values.numpy()]
    if isinstance(leaf, (tf.Tensor, np.ndarray)):
        return [np.asarray(leaf)]
    return []
