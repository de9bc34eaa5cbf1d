"""A run on ranks that mpirun started: from its launch to its end, in as many worlds as it takes.

Threads: the world's readers decode and fold events, a supervisor sees it to its end, and the caller's thread shows it.
Only the supervisor ends a world.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
import time
from pathlib import Path

from obl_magic.display.run.view import Display
from obl_magic.errors import OblError, RunFailed
from obl_magic.events.event import LAUNCHER, STARTUP, Ended, Event, Log, Restarted, Shown
from obl_magic.launch.awake import Awake
from obl_magic.launch.interrupts import Presses
from obl_magic.launch.watch import Watched
from obl_magic.launchers import mpirun
from obl_magic.options import RunOptions
from obl_magic.runs.run import Ledger
from obl_magic.world.channel import Channel
from obl_magic.world.cores import cores
from obl_magic.world.process import is_root
from obl_magic.world.standby import STANDBY, Wanted
from obl_magic.world.threads import begin

SHOW_EVERY_S = 0.1


def wanted(ranks: int, engine: str, everyone: int | None = None) -> Wanted:
    """The world that a run on so many ranks with these collectives needs, here and now.

    Args:
        ranks: of the world.
        engine: its collectives.
        everyone: ranks of all worlds that share this host, where there are several.

    Raises:
        SetupProblem: there is no MPI.
    """
    launcher, here = mpirun.require(), cores()
    program = [
        sys.executable,
        "-P",
        "-m",
        "obl_magic.worker",
    ]  # a queue.py beside the notebook is not Python's
    argv = mpirun.command(launcher, ranks, program, cores=here, root=is_root())
    env = mpirun.environment(launcher, os.environ, ranks=everyone or ranks, cores=here, engine=engine)
    return Wanted(tuple(argv), env, Path.cwd(), ranks, engine)


class LaunchedRun:
    """Supervises one launched run.

    Args:
        ledger: takes the events.
        options: how the run behaves.
        engine: the chosen collectives.
        shown: the display.
        stopping: counts how often the user has asked for the end.
        stand_by: bring up the next world when this run is over.
    """

    def __init__(
        self,
        ledger: Ledger,
        options: RunOptions,
        engine: str,
        shown: Display,
        stopping: Presses,
        stand_by: bool = False,
    ) -> None:
        self._ledger, self._options, self._engine, self._shown = ledger, options, engine, shown
        self._ranks, self._shown_ranks = options.workers or 1, options.shown_ranks
        self._texts: queue.SimpleQueue[Log | Shown] = queue.SimpleQueue()
        self._stopping = stopping
        self._done = threading.Event()
        self._held: object = None
        self._stand_by = stand_by
        self._clock, self._deadline_s = Awake(), options.timeout
        ledger.listen(self._queue_text)

    def hold(self, run: object) -> None:
        """Keeps what a user would stop or wait for until the run has ended, though nobody else may hold it."""
        self._held = run

    def start(self, shows: bool = False) -> None:
        """Launches the supervisor and the ranks.

        Args:
            shows: also from a thread, without holding the caller.

        Raises:
            SetupProblem: there is no MPI, or it does not start. The run is then over, as failed.
        """
        up: queue.SimpleQueue[Watched | None] = queue.SimpleQueue()
        try:
            if shows:
                begin(self.show_until_done, "obl-show")
            begin(lambda: self._supervise(up.get()), "obl-supervisor")
            up.put(self._launch())
        except OblError as error:
            up.put(None)
            self._end("failed", str(error))
            raise

    def _launch(self, goes_on: bool = False) -> Watched:
        """Brings up a world and gives it the job, to begin with or to go on from what the last one has kept."""
        want = wanted(self._ranks, self._engine)
        channel = STANDBY.take(want) or Channel(want.argv, want.env, want.cwd)
        watched = Watched(channel, self._ledger, self._options, self._stopping, self._clock, self._deadline_s)
        channel.world.give(self._ledger.folder.job, goes_on)
        return watched

    def wait(self, timeout_s: float | None = None) -> bool:
        """Whether the run has ended within ``timeout_s`` seconds."""
        return self._done.wait(timeout_s)

    def stop(self) -> None:
        """Ends the run as interrupted, at the end of a step where it can; returns when no process of it is left."""
        self._stopping.press()
        self._done.wait()

    def show_until_done(self) -> None:
        """Shows the run from the calling thread until it has ended."""
        while not self._done.wait(SHOW_EVERY_S):
            self._show()
        self._show()
        self._shown.end(self._ledger.state, self._ledger.rows, time.time())

    def _show(self) -> None:
        many = len(self._shown_ranks) > 1
        while True:
            try:
                said = self._texts.get_nowait()
            except queue.Empty:
                break
            if isinstance(said, Shown):
                self._shown.shown(said.data, said.name, said.update)
            else:
                self._shown.text(said.rank, said.stream, said.text, many)
        self._shown.update(self._ledger.state, self._ledger.rows, time.time())

    def _queue_text(self, event: Event) -> None:
        if event.rank in self._shown_ranks and (
            isinstance(event, Shown) or (isinstance(event, Log) and event.stream != STARTUP)
        ):
            self._texts.put(event)

    def _supervise(self, watched: Watched | None) -> None:
        """Sees the run to its end, in as many worlds as it may take; says how it went."""
        if watched is None:
            return
        status, error = watched.see_to_its_end()
        for attempt in range(1, self._options.retries + 1):
            if not self._worth_another(status):
                break
            self._ledger.add(Restarted(LAUNCHER, time.time(), error, attempt))
            try:
                watched = self._launch(goes_on=True)
            except OblError as problem:
                status, error = "failed", str(problem)
                break
            status, error = watched.see_to_its_end()
        self._end(status, error)

    def _worth_another(self, status: str) -> bool:
        """Whether another world may succeed where one has failed: not if we refused what the function does."""
        refused = {kind.__name__ for kind in OblError.__subclasses__()} - {RunFailed.__name__}
        failures = self._ledger.state.failures
        said = failures[0].error.partition(":")[0] if failures else ""
        return status in ("failed", "stalled") and not self._stopping and said not in refused

    def _end(self, status: str, error: str) -> None:
        self._ledger.add(Ended(LAUNCHER, time.time(), status, error))
        self._ledger.close()
        self._ledger.folder.tidy()
        with STANDBY.lock:  # the next cell takes what is prepared here
            self._done.set()
            self._held = None
            if self._stand_by and STANDBY.allowed:
                with contextlib.suppress(OblError):  # the next run will say so itself
                    STANDBY.prepare(wanted(self._ranks, self._engine))
