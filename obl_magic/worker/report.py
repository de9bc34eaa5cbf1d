"""The reporter: how training code says numbers. Outside a run it says nothing. Knows no framework."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from obl_magic.events.event import Event, Metric, Note


class Pruned(BaseException):
    """Ends a trial that is not worth going on; no ``except Exception`` of the user's takes it for an error."""


class Reporter:
    """Sends metrics and notes of one rank.

    Args:
        emit: takes each event.
        rank: the rank that speaks.

    Attributes:
        steps: optimizer steps of the last fit so far.
        first_step_s: Unix time at which the first one was done.
        begun: the function was called.
        ticks: grows with whatever shows that it gets further.
        model: the one fitted last.
        fitting: a fit is under way.
        validating: an evaluation is.
        turned: set when that changes.
        stop_asked: the user wants the run to stop at the next step boundary.
        keep_asked: where the function is, is to be kept at the end of each epoch.
        waiting: gives the seconds spent so far in waiting for other ranks.
        share: of each batch, this rank's, where ranks differ in pace; None where shares are equal.
        checkpoint: keeps, or gives back, what a loop by hand remembers; how often it was kept before.
        told: it was said that something spoke to it when its job was over.
        reported: the function has reported numbers.
    """

    def __init__(self, emit: Callable[[Event], None], rank: int) -> None:
        self.emit = emit
        self.rank = rank
        self.first_step_s: float | None = None
        self.steps = 0
        self.model: Any = None
        self.fitting = False
        self.validating = False
        self.begun = False
        self.ticks = 0
        self.turned = threading.Event()
        self.stop_asked = self.keep_asked = False
        self.waiting: Callable[[], float] = lambda: 0.0
        self.share: float | None = None
        self.checkpoint: Callable[[Sequence[Any]], int] = lambda what: 0
        self._quantity = ""
        self._ask: Callable[[int, float], bool] | None = None
        self._asked = 0
        self._over = False
        self._noted: set[tuple[str, str]] = set()
        self.told = self.reported = False

    def over(self) -> None:
        """The job is over: whatever still speaks to this reporter, a thread that was left running say, is not heard."""
        self._over = True
        self.emit = _nothing
        self._ask = None

    def __call__(self, *, step: int | None = None, epoch: int | None = None, **values: Any) -> None:
        """Reports named numbers; the same as :func:`obl_magic.report`."""
        if values:
            numbers = {name: _number(name, value) for name, value in values.items()}
            step, epoch = _whole("step", step), _whole("epoch", epoch)
            self.reported = True
            self.emit(Metric(self.rank, time.time(), numbers, step, epoch))
            self.judge(numbers, epoch if step is None else step)

    report = __call__

    def asks(self, quantity: str, ask: Callable[[int, float], bool]) -> None:
        """From now on each value of this quantity is judged.

        Args:
            quantity: its name.
            ask: (step, value) -> whether the trial is to end; asked on every rank alike.
        """
        self._quantity, self._ask = quantity, ask

    def judge(self, numbers: Mapping[str, float], step: int | None = None) -> None:
        """Asks whether to go on, where the wanted quantity is among these numbers.

        Args:
            numbers: by name, the same on every rank.
            step: what it is compared by; by default counted from 1.

        Raises:
            Pruned: it is not worth going on.
        """
        if self._ask is None or self._quantity not in numbers:
            return
        self._asked += 1
        if self._ask(self._asked if step is None else step, numbers[self._quantity]):
            raise Pruned

    def note(self, code: str, text: str) -> None:
        """Says a sentence about the run once; ``code`` is its stable short name."""
        if (code, text) not in self._noted:
            self._noted.add((code, text))
            self.emit(Note(self.rank, time.time(), text, code))

    def stepped(self, steps: int) -> None:
        """Says that ``steps`` training steps were done; remembers when the first one was."""
        self.steps = steps
        self.ticks += 1
        if self.first_step_s is None:
            self.first_step_s = time.time()

    def fits(self, model: Any) -> None:
        """Says that a fit of this model begins; None: that it has ended."""
        if model is not None:
            self.model, self.steps = model, 0
        self.fitting = model is not None
        self.turned.set()


def _nothing(event: Event) -> None:
    """Hears an event of a job that is over."""


_current: Reporter | None = None
_REPORTER = "_obl_reporter"
"""Attribute of a thread: the reporter of the job that has started it."""


def current() -> Reporter | None:
    """The reporter of the run this code is in, or None outside any run.

    A thread belongs to the job in which it was started, however long it goes on.
    """
    own: Reporter | None = getattr(threading.current_thread(), _REPORTER, None)
    if own is None or own is _current or not own._over:
        return own or _current
    if _current is not None and not own.told:
        own.told = True
        _current.note(
            "left-over-thread",
            "a thread that an earlier trial has left running reports numbers, which count for no trial any more; "
            "to have them count, wait for it: thread.join()",
        )
    return own


@contextmanager
def reporting(reporter: Reporter) -> Iterator[Reporter]:
    """Makes ``reporter`` the one that :func:`report` speaks to, also from threads that are started within."""
    global _current
    before, _current = _current, reporter
    start = threading.Thread.start

    def start_for_this_job(thread: threading.Thread) -> None:
        setattr(thread, _REPORTER, getattr(threading.current_thread(), _REPORTER, None) or reporter)
        start(thread)

    threading.Thread.start = start_for_this_job  # type: ignore[method-assign, assignment]
    try:
        yield reporter
    finally:
        threading.Thread.start = start  # type: ignore[method-assign]
        _current = before


def report(*, step: int | None = None, epoch: int | None = None, **values: Any) -> None:
    """Reports named numbers from inside a training function: ``report(loss=0.3, step=10)``.

    Outside a run it does nothing, so the function runs anywhere. A Keras ``fit`` reports by itself.

    Args:
        step: global step the numbers belong to.
        epoch: 1-based epoch.
        values: name -> number (Python, NumPy or TensorFlow scalar).

    Raises:
        TypeError: a value is not a number.
    """
    if (reporter := current()) is not None:
        reporter(step=step, epoch=epoch, **values)


def checkpoint(*what: Any) -> int:
    """Keeps where a training loop by hand is, so that a run with ``retries``, or ``resume``, goes on there.

    Called once before the loop, it gives back what was kept, if anything was, and says where to begin; called at the
    end of each epoch, it keeps::

        for epoch in range(obl_magic.checkpoint(model, optimizer, losses), 10):
            ...
            obl_magic.checkpoint(model, optimizer, losses)

    Outside a run it does nothing and returns 0. A Keras ``fit`` is kept by itself. Python's, NumPy's, Keras' and
    TensorFlow's global random generators, and the order of shuffled datasets, are led to where they were.

    Args:
        what: All that the loop remembers from epoch to epoch, the same at each call: models and optimizers, built
            before; metrics, variables, random generators, lists, dicts, sets, arrays. What is changed in place is
            given back in place.

    Returns:
        How often the loop was kept before this call: the epochs that are done.

    Raises:
        UsageProblem: One of these cannot be kept.
    """
    reporter = current()
    return 0 if reporter is None else reporter.checkpoint(what)


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(
            f"report() got {name}={type(value).__name__}; expected a number; do: report({name}=float(...))"
        ) from None


def _whole(name: str, value: Any) -> int | None:
    if value is None or abs(whole := int(value)) < 2**63:
        return None if value is None else whole
    raise TypeError(
        f"report() got {name}={value!r}; expected a whole number below 2**63; do: report({name}=0)"
    )
