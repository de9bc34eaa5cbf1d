"""The weights of a training that nobody disturbs, with which those of disturbed ones are compared."""

from __future__ import annotations

from typing import Any

import lasting
import numpy as np
import pytest

import obl_magic


def weights(tmp_path_factory: pytest.TempPathFactory, **options: Any) -> list[np.ndarray]:
    """Of :func:`lasting.two_fits`, in a home of its own.

    Args:
        tmp_path_factory: pytest's.
        **options: of the run.
    """
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("undisturbed")
        patch.setenv("OBLIVIOUS_HOME", str(folder))
        patch.chdir(folder)
        run = obl_magic.run(lasting.two_fits, args={"folder": str(folder)}, quiet=True, **options)
        found: list[np.ndarray] = run.value["weights"]
        return found
