"""A rank's heartbeat: how far it is, at which line of the user's code, and whether it waits for the others.

A thread of its own beats, so that a rank whose main thread hangs still says where. Knows no framework but by the
folders of its code. :class:`Stacks` serves the case in which Python itself cannot run any more.
"""

from __future__ import annotations

import faulthandler
import linecache
import os
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from obl_magic.events.event import Heartbeat
from obl_magic.rundir import private
from obl_magic.values import CellSource
from obl_magic.worker.gpu import gpu_memory_bytes
from obl_magic.worker.report import Reporter

BEAT_S = 1.0
SHOWN_CHARS = 120
"""Of a source line, at most."""
STANDS_STILL = 0.6
"""The share of the time that a rank may stand still, after which it writes its stacks down."""

_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep
_LIBRARIES = (
    "<",
    os.path.dirname(os.path.dirname(_OURS)) + os.sep,
    *{sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")},
)
_GENERATED = "<string>"
"""File name of the wrappers that TensorFlow makes around operations of other libraries, Horovod's among them."""
_WAITING = (f"{os.sep}tensorflow{os.sep}", f"{os.sep}horovod{os.sep}", f"{os.sep}mpi4py{os.sep}")
"""Code inside which a rank computes a step or waits for other ranks, rather than runs the user's own Python."""


class Heart:
    """Beats for one rank.

    Args:
        reporter: of the rank; knows the steps done and the time spent waiting.
        sources: whose lines are the user's.
        every_s: seconds between two beats.
        stacks: kept when it stands still, or None.
    """

    def __init__(
        self,
        reporter: Reporter,
        sources: Iterable[CellSource],
        every_s: float = BEAT_S,
        stacks: Stacks | None = None,
    ) -> None:
        self._reporter, self._every_s, self._stacks = reporter, every_s, stacks
        self._labels = {cell.filename: cell.label for cell in sources}
        self._main = threading.main_thread().ident or 0
        self._last: tuple[float, int, float] | None = None
        self._spent = time.monotonic(), time.process_time()
        self._stack: tuple[object, ...] = ()
        self._lock = threading.Lock()
        self._stopped = False

    def start(self) -> None:
        """Beats from now on."""
        threading.Thread(target=self._beat, name="obl-heart", daemon=True).start()

    def stop(self) -> None:
        """No beat comes after this."""
        with self._lock:
            self._stopped = True
            if self._stacks is not None:
                self._stacks.stop()
        self._reporter.turned.set()

    def _beat(self) -> None:
        while not self._stopped:
            self._reporter.turned.wait(self._every_s)
            self._reporter.turned.clear()
            with self._lock:
                if not self._stopped:
                    self._reporter.emit(self.beat(sys._current_frames(), time.monotonic()))
                    if self._stacks is not None:
                        self._stacks.look((self._reporter.steps, self._reporter.ticks))

    def beat(self, stacks: dict[int, FrameType], now_s: float) -> Heartbeat:
        """The rank as it is now.

        Args:
            stacks: the innermost frame of each thread.
            now_s: seconds that never go backwards.
        """
        (where, source), waits = self._place(stacks)
        if self._prepares(stacks.get(self._main)):
            self._reporter.ticks += 1
        steps, waited_s = self._reporter.steps, self._reporter.waiting()
        step_s = waited = None
        if self._last is not None and steps > self._last[1]:
            spent = now_s - self._last[0]
            step_s = spent / (steps - self._last[1])
            waited = min(1.0, max(0.0, (waited_s - self._last[2]) / spent))
        if self._last is None or steps != self._last[1]:
            self._last = now_s, steps, waited_s
        me = self._reporter
        return Heartbeat(
            me.rank, time.time(), steps, where, me.ticks, waits, me.fitting, step_s, waited, source,
            own_memory_bytes(), self._cores(now_s), me.validating, gpu_memory_bytes(), me.share,
        )  # fmt: skip

    def _cores(self, now_s: float) -> float | None:
        """How many processors this rank kept busy since the last beat."""
        (then_s, before_s), self._spent = self._spent, (now_s, time.process_time())
        return round((self._spent[1] - before_s) / (now_s - then_s), 2) if now_s > then_s else None

    def _prepares(self, main: FrameType | None) -> bool:
        """Whether the rank gets further where there is nothing to count: it imports, or traces a fit's first step."""
        if not self._reporter.begun:
            return True
        stack = tuple((f.f_code, f.f_lasti) for f in _outwards(main))
        changed, self._stack = stack != self._stack, stack
        first_step = self._reporter.fitting and self._reporter.steps == 0
        return changed and (
            first_step or any("importlib._bootstrap" in code.co_filename for code, _ in stack)
        )

    def _place(self, stacks: dict[int, FrameType]) -> tuple[tuple[str, str], bool]:
        """((the user's line being run, its text), whether the rank is in a step or a collective rather than there).

        A generator of the user's runs in a thread of TensorFlow's, while the main thread waits for its rows.
        """
        main = stacks.get(self._main)
        here = self._line(main)
        waits = main is not None and _waits(main)
        if waits:
            for thread, frame in stacks.items():
                if thread != self._main and not _waits(frame) and (there := self._line(frame))[0]:
                    return there, False
        return here, waits

    def _line(self, frame: FrameType | None) -> tuple[str, str]:
        """The deepest of the user's lines of a stack, with its text: of a cell, or of a file that is no library's."""
        for each in _outwards(frame):
            file = each.f_code.co_filename
            if label := self._labels.get(file) or (is_users(file) and os.path.basename(file)):
                text = linecache.getline(file, each.f_lineno or 0).strip()
                return f"{label}, line {each.f_lineno}", text[:SHOWN_CHARS]
        return "", ""


@contextmanager
def beating(
    reporter: Reporter, sources: Iterable[CellSource], every_s: float = BEAT_S, stacks: Stacks | None = None
) -> Iterator[None]:
    """Beats within the block, for one job; see :class:`Heart`."""
    heart = Heart(reporter, sources, every_s, stacks)
    heart.start()
    try:
        yield
    finally:
        heart.stop()


class Stacks:
    """Writes down what all threads do when the rank gets no further; also while C code hangs, without Python's help.

    Args:
        file: where to.
        after_s: seconds without a step, a number, or whatever else counts as getting further.
        send: called with the file when something stands there.
    """

    def __init__(self, file: Path, after_s: float, send: Callable[[Path], None]) -> None:
        self._path, self._after_s, self._send = file, after_s, send
        self._kept = os.fdopen(private(str(file), os.O_WRONLY | os.O_CREAT | os.O_TRUNC), "w")
        self._moved: object = None
        self._sent = False

    def look(self, moved: object) -> None:
        """Takes in how far the rank is; what is the same as at the last look is no progress."""
        if moved != self._moved:
            self._moved, self._sent = moved, False
            self._kept.truncate(0)
            self._kept.seek(0)
            faulthandler.dump_traceback_later(self._after_s, file=self._kept)
        elif not self._sent and os.fstat(self._kept.fileno()).st_size:
            self._sent = True
            self._send(self._path)

    def stop(self) -> None:
        """Nothing is written any more, and what stands there is of no use: the job has ended by itself."""
        faulthandler.cancel_dump_traceback_later()
        self._kept.truncate(0)
        self._kept.close()


def _outwards(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back


_inherited_bytes = 0


def inherits_memory() -> None:
    """This process was forked just now: what it has in use is its parent's, and is shared while it only reads."""
    global _inherited_bytes
    _inherited_bytes = 0
    _inherited_bytes = own_memory_bytes() or 0


def own_memory_bytes(statm: Path = Path("/proc/self/statm")) -> int | None:
    """Memory that this process has in use and shares with no file or other process; None where it is not told.

    Of what it was forked with nothing is counted; what it writes into there is its own, but to know how much would take
    milliseconds a gigabyte.
    """
    try:
        _, resident, shared, *_ = map(int, statm.read_text().split())
    except (OSError, ValueError):
        return None
    return max(0, (resident - shared) * os.sysconf("SC_PAGE_SIZE") - _inherited_bytes)


def is_users(file: str) -> bool:
    """Whether code in a file of this name is the user's own, rather than a library's."""
    return not file.startswith(_LIBRARIES) and "__autograph_generated" not in file


def _waits(innermost: FrameType) -> bool:
    files = (frame.f_code.co_filename for frame in _outwards(innermost))
    file = next((name for name in files if name != _GENERATED), "")
    return file.startswith(_OURS) or any(part in file for part in _WAITING)
