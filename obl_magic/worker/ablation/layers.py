"""Takes layers or inputs out of a Keras model and joins what is left. The user's model is not changed.

Every layer that stays is made anew from its configuration, under its own name, so that its weights get the shapes they
now need. Where the shapes are as before, the values are copied: pretrained and adapted layers stay what they were, and
an ablated run begins with the very weights of the base run. The others are drawn anew.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

import keras
from keras import tree
from keras.src.layers.merging.base_merge import Merge
from keras.src.models.functional import Functional, functional_like_constructor
from keras.src.saving.serialization_lib import SafeModeScope

from obl_magic.errors import NotOblivious, UsageProblem
from obl_magic.worker.ablation.features import unknown

Shape = tuple[int | None, ...]

_OTHER_MODEL = "leave the part out in a function of its own (models=NAME) or behind a parameter (flags=NAME)"
_ADDITIVE = ("Add", "Multiply", "Maximum", "Minimum")
"""Operations of two tensors of which one alone can stand for both."""


class _DoesNotFit(Exception):
    """A layer, and why it cannot be where it now would be."""

    def __init__(self, layer: Any, reason: str) -> None:
        super().__init__(layer, reason)
        self.layer, self.reason = layer, reason


@dataclass(slots=True)
class _Surgery:
    """What one operation on a model takes away, and what it has made so far.

    Attributes:
        gone: names of layers to leave out.
        lost: names of inputs to leave out.
        shapes: new shapes of inputs by name.
        twins: the new layer or operation by the old one's id.
        pairs: (old, new) layers.
    """

    gone: Collection[str] = ()
    lost: Collection[str] = ()
    shapes: dict[str, Shape] = field(default_factory=dict)
    twins: dict[int, Any] = field(default_factory=dict)
    pairs: list[tuple[Any, Any]] = field(default_factory=list)


def layer_names(model: Any) -> list[str]:
    """Names of a model's layers in order, without its inputs; a model inside it counts as one layer."""
    return [layer.name for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]


def without_layers(model: Any, names: Sequence[str], sample: Shape | None = None) -> Any:
    """A new model without some layers, all taken out together.

    Args:
        model: a Sequential or functional model, built or not, compiled or not; a compiled one gives a compiled
            one.
        names: of the layers.
        sample: shape of a batch, to try a Sequential model with that has no input yet.

    Raises:
        UsageProblem: no such layer, or what is left would not fit: names the layer and Keras' reason.
        NotOblivious: the model cannot be operated on: a subclassed one, or a layer that cannot be made anew.
    """
    _check_operable(model)
    _check_names(model, names)
    try:
        if isinstance(model, keras.Sequential) and not model.built:
            _try_unbuilt(model, names, sample)
        twin = _operated(model, _Surgery(gone=frozenset(names)))
        _check_outputs(model, twin, names)
    except _DoesNotFit as misfit:
        raise _refusal(f"layers={','.join(names)}", misfit) from None
    return twin


def fitted_to(model: Any, before: int | None, after: int | None, removed: Sequence[str]) -> Any:
    """The model for data that lacks some features; itself if it needs no change.

    An ``Input`` named like a removed feature is taken out, with what depended on it alone; layers that join tensors
    get fewer of them. Otherwise each input whose last axis is as wide as the data was becomes narrower.

    Args:
        model: any Keras model.
        before: features the data had, or None if that is not known.
        after: features it has.
        removed: names or positions of those taken away.

    Raises:
        UsageProblem: what is left would not fit. NotOblivious: the model cannot be operated on.
    """
    inputs = _inputs(model)
    lost = {name for key, name, _ in inputs if key in removed or name in removed}
    if lost:
        surgery = _Surgery(lost=lost)
    else:
        fewer = len(removed) if before is None or after is None else before - after
        shapes = {
            name: (*size[:-1], size[-1] - fewer)
            for _, name, size in inputs
            if len(size) > 1 and size[-1] is not None and size[-1] > fewer and before in (None, size[-1])
        }
        if not shapes:
            return model
        surgery = _Surgery(shapes=shapes)
    _check_operable(model)
    try:
        if len(lost) == len(inputs):
            raise _DoesNotFit(model, "no input would be left")
        twin = _operated(model, surgery)
        _check_outputs(model, twin, removed)
    except _DoesNotFit as misfit:
        raise _refusal(f"features={','.join(removed)}", misfit) from None
    return twin


