"""pandas' options."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any


def _config() -> Any:
    """The book-keeping of pandas, which knows defaults and deprecations."""
    from pandas._config import config

    return config


def read() -> dict[str, Any]:
    """Every option that is not deprecated, by its whole name."""
    config = _config()
    found: dict[str, Any] = {}
    for name in config._registered_options:
        if name not in config._deprecated_options:
            *sections, last = name.split(".")
            place: Any = config._global_config
            for section in sections:
                place = place[section]
            found[name] = place[last]
    return found


def defaults() -> dict[str, Any]:
    """As pandas registers them."""
    config = _config()
    return {name: option.defval for name, option in config._registered_options.items()}


def write(values: Mapping[str, Any]) -> None:
    """Sets those that this version of pandas knows, one by one: each checks its own."""
    import pandas as pd

    config = _config()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, value in values.items():
            if name in config._registered_options:
                pd.set_option(name, value)
