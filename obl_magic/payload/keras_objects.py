"""How Keras objects made of a user's own classes are pickled. Never imports Keras to pickle.

Keras pickles a model as its saved file, which names classes but does not hold them; a process where they are
not registered cannot load it (not even the notebook's own). So the classes and functions travel beside the
file.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any


def reduce(obj: object, protocol: int) -> tuple[Any, ...] | None:
    """The pickle recipe of a Keras object that is made of custom classes or functions.

    Args:
        obj: any object.
        protocol: the pickle protocol, an integer.

    Returns:
        A ``__reduce__`` tuple, or None where the object's own recipe will do.
    """
    keras = sys.modules.get("keras")
    kinds = _kinds(keras)
    if not kinds or not isinstance(obj, kinds):
        return None
    custom = _custom_objects(obj, kinds, keras)
    if not custom:
        return None
    recipe = obj.__reduce_ex__(protocol)
    if not isinstance(recipe, tuple) or len(recipe) != 2:
        return None  # the user's own recipe with a state: theirs to get right
    return _restore, (custom, *recipe)


def _restore(custom: dict[str, Any], rebuild: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    import keras

    with keras.saving.custom_object_scope(custom):
        return rebuild(*args)


def _kinds(keras: Any) -> tuple[type, ...]:
    # a half-imported Keras lacks some of them: then there is no object of it to send either
    names = ("Layer", "Optimizer", "Metric", "Loss")
    return tuple(kind for kind in (getattr(keras, name, None) for name in names) if isinstance(kind, type))


def _custom_objects(root: object, kinds: tuple[type, ...], keras: Any) -> dict[str, Any]:
    """Classes and functions that Keras does not ship, in a Keras object and all Keras objects inside it."""
    custom: dict[str, Any] = {}
    seen: set[int] = set()
    todo: list[Any] = [root]
    while todo:
        value = todo.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, kinds):
            _note(type(value), custom, keras)
            todo += list(vars(value).values())
        elif isinstance(value, FunctionType):
            _note(value, custom, keras)
        elif isinstance(value, dict):
            todo += list(value.values())
        elif isinstance(value, (list, tuple, set)):
            todo += list(value)
    return custom


def _note(found: Any, custom: dict[str, Any], keras: Any) -> None:
    module = (found.__module__ or "").split(".")[0]
    if module in ("keras", "tensorflow"):
        return
    custom[keras.saving.get_registered_name(found)] = found
    custom.setdefault(found.__name__, found)
