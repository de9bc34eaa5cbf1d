"""Under which name a user's class or function is registered with Keras: it travels, so that saved files mean the same.

``@keras.saving.register_keras_serializable("package")`` writes into a table of the process, which a class that travels
by value would not be in. Never imports Keras to pickle.
"""

from __future__ import annotations

import sys
from typing import Any

from obl_magic.payload import main_module


def with_registration(obj: Any, reduced: Any) -> Any:
    """A pickle recipe that also registers what comes back, if the object is registered here."""
    keras = sys.modules.get("keras")
    if not isinstance(reduced, tuple) or len(reduced) != 6 or not hasattr(keras, "saving"):
        return reduced
    try:
        package, found, name = keras.saving.get_registered_name(obj).partition(">")  # type: ignore[union-attr]
    except Exception:  # Keras is being imported
        return reduced
    if not found:
        return reduced
    make, args, state, items, pairs, fill = reduced
    return make, args, (fill, state, package, name), items, pairs, _fill_and_register


def _fill_and_register(obj: Any, state: tuple[Any, ...]) -> None:
    """A rank's classes are those of its job; in another process what is registered already stays."""
    import keras

    fill, inner, package, name = state
    fill(obj, inner)
    known = keras.saving.get_registered_object(f"{package}>{name}")
    if known is None or (known is not obj and main_module.is_filled()):
        keras.saving.register_keras_serializable(package, name)(obj)
