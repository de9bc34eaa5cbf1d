"""Which captured value the pickler refuses, and what to write instead. Starts nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from obl_magic.capture.captured_names import type_name
from obl_magic.errors import CannotTravel
from obl_magic.payload.reach import Parts, code_parts, data_parts, is_code, is_own_code, join

Attempt = Callable[[Any], Exception | None]
"""Tries to pickle a value and says what the pickler raised, or None."""

_CHUNK = 16
_LOOK_AT = 10_000
"""Values looked at before the search settles for the nearest one that it found."""

_HOLD_NUMBERS = ("numpy", "pandas")
_PLAIN = (str, bytes, bytearray, int, float, complex, bool, type(None))

_ADVICE: tuple[tuple[tuple[str, ...], str], ...] = (
    (("tensorflow.python.data.", "tensorflow.python.framework.composite_tensor_iterator"),
     "build the dataset inside the function, or return it from dataset_fn"),
    (("tensorflow.python.distribute.",),
     "remove the strategy: the ranks are the magic's business, the function names none"),
    (("mpi4py.", "horovod."),
     "remove it: the ranks are the magic's business, the function names none"),
    (("_thread.", "threading.", "queue.", "_queue.", "multiprocessing.", "asyncio.", "_asyncio.",
      "concurrent.futures."),
     "create it inside the function: every rank is a process of its own and shares no lock, thread or queue"),
    (("h5py.", "_io.", "io.", "tempfile.", "zipfile.", "tarfile."),
     "open the file inside the function, from its path"),
    (("socket.", "_socket.", "ssl.", "_ssl.", "http.", "urllib3.", "requests.", "paramiko.", "zmq."),
     "open the connection inside the function"),
    (("sqlite3.", "_sqlite3.", "psycopg2.", "psycopg.", "sqlalchemy.", "pymongo.", "pymysql.", "mysql.",
      "redis.", "duckdb.", "_duckdb.", "pyodbc.", "cx_Oracle.", "oracledb.", "asyncpg."),
     "connect to the database inside the function, with credentials from the environment"),
    (("builtins.generator", "builtins.async_generator", "builtins.coroutine"),
     "write a function that makes the generator, and call it inside the training function"),
    (("IPython.", "ipykernel.", "ipywidgets.", "comm.", "traitlets."),
     "keep the notebook's own objects out of the function: the ranks have no notebook"),
    (("weakref.", "builtins.frame", "builtins.traceback", "builtins.weakref"),
     "keep the object itself, not a reference into this process"),
)  # fmt: skip
"""Prefixes of a type's full name, or of a type it derives from, and what to write instead."""

_FALLBACK = "create it inside the function, from values that can be pickled"
_TOO_DEEP = "flatten it, or build it inside the function: it is nested too deeply to be pickled"


@dataclass(frozen=True, slots=True)
class _Refused:
    path: str
    value: Any
    error: Exception


def culprit(
    fn: FunctionType, provided: dict[str, Any], own: frozenset[str], attempt: Attempt
) -> CannotTravel | None:
    """The nearest value below a function that cannot be pickled although all its parts can.

    Args:
        fn: the training function.
        provided: values for its parameters, by name.
        own: names of modules that travel by value.
        attempt: tries to pickle one value.

    Returns:
        The error to raise, or None where everything can be pickled on its own.
    """
    parts: Parts = [
        (fn.__name__, fn),
        *((join(fn.__name__, name), value) for name, value in provided.items()),
    ]
    todo = deque(_Refused(path, value, error) for path, value, error in _refused(parts, attempt))
    seen = {id(here.value) for here in todo}
    last = todo[0] if todo else None
    for here in _until(todo, _LOOK_AT):
        last = here
        if (advice := _advice(here)) is not None:
            return _cannot(here, advice)
        refused = _refused(_parts(here.value, own), attempt)
        if not refused:
            break
        for label, value, error in refused:
            if id(value) not in seen:
                seen.add(id(value))
                todo.append(_Refused(join(here.path, label), value, error))
    return None if last is None else _cannot(last, _FALLBACK)


def _until(todo: deque[_Refused], limit: int) -> Any:
    while todo and limit > 0:
        limit -= 1
        yield todo.popleft()


def _refused(parts: Sequence[tuple[str, Any]], attempt: Attempt) -> list[tuple[str, Any, Exception]]:
    """Parts that cannot be pickled; many parts are tried together first."""
    parts = [part for part in parts if not _is_plain(part[1])]
    if len(parts) > _CHUNK:
        if attempt([value for _, value in parts]) is None:
            return []
        middle = len(parts) // 2
        return _refused(parts[:middle], attempt) + _refused(parts[middle:], attempt)
    tried = [(label, value, attempt(value)) for label, value in parts]
    return [(label, value, error) for label, value, error in tried if error is not None]


def _is_plain(value: Any) -> bool:
    """Known to be picklable; a large array of numbers is not pickled again and again to find that out."""
    # others have a dtype, too: a dataset of an open file
    if type(value).__module__.partition(".")[0] in _HOLD_NUMBERS:
        return getattr(getattr(value, "dtype", None), "kind", "O") in "biufcSU"
    return isinstance(value, _PLAIN)


def _parts(value: Any, own: frozenset[str]) -> Parts:
    code = code_parts(value, own)
    if code is not None:
        return code
    parts, kind = data_parts(value), type(value)
    if is_own_code(kind, own):
        return [*parts, ("", kind)]
    return [
        part for part in parts if not part[0].startswith("._")
    ]  # a library's private parts name nothing to a user


def _advice(here: _Refused) -> str | None:
    """What to do about a value of a known kind; None where its parts should be looked at."""
    if isinstance(here.error.__cause__, RecursionError) and not is_code(here.value):
        return _TOO_DEEP
    if is_code(here.value):
        return None
    kinds = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(here.value).__mro__]
    for prefixes, advice in _ADVICE:
        if any(kind.startswith(prefixes) for kind in kinds):
            return advice
    return None


def _cannot(here: _Refused, advice: str) -> CannotTravel:
    reason = " ".join(str(here.error).split()) or type(here.error).__name__
    short = reason if len(reason) <= 200 else reason[:199] + "…"
    return CannotTravel(here.path, type_name(here.value), short, advice)
