"""How a code object is pickled: whole, under the file name it was compiled with. Runs nothing.

Labels of cells (``In [7], line 2``), source lines in tracebacks and the doctor of stalled runs all find a line of the
user's by ``co_filename``. Picklers differ in what they keep of it: cloudpickle 3.1.3 writes ``<dynamic-code>`` over
every one. So code objects never reach the pickler underneath; those inside others go the same way, each with its own
name, because they are constants of the outer one.
"""

from __future__ import annotations

from types import CodeType
from typing import Any

_FIELDS = (
    "co_argcount",
    "co_posonlyargcount",
    "co_kwonlyargcount",
    "co_nlocals",
    "co_stacksize",
    "co_flags",
    "co_code",
    "co_consts",
    "co_names",
    "co_varnames",
    "co_freevars",
    "co_cellvars",
    "co_filename",
    "co_name",
    "co_qualname",
    "co_firstlineno",
    "co_linetable",
    "co_exceptiontable",
)
"""All that ``CodeType.replace`` takes, which is all that a code object is made of."""


def reduce(obj: Any) -> tuple[Any, ...] | None:
    """The pickle recipe of a code object.

    Args:
        obj: any object.

    Returns:
        A ``__reduce__`` value, or None for every other object.
    """
    if not isinstance(obj, CodeType):
        return None
    return _made_of, tuple(_own_copy(getattr(obj, name)) for name in _FIELDS)


def _own_copy(value: Any) -> Any:
    """A value that no other code object shares: what is shared differs from process to process, and so would bytes."""
    if isinstance(value, str):
        return "".join(value)
    return (*value,) if isinstance(value, tuple) else value


def _made_of(*values: Any) -> CodeType:
    return _made_of.__code__.replace(**dict(zip(_FIELDS, values, strict=True)))
