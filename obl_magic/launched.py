"""A run on ranks that mpirun started: from its launch to its end, whatever ends it.

Threads: the world's readers decode and fold events, a supervisor decides when the run is over and why, and the
caller's thread shows it. Only the supervisor ends a world.
"""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
import time
from pathlib import Path

from obl_magic import stall
from obl_magic.display.base import Display
from obl_magic.errors import OblError, RunFailed
from obl_magic.events.event import LAUNCHER, STARTUP, Ended, Event, Failed, Log, Note, Restarted
from obl_magic.events.frames import Decoder, Gap, Stray
from obl_magic.failures import read_death
from obl_magic.interrupts import Presses
from obl_magic.runs import Ledger, epoch_rows
from obl_magic.values import Options
from obl_magic.world import mpi
from obl_magic.world.process import World, is_root
from obl_magic.world.standby import STANDBY, Wanted

TICK_S = 0.1
OTHERS_MAY_FAIL_TOO_S = 0.25
SHOW_EVERY_S = 0.1
STEP_MAY_TAKE_S = 3.0
"""How long a run that is asked to stop has for it, before it is ended."""
COMING_UP_S = 30.0
"""Ranks that come up are not taken for stalled ones any sooner."""
DUMPING_S = 0.3
LEFT_ALONE = "Horovod has been shut down"
"""What Horovod says on a rank that waits for one which has returned."""


def wanted(ranks: int, engine: str) -> Wanted:
    """The world that a run on so many ranks with these collectives needs, here and now.

    Raises:
        SetupProblem: there is no MPI.
    """
    launcher, cores = mpi.require(), mpi.cores()
    program = [sys.executable, "-m", "obl_magic.worker"]
    argv = mpi.command(launcher, ranks, program, cores=cores, root=is_root())
    env = mpi.environment(launcher, os.environ, ranks=ranks, cores=cores, engine=engine)
    return Wanted(tuple(argv), env, Path.cwd(), ranks)


