"""What rank 0 shows with IPython's ``display``, or matplotlib's ``plt.show()``: sent to the cell. Imports neither.

The kernel's choice of a backend travels in the environment; it hands figures to ``display``, which is replaced here.
"""

from __future__ import annotations

import base64
import contextlib
import io
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from obl_magic.events.event import Shown
from obl_magic.worker.on_import import when_imported
from obl_magic.worker.patching import Patches
from obl_magic.worker.report import Reporter

MOST = 100
MOST_BYTES = 1 << 23
"""A run shows so many outputs, of so many bytes together; what comes after is dropped, and a note says so."""

_FUNCTIONS = "IPython.core.display_functions"
_BACKEND = "matplotlib_inline.backend_inline"


class Shows:
    """Sends what a function shows.

    Args:
        reporter: of this rank; only rank 0's is seen, as what it prints.
    """

    def __init__(self, reporter: Reporter) -> None:
        self._reporter = reporter
        self._count = self._bytes = 0

    def display(
        self, *objs: Any, metadata: Any = None, display_id: Any = None, raw: bool = False, update: bool = False,
        **_: Any,
    ) -> Any:  # fmt: skip
        """In the place of IPython's function of this name; returns its handle where it would."""
        name = uuid.uuid4().hex if display_id is True else str(display_id or "")
        for obj in objs:
            self._send(dict(obj) if raw else bundle_of(obj), name, update)
        return sys.modules[_FUNCTIONS].DisplayHandle(name) if name else None

    def publish(self, data: Any, metadata: Any = None, *, transient: Any = None, **more: Any) -> None:
        """In the place of ``publish_display_data``."""
        name = (transient or {}).get("display_id", "")
        self._send(dict(data), name, bool(more.get("update")))

    def rest(self) -> None:
        """Shows the figures that the function has drawn and not shown, as a notebook does at the end of a cell."""
        backend = sys.modules.get(_BACKEND)
        if backend is not None and sys.modules["matplotlib"].get_backend().lower() in (
            "inline",
            f"module://{_BACKEND}",
        ):
            backend.show(close=True)

    def _send(self, bundle: dict[str, Any], name: str, update: bool) -> None:
        data = {mime: _text(value) for mime, value in bundle.items() if isinstance(value, (str, bytes))}
        size = sum(map(len, data.values()))
        if self._reporter.rank != 0 or not data:
            return
        if self._count >= MOST or self._bytes + size > MOST_BYTES:
            self._reporter.note(
                "not-all-shown",
                f"not all that the function displayed is shown: {MOST} outputs and {MOST_BYTES >> 20} MiB are the most",
            )
            return
        self._count, self._bytes = self._count + 1, self._bytes + size
        self._reporter.emit(Shown(0, time.time(), data, name, update))


@contextmanager
def shown(reporter: Reporter) -> Iterator[None]:
    """Within it what the function displays goes to the cell."""
    shows, patches = Shows(reporter), Patches()

    def replace() -> None:
        functions = sys.modules[_FUNCTIONS]
        patches.replace_function(functions.display, lambda original: shows.display)
        patches.replace_function(functions.publish_display_data, lambda original: shows.publish)

    try:
        with when_imported("IPython", replace):
            yield
        with contextlib.suppress(Exception):
            shows.rest()
    finally:
        patches.restore()


def bundle_of(obj: Any) -> dict[str, Any]:
    """The forms in which an object can be shown, by mime type; a figure as a picture."""
    if callable(getattr(obj, "savefig", None)):
        file = io.BytesIO()
        obj.savefig(file, format="png", bbox_inches="tight")
        return {"image/png": file.getvalue(), "text/plain": repr(obj)}
    forms, _ = sys.modules["IPython.core.formatters"].DisplayFormatter().format(obj)
    return dict(forms)


def _text(value: str | bytes) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value
