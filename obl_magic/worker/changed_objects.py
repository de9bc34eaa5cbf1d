"""Notices which of the notebook's objects a function has changed on a rank, where no change comes back from.

Objects are looked at when the job is loaded and again when the function has returned: small ones whole, large ones in
places. Costs some milliseconds, imports nothing, changes nothing, and never raises.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from types import FunctionType, ModuleType
from typing import Any

from obl_magic.payload.reach import is_code, is_own_code, walk

LIMIT_S = 0.05
"""After so many seconds no further object is looked at."""
WHOLE_BYTES = 1 << 22
"""Of an array that is larger, so many bytes are looked at, spread over it."""
PIECES = 256
ELEMENTS = 1000
DEPTH = 4
SHOWN = 5

_ATOMS = (str, bytes, int, float, complex, bool, type(None))
_Mark = Any


class ChangedObjects:
    """The objects that one job brings along, as they are now.

    Args:
        function: of the job.
        given: the arguments that it is called with.
    """

    def __init__(self, function: Callable[..., Any], given: Mapping[str, Any]) -> None:
        self._function, self._given = function, given
        self._own = (function.__module__,)
        self._all = True
        self._before: dict[str, tuple[Any, _Mark]] = {}
        with contextlib.suppress(Exception):
            self._before = self._looked_at()

    def names(self, returned: Any) -> tuple[str, ...]:
        """Those that are not as they were, but for what the function returns.

        Args:
            returned: what it has returned; an object in it, or in a container in it, is on its way back.
        """
        try:
            after = self._looked_at(set(self._before))
            back = {id(part) for part in _parts(returned)}
        except Exception:
            return ()
        changed = []
        for path, (value, mark) in after.items():
            was = self._before.get(path)
            if (was is None or was[1] != mark) and id(value) not in back:
                changed.append(path.rsplit(" -> ", 1)[-1])
        return tuple(dict.fromkeys(changed))

    def _looked_at(self, only: set[str] | None = None) -> dict[str, tuple[Any, _Mark]]:
        """(the value, its mark) of each data object that the function reaches by a name, by path.

        Args:
            only: of these, and of those that are new; None: of all, until the time is up.
        """
        until = time.perf_counter() + LIMIT_S
        found: dict[str, tuple[Any, _Mark]] = {}
        for reached in walk(self._function, dict(self._given), self._own):  # type: ignore[arg-type]
            if only is None and time.perf_counter() > until:
                self._all = False
                break
            if reached.inside or is_code(reached.value) or reached.path in found:
                continue
            if only is None or reached.path in only or self._all:
                with contextlib.suppress(Exception):
                    found[reached.path] = (reached.value, self._mark(reached.value))
        return found

    def _mark(self, value: Any) -> _Mark:
        own = is_own_code(type(value), self._own) and not isinstance(value, (FunctionType, ModuleType))
        return (
            (type(value).__name__, mark(vars(value))) if own and hasattr(value, "__dict__") else mark(value)
        )


def sentence(names: tuple[str, ...]) -> str:
    """What a run says of objects that the function has changed."""
    shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    them = "it" if len(names) == 1 else "them"
    return (
        f"the function changed {shown} on the ranks only: the notebook's own stay as they were; "
        f"to have {them} as changed, return {them}"
    )


def mark(value: Any, depth: int = DEPTH) -> _Mark:
    """What is equal of two values as long as nothing was changed; a stranger's object counts as itself."""
    if isinstance(value, float):
        return repr(value)  # NaN equals itself
    if isinstance(value, _ATOMS):
        return value
    if depth == 0:
        return type(value).__name__
    if isinstance(value, Mapping) and isinstance(value, dict):
        items = itertools.islice(value.items(), ELEMENTS)
        return "dict", len(value), tuple((mark(key, depth - 1), mark(item, depth - 1)) for key, item in items)
    if isinstance(value, (list, tuple, deque)):
        return type(value).__name__, len(value), tuple(mark(item, depth - 1) for item in _some(value))
    if isinstance(value, (set, frozenset)):
        return "set", len(value), hash(frozenset(item for item in value if isinstance(item, _ATOMS)))
    if isinstance(value, bytearray):
        return "bytearray", len(value), zlib.crc32(value)
    return _of_a_library(value, depth)


def _of_a_library(value: Any, depth: int) -> _Mark:
    numpy, pandas, keras = (sys.modules.get(name) for name in ("numpy", "pandas", "keras"))
    if _is(value, numpy, "ndarray"):
        return _of_array(value)
    if _is(value, pandas, "DataFrame"):
        columns = [value.iloc[:, place] for place in range(min(value.shape[1], ELEMENTS))]
        return "DataFrame", value.shape, tuple(map(str, value.columns)), tuple(map(_of_series, columns))
    if _is(value, pandas, "Series"):
        return _of_series(value)
    if any(_is(value, keras, kind) for kind in ("Layer", "Metric", "Optimizer")):
        return _of_variables(value)
    if _is(value, keras, "Variable") or _is(value, sys.modules.get("tensorflow"), "Variable"):
        return _of_array(value.numpy())
    if is_own_code(type(value), ()) and not isinstance(value, (FunctionType, ModuleType)):
        return type(value).__name__, mark(dict(getattr(value, "__dict__", {})), depth - 1)
    return type(value).__name__


def _is(value: Any, module: Any, kind: str) -> bool:
    found = getattr(module, kind, None)
    return isinstance(found, type) and isinstance(value, found)


def _of_array(array: Any) -> _Mark:
    about = (str(array.dtype), array.shape)
    if array.dtype.hasobject:
        return about, tuple(mark(item, 1) for item in _some(array.reshape(-1)))
    if array.nbytes <= WHOLE_BYTES:
        return about, zlib.crc32(array.tobytes())
    if not (array.flags.c_contiguous or array.flags.f_contiguous):
        rows = slice(None, None, max(1, len(array) * PIECES // max(1, array.size // PIECES)))
        return about, zlib.crc32(array[rows][:PIECES].tobytes())
    flat = memoryview(array.reshape(-1, order="A").view("u1"))
    step, size = len(flat) // PIECES, WHOLE_BYTES // PIECES
    found = 0
    for at in range(0, len(flat), step):
        found = zlib.crc32(flat[at : at + min(size, step)], found)
    return about, found


def _of_series(series: Any) -> _Mark:
    index = series.index
    numbered = type(index).__name__ == "RangeIndex"  # as an array it would take as much memory as the column
    return (
        str(series.dtype), len(series), _of_array(series.to_numpy()),
        str(index) if numbered else _of_array(index.to_numpy()),
    )  # fmt: skip


def _of_variables(value: Any) -> _Mark:
    """Of what a Keras object knows by heart; its state of randomness does not count."""
    variables = getattr(value, "weights", None)
    variables = value.variables if variables is None else variables
    return type(value).__name__, tuple(_of_array(variable.numpy()) for variable in variables)


def _some(values: Any) -> Iterator[Any]:
    """The first elements, and the last: there a list grows."""
    count = len(values)
    places = (
        range(count) if count <= ELEMENTS else (*range(ELEMENTS // 2), *range(count - ELEMENTS // 2, count))
    )
    return (values[place] for place in places)


def _parts(value: Any, depth: int = 2) -> Iterator[Any]:
    yield value
    if depth and isinstance(value, dict):
        inner = list(value.values())[:ELEMENTS]
    elif depth and isinstance(value, (list, tuple)):
        inner = list(value)[:ELEMENTS]
    else:
        return
    for each in inner:
        yield from _parts(each, depth - 1)
