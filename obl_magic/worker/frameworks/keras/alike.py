"""Whether two results of one computation are the same up to rounding: a call made whole, and made in parts."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

TOLERANCE = {tf.float16: 2e-2, tf.bfloat16: 5e-2, tf.float64: 1e-8}
"""Of a tensor's largest number, that rounding may cost."""
ROUNDING = 2e-4
"""The same for float32."""
TINY = 1e-7


def alike(mine: Any, whole: Any) -> bool:
    """Whether a tensor that was put together from parts is the one that was computed whole."""
    if isinstance(whole, tf.RaggedTensor):
        same_rows = isinstance(mine, tf.RaggedTensor) and mine.nested_row_lengths().__len__() == len(
            whole.nested_row_lengths()
        )
        return same_rows and alike(mine.flat_values, whole.flat_values)
    if not tf.is_tensor(whole):
        return bool(whole is mine or type(whole) is type(mine))
    if tuple(mine.shape) != tuple(whole.shape) or mine.dtype != whole.dtype:
        return False
    a, b = np.asarray(mine), np.asarray(whole)
    if not whole.dtype.is_floating and not whole.dtype.is_complex:
        return bool(np.array_equal(a, b))
    if a.size == 0:
        return True
    a, b = (
        a.astype(np.complex128 if whole.dtype.is_complex else np.float64),
        b.astype(np.complex128 if whole.dtype.is_complex else np.float64),
    )
    finite = np.isfinite(b)
    if not np.array_equal(finite, np.isfinite(a)):
        return False
    scale = np.max(np.abs(b[finite]), initial=0.0)
    off = np.max(np.abs(a[finite] - b[finite]), initial=0.0)
    return bool(off <= TOLERANCE.get(whole.dtype, ROUNDING) * scale + TINY)
