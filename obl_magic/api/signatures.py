"""The calls' options as ``help()`` sees them: signatures and docstrings, from the one table."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from typing import Any, TypeVar

from obl_magic.options import Option, keywords

_F = TypeVar("_F", bound=Callable[..., Any])

WIDTH = 110
HERE = "        **options: "


def takes_options(call: str) -> Callable[[_F], _F]:
    """Tells the options that ``**options`` stands for, in the signature and in the docstring of a call.

    Args:
        call: ``run``, ``search`` or ``ablate``.
    """

    def told(fn: _F) -> _F:
        signature = inspect.signature(fn)
        *others, _ = signature.parameters.values()
        options = [
            inspect.Parameter(
                each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=each.type
            )
            for each in keywords(call)
        ]
        fn.__signature__ = signature.replace(parameters=[*others, *options])  # type: ignore[attr-defined]
        lines = (fn.__doc__ or "").split("\n")
        at = next((number for number, line in enumerate(lines) if line.startswith(HERE)), None)
        if at is not None:  # not there under `python -OO`
            lines[at : at + 1] = [line for each in keywords(call) for line in _documented(each)]
            fn.__doc__ = "\n".join(lines)
        return fn

    return told


def _documented(option: Option) -> list[str]:
    """An argument of a docstring in Google's style."""
    said = option.help.rpartition(": ")[0]
    return textwrap.wrap(
        f"{option.name}: {said}.{f' {option.more}' if option.more else ''}",
        WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 12,
    )  # fmt: skip
