"""A worker's exception as text for the notebook: the user's frames, with the cell's own lines and labels."""

from __future__ import annotations

import linecache
import os
import traceback
from collections.abc import Iterable, Iterator
from types import FrameType, TracebackType

from obl_magic.values import CellSource
from obl_magic.worker.heartbeat import is_users

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep

_labels: dict[str, str] = {}
"""What the notebook calls the files of the job's cells."""


def remember(sources: Iterable[CellSource]) -> None:
    """Makes the cells' text known here, so that tracebacks show source lines."""
    _labels.clear()
    for cell in sources:
        _labels[cell.filename] = cell.label
        lines = cell.text.splitlines(keepends=True)
        linecache.cache[cell.filename] = (len(cell.text), None, lines, cell.filename)


def describe(error: BaseException, sources: Iterable[CellSource]) -> tuple[str, str]:
    """(traceback text, deepest place in the user's own code, e.g. ``In [7], line 12``)."""
    labels = {cell.filename: cell.label for cell in sources}
    report = traceback.TracebackException(
        type(error), error, _from_users_code(error.__traceback__), capture_locals=False, compact=True
    )
    _leave_out_ours(report)
    text = "".join(report.format())
    for filename, label in labels.items():
        text = text.replace(f'File "{filename}", line', f"{label}, line")
    return text, _where(error.__traceback__, labels)


def one_line(error: BaseException) -> str:
    """``Type: message`` on one line."""
    try:
        said = " ".join(str(error).split())
    except BaseException:  # SystemExit, too, is no way to end a rank that tells why it ends
        said = "<exception str() failed>"
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def in_users_code(tb: TracebackType | None) -> TracebackType | None:
    """A traceback from the first line of the user's own on; None where there is none."""
    while tb is not None and not is_users(tb.tb_frame.f_code.co_filename):
        tb = tb.tb_next
    return tb


def users_frames(frame: FrameType | None) -> Iterator[FrameType]:
    """The frames of the user's own code in a stack, from the innermost."""
    while frame is not None:
        if frame.f_code.co_filename in _labels or is_users(frame.f_code.co_filename):
            yield frame
        frame = frame.f_back


def line_of(frame: FrameType) -> str:
    """Where a frame is, with its text: ``In [7], line 12: model.fit(x, y)``."""
    file = frame.f_code.co_filename
    text = linecache.getline(file, frame.f_lineno).strip()
    place = f"{_labels.get(file) or os.path.basename(file)}, line {frame.f_lineno}"
    return f"{place}: {text}" if text else place


def _from_users_code(tb: TracebackType | None) -> TracebackType | None:
    while tb is not None and tb.tb_frame.f_code.co_filename.startswith(_OURS):
        tb = tb.tb_next
    return tb


def _leave_out_ours(report: traceback.TracebackException) -> None:
    """Between the user's frames and Keras' are some of ours, of which a user can make nothing."""
    kept = [frame for frame in report.stack if not frame.filename.startswith(_OURS)]
    if kept:
        report.stack[:] = kept
    for linked in (report.__cause__, report.__context__, *(report.exceptions or ())):
        if linked is not None:
            _leave_out_ours(linked)


def _where(tb: TracebackType | None, labels: dict[str, str]) -> str:
    place = ""
    for frame, line in traceback.walk_tb(tb):
        if label := labels.get(frame.f_code.co_filename):
            place = f"{label}, line {line}"
    return place