def input_width(model: Any) -> int | None:
    """Last axis of a model's only fixed input, or None where there is no such thing."""
    sizes = [size for _, _, size in _inputs(model)]
    return sizes[0][-1] if len(sizes) == 1 and len(sizes[0]) > 1 else None


# --- what can be asked of a model


def _check_operable(model: Any) -> None:
    if not isinstance(model, (keras.Sequential, Functional)):
        raise NotOblivious(
            f"{type(model).__name__} is a subclassed model, whose layers are joined by its own code",
            _OTHER_MODEL,
        )
    if not _can_be_made(model):
        raise NotOblivious(
            f"{type(model).__name__} is a subclassed model with a constructor of its own, so it cannot be made anew",
            _OTHER_MODEL,
        )


def _can_be_made(model: Any) -> bool:
    """Whether a model is one whose class takes layers, or inputs and outputs, and nothing else."""
    if type(model) is keras.Sequential:
        return True
    return isinstance(model, Functional) and functional_like_constructor(type(model))


def _check_names(model: Any, names: Sequence[str]) -> None:
    there = layer_names(model)
    inputs = {layer.name for layer in _input_layers(model)}
    for name in names:
        if name in inputs:
            raise UsageProblem(
                f"layers={name}, which is an input",
                f"one of {', '.join(there)}",
                "take away features (features=NAME); a model's inputs follow them",
            )
        if name not in there:
            raise unknown("layers", name, there)
    if set(there) <= set(names):
        raise UsageProblem(f"layers={','.join(names)}", "some layer that is left", "take away fewer of them")


def _refusal(got: str, misfit: _DoesNotFit) -> UsageProblem:
    where = f"{misfit.layer.name} (a {type(misfit.layer).__name__})"
    return UsageProblem(
        got,
        f"something without which the model still fits together; {where} {misfit.reason}",
        f"take away what belongs together (groups=[a,b]), or {_OTHER_MODEL}",
    )


def _input_layers(model: Any) -> list[Any]:
    """The input layers of a model in order; of a Sequential model without a fixed input, none."""
    if isinstance(model, keras.Sequential):
        return [layer for layer in model._layers[:1] if isinstance(layer, keras.layers.InputLayer)]
    if isinstance(model, Functional):
        return [tensor._keras_history.operation for tensor in model.inputs]
    return []


def _inputs(model: Any) -> list[tuple[str, str, Shape]]:
    """(key among the inputs, name, shape) of each fixed input."""
    layers = _input_layers(model)
    keys = [layer.name for layer in layers]
    if isinstance(model, Functional):
        keys = [str(path[-1]) if path else "" for path, _ in tree.flatten_with_path(model.input)]
        keys = [key if isinstance(model.input, dict) else "" for key in keys]
    return [(key, layer.name, tuple(layer.batch_shape)) for key, layer in zip(keys, layers, strict=True)]


# --- the operation


def _operated(model: Any, surgery: _Surgery) -> Any:
    with _as_they_are(model):
        twin = _rebuilt(model, surgery)
    _keep_values(surgery.pairs)
    if not model.trainable:
        twin.trainable = False
    if model.compiled:
        _compile_like(model, twin)
    return twin


def _rebuilt(model: Any, surgery: _Surgery) -> Any:
    make = _rebuilt_sequential if isinstance(model, keras.Sequential) else _rebuilt_functional
    return make(model, surgery)


def _rebuilt_sequential(model: Any, surgery: _Surgery) -> Any:
    stays = [layer for layer in model.layers if layer.name not in surgery.gone]
    inputs = [_new_input(layer, surgery) for layer in _input_layers(model)]
    twin = type(model)(name=model.name)
    for layer in [*inputs, *(_twin(layer, surgery) for layer in stays)]:
        twin.add(layer, rebuild=False)
    if inputs or model.built:
        try:
            twin._maybe_rebuild()
        except Exception as error:
            raise _first_misfit(stays, inputs[0].batch_shape, error) from error
    return twin


