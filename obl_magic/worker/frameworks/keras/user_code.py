"""Says what in a compiled model is more than Keras' own code for each row by itself: it decides how steps are shared.

With Keras' own code only, the data of a step are shared. With anything named here, the model's calls are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
from keras import tree
from keras.src.losses.losses import LossFunctionWrapper
from keras.src.metrics.reduction_metrics import MeanMetricWrapper
from keras.src.models.functional import Functional

_STEPS = ("train_step", "test_step", "predict_step", "compute_loss", "compute_metrics", "_compute_loss")
_ACROSS_ROWS = (keras.losses.Dice, keras.losses.Tversky, keras.losses.Circle)
"""Keras' own losses whose value for a row depends on the others."""
_OF_LIBRARIES = ("keras", "tensorflow")
NAMED = 3
"""Reasons that are told; the others are counted."""


def reasons(model: Any) -> list[str]:
    """What makes a step of the model's more than Keras' own, in words; empty if nothing does."""
    found = [*_of_steps(model), *_of_layers(model), *_of_compiling(model)]
    return list(dict.fromkeys(found))


def told(found: list[str]) -> str:
    """Reasons as one phrase."""
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return ", ".join(found[:NAMED]) + more


def _of_steps(model: Any) -> Iterator[str]:
    for name in _STEPS:
        method = getattr(model, name, None)
        if method is not None and not of_keras(getattr(method, "__func__", method)):
            yield f"the {name} of {type(model).__name__}"


def _of_layers(model: Any) -> Iterator[str]:
    for layer in model._flatten_layers():
        kind = type(layer).__name__
        if isinstance(layer, keras.layers.Lambda) or not _calls_of_keras(layer):
            yield f"the call of {kind} {layer.name!r}"
        activation = getattr(layer, "activation", None)
        if callable(activation) and not _of_libraries(activation):
            yield f"the activation of {layer.name!r}"
        regularizer = layer.activity_regularizer
        if regularizer is not None and not of_keras(type(regularizer)):
            yield f"the activity regularizer of {layer.name!r}"
        if _on_first_axis(layer):
            yield f"{kind} {layer.name!r} over the batch's axis"
        if getattr(layer, "stateful", False):
            yield f"the state that {layer.name!r} keeps from batch to batch"
        if isinstance(layer, Functional):
            yield from _of_graph(layer)


def _of_graph(model: Any) -> Iterator[str]:
    if any(one.shape and one.shape[0] is not None for one in tree.flatten(model.inputs)):
        yield f"the fixed batch size of {model.name!r}"
    for operation in model.operations:
        if not isinstance(operation, keras.Layer):
            yield f"the operation {operation.name!r} of {model.name!r}"


def _of_compiling(model: Any) -> Iterator[str]:
    optimizer = getattr(model, "optimizer", None)
    for one in (optimizer, getattr(optimizer, "inner_optimizer", None)):
        if one is not None and not of_keras(type(one)):
            yield f"the optimizer {type(one).__name__}"
    if not getattr(model, "compiled", False):
        return
    for loss in tree.flatten(getattr(model._compile_loss, "_user_loss", None)):
        if isinstance(loss, str) or loss is None:
            continue
        if isinstance(loss, _ACROSS_ROWS) or not of_keras(_function_of(loss, LossFunctionWrapper, "fn")):
            yield f"the loss {_name(loss)}"
    compiled = model._compile_metrics
    given = [
        *tree.flatten(getattr(compiled, "_user_metrics", None)),
        *tree.flatten(getattr(compiled, "_user_weighted_metrics", None)),
        *model.metrics,
    ]
    for metric in _leaves(given):
        if isinstance(metric, str) or metric is None:
            continue
        if not of_keras(_function_of(metric, MeanMetricWrapper, "_fn")):
            yield f"the metric {_name(metric)}"


def _leaves(metrics: list[Any]) -> Iterator[Any]:
    for metric in metrics:
        inner = getattr(metric, "metrics", None)
        if isinstance(inner, list) and type(metric).__name__ == "CompileMetrics":
            yield from _leaves(inner)
        else:
            yield metric


def _function_of(thing: Any, wrapper: type, name: str) -> Any:
    """What computes a loss or a metric: the function it wraps, its class, or itself."""
    if type(thing) is wrapper or (isinstance(thing, wrapper) and of_keras(type(thing))):
        return getattr(thing, name)
    return type(thing) if isinstance(thing, (keras.Loss, keras.Metric)) else thing


def _calls_of_keras(layer: Any) -> bool:
    """Whether calling a layer runs Keras' own code; a class of the user's may inherit all of it."""
    return all(
        of_keras(getattr(type(layer), name, None)) for name in ("call", "__call__", "add_loss", "build")
    )


def _on_first_axis(layer: Any) -> bool:
    if not of_keras(type(layer)) or isinstance(layer, keras.layers.Normalization):
        return False
    axes = getattr(layer, "axis", None) if hasattr(layer, "axis") else getattr(layer, "axes", None)
    return any(axis == 0 for axis in tree.flatten(axes) if isinstance(axis, int))


def of_keras(thing: Any) -> bool:
    """Whether a class, function or method is Keras' own."""
    return str(getattr(thing, "__module__", "")).split(".")[0] == "keras"


def _of_libraries(thing: Any) -> bool:
    thing = thing if hasattr(thing, "__module__") else type(thing)
    return str(getattr(thing, "__module__", "")).split(".")[0] in _OF_LIBRARIES


def _name(thing: Any) -> str:
    return str(getattr(thing, "name", None) or getattr(thing, "__name__", None) or type(thing).__name__)
