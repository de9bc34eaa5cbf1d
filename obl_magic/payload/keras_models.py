"""Models and layers that Keras cannot remake from a configuration: the class, what it was made with, its weights.

Most tutorials write ``class Model(keras.Model)`` with an ``__init__`` of their own and no ``get_config``. Keras saves
such a model and cannot load it. Here it is made again by its class, which travels, with the arguments that it was
made with: as recorded on a rank, else as its attributes of the same names say. Never imports Keras to pickle.
"""

from __future__ import annotations

import contextlib
import inspect
import random
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

_made_with: weakref.WeakKeyDictionary[Any, tuple[tuple[Any, ...], dict[str, Any]]] = (
    weakref.WeakKeyDictionary()
)


def record_arguments() -> None:
    """From now on what layers and models of the user's classes are made with is remembered, as long as they live."""
    import keras

    for kind in (keras.Layer, keras.Model):
        made = kind.__new__

        def make(cls: Any, *args: Any, _made: Any = made, **kwargs: Any) -> Any:
            new = _made(cls, *args, **kwargs)
            if is_users(type(new)) and (args or kwargs or new not in _made_with):
                _made_with[new] = args, kwargs
            return new

        kind.__new__ = staticmethod(make)


def is_users(kind: type) -> bool:
    """Whether a class is none of Keras' own."""
    return (kind.__module__ or "").split(".")[0] not in ("keras", "tensorflow")


def has_configuration(obj: Any, custom: dict[str, Any]) -> bool:
    """Whether Keras can remake a layer or model from its configuration, with all its variables.

    Args:
        obj: the layer or model.
        custom: the classes and functions that it is made of.
    """
    import keras

    try:
        with _nothing_drawn():
            config = keras.saving.serialize_keras_object(obj)
            again = keras.saving.deserialize_keras_object(config, custom_objects=custom, safe_mode=False)
        return type(again) is type(obj) and _shapes(again) == _shapes(obj)
    except Exception:  # of the user's code, or Keras' own
        return False


def recipe(obj: Any) -> tuple[Any, ...]:
    """The pickle recipe of a layer or model that has no configuration.

    Raises:
        TypeError: nobody knows what it was made with.
    """
    args, kwargs = _arguments(obj)
    builds = [layer.get_build_config() if layer.built else None for layer in _family(obj)]
    weights = [variable.numpy() for variable in obj.weights]
    return _remake, (type(obj), args, kwargs, obj.name, builds, weights, _compiled(obj))


def _remake(
    kind: type[Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    name: str,
    builds: list[Any],
    weights: list[Any],
    compiled: tuple[dict[str, Any], list[Any]] | None,
) -> Any:
    with _nothing_drawn():
        obj = kind(*args, **kwargs)
        with contextlib.suppress(Exception):  # some classes do not allow it
            obj.name = name
        _build(obj, builds)
    if _shapes(obj) != [tuple(array.shape) for array in weights]:
        raise TypeError(
            f"{kind.__qualname__} came back with {len(obj.weights)} weights for {len(weights)}; "
            "give it a get_config and a build, or return model.get_weights()"
        )
    for variable, array in zip(obj.weights, weights, strict=True):
        variable.assign(array)
    for layer, config in zip(_family(obj), builds, strict=False):
        layer.built = layer.built or config is not None
    if compiled is not None:
        with contextlib.suppress(Exception):  # it predicts all the same
            _compile(obj, *compiled)
    return obj


def _build(obj: Any, builds: list[Any]) -> None:
    """Makes the variables of an object and of all layers inside it, which may come into being meanwhile."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number, config in enumerate(builds):
            family = _family(obj)
            if config and number < len(family) and not family[number].built:
                family[number].build_from_config(config)


def _compile(obj: Any, given: dict[str, Any], slots: list[Any]) -> None:
    made = given["optimizer"]
    obj.compile(**{**given, "optimizer": made[0].from_config(made[1]) if isinstance(made, tuple) else made})
    if obj.optimizer is None or not slots:
        return
    obj.optimizer.build(obj.trainable_variables)
    if [tuple(v.shape) for v in obj.optimizer.variables] == [tuple(array.shape) for array in slots]:
        for variable, array in zip(obj.optimizer.variables, slots, strict=True):
            variable.assign(array)


def _compiled(obj: Any) -> tuple[dict[str, Any], list[Any]] | None:
    """(what ``compile`` was given, the optimizer's variables), where it is Keras' own ``compile``."""
    import keras

    given = getattr(getattr(obj, "_compile_config", None), "config", None)
    if not getattr(obj, "compiled", False) or given is None or type(obj).compile is not keras.Model.compile:
        return None
    optimizer = given.get("optimizer")
    if isinstance(optimizer, keras.Optimizer):  # its variables come beside it
        optimizer = type(optimizer), optimizer.get_config()
    given = {**given, "optimizer": optimizer}
    return given, [variable.numpy() for variable in getattr(obj.optimizer, "variables", ())]


def _arguments(obj: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What an object was made with."""
    import keras

    if obj in _made_with:
        return _made_with[obj]
    if type(obj) is keras.Sequential:
        return (list(obj.layers),), {}
    kwargs, missing = {}, []
    for name, parameter in list(inspect.signature(type(obj).__init__).parameters.items())[1:]:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        held = [vars(obj)[key] for key in (name, f"_{name}") if key in vars(obj)]
        if held:
            kwargs[name] = held[0]
        elif parameter.default is parameter.empty:
            missing.append(name)
    if missing:
        raise TypeError(
            f"a {type(obj).__qualname__} was made with {', '.join(missing)}, which no attribute of that name holds, "
            "and it has no get_config"
        )
    return (), kwargs


def _family(obj: Any) -> list[Any]:
    return list(obj._flatten_layers())


def _shapes(obj: Any) -> list[tuple[int, ...]]:
    return [tuple(variable.shape) for variable in obj.weights]


@contextlib.contextmanager
def _nothing_drawn() -> Iterator[None]:
    """Objects made within the block take no random numbers and no names from those that the user makes."""
    from keras.src.backend.common import global_state

    drawn = random.getstate()
    names = dict(global_state.get_global_attribute("object_name_uids") or {})
    try:
        yield
    finally:
        random.setstate(drawn)
        kept = global_state.get_global_attribute("object_name_uids")
        if kept is not None:
            kept.clear()
            kept.update(names)
