"""Holds an interrupt back while a run begins or ends. Starts nothing, ends nothing."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def interrupts_held() -> Iterator[threading.Event]:
    """Within it an interrupt sets the event instead of being raised: nobody could end a run that is half begun.

    Python interrupts the main thread only; elsewhere there is nothing to hold.
    """
    came = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = signal.signal(signal.SIGINT, lambda *_: came.set())
    try:
        yield came
    finally:
        signal.signal(signal.SIGINT, before or signal.default_int_handler)
