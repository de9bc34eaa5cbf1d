"""Every error a user can meet, with its fields and its sentence: expected / got / do this.

Errors survive pickling: their arguments are their fields, and the sentence is built from them.
"""

from __future__ import annotations

from typing import Any


class OblError(Exception):
    """Base of every error of ours. Its text is one sentence (or three short ones) for a user."""


class UsageProblem(OblError):
    """Something in the request is wrong; nothing was started.

    Args:
        got: what was given, as the user would recognise it.
        expected: what would have been right.
        do: the call, option or command that works.
    """

    def __init__(self, got: str, expected: str, do: str) -> None:
        super().__init__(got, expected, do)
        self.got, self.expected, self.do = got, expected, do

    def __str__(self) -> str:
        return f"got {self.got}; expected {self.expected}; do: {self.do}"


class Damaged(UsageProblem):
    """A file of a run or a study is damaged, or another program or version wrote it."""


class SetupProblem(OblError):
    """Something this machine lacks or has wrong (MPI, Horovod, TensorFlow, a folder).

    Args:
        what: what is missing or wrong, in plain words.
        do: the exact command that mends it.
    """

    def __init__(self, what: str, do: str) -> None:
        super().__init__(what, do)
        self.what, self.do = what, do

    def __str__(self) -> str:
        return f"{self.what}; do: {self.do}"


class CannotTravel(OblError):
    """A captured value that cannot be sent to the ranks, found before anything is started.

    Args:
        path: how the function reaches it, e.g. ``train -> helper -> lock``.
        type_name: the type of the value.
        reason: what the pickler said, one line.
        do: how to write the function so that it needs no such value.
    """

    def __init__(self, path: str, type_name: str, reason: str, do: str) -> None:
        super().__init__(path, type_name, reason, do)
        self.path, self.type_name, self.reason, self.do = path, type_name, reason, do

    def __str__(self) -> str:
        return f"cannot send {self.path} (a {self.type_name}) to the ranks: {self.reason}; do: {self.do}"


class NotOblivious(OblError):
    """The function does something that cannot be made distribution-oblivious; it is refused by name.

    Args:
        what: what the function did.
        do: the way out.
    """

    def __init__(self, what: str, do: str) -> None:
        super().__init__(what, do)
        self.what, self.do = what, do

    def __str__(self) -> str:
        return f"{self.what}; do: {self.do}"


class RunFailed(OblError):
    """A run did not succeed, and the worker's own exception could not be carried here.

    Args:
        summary: the first cause: which rank, what happened, where.
        details: the rank's traceback and last log lines; may be empty.
    """

    run: Any = None

    def __init__(self, summary: str, details: str = "") -> None:
        super().__init__(summary, details)
        self.summary, self.details = summary, details

    def __str__(self) -> str:
        return f"{self.summary}\n{self.details}".rstrip()


class RankDied(RunFailed):
    """A rank ended without saying why: killed, crashed, out of memory, or os._exit."""


class RunTimedOut(RunFailed):
    """The run passed its ``timeout``."""


class RunStalled(RunFailed):
    """No progress was seen for ``stall_timeout`` seconds."""


class RanksDiverged(OblError):
    """The ranks no longer hold the same weights.

    Args:
        step: first step at which a difference was seen.
        detail: which ranks, and by how much.
    """

    def __init__(self, step: int, detail: str) -> None:
        super().__init__(step, detail)
        self.step, self.detail = step, detail

    def __str__(self) -> str:
        return (
            f"the ranks hold different weights since step {self.step}: {self.detail}; "
            "do: look for code that acts on one rank only, or for unseeded random numbers"
        )


class NotTheSame(OblError):
    """A verification found that several ranks do not compute what one does.

    Args:
        quantity: what differs most, e.g. ``loss``.
        difference: by how much.
        where: at which step or variable.
        tolerance: what would have been accepted.
        synced: whether batch normalization took moments over all rows.
    """

    def __init__(
        self, quantity: str, difference: float, where: str, tolerance: float, synced: bool = True
    ) -> None:
        super().__init__(quantity, difference, where, tolerance, synced)
        self.quantity, self.difference, self.where, self.tolerance = quantity, difference, where, tolerance
        self.synced = synced

    def __str__(self) -> str:
        cure = (
            "look in docs/transparency.md for what cannot be exact (random numbers: draw them from Keras, with a seed)"
            if self.synced
            else "leave --no-sync-batchnorm out"
        )
        return (
            f"{self.quantity} differs between one rank and several by {self.difference:.2e} ({self.where}), more than "
            f"{self.tolerance:.0e}; do: {cure}, or run without --verify"
        )
