"""What was asked for, as values whose every part makes sense: one line for whatever is wrong. Starts nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, TypeVar

from obl_magic.errors import SetupProblem, UsageProblem
from obl_magic.library_settings.generators import notebook_seed
from obl_magic.options import RunOptions

_O = TypeVar("_O", bound=RunOptions)


def checked(kind: type[_O], call: str, given: Mapping[str, Any]) -> _O:
    """The options of a call; where no seed is asked for, that of an earlier cell.

    Args:
        kind: of options.
        call: ``run``, ``search`` or ``ablate``.
        given: options by name.

    Raises:
        UsageProblem: they make no sense.
        SetupProblem: somebody has removed the working folder: whatever looks for a file would fail in it.
        TypeError: the call has no such option.
    """
    options = kind.of(call, given)
    try:
        os.getcwd()
    except OSError as error:
        raise SetupProblem(
            f"the working folder does not exist any more ({error.strerror})", "os.chdir to a folder that does"
        ) from None
    return options.seeded_by(notebook_seed())


def checked_args(args: Mapping[str, Any] | None) -> dict[str, Any]:
    """Arguments by name; else UsageProblem."""
    if args is not None and not isinstance(args, Mapping):
        raise UsageProblem(f"args of type {type(args).__name__}", "arguments by name", "args={'lr': 0.01}")
    return dict(args or {})
