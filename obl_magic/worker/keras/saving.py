"""What a function saves by itself is written once: rank 0 writes, the others wait until it is there.

Where the path is a rank's own (a temporary folder), that rank writes its own copy. Callbacks that save run at rank 0's
pace and are not waited for here; the end of their epoch is.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras

from obl_magic.worker.collectives import Collectives
from obl_magic.worker.keras.patching import Patches


class OneWriter:
    """Replaces the ways to save a model.

    Args:
        world: the collectives.
    """

    def __init__(self, world: Collectives) -> None:
        self._world = world
        self._in_callbacks = 0
        self._writing = False

    def install(self, patches: Patches) -> None:
        """Replaces them."""
        for name in ("save", "save_weights", "export"):
            patches.replace(keras.Model, name, self._once)
        for module, name in (
            (keras.saving, "save_model"),
            (keras.models, "save_model"),
            (keras.saving, "save_weights"),
        ):
            if hasattr(module, name):
                patches.replace(module, name, self._once)

    @contextmanager
    def in_callbacks(self) -> Iterator[None]:
        """Within it, what is saved is saved by a callback."""
        self._in_callbacks += 1
        try:
            yield
        finally:
            self._in_callbacks -= 1

    def _once(self, original: Any) -> Any:
        @functools.wraps(original)
        def save(model: Any, filepath: Any, *args: Any, **kwargs: Any) -> Any:
            if self._writing:
                return original(model, filepath, *args, **kwargs)
            self._writing = True
            try:
                return self._save(original, model, filepath, *args, **kwargs)
            finally:
                self._writing = False

        return save

    def _save(self, original: Any, model: Any, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        if self._in_callbacks:
            return original(model, filepath, *args, **kwargs) if self._world.rank == 0 else None
        saved = original(model, filepath, *args, **kwargs) if self._world.rank == 0 else None
        self._world.barrier()
        if self._world.rank != 0 and not (
            isinstance(filepath, (str, os.PathLike)) and os.path.exists(filepath)
        ):
            saved = original(model, filepath, *args, **kwargs)
        return saved
