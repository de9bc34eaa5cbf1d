"""Distribution-oblivious training functions in a notebook: the same function alone or on N MPI ranks, unchanged.

``%load_ext obl_magic`` gives the magics; :func:`run`, :func:`search` and :func:`ablate` are the same from Python.
Importing this package imports neither TensorFlow nor IPython nor mpi4py.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from obl_magic.worker.report import checkpoint, report

if TYPE_CHECKING:
    from obl_magic.api.run import run, verify
    from obl_magic.api.study import ablate, search
    from obl_magic.runs.run import Run
    from obl_magic.study.ablation_result import AblationResult
    from obl_magic.study.search_result import Study

__version__ = "0.1.0"
__all__ = [
    "AblationResult",
    "Run",
    "Study",
    "__version__",
    "ablate",
    "checkpoint",
    "load_ipython_extension",
    "report",
    "run",
    "search",
    "unload_ipython_extension",
    "verify",
]

_LAZY = {
    "run": "obl_magic.api.run",
    "verify": "obl_magic.api.run",
    "search": "obl_magic.api.study",
    "ablate": "obl_magic.api.study",
    "Run": "obl_magic.runs.run",
    "Study": "obl_magic.study.search_result",
    "AblationResult": "obl_magic.study.ablation_result",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'obl_magic' has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def load_ipython_extension(ipython: Any) -> None:
    """Called by ``%load_ext obl_magic``."""
    from obl_magic.notebook import magics  # it imports IPython

    magics.load(ipython)


def unload_ipython_extension(ipython: Any) -> None:
    """Called by ``%unload_ext obl_magic``: the magics go."""
    from obl_magic.notebook import magics  # it imports IPython

    magics.unload(ipython)
