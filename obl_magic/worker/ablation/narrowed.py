"""A ``PyDataset`` whose batches lack some features. Everything else about it is the user's dataset's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from obl_magic.worker import features


class Narrowed(keras.utils.PyDataset):
    """Another dataset's batches with some features only.

    Args:
        inner: the user's dataset; it is not changed.
        names: of the features its batches have. keep: positions of those that stay.
    """

    def __init__(self, inner: Any, names: Sequence[features.Name], keep: Sequence[int]) -> None:
        super().__init__(
            workers=inner.workers,
            use_multiprocessing=inner.use_multiprocessing,
            max_queue_size=inner.max_queue_size,
        )
        self._inner, self._names, self._keep = inner, tuple(names), tuple(keep)

    def __getitem__(self, index: int) -> Any:
        return features.narrowed_batch(self._inner[index], self._names, self._keep)

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
