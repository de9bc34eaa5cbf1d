"""Shares calls of models: in the outermost one a rank computes its own rows, outside tensors are the whole batch's.

What a call may be divided into is proven before it is relied on (``proof.py``). A call that cannot be divided is
opened: the layers inside are tried instead, and what is left runs whole on every rank: right, not faster, and named
in a note.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import keras
import numpy as np
import tensorflow as tf
from keras import tree
from keras.src.backend.common import global_state
from keras.src.backend.common.stateless_scope import in_stateless_scope
from keras.src.backend.common.symbolic_scope import in_symbolic_scope
from keras.src.layers.layer import Layer

from obl_magic.worker.engines.collectives import Collectives
from obl_magic.worker.frameworks.keras import proof, user_code
from obl_magic.worker.frameworks.keras import scope as scopes
from obl_magic.worker.frameworks.keras.plans import OPENED, Plan, has_rows
from obl_magic.worker.frameworks.keras.state import SharedState
from obl_magic.worker.patching import Patches

_WHOLE = "the {kind} {name!r} {why}, so it runs whole on every rank: right, but not faster"
_ANY_ROWS = (
    "; it can be shared if it takes any number of rows: no batch size in its Input, -1 for it in reshapes, "
    "no stateful=True"
)


@dataclass(slots=True)
class _Opened:
    """A call that is not divided: why, which layers inside it are, which were opened in turn."""

    layer: Any
    why: str
    shared: list[Any] = field(default_factory=list)
    inside: list[_Opened] = field(default_factory=list)

    def innermost(self) -> list[_Opened]:
        """What really runs whole."""
        return [found for one in self.inside for found in one.innermost()] or [self]

    def all_shared(self) -> list[Any]:
        return [*self.shared, *(layer for one in self.inside for layer in one.all_shared())]


class ModelCalls:
    """Replaces ``Layer.__call__``.

    Args:
        world: the collectives.
        state: for broadcasting what is built.
        note: says a sentence about the run.
        proves: whether calls prove that they may be shared.
        progressed: called at each call outside traced functions.
    """

    def __init__(
        self,
        world: Collectives,
        state: SharedState,
        note: Callable[[str, str], None],
        proves: bool,
        progressed: Callable[[], None],
    ) -> None:
        self._world, self._state, self._note, self._progressed = world, state, note, progressed
        self._proves = proves
        self._plans: WeakKeyDictionary[Any, dict[Any, Plan]] = WeakKeyDictionary()
        self._calls: WeakKeyDictionary[Any, dict[Any, int]] = WeakKeyDictionary()
        self._sent: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
        self._opened: list[_Opened] = []
        self._proving = self._called = self.rows_are_unknown = False
        self.shared = 0
        self.seen = 0

    def install(self, patches: Patches) -> None:
        """Replaces the method."""
        patches.replace(Layer, "__call__", self._make)

    @contextmanager
    def called(self) -> Iterator[None]:
        """Within it a traced function is called; what is traced without a call (to be exported) is traced whole."""
        outer, self._called = self._called, True
        try:
            yield
        finally:
            self._called = outer

    @contextmanager
    def proving(self, rows_are_unknown: bool = False) -> Iterator[None]:
        """Within it every kind of call proves itself once, and functions run eagerly so that it can.

        Args:
            rows_are_unknown: what runs eagerly is traced at other times, for batches of any number of rows.
        """
        before = tf.config.functions_run_eagerly()
        outer, self._proving = self._proving, self._proves
        known, self.rows_are_unknown = self.rows_are_unknown, rows_are_unknown
        tf.config.run_functions_eagerly(True)
        try:
            yield
        finally:
            self._proving, self.rows_are_unknown = outer, known
            tf.config.run_functions_eagerly(before)

    @property
    def proves(self) -> bool:
        """Whether calls prove themselves."""
        return self._proves

    def _make(self, original: Any) -> Any:
        @functools.wraps(original)
        def __call__(layer: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._may_share(layer, args, kwargs):
                return original(layer, *args, **kwargs)
            return self._call(original, layer, args, kwargs)

        return __call__

    def _may_share(self, layer: Any, args: Any, kwargs: Any) -> bool:
        return (
            scopes.may_share()
            and (self._called or tf.executing_eagerly())
            and threading.current_thread() is threading.main_thread()
            and _computes(layer)
            and not in_stateless_scope()
            and not in_symbolic_scope()
            and _has_rows(args, kwargs)
            and not _in_a_pipeline()
        )

    def _call(self, original: Any, layer: Any, args: Any, kwargs: Any) -> Any:
        self.seen += 1
        kind = _kind(layer, args, kwargs)
        plan = self._plans.setdefault(layer, {}).get(kind)
        if tf.executing_eagerly():
            self._progressed()
            self._send(layer)
            if self._is_due(layer, kind, plan):
                return self._prove(original, layer, args, kwargs, kind, plan)
        if plan is None:
            plan = Plan.assumed(args, kwargs) if not self._proves else OPENED
        if plan is OPENED:
            return self._inside(original, layer, args, kwargs)
        self.shared += 1
        return plan.run(original, layer, args, kwargs, self._world)

    def _is_due(self, layer: Any, kind: Any, plan: Plan | None) -> bool:
        """The first call of a kind, and calls 2, 4, 8, …; all in a step that is run to prove."""
        if not self._proves:
            return False
        counts = self._calls.setdefault(layer, {})
        counts[kind] = counts.get(kind, 0) + 1
        return plan is not OPENED and (
            plan is None or self._proving or (counts[kind] & (counts[kind] - 1)) == 0
        )

    def _prove(self, original: Any, layer: Any, args: Any, kwargs: Any, kind: Any, plan: Plan | None) -> Any:
        found = proof.prove(original, layer, args, kwargs, self._world, plan, self._built)
        self._plans[layer][kind] = found.plan
        if found.plan is OPENED:
            return self._open(original, layer, args, kwargs, found.why)
        self.shared += 1
        if self._opened:
            self._opened[-1].shared.append(layer)
        return found.outputs

    def _built(self, layer: Any) -> None:
        """The variables of a layer that was just built are made rank 0's."""
        self._send(layer)

    def _open(self, original: Any, layer: Any, args: Any, kwargs: Any, why: str) -> Any:
        """Runs a call with the calls inside it shared, and says what could not be."""
        if not layer.weights:
            return self._inside(original, layer, args, kwargs)
        opened = _Opened(layer, why)
        self._opened.append(opened)
        try:
            outputs = self._inside(original, layer, args, kwargs)
        finally:
            self._opened.pop()
        if self._opened:
            self._opened[-1].inside.append(opened)
        else:
            self._say_whole(opened)
        return outputs

    def _say_whole(self, outermost: _Opened) -> None:
        shared = _parameters(outermost.all_shared()) / max(1, _parameters([outermost.layer]))
        share = f" ({shared:.0%} of the weights of {outermost.layer.name!r} are in calls that are shared)"
        for one in outermost.innermost():
            kind, name = type(one.layer).__name__, one.layer.name
            way_out = _ANY_ROWS if one.why.startswith(proof.NO_PART) else ""
            self._note(f"whole:{name}", _WHOLE.format(kind=kind, name=name, why=one.why) + share + way_out)

    def _inside(self, original: Any, layer: Any, args: Any, kwargs: Any) -> Any:
        """Runs a call that is not divided itself. Sharing what a layer of Keras' own calls (a cell) is not worth it."""
        if isinstance(layer, keras.Model) or not user_code.of_keras(type(layer)):
            return original(layer, *args, **kwargs)
        with scopes.entered(scopes.WHOLE):
            return original(layer, *args, **kwargs)

    def _send(self, layer: Any) -> None:
        """Gives every rank rank 0's variables, once they are there."""
        variables = layer.variables
        if self._sent.get(layer) != len(variables):
            self._state.broadcast_new(variables)
            self._sent[layer] = len(variables)