class LaunchedRun:
    """Supervises one launched run.

    Args:
        ledger: takes the events. options: how the run behaves. engine: the chosen collectives.
        shown: the display. stopping: counts how often the user has asked for the end.
        stand_by: bring up the next world when this run is over.
    """

    def __init__(
        self,
        ledger: Ledger,
        options: Options,
        engine: str,
        shown: Display,
        stopping: Presses,
        stand_by: bool = False,
    ) -> None:
        self._ledger, self._options, self._engine, self._shown = ledger, options, engine, shown
        self._ranks = options.workers or 1
        self._decoder = Decoder()
        self._texts: queue.SimpleQueue[Log] = queue.SimpleQueue()
        self._stopping = stopping
        self._done = threading.Event()
        self._world: World | None = None
        self._stand_by = stand_by
        self._asked_to_stop = self._noted = False
        self._deadline = None if options.timeout_s is None else time.monotonic() + options.timeout_s
        ledger.listen(self._queue_text)

    def start(self) -> None:
        """Launches the ranks and the supervisor.

        Raises:
            SetupProblem: there is no MPI, or it does not start. The run is then over, as failed.
        """
        try:
            self._launch()
        except OblError as error:
            self._end("failed", str(error))
            raise
        threading.Thread(target=self._supervise, name="obl-supervisor", daemon=True).start()

    def _launch(self, goes_on: bool = False) -> None:
        """Brings up a world and gives it the job, to begin with or to go on from what the last one has kept."""
        self._decoder = Decoder()
        want = wanted(self._ranks, self._engine)
        waiting = STANDBY.take(want, self._on_line, self._on_word)
        self._world = waiting or World(want.argv, want.env, want.cwd, self._on_line, self._on_word)
        self._world.give(self._ledger.folder.job, goes_on)

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
        self._shown.end(self._ledger.state, epoch_rows(self._ledger.rows), time.time())

    def show_from_a_thread(self) -> None:
        """As :meth:`show_until_done`, without holding the caller."""
        threading.Thread(target=self.show_until_done, name="obl-show", daemon=True).start()

    def _show(self) -> None:
        many = len(self._options.show_ranks or ()) > 1
        while True:
            try:
                log = self._texts.get_nowait()
            except queue.Empty:
                break
            self._shown.text(log.rank, log.stream, log.text, many)
        self._shown.update(self._ledger.state, time.time())

    def _queue_text(self, event: Event) -> None:
        if (
            isinstance(event, Log)
            and event.stream != STARTUP
            and event.rank in (self._options.show_ranks or ())
        ):
            self._texts.put(event)

    def _on_line(self, line: bytes) -> None:
        for piece in self._decoder.feed(line):
            if isinstance(piece, Stray):
                self._ledger.add(Log(LAUNCHER, time.time(), "stdout", piece.text + "\n"))
            elif isinstance(piece, Gap):
                said = f"lost events {piece.first} to {piece.last} of rank {piece.rank}\n"
                self._ledger.add(Log(LAUNCHER, time.time(), "stderr", said))
            else:
                self._ledger.take(piece.text)

    def _on_word(self, line: bytes) -> None:
        self._ledger.add(Log(LAUNCHER, time.time(), "stderr", line.decode("utf-8", "replace")))

    def _supervise(self) -> None:
        """Sees the run to its end, in as many worlds as it may take; says how it went."""
        assert self._world is not None
        status, error = self._see_to_its_end(self._world)
        for attempt in range(1, self._options.retries + 1):
            if not self._worth_another(status):
                break
            self._ledger.add(Restarted(LAUNCHER, time.time(), error, attempt))
            try:
                self._launch(goes_on=True)
            except OblError as problem:
                status, error = "failed", str(problem)
                break
            status, error = self._see_to_its_end(self._world)
        self._end(status, error)

    def _worth_another(self, status: str) -> bool:
        """Whether another world may succeed where one has failed: not if we refused what the function does."""
        refused = {kind.__name__ for kind in OblError.__subclasses__()} - {RunFailed.__name__}
        failures = self._ledger.state.failures
        said = failures[0].error.partition(":")[0] if failures else ""
        return status in ("failed", "stalled") and not self._stopping and said not in refused

    def _see_to_its_end(self, world: World) -> tuple[str, str]:
        """Waits for whatever ends a world, and ends it; (status, first cause)."""
        failed_at: float | None = None
        patience: float | None = None
        status = error = ""
        while not world.wait(TICK_S):
            now = time.monotonic()
            if self._ledger.state.failures:
                failed_at = failed_at or now
                if now - failed_at > OTHERS_MAY_FAIL_TOO_S:
                    break
            if self._stopping:
                patience = self._ask_to_stop(world, now) if patience is None else patience
                if self._stopping.count > 1 or now >= patience:
                    status, error = "interrupted", "interrupted"
                    break
            if self._deadline is not None and now > self._deadline:
                status, error = "timed out", f"the run passed its timeout of {self._options.timeout_s:g} s"
                break
            if stalled := self._stalled(world):
                status, error = "stalled", stalled
                break
        world.stop()
        return (status, error) if status else self._verdict(world)

    def _ask_to_stop(self, world: World, now: float) -> float:
        """Asks a fit under way to stop at the end of a step; until when to wait for it."""
        if not any(rank.fitting for rank in self._ledger.state.ranks.values()):
            return now
        self._asked_to_stop = True
        world.ask_to_stop()
        self._note("stopping", "asked to stop at the end of a step; a second interrupt ends it at once")
        return now + STEP_MAY_TAKE_S

    def _stalled(self, world: World) -> str:
        """Why the run is ended for want of progress; "" while it need not be."""
        state, now = self._ledger.state, time.time()
        limit, still = self._options.stall_timeout_s, stall.still_s(state, now)
        if len(state.ranks) < self._ranks:
            limit = None if limit is None else max(limit, COMING_UP_S)
        if limit is not None and still > limit:
            said = f"no progress for {still:.0f} s: {stall.culprit(state, self._ranks, now)}"
            world.dump(rank.pid for rank in state.ranks.values())
            time.sleep(DUMPING_S)
            return f"{said}; all stacks: {self._ledger.folder.path}{os.sep}stacks-*.txt"
        if still > stall.NOTED_AFTER_S and stall.one_waits_for_another(state) and not self._noted:
            self._noted = True
            self._note("stall", f"no progress for {still:.0f} s: {stall.culprit(state, self._ranks, now)}")
        return ""

    def _note(self, code: str, text: str) -> None:
        self._ledger.add(Note(LAUNCHER, time.time(), text, code))

    def _verdict(self, world: World) -> tuple[str, str]:
        """(status, first cause) of a world that ended by itself or after a failure."""
        state = self._ledger.state
        if self._asked_to_stop:
            return "interrupted", "interrupted"
        if not state.failures and len(state.results or {}) == self._ranks:
            return "succeeded", ""
        if self._stopping:  # Jupyter's interrupt may reach a launcher before it has its own session
            return "interrupted", "interrupted"
        if not state.failures:
            self._ledger.add(self._death(world))
        first = next((f for f in self._ledger.state.failures if f.traceback), self._ledger.state.failures[0])
        if LEFT_ALONE in first.error and any(
            r.state == "returned" for r in self._ledger.state.ranks.values()
        ):
            return "stalled", stall.left_alone(self._ledger.state, first)
        return "failed", first.error

    def _death(self, world: World) -> Failed:
        """The failure of a rank that went without a word, in the launcher's terms."""
        state = self._ledger.state
        said = read_death(self._ledger.folder.read_log(LAUNCHER))
        silent = [rank for rank in range(self._ranks) if rank not in (state.results or {})]
        rank = said.rank if said and said.rank is not None else (silent[0] if silent else 0)
        how = said.how if said else f"mpirun's exit code {world.exit_code}"
        known = state.ranks.get(rank)
        if known is None or known.state == "waiting":
            words = self._ledger.folder.read_log(LAUNCHER).strip().splitlines()
            reason = f"the ranks did not come up ({how})" + (f": {' '.join(words[:6])}" if words else "")
            return Failed(rank, time.time(), reason + "; do: python -m obl_magic doctor", "", "", "")
        after = f" after step {known.step}" if known.step else ""
        return Failed(rank, time.time(), f"rank {rank} died: {how}{after}", "", known.where, "")

    def _end(self, status: str, error: str) -> None:
        self._ledger.add(Ended(LAUNCHER, time.time(), status, error))
        self._ledger.close()
        self._ledger.folder.tidy()
        self._done.set()
        if self._stand_by and STANDBY.allowed:
            with contextlib.suppress(OblError):  # the next run will say so itself
                STANDBY.prepare(wanted(self._ranks, self._engine))
