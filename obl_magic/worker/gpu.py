"""The GPU memory of a rank. Never wakes TensorFlow up: a function that has not begun chooses its devices."""

from __future__ import annotations

import sys

_CONTEXT = "tensorflow.python.eager.context"


def gpu_memory_bytes() -> int | None:
    """Bytes that TensorFlow's allocator has handed out on the GPUs that this process sees.

    Returns:
        The sum over its GPUs; None where it has none, or has not begun to compute.

    Source: ``Context.get_memory_info`` of TensorFlow, which ``tf.config.experimental.get_memory_info`` calls.
    """
    module = sys.modules.get(_CONTEXT)
    context = module.context_safe() if module is not None and hasattr(module, "context_safe") else None
    if context is None or getattr(context, "_context_handle", None) is None:
        return None
    try:
        used = [
            int(context.get_memory_info(gpu.name)["current"]) for gpu in context.list_logical_devices("GPU")
        ]
    except (ValueError, RuntimeError, KeyError):  # an allocator that keeps no count
        return None
    return sum(used) if used else None