def _first_misfit(layers: Sequence[Any], shape: Shape, error: Exception) -> _DoesNotFit:
    """Which layer of a stack does not fit, found by putting one on top of the other again."""
    x = keras.Input(batch_shape=shape)
    spare = _Surgery()
    for layer in layers:
        try:
            x = _twin(layer, spare)(x)
        except Exception as cause:
            return _DoesNotFit(layer, _one_line(cause))
    return _DoesNotFit(layers[-1], _one_line(error))


def _rebuilt_functional(model: Any, surgery: _Surgery) -> Any:
    tensors: dict[int, Any] = {}
    for tensor in model.inputs:
        layer = tensor._keras_history.operation
        if layer.name not in surgery.lost:
            tensors[id(tensor)] = _new_input(layer, surgery).output
    for depth in sorted(model._nodes_by_depth, reverse=True):
        for node in model._nodes_by_depth[depth]:
            if not node.is_input:
                _call(node, tensors, surgery)
    inputs = _remaining(model._inputs_struct, tensors)
    for tensor in model.outputs:
        if id(tensor) not in tensors:
            raise _DoesNotFit(
                tensor._keras_history.operation, "makes an output from what was taken away alone"
            )
    outputs = tree.map_structure(lambda tensor: tensors[id(tensor)], model._outputs_struct)
    return type(model)(inputs, outputs, name=model.name)


def _remaining(inputs: Any, tensors: dict[int, Any]) -> Any:
    """The structure of inputs without those that are gone."""
    if isinstance(inputs, dict):
        left = {key: _remaining(value, tensors) for key, value in inputs.items()}
        return {key: value for key, value in left.items() if value is not None}
    if isinstance(inputs, (list, tuple)):
        return type(inputs)(one for value in inputs if (one := _remaining(value, tensors)) is not None)
    return tensors.get(id(inputs))


def _call(node: Any, tensors: dict[int, Any], surgery: _Surgery) -> None:
    """Calls the new layer as the old one was called, on the new tensors; records what comes out."""
    old = [tensor for tensor in node.input_tensors if id(tensor) in tensors]
    if not old and node.input_tensors:
        return  # it depended on what is gone alone
    operation = node.operation
    if operation.name in surgery.gone and isinstance(operation, keras.layers.Layer):
        tensors[id(node.outputs[0])] = _only(node, [tensors[id(tensor)] for tensor in old])
        return
    args, kwargs = node.arguments.convert(lambda x: tensors.get(id(x), x))
    if len(old) < len(node.input_tensors):
        left = _fewer(node, tensors)
        if len(left) == 1 and (isinstance(operation, Merge) or type(operation).__name__ in _ADDITIVE):
            tensors[id(node.outputs[0])] = left[0]
            return
        args = (left, *args[1:])
    try:
        made = _twin(operation, surgery)(*args, **kwargs)
    except (UsageProblem, NotOblivious):
        raise
    except Exception as error:
        raise _DoesNotFit(operation, _one_line(error)) from error
    for was, now in zip(node.outputs, tree.flatten(made), strict=True):
        tensors[id(was)] = now


def _only(node: Any, tensors: list[Any]) -> Any:
    """The one tensor that can stand for a layer that is left out."""
    different = {id(tensor): tensor for tensor in tensors}
    if len(different) > 1:
        raise _DoesNotFit(
            node.operation, f"joins {len(different)} tensors, and none of them can stand for all"
        )
    if len(node.outputs) > 1:
        raise _DoesNotFit(node.operation, f"gives {len(node.outputs)} tensors for one")
    return tensors[0]


def _fewer(node: Any, tensors: dict[int, Any]) -> list[Any]:
    """The tensors that are left of those a node joins."""
    operation, first = node.operation, node.arguments.args[0] if node.arguments.args else None
    if isinstance(first, (list, tuple)) and len(node.input_tensors) == len(first):
        return [tensors[id(one)] for one in first if id(one) in tensors]
    if type(operation).__name__ in _ADDITIVE:
        return [tensors[id(one)] for one in node.input_tensors if id(one) in tensors]
    raise _DoesNotFit(operation, "needs what was taken away, beside other tensors")


