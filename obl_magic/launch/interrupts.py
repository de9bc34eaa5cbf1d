"""Holds an interrupt back while a run begins, lasts or ends, and counts. Starts nothing, ends nothing."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Presses:
    """How often the user has asked for the end: once is a wish, twice an order; from any thread."""

    def __init__(self) -> None:
        self.count = 0

    def press(self) -> None:
        """Counts one more."""
        self.count += 1

    def __bool__(self) -> bool:
        return self.count > 0


@contextmanager
def interrupts_held() -> Iterator[Presses]:
    """Within it an interrupt is counted instead of being raised: nobody could end a run that is half begun.

    Python interrupts the main thread only; elsewhere there is nothing to hold.
    """
    came = Presses()
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = signal.signal(signal.SIGINT, lambda *_: came.press())
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, before or signal.default_int_handler)


@contextmanager
def interrupts_let_through(came: Presses) -> Iterator[None]:
    """Within :func:`interrupts_held`, raises an interrupt after all, also one that has come before.

    For what may last and leaves nothing that has to be ended.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    held = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        if came:
            raise KeyboardInterrupt
        yield
    finally:
        signal.signal(signal.SIGINT, held)
