"""How NumPy arrays are pickled that NumPy itself would copy into the pickle. Never imports NumPy to pickle.

Those that are not in one piece are copied once, outside the pickle; dates travel as the numbers they are, and arrays
of a subclass without a recipe of its own, such as ``numpy.memmap``, as the plain array they look at.
"""

from __future__ import annotations

import sys
from typing import Any


def reduce(obj: Any, least_bytes: int) -> Any:
    """The pickle recipe of a large array.

    Args:
        obj: any object.
        least_bytes: what counts as large.

    Returns:
        A ``__reduce__`` tuple, or None where the object's own recipe will do.
    """
    numpy: Any = sys.modules.get("numpy")
    ndarray = getattr(numpy, "ndarray", None)
    if ndarray is None or not isinstance(obj, ndarray) or obj.nbytes < least_bytes or obj.dtype.hasobject:
        return None
    kind = type(obj)
    if kind is ndarray and obj.dtype.kind in "mM":  # dates show nobody their memory
        return _seen_as, (obj.view(f"{obj.dtype.byteorder}i8"), obj.dtype)
    if kind is ndarray:
        in_one_piece = obj.flags.c_contiguous or obj.flags.f_contiguous
        return None if in_one_piece else numpy.ascontiguousarray(obj).__reduce_ex__(5)
    recipes = ("__reduce__", "__reduce_ex__", "__setstate__", "__getstate__")
    if any(getattr(kind, name, None) is not getattr(ndarray, name, None) for name in recipes):
        return None
    return _as, (kind, obj.view(ndarray))


def _seen_as(array: Any, dtype: Any) -> Any:
    return array.view(dtype)


def _as(kind: type[Any], array: Any) -> Any:
    return array.view(kind)
