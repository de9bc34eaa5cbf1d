"""What a user holds of a run: the folded events of one call, and its folder. Starts nothing."""

from __future__ import annotations

import json
import threading
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from obl_magic import payload
from obl_magic.display.base import Header
from obl_magic.errors import UsageProblem
from obl_magic.events.event import Event, Log, Metric
from obl_magic.events.fold import SINGLE_STEP, MetricRow, RunState, empty, fold, metric_rows
from obl_magic.events.log import EventLog, read
from obl_magic.failures import error_of
from obl_magic.rundir import RunDir, existing

if TYPE_CHECKING:
    import pandas as pd

LIVE: weakref.WeakValueDictionary[str, Run] = weakref.WeakValueDictionary()
"""The runs this process has started, by id, as long as somebody holds them."""


class Ledger:
    """The events of one run: appended to its log, folded into its state; usable from any thread.

    Args:
        folder: the run's folder.
    """

    def __init__(self, folder: RunDir) -> None:
        self.folder = folder
        self.state: RunState = empty()
        self.rows: list[MetricRow] = []
        self._log: EventLog | None = None
        self._lock = threading.RLock()
        self._listeners: list[Callable[[Event], None]] = []

    @classmethod
    def of(cls, folder: RunDir) -> Self:
        """The ledger of a run as its log on disk has it now."""
        ledger = cls(folder)
        for event in read(folder.events):
            ledger._fold(event)
        return ledger

    def open(self) -> None:
        """Starts writing."""
        self._log = EventLog(self.folder.events)

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Calls ``listener`` with every event added from now on, after it was folded."""
        self._listeners.append(listener)

    def add(self, event: Event) -> None:
        """Writes and folds one event."""
        with self._lock:
            if self._log is None:
                return
            self._log.append(event)
            if isinstance(event, Log):
                with self.folder.log(event.rank).open("a", encoding="utf-8", newline="") as file:
                    file.write(event.text)
            self._fold(event)
        for listener in self._listeners:
            listener(event)

    def close(self) -> None:
        """Closes the log; later events are dropped."""
        with self._lock:
            if self._log is not None:
                self._log.close()
                self._log = None

    def _fold(self, event: Event) -> None:
        self.state = fold(self.state, event)
        if isinstance(event, Metric):
            self.rows.extend(metric_rows(event))


class Run:
    """One call of the magic: its status, value, metrics, logs, and folder.

    Attributes:
        id: the run's id. digest: sha256 of the function's source. workers: number of ranks (None: in the kernel).
        engine: the collectives that were used. dir: the run's folder.
    """

    def __init__(self, ledger: Ledger, manifest: Mapping[str, Any], live: Any = None) -> None:
        self._ledger, self._manifest, self._live = ledger, manifest, live
        self._values: dict[int, Any] = {}
        self._error: BaseException | None = None
        self._shown_in: int | None = None

    @classmethod
    def open(cls, run: str | RunDir) -> Run:
        """An earlier run, by its id, by the beginning or end of its id, or by its folder.

        Raises:
            UsageProblem: there is no such run, or more than one.
        """
        folder = run if isinstance(run, RunDir) else _find(run)
        return cls(Ledger.of(folder), json.loads(folder.manifest.read_text()))

    @property
    def id(self) -> str:
        return self._ledger.folder.id

    @property
    def dir(self) -> Path:
        return self._ledger.folder.path

    @property
    def digest(self) -> str:
        return str(self._manifest["digest"])

    @property
    def workers(self) -> int | None:
        workers: int | None = self._manifest["workers"]
        return workers

    @property
    def engine(self) -> str:
        return str(self._manifest["engine"])

    @property
    def seed(self) -> int:
        """The base seed that all of the run's random numbers derive from."""
        return int(self._manifest["seed"])

    @property
    def status(self) -> str:
        """``running``, ``succeeded``, ``failed``, ``interrupted``, ``stalled`` or ``timed out``."""
        return self._ledger.state.status

    @property
    def value(self) -> Any:
        """What rank 0's function returned; waits for the run to end; None if it did not return."""
        self.wait()
        return self._value_of(0)

    @property
    def values(self) -> list[Any]:
        """What every rank's function returned, in rank order; None where one did not."""
        self.wait()
        return [self._value_of(rank) for rank in range(self.workers or 1)]

    @property
    def metrics(self) -> pd.DataFrame:
        """Every reported number, one row each: ``time_s, rank, epoch, step, name, value``.

        ``time_s`` is seconds since the run began; ``epoch`` is 1-based; ``step`` counts optimizer steps. A Keras
        fit reports its epochs' logs under their own names, and now and then a step's as ``batch_<name>``.
        """
        import pandas as pd

        begun = self._ledger.state.started_s or 0.0
        rows = [(r.time_s - begun, r.rank, r.epoch, r.step, r.name, r.value) for r in list(self._ledger.rows)]
        table = pd.DataFrame(rows, columns=["time_s", "rank", "epoch", "step", "name", "value"])
        return table.astype({"epoch": "Int64", "step": "Int64", "rank": "int64", "value": "float64"})

    @property
    def error(self) -> BaseException | None:
        """Why the run did not succeed: the worker's exception where it could travel; None if it did."""
        if self._error is None and self.status not in ("running", "succeeded"):
            self._error = error_of(self._ledger.state, self._ledger.folder)
            self._error.run = self  # type: ignore[attr-defined]
        return self._error

    @property
    def timings(self) -> dict[str, float | None]:
        """Seconds: ``capture_s``, ``launch_s`` (until every rank had the job), ``first_step_s``, ``total_s``."""
        state, begun = self._ledger.state, self._ledger.state.started_s
        firsts = [r.first_step_s for r in state.ranks.values() if r.first_step_s is not None]
        return {
            "capture_s": self._manifest.get("capture_s"),
            "launch_s": _since(begun, state.ready_s),
            "first_step_s": _since(begun, max(firsts, default=None)),
            "total_s": _since(begun, state.ended_s),
        }

    @property
    def captured(self) -> pd.DataFrame:
        """What the function dragged along, largest first: ``path, type_name, size_bytes, secret``."""
        import pandas as pd

        return pd.DataFrame(self._manifest["captured"], columns=["path", "type_name", "size_bytes", "secret"])

    @property
    def notes(self) -> list[str]:
        """What was made distributed and what was not, in plain words."""
        return [note.text for note in self._ledger.state.notes]

    def logs(self, rank: int = 0) -> str:
        """Everything a rank printed (-1: the launcher), Python and C code alike."""
        return self._ledger.folder.read_log(rank)

    def wait(self, timeout_s: float | None = None) -> Run:
        """Returns this run when it has ended, or after ``timeout_s`` seconds; ask :attr:`status` which."""
        if self._live is not None:
            self._live.wait(timeout_s)
        return self

    def stop(self) -> None:
        """Ends the run now; no process of it is left when this returns."""
        if self._live is not None:
            self._live.stop()

    def _value_of(self, rank: int) -> Any:
        if rank not in self._values:
            name = (self._ledger.state.results or {}).get(rank)
            self._values[rank] = payload.loads((self.dir / name).read_bytes()) if name else None
        return self._values[rank]

    def _keep_value(self, value: Any) -> None:
        self._values[0] = value

    def _keep_error(self, error: BaseException) -> None:
        self._error = error

    @property
    def _header(self) -> Header:
        header = dict(self._manifest["header"])
        return Header(**{**header, "lines": tuple(header["lines"])})

    def __repr__(self) -> str:
        from obl_magic.display.text import summary

        return summary(self._header, self._ledger.state, epoch_rows(self._ledger.rows))

    def _ipython_display_(self) -> None:
        """Shows the run as a still, but not a second time in the cell where its panel is."""
        from obl_magic.show import current_cell, show_still

        here, self._shown_in = self._shown_in, None
        if here is not None and here == current_cell():
            return
        show_still(self._header, self._ledger.state, epoch_rows(self._ledger.rows))


def epoch_rows(rows: Sequence[MetricRow]) -> list[MetricRow]:
    """The rows worth showing: without the samples of single steps."""
    return [row for row in list(rows) if not row.name.startswith(SINGLE_STEP)]


def _find(name: str) -> RunDir:
    if Path(name, "run.json").is_file():
        return RunDir(Path(name).absolute())
    runs = existing()
    found = [run for run in runs if run.id.startswith(name) or run.id.endswith(name)]
    if len(found) == 1:
        return found[0]
    known = ", ".join(run.id for run in runs[-3:]) or "none"
    what = "no run of that id" if not found else f"{len(found)} runs of that id"
    raise UsageProblem(f"run {name!r} ({what})", f"the id of one run; the newest: {known}", "%oblivious runs")


def _since(begun: float | None, then: float | None) -> float | None:
    return None if begun is None or then is None else max(0.0, then - begun)
