"""A ``PyDataset`` whose batches lack some features. Everything else about it is the user's dataset's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras


class Narrowed(keras.utils.PyDataset):
    """Another dataset's batches with some features only.

    Args:
        inner: the user's dataset; it is not changed.
        narrow: takes the features out of one of its batches.
    """

    def __init__(self, inner: Any, narrow: Callable[[Any], Any]) -> None:
        super().__init__(
            workers=inner.workers,
            use_multiprocessing=inner.use_multiprocessing,
            max_queue_size=inner.max_queue_size,
        )
        self._inner, self._narrow = inner, narrow

    def __getitem__(self, index: int) -> Any:
        return self._narrow(self._inner[index])

    def __len__(self) -> int:
        return len(self._inner)

    @property
    def num_batches(self) -> int | None:
        """Number of batches, or None for a dataset without end."""
        return self._inner.num_batches

    def on_epoch_begin(self) -> None:
        self._inner.on_epoch_begin()

    def on_epoch_end(self) -> None:
        self._inner.on_epoch_end()

    def __getattr__(self, name: str) -> Any:
        """The user's own attributes, which a training function may use."""
        if name.startswith("_"):  # while it is being unpickled there is no inner dataset yet
            raise AttributeError(name)
        return getattr(self._inner, name)
