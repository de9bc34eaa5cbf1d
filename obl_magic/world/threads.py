"""Starts threads of ours in the user's process. They never keep it from ending."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from obl_magic.errors import SetupProblem


def begin(target: Callable[..., Any], name: str, *args: Any) -> threading.Thread:
    """Starts a thread. Whatever it serves is started after it, so that nothing is left without it.

    Args:
        target: what it calls.
        name: of the thread.
        args: of ``target``.

    Raises:
        SetupProblem: the system lets no more threads start.
    """
    thread = threading.Thread(target=target, args=args, name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError as error:
        raise SetupProblem(
            f"no more threads can be started here ({error})",
            "end processes that you don't need, or raise the limit (ulimit -u; a container's pids limit)",
        ) from error
    return thread
