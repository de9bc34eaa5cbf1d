"""What a rank must do otherwise while a ``tf.data`` pipeline is built: keep its order, and write files of its own.

Elements in the order in which threads finish, or random numbers in the order in which threads draw them, would be other
batches on each rank. A file cache, a snapshot or a saved
dataset has one writer, rank 0; what other ranks write goes to a folder of theirs and is gone with the run.

Nothing tunes itself while it runs: where ranks share processors, the end of an iterator may wait for its tuner as long
as there are between two tunings, up to a minute (``CancellationManager`` wakes it before it says why).
"""

from __future__ import annotations

import inspect
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorflow as tf

from obl_magic.worker.engines.collectives import Collectives
from obl_magic.worker.patching import Patches

_Dataset = tf.data.Dataset
IN_ORDER = (
    "a dataset asks for {what}: the ranks would read other batches, so it keeps its order here "
    "(as deterministic=True does)"
)
ONE_BY_ONE = (
    "a dataset's {what} draws random numbers in parallel: which element gets which would depend on threads, and the "
    "ranks would read other batches, so it takes one element after the other here (as without num_parallel_calls)"
)
_DRAWS = re.compile(
    r"(Random|Truncated|ParameterizedTruncated|Multinomial|NonDeterministicInts|SampleDistorted|Rng|Stateful(?!Partitioned)|Assign)"
)
"""Operations that draw a random number, or move a generator on: one of Keras or ``tf.random`` is a variable."""
OWN_FILES = (
    "dataset.{name} writes to {path} on rank 0; the other ranks write to folders of their own, "
    "which are removed at the end"
)


class Pipelines:
    """Replaces methods of ``tf.data.Dataset``.

    Args:
        world: the collectives.
        note: says a sentence about the run.
    """

    def __init__(self, world: Collectives, note: Callable[[str, str], None]) -> None:
        self._world, self._note = world, note
        self._folder: Path | None = None
        self._files = 0

    def install(self, patches: Patches) -> None:
        """Replaces the methods."""
        for name in ("map", "batch", "interleave"):
            patches.replace(_Dataset, name, self._in_order)
        patches.replace(_Dataset, "with_options", self._options)
        patches.replace(_Dataset, "__iter__", self._untuned)
        for name in ("cache", "snapshot", "save"):
            patches.replace(_Dataset, name, self._own_file)

    def leave(self) -> None:
        """Removes what this rank wrote for itself."""
        folder, self._folder = self._folder, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def _in_order(self, original: Any) -> Any:
        name, signature = original.__name__, inspect.signature(original)

        def method(dataset: Any, *args: Any, **kwargs: Any) -> Any:
            given = signature.bind(dataset, *args, **kwargs)
            if given.arguments.get("deterministic") is False:
                self._note("in-order", IN_ORDER.format(what=f"{name}(deterministic=False)"))
                given.arguments["deterministic"] = True
            made = original(*given.args, **given.kwargs)
            if name != "batch" and given.arguments.get("num_parallel_calls") is not None and _draws(made):
                self._note("one-by-one", ONE_BY_ONE.format(what=name))
                for option in ("num_parallel_calls", "deterministic"):
                    given.arguments.pop(option, None)
                made = original(*given.args, **given.kwargs)
            return made

        return _named(method, original)

    def _options(self, original: Any) -> Any:
        def with_options(dataset: Any, options: Any, *args: Any, **kwargs: Any) -> Any:
            if options.deterministic is False:
                self._note("in-order", IN_ORDER.format(what="options.deterministic = False"))
                options = tf.data.Options().merge(options)
                options.deterministic = True
            return original(dataset, options, *args, **kwargs)

        return _named(with_options, original)

    def _untuned(self, original: Any) -> Any:
        def __iter__(dataset: Any) -> Any:
            if tf.executing_eagerly() and dataset.options().autotune.enabled is None:
                options = tf.data.Options()
                options.autotune.enabled = False
                dataset = dataset.with_options(options)
            return original(dataset)

        return _named(__iter__, original)

    def _own_file(self, original: Any) -> Any:
        """Rank 0 writes where the user said; a file cache that is there already is read by all."""
        name = original.__name__
        signature = inspect.signature(original)
        where = "filename" if name == "cache" else "path"

        def method(dataset: Any, *args: Any, **kwargs: Any) -> Any:
            given = signature.bind(dataset, *args, **kwargs)
            path = _path(given.arguments.get(where, ""))
            if not path or not tf.executing_eagerly() or (name == "cache" and Path(f"{path}.index").exists()):
                return original(*given.args, **given.kwargs)
            self._note(f"own-files-{name}", OWN_FILES.format(name=name, path=path))
            if self._world.rank != 0:
                given.arguments[where] = self._another()
            made = original(*given.args, **given.kwargs)
            if name == "save":  # what follows may load it
                self._world.barrier()
            return made

        return _named(method, original)

    def _another(self) -> str:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix=f"obl-rank{self._world.rank}-"))
        self._files += 1
        return str(self._folder / f"{self._files}")


def _draws(dataset: Any) -> bool:
    """Whether the function that a dataset maps draws random numbers, by the operations it was traced to."""
    mapped = getattr(getattr(dataset, "_map_func", None), "function", None)
    if mapped is None:
        return False
    traced = mapped.graph.as_graph_def()
    nodes = [*traced.node, *(node for function in traced.library.function for node in function.node_def)]
    return any(_DRAWS.match(node.op) and not node.op.endswith("Dataset") for node in nodes)


def _path(given: Any) -> str:
    """A path that the user gave as text, bytes, path or tensor."""
    if tf.is_tensor(given):
        given = given.numpy() if hasattr(given, "numpy") else ""
    return os.fsdecode(given)


def _named(method: Any, original: Any) -> Any:
    method.__name__, method.__doc__ = original.__name__, original.__doc__
    return method
