"""TensorFlow's switches that change numbers, or how they come about. Threads and devices are the run's own matter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEFAULTS: dict[str, Any] = {
    "run_functions_eagerly": False, "data.debug_mode": False, "soft_device_placement": True,
    "op_determinism": False, "tensor_float_32_execution": True, "optimizer.jit": False,
    "optimizer.experimental_options": {}, "log_device_placement": False,
}  # fmt: skip


def read() -> dict[str, Any]:
    """As they stand, also before TensorFlow has looked for its devices."""
    import tensorflow as tf
    from tensorflow.python.data.ops import debug_mode
    from tensorflow.python.eager import context
    from tensorflow.python.framework import config

    here = context.context()
    placement = here._soft_device_placement
    return {
        "run_functions_eagerly": bool(tf.config.functions_run_eagerly()),
        "data.debug_mode": bool(debug_mode.DEBUG_MODE),
        "soft_device_placement": True if placement is None else bool(placement),
        "op_determinism": bool(config.is_op_determinism_enabled()),
        "tensor_float_32_execution": bool(tf.config.experimental.tensor_float_32_execution_enabled()),
        "optimizer.jit": bool(here._optimizer_jit),
        "optimizer.experimental_options": dict(here._optimizer_experimental_options),
        "log_device_placement": bool(here._log_device_placement),
    }


def write(values: Mapping[str, Any]) -> None:
    """Sets those given that are not so already: some of them make TensorFlow forget what it has compiled."""
    now = read()
    for name, value in values.items():
        if name in now and now[name] != value:
            _write_one(name, value)


def _write_one(name: str, value: Any) -> None:
    import tensorflow as tf
    from tensorflow.python.data.ops import debug_mode
    from tensorflow.python.eager import context
    from tensorflow.python.framework import config

    if name == "run_functions_eagerly":
        tf.config.run_functions_eagerly(value)
    elif name == "data.debug_mode":
        debug_mode.toggle_debug_mode(value)
    elif name == "soft_device_placement":
        tf.config.set_soft_device_placement(value)
    elif name == "op_determinism":
        (config.enable_op_determinism if value else config.disable_op_determinism)()
    elif name == "tensor_float_32_execution":
        tf.config.experimental.enable_tensor_float_32_execution(value)
    elif name == "optimizer.jit":
        tf.config.optimizer.set_jit(value)
    elif name == "optimizer.experimental_options":
        context.context()._optimizer_experimental_options = {}
        tf.config.optimizer.set_experimental_options(value)
    elif name == "log_device_placement":
        tf.debugging.set_log_device_placement(value)