def _computes(layer: Any) -> bool:
    """Whether a call is worth sharing: it has weights, or will have; layers that prepare data are cheap."""
    if type(layer).__module__.startswith("keras.src.layers.preprocessing"):
        return False
    return bool(layer.weights) or not layer.built or not all(one.built for one in layer._flatten_layers())


def _has_rows(args: Any, kwargs: Any) -> bool:
    leaves = tree.flatten((args, kwargs))
    if any(isinstance(leaf, keras.KerasTensor) for leaf in leaves):
        return False
    first = next((leaf for leaf in leaves if has_rows(leaf)), None)
    return first is not None and first.shape[0] != 0


def _kind(layer: Any, args: Any, kwargs: Any) -> Any:
    """What calls of one kind have in common: how they are called, and types and ranks of what they are given."""
    context = global_state.get_global_attribute("current_call_ctx")
    training = kwargs.get("training")
    if training is None and context is not None:
        training = context.get_value("training")
    leaves = tree.flatten((args, {k: v for k, v in kwargs.items() if k != "training"}))
    return (bool(training), tuple(sorted(kwargs)), tuple(_described(leaf) for leaf in leaves))


def _described(leaf: Any) -> Any:
    if hasattr(leaf, "shape") and hasattr(leaf, "dtype"):
        rank = getattr(leaf.shape, "rank", None) if tf.is_tensor(leaf) else len(leaf.shape)
        return str(tf.as_dtype(leaf.dtype).name), rank
    return leaf if isinstance(leaf, (bool, int, str, type(None))) else type(leaf).__name__


def _in_a_pipeline() -> bool:
    """Whether code is being traced for ``tf.data``, whose functions run beside the step and on their own."""
    if tf.executing_eagerly():
        return False
    graph = tf.compat.v1.get_default_graph()
    while graph is not None:
        if str(getattr(graph, "name", "")).startswith("Dataset_"):
            return True
        graph = getattr(graph, "outer_graph", None)
    return False


def _parameters(layers: Sequence[Any]) -> int:
    found = {id(weight): int(np.prod(weight.shape)) for layer in layers for weight in layer.weights}
    return sum(found.values())
