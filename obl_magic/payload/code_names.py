"""Which global names a code object uses, nested code included. Runs nothing."""

from __future__ import annotations

import dis
import functools
from types import CodeType

_GLOBAL_OPS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "DELETE_GLOBAL"})


@functools.lru_cache(maxsize=1024)  # a call looks at each function some times
def global_names(code: CodeType) -> tuple[str, ...]:
    """Names that the code, or functions and class bodies inside it, look up outside any function, in order.

    A class body reads its own names and globals alike with ``LOAD_NAME``, so a few names may be the class's
    own.
    """
    names: dict[str, None] = {}
    for instruction in dis.get_instructions(code):
        if instruction.opname in _GLOBAL_OPS:
            names[str(instruction.argval)] = None
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            names.update(dict.fromkeys(global_names(inner)))
    return tuple(names)
