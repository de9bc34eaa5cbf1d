"""What a user holds of a run: the folded events of one call, and its folder. Starts nothing."""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from obl_magic.display.charts.figures import run_figure
from obl_magic.display.choose import current_cell, show_still
from obl_magic.display.run.text import summary
from obl_magic.errors import SetupProblem, UsageProblem
from obl_magic.events.event import LAUNCHER, Ended, Event, Log, Metric, Note, Sent, from_json
from obl_magic.events.fold import RunState, empty, fold_all
from obl_magic.events.journal import Journal
from obl_magic.events.log import Follower
from obl_magic.events.table import NONE, MetricTable
from obl_magic.options import RUN, RunOptions
from obl_magic.payload import files
from obl_magic.rundir import RunDir, existing, existing_studies, unwritable
from obl_magic.rundir.record import FORMAT, RunRecord, damaged, read_json
from obl_magic.rundir.trust import refuse_foreign
from obl_magic.runs.arrivals import Arrivals
from obl_magic.runs.failures import error_of
from obl_magic.runs.mlflow import log_to_mlflow
from obl_magic.runs.owner import is_gone

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

FOLDED_TOGETHER = 1000
"""Events that wait at most to be folded where nobody asks for the state."""

LOOKS_EVERY_S = 0.1
"""How often whoever waits for a run of another process reads along in its log."""

LIVE: weakref.WeakValueDictionary[str, Run] = weakref.WeakValueDictionary()
"""The runs this process has started, by id, as long as somebody holds them."""


class Ledger:
    """The events of one run: appended to its log, folded into its state; usable from any thread.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: RunDir) -> None:
        self.folder = folder
        self.rows = MetricTable()
        self._state: RunState = empty()
        self._unfolded: list[Event] = []
        self._journal: Journal | None = None
        self._lock = threading.RLock()
        self._listeners: list[Callable[[Event], None]] = []
        self._follower: Follower | None = None
        self._kernel: Mapping[str, Any] | None = None
        self._latest_s = 0.0
        self._arrivals = Arrivals(folder, self.note)

    @classmethod
    def of(cls, folder: RunDir, kernel: Mapping[str, Any] | None) -> Self:
        """The ledger of a run that is read from its log on disk, to which another process may still add.

        Args:
            folder: the run's folder.
            kernel: the record of the process that conducts the run.
        """
        ledger = cls(folder)
        ledger._follower, ledger._kernel = Follower(folder.events), kernel
        return ledger

    @property
    def state(self) -> RunState:
        """What the events so far amount to."""
        with self._lock:
            unfolded, self._unfolded = self._unfolded, []
            self._state = fold_all(self._state, unfolded)
            return self._state

    def note(self, text: str) -> None:
        """Adds a note of ours."""
        self.add(Note(LAUNCHER, time.time(), text, "kernel"))

    def catch_up(self) -> list[Event]:
        """Folds what was added to the log on disk since the last call; which events these are, numbers apart.

        A run whose kernel is gone without having ended it is over, too: failed. Nothing new comes to a ledger that
        is written here.
        """
        with self._lock:
            if self._follower is None or self.state.ended_s is not None:
                return []
            # asked first: its last words may come just before its end
            gone = is_gone(self._kernel, self.folder.logs)
            events = []
            damaged = self._follower.damaged
            for event in self._follower.each():
                self._fold(event)
                if not isinstance(event, Metric):
                    events.append(event)
            if self._follower.damaged > damaged:
                self._fold(
                    Note(LAUNCHER, self._latest_s, _damaged(self.folder, self._follower.damaged), "damaged")
                )
            if gone and self.state.ended_s is None:
                self._fold(Ended(LAUNCHER, self._latest_s, "failed", _kernel_gone(self.folder, self._kernel)))
            return events

    @property
    def is_read(self) -> bool:
        """Whether somebody else writes it, or has written it."""
        return self._follower is not None

    def open(self) -> None:
        """Starts writing.

        Raises:
            SetupProblem: the folder cannot be written.
        """
        try:
            self._journal = Journal(self.folder.events, self.folder.log)
        except OSError as error:
            raise unwritable(self.folder.events, error) from error

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Calls ``listener`` with every event added from now on."""
        self._listeners.append(listener)

    def take(self, line: str) -> None:
        """As :meth:`add`, of an event that came as its JSON; what is none is kept as the launcher's words."""
        try:
            event = from_json(line)
        except ValueError as error:
            self.add(Log(LAUNCHER, time.time(), "stderr", f"{error}\n"))
        else:
            if isinstance(event, Sent):
                self._arrivals.take(event)
            else:
                self.add(event, line)

    def add(self, event: Event, line: str | None = None) -> None:
        """Writes and folds one event. What cannot be written is said at the run's end.

        Args:
            event: the event.
            line: its JSON, where that is known already.
        """
        with self._lock:
            if self._journal is None:
                return
            if isinstance(event, Ended) and (lost := self._journal.lost):
                self.add(Note(LAUNCHER, event.time_s, lost, "not-written"))
            self._journal.write(event, line)
            self._fold(event)
        for listener in self._listeners:
            listener(event)

    def close(self) -> None:
        """Closes the log; later events are dropped. How the run ended is written down beside it."""
        with self._lock:
            if self._journal is None:
                return
            self._journal.close()
            self._journal = None
            state = self.state
            if state.ended_s is not None:
                ended = {
                    "format": FORMAT,
                    "status": state.status,
                    "total_s": _since(state.started_s, state.ended_s),
                }
                with contextlib.suppress(SetupProblem):  # then its events are read
                    self.folder.write_json(self.folder.summary, ended)

    def _fold(self, event: Event) -> None:
        self._unfolded.append(event)
        self._latest_s = max(self._latest_s, event.time_s)
        if isinstance(event, Metric):
            self.rows.add(event)
        if len(self._unfolded) >= FOLDED_TOGETHER:
            _ = self.state


