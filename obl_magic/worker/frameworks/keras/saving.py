"""What a function saves is written once, by rank 0, and what it loads is found by every rank.

Where the path is a rank's own (a temporary folder), that rank writes its own copy of what the function saves, and is
sent rank 0's file when it loads what only rank 0 has, such as a callback's checkpoint.
"""

from __future__ import annotations

import functools
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.saving import saving_api
from tensorflow.python.saved_model import save as saved_model

from obl_magic.worker.engines.collectives import Collectives
from obl_magic.worker.frameworks.keras import scope as scopes
from obl_magic.worker.patching import Patches


class OneWriter:
    """Replaces the ways to save a model.

    Args:
        world: the collectives.
    """

    def __init__(self, world: Collectives) -> None:
        self._world = world
        self._in_callbacks = 0
        self._own: list[str] = []
        self._writing = self._reading = False

    def install(self, patches: Patches) -> None:
        """Replaces them."""
        for name in ("save", "save_weights", "export"):
            patches.replace(keras.Model, name, self._once)
        for function in (saving_api.save_model, saving_api.save_weights):
            patches.replace_function(function, self._once)
        patches.replace_function(saved_model.save, self._folder_once)
        patches.replace(keras.Model, "load_weights", self._found_by_all)
        patches.replace_function(saving_api.load_weights, self._found_by_all)
        patches.replace_function(saving_api.load_model, self._model_found_by_all)

    def own(self, path: str) -> None:
        """From now on callbacks of this rank save what lies at or below this path, or begins like it."""
        self._own.append(path.partition("{")[0])

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
                with scopes.entered(
                    scopes.WHOLE
                ):  # what is traced for one rank's file must not wait for the others
                    return self._save(original, model, filepath, *args, **kwargs)
            finally:
                self._writing = False

        return save

    def _folder_once(self, original: Any) -> Any:
        once = self._once(original)

        @functools.wraps(original)
        def save(obj: Any, export_dir: Any, *args: Any, **kwargs: Any) -> Any:
            return once(obj, export_dir, *args, **kwargs)

        return save

    def _save(self, original: Any, model: Any, filepath: Any, *args: Any, **kwargs: Any) -> Any:
        if self._in_callbacks:
            mine = self._world.rank == 0 or self._is_own(filepath)
            return original(model, filepath, *args, **kwargs) if mine else None
        saved = original(model, filepath, *args, **kwargs) if self._world.rank == 0 else None
        self._world.barrier()
        if self._world.rank != 0 and not (
            isinstance(filepath, (str, os.PathLike)) and os.path.exists(filepath)
        ):
            saved = original(model, filepath, *args, **kwargs)
        return saved

    def _is_own(self, filepath: Any) -> bool:
        return isinstance(filepath, (str, os.PathLike)) and os.path.abspath(filepath).startswith(
            tuple(self._own)
        )

    def _found_by_all(self, original: Any) -> Any:
        @functools.wraps(original)
        def load_weights(model: Any, filepath: Any, *args: Any, **kwargs: Any) -> Any:
            with self._readable(filepath) as path:
                return original(model, path, *args, **kwargs)

        return load_weights

    def _model_found_by_all(self, original: Any) -> Any:
        @functools.wraps(original)
        def load_model(filepath: Any, *args: Any, **kwargs: Any) -> Any:
            with self._readable(filepath) as path:
                return original(path, *args, **kwargs)

        return load_model

    @contextmanager
    def _readable(self, filepath: Any) -> Iterator[Any]:
        """A path from which this rank can read what rank 0 has at ``filepath``."""
        if self._in_callbacks or self._reading or not isinstance(filepath, (str, os.PathLike)):
            yield filepath
            return
        self._reading = True
        try:
            there = self._world.allgather_object(os.path.isfile(filepath))
            if all(there) or not there[0]:
                yield filepath
                return
            data = self._of_rank_0(filepath)
            if there[self._world.rank]:
                yield filepath
                return
            with tempfile.TemporaryDirectory() as folder:
                path = os.path.join(folder, os.path.basename(filepath))
                data.tofile(path)
                yield path
        finally:
            self._reading = False

    def _of_rank_0(self, filepath: Any) -> Any:
        """The bytes of rank 0's file, on every rank."""
        here = np.fromfile(filepath, np.uint8) if self._world.rank == 0 else None
        size = self._world.allgather_object(None if here is None else here.size)[0]
        sent = np.zeros(size, np.uint8) if here is None else here
        return self._world.broadcast([tf.convert_to_tensor(sent)])[0].numpy()
