"""Keras' own settings: number types, the epsilon, image layout, and what it says while it works."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

DEFAULTS: dict[str, Any] = {
    "floatx": "float32", "epsilon": 1e-7, "image_data_format": "channels_last", "dtype_policy": None,
    "flash_attention": None, "traceback_filtering": True, "interactive_logging": True,
    "max_epochs": None, "max_steps_per_epoch": None, "safe_mode": None,
}  # fmt: skip

_ATTRIBUTES = {
    "flash_attention": "flash_attention",
    "traceback_filtering": "traceback_filtering",
    "interactive_logging": "interactive_logging",
    "safe_mode": "safe_mode_saving",
}
"""Entries of Keras' global state, whose absence means the default."""


def read() -> dict[str, Any]:
    """As they stand in the calling thread.

    A policy that nobody has set or asked for is None: it follows ``floatx`` when it is first asked for, and then stays.
    """
    import keras
    from keras.src.backend.common import global_state

    policy = global_state.get_global_attribute("dtype_policy")
    found: dict[str, Any] = {
        "floatx": keras.config.floatx(),
        "epsilon": keras.config.epsilon(),
        "image_data_format": keras.config.image_data_format(),
        "dtype_policy": None if policy is None else _as_text_or_config(policy),
    }
    for name in ("max_epochs", "max_steps_per_epoch"):
        if hasattr(keras.config, name):
            found[name] = getattr(keras.config, name)()
    for name, attribute in _ATTRIBUTES.items():
        value = global_state.get_global_attribute(attribute)
        found[name] = DEFAULTS[name] if value is None else value
    return found


def _as_text_or_config(policy: Any) -> Any:
    """Its name where that says all; else, of a quantised or a user's own policy, what Keras makes it from."""
    import keras

    plain = type(policy) is keras.dtype_policies.DTypePolicy
    return policy.name if plain else keras.dtype_policies.serialize(policy)


def defaults() -> dict[str, Any]:
    """As Keras comes; whether somebody has asked for the policy already, by making a layer, makes no difference."""
    asked = read()["dtype_policy"] == DEFAULTS["floatx"]
    return {**DEFAULTS, "dtype_policy": DEFAULTS["floatx"] if asked else None}


def write(values: Mapping[str, Any]) -> None:
    """Sets those given."""
    import keras
    from keras.src.backend.common import global_state

    for name in ("floatx", "epsilon", "image_data_format", "max_epochs", "max_steps_per_epoch"):
        setter: Callable[[Any], None] | None = getattr(keras.config, f"set_{name}", None)
        if name in values and setter is not None:
            setter(values[name])
    if "dtype_policy" in values:
        policy = values["dtype_policy"]
        if isinstance(policy, (str, dict)):
            policy = keras.dtype_policies.get(policy)
        global_state.set_global_attribute("dtype_policy", policy)
    for name, attribute in _ATTRIBUTES.items():
        if name in values:
            global_state.set_global_attribute(attribute, values[name])
