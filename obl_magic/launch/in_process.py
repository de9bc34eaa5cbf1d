"""The world of size one inside this process: the function is simply called, with the same reporting."""

from __future__ import annotations

import codecs
import contextlib
import io
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, TextIO

from obl_magic.display.run.view import Display
from obl_magic.events.event import LAUNCHER, Ended, Event, Log, Metric, Result, Started
from obl_magic.launch.interrupts import interrupts_held
from obl_magic.library_settings.generators import GLOBAL_RANDOM_SEED, GLOBAL_SEED_GENERATOR
from obl_magic.payload import files
from obl_magic.rundir import RunDir
from obl_magic.runs.run import Ledger, Run
from obl_magic.values import Captured, Job
from obl_magic.worker import execute, tracebacks
from obl_magic.worker.report import Pruned, Reporter
from obl_magic.worker.streams import BytesOf

SHOW_EVERY_S = 0.1
"""How often numbers alone bring the display up to date."""


def run(
    fn: Callable[..., Any], job: Job, captured: Captured, ledger: Ledger, here: Run, shown: Display,
    interrupted: bool, ask: Callable[[int, float], bool] | None = None,
    models: Mapping[str, Callable[..., Any]] = MappingProxyType({}),
) -> None:  # fmt: skip
    """Calls the function in this process; its exceptions pass through, after they were recorded.

    Args:
        fn: the function.
        job: how it is called.
        captured: what was found about it.
        ledger: takes the events.
        here: the run.
        shown: the display.
        interrupted: an interrupt came before the call.
        ask: decides whether a trial is to end.
        models: what an ablation may call in place of ``model_fn``.
    """
    __tracebackhide__ = True

    shown_at_s = 0.0

    def emit(event: Event) -> None:
        nonlocal shown_at_s
        ledger.add(event)
        if not isinstance(event, Metric) or time.time() - shown_at_s > SHOW_EVERY_S:
            shown.update(ledger.state, ledger.rows, shown_at_s := time.time())

    reporter = Reporter(emit, 0)
    if ask is not None and job.quantity:
        reporter.asks(job.quantity, ask)
    status, said = "failed", ""
    try:
        emit(Started(0, time.time(), 0, "", job.digest, "inline", 0, 0))
        if interrupted:
            raise KeyboardInterrupt
        with _recorded(emit), _random_state_kept():
            value = execute.call_here(fn, captured.provided_values, job, reporter, models)
        here.keep_value(value)
        emit(_written(value, ledger.folder, reporter))
        status = "succeeded"
    except Pruned:
        status = "pruned"
        raise
    except KeyboardInterrupt as error:
        status, said = "interrupted", "interrupted"
        here.keep_value(reporter.model)
        _keep(error, here)
        raise
    except BaseException as error:
        said = tracebacks.one_line(error)
        _keep(error, here)
        raise
    finally:
        with interrupts_held() as interrupted_at_the_end:
            reporter.over()
            ledger.add(Ended(LAUNCHER, time.time(), status, said))
            ledger.close()
            shown.end(ledger.state, ledger.rows, time.time())
    if interrupted_at_the_end:
        raise KeyboardInterrupt


def _written(value: Any, folder: RunDir, reporter: Reporter) -> Result:
    """The value, written for whoever opens the run later; what cannot be pickled is the caller's alone."""
    file, size_bytes = "", 0
    with contextlib.suppress(Exception):  # any pickler may raise anything
        size_bytes = files.save(value, folder, folder.value(0))
        file = folder.value(0).name
    return Result(
        0, time.time(), file, size_bytes, reporter.first_step_s, execute.short(value), execute.told(value)
    )


def _keep(error: BaseException, here: Run) -> None:
    here.keep_error(error)
    error.run = here  # type: ignore[attr-defined]


class _Tee(io.TextIOBase):
    """Passes text on to the cell and records it."""

    encoding = "utf-8"
    errors = "replace"

    def __init__(self, to: TextIO, emit: Callable[[Event], None], name: str) -> None:
        super().__init__()
        self._to, self._emit, self._stream = to, emit, name
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def buffer(self) -> io.BufferedIOBase:
        """For code that writes bytes; a kernel's own stream has none."""
        return BytesOf(self)

    def writable(self) -> bool:
        return True

    def write_bytes(self, data: bytes) -> None:
        """Writes encoded text, which may end inside a character."""
        self.write(self._decoder.decode(data))

    def write(self, text: str) -> int:
        self._emit(Log(0, time.time(), self._stream, text))
        return self._to.write(text)

    def record_no_more(self) -> None:
        """From now on only passes text on."""
        self._emit = lambda event: None

    def flush(self) -> None:
        self._to.flush()

    def isatty(self) -> bool:
        return self._to.isatty()

    def fileno(self) -> int:
        return self._to.fileno()


@contextmanager
def _recorded(emit: Callable[[Event], None]) -> Iterator[None]:
    before = sys.stdout, sys.stderr
    tees = _Tee(before[0], emit, "stdout"), _Tee(before[1], emit, "stderr")
    sys.stdout, sys.stderr = tees
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
        for tee in tees:  # somebody may have kept it, as a logging handler does
            tee.record_no_more()


@contextmanager
def _random_state_kept() -> Iterator[None]:
    """The run's seed does not stay behind in the kernel's random generators."""
    python = random.getstate()
    numpy = _numpy_generator()
    frameworks = _framework_seeds()
    try:
        yield
    finally:
        frameworks()
        random.setstate(python)
        numpy()


def _numpy_generator() -> Callable[[], None]:
    """Gives NumPy another generator for the run; returns what gives it its own back, or a new one."""
    random_of = sys.modules["numpy"].random if "numpy" in sys.modules else None
    own = random_of.get_bit_generator() if random_of else None
    if random_of:
        random_of.set_bit_generator(random_of.MT19937())

    def restore() -> None:
        if "numpy" in sys.modules:
            here = sys.modules["numpy"].random
            here.set_bit_generator(own or here.MT19937())

    return restore


def _framework_seeds() -> Callable[[], None]:
    """Remembers the seeds of TensorFlow and Keras, where they are loaded; returns what puts them back."""
    names = (GLOBAL_SEED_GENERATOR, GLOBAL_RANDOM_SEED)
    kept, drawn = dict.fromkeys(names), {"_seed": None, "_rng": None}
    if "keras" in sys.modules and "tensorflow" in sys.modules:
        from keras.src.backend.common import global_state
        from tensorflow.python.eager import context

        kept = {name: global_state.get_global_attribute(name) for name in names}
        drawn = {name: value for name, value in vars(context.context()).items() if name in drawn}

    def restore() -> None:
        if "keras" not in sys.modules or "tensorflow" not in sys.modules:
            return
        from keras.src.backend.common import global_state
        from tensorflow.python.eager import context

        for name, value in kept.items():
            global_state.set_global_attribute(name, value)
        vars(context.context()).update(drawn)

    return restore
