"""On which ranks a callback that writes runs, and where it writes there: what it writes is written once.

Keras' own run on rank 0 only, and on a rank to which the path is its own (a temporary folder). A user's subclass may
predict or decide, so it runs everywhere; where the path is rank 0's, the others write to a folder nobody looks into.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import keras

from obl_magic.worker.engines.collectives import Collectives
from obl_magic.worker.patching import Patches

_PATHS = {
    "ModelCheckpoint": "filepath", "CSVLogger": "filename", "TensorBoard": "log_dir",
    "BackupAndRestore": "backup_dir", "OrbaxCheckpoint": "directory", "RemoteMonitor": "root",
}  # fmt: skip
"""Keras' callbacks that write, and the attribute that says where."""

WRITERS = {
    getattr(keras.callbacks, name): path for name, path in _PATHS.items() if hasattr(keras.callbacks, name)
}

EVERYWHERE = (
    "callbacks of the function's own run on every rank: {names}; what they write or send by hand is done {size} times "
    "(what Keras' callbacks, model.save and report() write is written once)"
)


class Writers:
    """Arranges the callbacks of a fit, an evaluation or a prediction.

    Args:
        world: the collectives.
        note: says a sentence about the run.
        own: is told of paths that are this rank's alone.
    """

    def __init__(
        self, world: Collectives, note: Callable[[str, str], None], own: Callable[[str], None]
    ) -> None:
        self._world, self._note, self._own = world, note, own
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._moved: list[tuple[Any, str, Any]] = []
        self._said: set[str] = set()

    def install(self, patches: Patches) -> None:
        """Lets a monitor that a user has extended send from rank 0 only."""
        if self._world.rank != 0 and hasattr(keras.callbacks, "RemoteMonitor"):
            patches.replace(keras.callbacks.RemoteMonitor, "on_epoch_end", _silent)

    def arranged(self, given: Sequence[Any]) -> list[Any]:
        """Those of the callbacks that run on this rank; where they write is arranged too."""
        if self._world.size == 1:
            return list(given)
        self._say(given)
        places = [_place(callback) for callback in given]
        if not any(places):
            return list(given)
        (places_of_0, *_) = self._world.allgather_object(places)
        if self._world.rank == 0:
            return list(given)
        return [
            callback
            for callback, place, there in zip(given, places, places_of_0, strict=False)
            if not place or self._runs(callback, place, is_own=place != there)
        ]

    def back(self) -> None:
        """A fit is over: its callbacks name the paths again that they were given."""
        while self._moved:
            callback, name, value = self._moved.pop()
            setattr(callback, name, value)

    def _runs(self, callback: Any, place: str, is_own: bool) -> bool:
        if is_own:
            self._own(place)
            return True
        if is_keras_own(callback):
            return False
        if not isinstance(
            callback, keras.callbacks.ModelCheckpoint
        ):  # saves by the model, which knows its rank
            self._move(callback, place)
        return True

    def _move(self, callback: Any, place: str) -> None:
        """Lets a callback write elsewhere: each of its paths below the place."""
        self._folder = self._folder or tempfile.TemporaryDirectory(prefix="obl-unread-")
        elsewhere = os.path.join(self._folder.name, str(len(self._moved)), os.path.basename(place))
        os.makedirs(os.path.dirname(elsewhere))
        for name, value in list(vars(callback).items()):
            if isinstance(value, (str, os.PathLike)) and os.path.abspath(value).startswith(place):
                self._moved.append((callback, name, value))
                setattr(callback, name, elsewhere + os.path.abspath(value).removeprefix(place))

    def _say(self, given: Sequence[Any]) -> None:
        names = {type(callback).__name__ for callback in given if not is_keras_own(callback)}
        if names - self._said:
            self._said |= names
            said = EVERYWHERE.format(names=", ".join(sorted(self._said)), size=self._world.size)
            self._note("callbacks-everywhere", said)


def is_keras_own(callback: Any) -> bool:
    """Whether Keras ships the callback's class."""
    return type(callback).__module__.startswith("keras.")


def _place(callback: Any) -> str:
    """Where a callback writes, as an absolute path; "" if it is none that writes."""
    for kind, name in WRITERS.items():
        if isinstance(callback, kind):
            place = getattr(callback, name, "")
            return os.path.abspath(place) if isinstance(place, (str, os.PathLike)) and place else ""
    return ""


def _silent(original: Any) -> Any:
    def on_epoch_end(callback: Any, epoch: int, logs: Any = None) -> None:
        return None

    return on_epoch_end
