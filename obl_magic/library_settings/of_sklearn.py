"""scikit-learn's configuration, of the calling thread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

DEFAULTS: dict[str, Any] = {
    "assume_finite": False, "working_memory": 1024, "print_changed_only": True, "display": "diagram",
    "pairwise_dist_chunk_size": 256, "enable_cython_pairwise_dist": True, "array_api_dispatch": False,
    "transform_output": "default", "enable_metadata_routing": False, "skip_parameter_validation": False,
    "sparse_interface": "spmatrix",
}  # fmt: skip


def read() -> dict[str, Any]:
    """All of it."""
    import sklearn

    return dict(sklearn.get_config())


def write(values: Mapping[str, Any]) -> None:
    """Sets what this version knows."""
    import sklearn

    known = sklearn.get_config()
    sklearn.set_config(**{name: value for name, value in values.items() if name in known})