class Run:
    """One call of the magic: its status, value, metrics, logs, and folder.

    Attributes:
        id: the run's id.
        digest: sha256 of the function's source.
        workers: number of ranks (None: in the kernel).
        engine: the collectives that were used.
        dir: the run's folder.
    """

    def __init__(self, ledger: Ledger, record: RunRecord, live: Any = None) -> None:
        self.ledger, self.record, self._live = ledger, record, live
        self._values: dict[int, Any] = {}
        self._error: BaseException | None = None
        self.shown_in: int | None = None
        self._trusted = False

    @classmethod
    def open(cls, run: str | os.PathLike[str] | RunDir, *, trust: bool = False) -> Run:
        """An earlier run, by its id, by the beginning or end of its id, or by its folder.

        Its value, its error, its checkpoints and its job are pickles: to read one runs what it holds. They are
        refused where somebody else may have written them.

        Args:
            run: the run.
            trust: read its pickles whoever may have written them.

        Raises:
            UsageProblem: there is no such run, more than one, or its record is damaged.
        """
        folder = run if isinstance(run, RunDir) else _find(run)
        record = folder.record()
        found = cls(Ledger.of(folder, record.kernel), record)
        found._trusted = trust
        return found

    @property
    def id(self) -> str:
        return self.ledger.folder.id

    @property
    def dir(self) -> Path:
        return self.ledger.folder.path

    @property
    def digest(self) -> str:
        return self.record.digest

    @property
    def workers(self) -> int | None:
        return self.record.workers

    @property
    def engine(self) -> str:
        return self.record.engine

    @property
    def seed(self) -> int:
        """The base seed that all of the run's random numbers derive from."""
        return self.record.seed

    @property
    def status(self) -> str:
        """``running``, ``succeeded``, ``failed``, ``interrupted``, ``stalled``, ``timed out``; a trial: ``pruned``."""
        return self._state.status

    @property
    def value(self) -> Any:
        """What rank 0's function returned; waits for the run to end; None if it did not return."""
        self.wait()
        return self._value_of(0)

    @property
    def values(self) -> list[Any]:
        """What every rank's function returned, in rank order (of its last world); None where one did not."""
        self.wait()
        return [self._value_of(rank) for rank in range(self._state.workers or self.workers or 1)]

    @property
    def metrics(self) -> pd.DataFrame:
        """Every reported number, one row each: ``time_s, rank, epoch, step, name, value``.

        ``time_s`` is seconds since the run began; ``epoch`` is 1-based; ``step`` counts optimizer steps. A Keras
        fit reports its epochs' logs under their own names, and now and then a step's as ``batch_<name>``.
        """
        import numpy as np
        import pandas as pd

        begun = self._state.started_s or 0.0
        rows = self.ledger.rows.kept(lambda name: True)
        columns: dict[str, Any] = {
            "time_s": np.array(rows.time_s) - begun,
            "rank": np.array(rows.ranks, "int64"),
        }
        for name, column in (("epoch", np.array(rows.epochs)), ("step", np.array(rows.steps))):
            columns[name] = pd.arrays.IntegerArray(column, column == NONE)
        names = pd.Series(rows.names, dtype="str").take(np.array(rows.codes, "int64"))
        return pd.DataFrame({**columns, "name": names.array, "value": np.array(rows.values)})

    @property
    def error(self) -> BaseException | None:
        """Why the run did not succeed: the worker's exception where it could travel; None if it did."""
        if self._error is None and self.status not in ("running", "succeeded", "pruned"):
            self.refuse_foreign("the error")
            self._error = error_of(self._state, self.ledger.folder)
            self._error.run = self  # type: ignore[attr-defined]
        return self._error

    @property
    def timings(self) -> dict[str, float | None]:
        """Seconds: ``capture_s``, ``launch_s`` (until every rank had the job), ``first_step_s``, ``total_s``."""
        state, begun = self._state, self._state.started_s
        firsts = [r.first_step_s for r in state.ranks.values() if r.first_step_s is not None]
        return {
            "capture_s": self.record.capture_s,
            "launch_s": _since(begun, state.ready_s),
            "first_step_s": _since(begun, max(firsts, default=None)),
            "total_s": _since(begun, state.ended_s),
        }

    @property
    def captured(self) -> pd.DataFrame:
        """What the function dragged along, largest first: ``path, type_name, size_bytes, secret``."""
        import pandas as pd

        return pd.DataFrame(list(self.record.captured), columns=["path", "type_name", "size_bytes", "secret"])

    @property
    def notes(self) -> list[str]:
        """What was made distributed and what was not, in plain words."""
        return [note.text for note in self._state.notes]

    def plot(self) -> Figure:
        """The curves of its metrics as a matplotlib figure, which a notebook shows.

        Raises:
            SetupProblem: matplotlib is missing.
        """
        self.ledger.catch_up()
        return run_figure(f"{self.record.function} · {self.id}", self.ledger.rows)

    def to_mlflow(self, experiment: str | None = None, tracking_uri: str | None = None) -> str:
        """Logs its parameters, curves and source to MLflow; MLflow's id of it.

        Args:
            experiment: MLflow's experiment; by default the function's name.
            tracking_uri: where MLflow keeps it; by default as MLflow is set.

        Raises:
            SetupProblem: MLflow is missing.
        """
        name = experiment or self.record.function
        status = self.status
        return log_to_mlflow(
            self.record, status, self.ledger.rows, self.ledger.folder.source, name, tracking_uri
        )

    def logs(self, rank: int = 0) -> str:
        """Everything a rank printed (-1: the launcher), Python and C code alike."""
        return self.ledger.folder.read_log(rank)

    def wait(self, timeout_s: float | None = None) -> Run:
        """Returns this run when it has ended, or after ``timeout_s`` seconds; ask :attr:`status` which."""
        if self._live is not None:
            self._live.wait(timeout_s)
        elif self.ledger.is_read:
            until = math.inf if timeout_s is None else time.monotonic() + timeout_s
            while self.status == "running" and (left_s := until - time.monotonic()) > 0:
                time.sleep(min(LOOKS_EVERY_S, left_s))
        return self

    def scale(self, workers: int | None = None, hosts: str | Sequence[str] | None = None) -> None:
        """Has the run go on in a world of another size, or on other hosts, with the same numbers.

        It moves at the end of the epoch that is under way.

        Args:
            workers: ranks; by default as many as the hosts have places.
            hosts: as for :func:`obl_magic.run`; by default this one.

        Raises:
            UsageProblem: it does not run, or not on ranks, or another kernel conducts it.
        """
        if self._live is None or self.status != "running":
            raise UsageProblem(
                f"scale of {self.id}, which {'is over' if self.status != 'running' else 'has no ranks of this kernel'}",
                "a run under way that this kernel has started with workers",
                "obl_magic.run(..., workers=2, background=True)",
            )
        self._live.scale(RunOptions.of(RUN, {"workers": workers, "hosts": hosts}))

    @property
    def worlds(self) -> list[dict[str, Any]]:
        """Of each world that trained, in order: ``workers``, ``hosts`` in words, and the epoch it began with."""
        told = self.ledger.state.worlds
        return [
            {"workers": workers, "hosts": hosts or self.record.hosts, "from_epoch": epoch}
            for workers, hosts, epoch in told
        ]

    def stop(self) -> None:
        """Ends the run now; no process of it is left when this returns.

        Raises:
            UsageProblem: another kernel conducts it.
        """
        if self._live is not None:
            self._live.stop()
        elif self.ledger.is_read and self.status == "running":
            kernel = self.record.kernel or {"pid": "?", "host": "?"}
            raise UsageProblem(
                f"stop of {self.id}, which the kernel with process id {kernel['pid']} on {kernel['host']} runs",
                "a run of this kernel",
                "%oblivious stop, or Kernel > Interrupt, in that notebook",
            )

    @property
    def _state(self) -> RunState:
        """The state as it is now, wherever the run is conducted."""
        self.ledger.catch_up()
        return self.ledger.state

    def _value_of(self, rank: int) -> Any:
        if rank not in self._values:
            name = (self._state.results or {}).get(rank)
            if name:
                self.refuse_foreign("the value")
            self._values[rank] = files.load(self.dir / name) if name else None
        return self._values[rank]

    def refuse_foreign(self, what: str) -> None:
        """Refuses what somebody else may have written, unless the run was opened with ``trust=True``."""
        if not self._trusted:
            refuse_foreign(self.dir, f"{what} of {self.id}")

    def keep_value(self, value: Any) -> None:
        self._values[0] = value

    def keep_error(self, error: BaseException) -> None:
        self._error = error

    def __repr__(self) -> str:
        return summary(self.record, self._state, self.ledger.rows)

    def _ipython_display_(self) -> None:
        """Shows the run as a still, but not a second time in the cell where its panel is."""
        here, self.shown_in = self.shown_in, None
        if here is not None and here == current_cell():
            return
        show_still(self.record, self._state, self.ledger.rows)