# --- layers made anew


def _new_input(layer: Any, surgery: _Surgery) -> Any:
    config = layer.get_config()
    config["batch_shape"] = surgery.shapes.get(layer.name, tuple(layer.batch_shape))
    return type(layer).from_config(config)


def _twin(operation: Any, surgery: _Surgery) -> Any:
    """The new layer or operation for an old one; always the same, so that shared layers stay shared."""
    known = surgery.twins.get(id(operation))
    if known is None:
        known = surgery.twins[id(operation)] = _made_anew(operation, surgery)
        if not isinstance(operation, (keras.Sequential, Functional)):
            surgery.pairs.append((operation, known))
    return known


def _made_anew(operation: Any, surgery: _Surgery) -> Any:
    if not isinstance(operation, keras.layers.Layer):
        return _same_operation(operation)
    if _can_be_made(operation):
        return _rebuilt(operation, _Surgery(twins=surgery.twins, pairs=surgery.pairs))
    try:
        layer = _from_config(operation)
    except Exception as error:
        raise NotOblivious(
            f"layer {operation.name} (a {type(operation).__name__}) cannot be made anew: {_reason(error)}",
            "give its class a get_config() that returns what its constructor takes",
        ) from error
    if layer.name != operation.name:  # a constructor that takes no name
        layer.name = operation.name
    return layer


def _same_operation(operation: Any) -> Any:
    """A stateless operation that knows nothing of the old graph."""
    twin = object.__new__(type(operation))
    vars(twin).update(vars(operation), _inbound_nodes=[], _outbound_nodes=[])
    return twin


def _from_config(layer: Any) -> Any:
    config = layer.get_config()
    if isinstance(layer, keras.layers.Lambda):  # a function that was written down has lost its globals
        base = {key: config[key] for key in ("name", "trainable", "dtype") if key in config}
        own = {"output_shape": layer._output_shape, "mask": layer.mask, "arguments": layer.arguments}
        return type(layer)(layer.function, **own, **base)
    for key in config:
        value = getattr(layer, key, None)
        if isinstance(value, FunctionType) and _is_users(value):
            config[key] = value
    config.update(_adapted(layer, config))
    return type(layer).from_config(config)


def _adapted(layer: Any, config: dict[str, Any]) -> dict[str, Any]:
    """The words a layer has learnt from data, which it does not write down as its configuration."""
    if config.get("vocabulary", ...) is None and layer.vocabulary_size() > 0:
        words = layer.get_vocabulary(include_special_tokens=False)
        return (
            {"vocabulary": [str(word) if isinstance(word, str) else int(word) for word in words]}
            if words
            else {}
        )
    return {}


def _is_users(thing: Any) -> bool:
    return str(getattr(thing, "__module__", "")).partition(".")[0] != "keras"


@contextmanager
def _as_they_are(model: Any) -> Iterator[None]:
    """Configurations may name the user's classes and functions, wherever those were defined."""
    things: dict[str, Any] = {}
    for layer in model._flatten_layers():
        for thing in (type(layer), *(type(value) for value in vars(layer).values()), *vars(layer).values()):
            if isinstance(thing, (type, FunctionType)) and _is_users(thing):
                things[thing.__name__] = thing
    with keras.saving.custom_object_scope(things), SafeModeScope(False), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The object being serialized includes a `lambda`")
        yield


def _keep_values(pairs: Sequence[tuple[Any, Any]]) -> None:
    """Gives new layers the values of the old ones where all their shapes are as before."""
    for old, new in pairs:
        mine, his = getattr(new, "variables", []), getattr(old, "variables", [])
        if [tuple(v.shape) for v in mine] == [tuple(v.shape) for v in his]:
            for ours, theirs in zip(mine, his, strict=True):
                ours.assign(theirs)
            if isinstance(old, keras.layers.Normalization) and his:
                new.finalize_state()
        elif isinstance(old, keras.layers.Normalization) and _has_adapted(old):
            raise _DoesNotFit(
                old,
                f"was adapted to {his[0].shape[-1]} columns; adapt it in model_fn, to what dataset_fn returns",
            )


