"""How a function under ``tf.function`` is pickled: as its Python code. Never imports TensorFlow to pickle.

Called once, it holds graphs that cannot be pickled; on the other side it is traced anew at its first call.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from typing import Any

from obl_magic.payload.reach import is_own_code

_OPTIONS = ("input_signature", "_autograph", "_jit_compile", "_reduce_retracing")


def reduce(obj: Any, own: Collection[str]) -> tuple[Any, ...] | str | None:
    """The pickle recipe of a ``tf.function``.

    Args:
        obj: any object.
        own: names of modules that travel by value.

    Returns:
        A ``__reduce__`` value, or None for every other object.
    """
    if type(obj).__name__ != "Function" or not type(obj).__module__.startswith("tensorflow."):
        return None
    if "tensorflow" not in sys.modules or not hasattr(obj, "python_function"):
        return None
    if not is_own_code(obj, own):
        return str(obj.__qualname__)  # an installed package's: by name
    # read from its attributes, because TensorFlow gives no public way to ask
    options = {name.lstrip("_"): getattr(obj, name, None) for name in _OPTIONS}
    return _trace_anew, (obj.python_function, options)


def _trace_anew(function: Any, options: dict[str, Any]) -> Any:
    import tensorflow as tf

    return tf.function(function, **options)