def glance(folder: RunDir) -> tuple[str, float | None]:
    """(status, seconds from begin to end) of a run, read from its events only where it has no summary.

    Raises:
        Damaged: neither can be read.
    """
    if folder.id in LIVE or not folder.summary.is_file():
        run = LIVE.get(folder.id) or Run.open(folder)
        return run.status, run.timings["total_s"]
    ended = read_json(folder.summary)
    for name in ("status", "total_s"):
        if name not in ended:
            raise damaged(folder.summary, f"without {name}")
    return ended["status"], ended["total_s"]


def _find(name: str | os.PathLike[str]) -> RunDir:
    if not isinstance(name, (str, os.PathLike)):
        raise UsageProblem(f"{name!r} for a run", "its id or its folder", "%oblivious runs")
    name = os.fspath(name)
    if Path(name, "run.json").is_file():
        return RunDir(Path(name).absolute())
    runs = existing()
    found = [run for run in runs if run.id.startswith(name) or run.id.endswith(name)]
    found = found or [trial for study in existing_studies() for trial in study.trials() if trial.id == name]
    if len(found) == 1:
        return found[0]
    known = ", ".join(run.id for run in runs[-3:]) or "none"
    what = "no run of that id" if not found else f"{len(found)} runs of that id"
    raise UsageProblem(f"run {name!r} ({what})", f"the id of one run; the newest: {known}", "%oblivious runs")


def _damaged(folder: RunDir, lines: int) -> str:
    return (
        f"{lines} damaged line{'s' if lines > 1 else ''} of {folder.events.name} left out; the rest is shown"
    )


def _kernel_gone(folder: RunDir, kernel: Mapping[str, Any] | None) -> str:
    who = f" (process {kernel['pid']} has ended)" if kernel else ""
    kept = f"go on from its last epoch: --resume {folder.id}" if folder.has_checkpoints else "run it again"
    return f"its kernel is gone{who}, and the run went with it; do: {kept}"


def _since(begun: float | None, then: float | None) -> float | None:
    return None if begun is None or then is None else max(0.0, then - begun)