def _has_adapted(layer: Any) -> bool:
    mean, variance = (keras.ops.convert_to_numpy(v) for v in (layer.adapt_mean, layer.adapt_variance))
    return bool((mean != 0).any() or (variance != 1).any())


# --- what must hold afterwards


def _check_outputs(model: Any, twin: Any, names: Sequence[str]) -> None:
    """Raises unless the new model gives what the old one gave."""
    if not _has_outputs(model):
        return
    for old, new in zip(model.outputs, twin.outputs, strict=True):
        if tuple(old.shape) != tuple(new.shape):
            raise _DoesNotFit(
                old._keras_history.operation,
                f"made the output of shape {tuple(old.shape)}, which would be {tuple(new.shape)}",
            )


def _has_outputs(model: Any) -> bool:
    return isinstance(model, Functional) or getattr(model, "_functional", None) is not None


def _try_unbuilt(model: Any, names: Sequence[str], sample: Shape | None) -> None:
    """Tries an operation on a Sequential model that has no input yet."""
    if sample is None:
        if model.layers[-1].name in names:
            raise _DoesNotFit(
                model.layers[-1], "makes the output, whose shape is not known before the model is built"
            )
        return
    with _as_they_are(model):
        whole, less = (_given_shape(model, gone, sample) for gone in ((), names))
    _check_outputs(whole, less, names)


def _given_shape(model: Any, gone: Sequence[str], sample: Shape) -> Any:
    stays = [layer for layer in model.layers if layer.name not in gone]
    surgery = _Surgery()
    try:
        return keras.Sequential(
            [keras.Input(batch_shape=sample), *(_twin(layer, surgery) for layer in stays)]
        )
    except (UsageProblem, NotOblivious):
        raise
    except Exception as error:
        raise _first_misfit(stays, sample, error) from error


def _reason(error: BaseException) -> str:
    """Keras' own reason, one line of it."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith("Exception encountered when calling")]
    return (telling or lines or [type(error).__name__])[0][:300]


def _one_line(error: BaseException) -> str:
    return f"does not fit: {_reason(error)}"


# --- compiled as before


def _compile_like(model: Any, twin: Any) -> None:
    """Compiles the new model as the old one: the same losses, an optimizer and metrics of its own."""
    if type(model).compile is not keras.Model.compile or not hasattr(model, "_compile_config"):
        raise NotOblivious(
            f"{type(model).__name__} has a compile of its own, which cannot be repeated for an ablated model",
            "compile the model in the training function, after model_fn()",
        )
    settings = dict(model._compile_config.config)
    settings["optimizer"] = _own_optimizer(settings["optimizer"])
    for key in ("metrics", "weighted_metrics"):
        settings[key] = tree.map_structure(_own_metric, settings[key])
    twin.compile(**settings)


def _own_optimizer(optimizer: Any) -> Any:
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        return optimizer
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    kinds = {
        type(thing) for one in (optimizer, inner) for thing in (one, getattr(one, "_learning_rate", None))
    }
    things = {kind.__name__: kind for kind in kinds if _is_users(kind)}
    try:
        with keras.saving.custom_object_scope(things):
            return type(optimizer).from_config(optimizer.get_config())
    except Exception as error:
        if not optimizer.built:
            return optimizer
        raise NotOblivious(
            f"optimizer {optimizer.name} (a {type(optimizer).__name__}) cannot be made anew: {_reason(error)}",
            "compile the model in the training function, after model_fn()",
        ) from error


def _own_metric(metric: Any) -> Any:
    """A metric of the same settings, or the very same where its class does not tell them."""
    if not isinstance(metric, keras.metrics.Metric):
        return metric
    remake: Callable[..., Any] = type(metric).from_config
    try:
        return remake(metric.get_config())
    except Exception:
        return metric
