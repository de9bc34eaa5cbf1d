"""How Keras objects made of a user's own classes are pickled. Never imports Keras to pickle.

Keras pickles a model as its saved file, which names classes but does not hold them; a process where they are
not registered cannot load it (not even the notebook's own). So the classes and functions travel beside the
file, which itself is never copied into the pickle. What has no configuration is in ``keras_models``.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pickle import PickleBuffer
from types import FunctionType
from typing import Any

from obl_magic.payload import keras_models, keras_state


def reduce(obj: object, protocol: int) -> tuple[Any, ...] | None:
    """The pickle recipe of a Keras object, with the custom classes and functions that it is made of.

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
    if _is_the_users(obj, custom, keras) and not keras_models.has_configuration(obj, custom):
        return keras_models.recipe(obj)
    recipe = obj.__reduce_ex__(protocol)
    if not isinstance(recipe, tuple) or len(recipe) != 2:
        return None  # the user's own recipe with a state: theirs to get right
    rebuild, args = recipe
    if getattr(rebuild, "__name__", "") == "_unpickle_model":
        args = tuple(map(_uncopied, args))
    return _restore, (custom, rebuild, args, keras_state.of(obj))


def _is_the_users(obj: Any, custom: dict[str, Any], keras: Any) -> bool:
    """Whether a layer or model has classes of the user's in it, and no recipe of the user's."""
    reduces = getattr(type(obj), "__reduce__", None)
    return bool(custom) and isinstance(obj, keras.Layer) and reduces is keras.Layer.__reduce__


def _restore(
    custom: dict[str, Any],
    rebuild: Callable[..., Any],
    args: tuple[Any, ...],
    state: keras_state.State | None,
) -> Any:
    import keras

    with keras.saving.custom_object_scope(custom):
        return keras_state.restore(rebuild(*args), state)


def _uncopied(part: Any) -> Any:
    """Keras' saved file, held in memory, as one whose contents the pickler need not copy; anything else as it is."""
    return _File(part.getbuffer()) if type(part) is io.BytesIO else part


class _File(io.RawIOBase):
    """A file whose contents are memory of somebody else's.

    Args:
        memory: its contents.
    """

    def __init__(self, memory: Any) -> None:
        super().__init__()
        self._memory, self._at = memoryview(memory), 0

    def __reduce__(self) -> tuple[Any, ...]:
        return _File, (PickleBuffer(self._memory),)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at}.get(whence, len(self._memory)))
        return self._at

    def readinto(self, buffer: Any) -> int:
        piece = self._memory[self._at : self._at + len(buffer)]
        memoryview(buffer)[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)


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
