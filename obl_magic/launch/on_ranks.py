"""A run on ranks that mpirun started: from its launch to its end, in as many worlds as it takes.

Threads: the world's readers decode and fold events, a supervisor sees it to its end, and the caller's thread shows it.
Only the supervisor ends a world.
"""

from __future__ import annotations

import os
import queue
import shutil
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

from obl_magic.display.run.view import Display
from obl_magic.errors import OblError, RunFailed, SetupProblem
from obl_magic.events.event import LAUNCHER, STARTUP, Ended, Event, Log, Note, Restarted, Shown
from obl_magic.hosts import salloc
from obl_magic.hosts.allocation import allocation, for_mpirun
from obl_magic.hosts.cores import cores
from obl_magic.hosts.places import Hosts
from obl_magic.launch.awake import Awake
from obl_magic.launch.interrupts import Presses
from obl_magic.launch.watch import MOVES, Watched
from obl_magic.launchers import in_allocation, mpirun
from obl_magic.options import RunOptions
from obl_magic.runs.run import Ledger
from obl_magic.server.server import SERVER
from obl_magic.setup import hosts as setup
from obl_magic.world.channel import Wanted
from obl_magic.world.process import is_root
from obl_magic.world.threads import begin

SHOW_EVERY_S = 0.1
PROGRAM = (sys.executable, "-P", "-m", "obl_magic.worker")
"""A rank's; with -P, since a queue.py beside the notebook is not Python's."""


def wanted(
    ranks: int, engine: str, imports: bool, everyone: int | None = None, hosts: Hosts | None = None
) -> Wanted:
    """The world that a run on so many ranks with these collectives needs, here and now.

    Args:
        ranks: of the world.
        engine: its collectives.
        imports: its ranks import the frameworks.
        everyone: ranks of all worlds that share this host, where there are several.
        hosts: where they are, if not all here.

    Raises:
        SetupProblem: there is no MPI, or none that was tried over several hosts; or a host is not like this one.
    """
    launcher, here = mpirun.require(), cores()
    argv = mpirun.command(launcher, ranks, (), cores=here, root=is_root(), hosts=hosts)
    env = mpirun.environment(
        launcher, os.environ, ranks=everyone or ranks, cores=here, engine=engine, several=hosts is not None
    )
    if hosts is not None and (job := allocation()) is not None:
        env |= for_mpirun(job, hosts)
    if hosts is not None:
        _, _, variables = setup.KNOWN.ready(hosts)
        env |= variables
    return Wanted(tuple(argv), PROGRAM, env, Path.cwd(), imports, hosts)


def queued(ranks: int, engine: str, imports: bool, words: list[str]) -> Wanted:
    """The world of a run that asks Slurm for its hosts.

    Args:
        ranks: of the world.
        engine: its collectives.
        imports: its ranks import the frameworks.
        words: salloc's options.

    Raises:
        SetupProblem: there is no MPI, or no Slurm.
    """
    if shutil.which("salloc") is None:
        raise SetupProblem(
            "there is no Slurm here: salloc is not on PATH", "run on a login node, or without --slurm"
        )
    launcher = mpirun.require()
    env = mpirun.environment(launcher, os.environ, ranks=ranks, cores=cores(), engine=engine, several=True)
    argv = in_allocation.command(launcher, ranks, words, is_root())
    return Wanted(tuple(argv), PROGRAM, env, Path.cwd(), imports, queued=True)


class LaunchedRun:
    """Supervises one launched run.

    Args:
        ledger: takes the events.
        options: how the run behaves.
        engine: the chosen collectives.
        shown: the display.
        stopping: counts how often the user has asked for the end.
        imports: its ranks import the frameworks.
    """

    def __init__(
        self,
        ledger: Ledger,
        options: RunOptions,
        engine: str,
        shown: Display,
        stopping: Presses,
        imports: bool = False,
    ) -> None:
        self._ledger, self._options, self._engine, self._shown = ledger, options, engine, shown
        self._ranks, self._shown_ranks = options.workers or 1, options.shown_ranks
        self._texts: queue.SimpleQueue[Log | Shown] = queue.SimpleQueue()
        self._stopping = stopping
        self._done = threading.Event()
        self._held: object = None
        self._imports, self._hosts = imports, options.placed
        self._asked_size: tuple[int, Hosts | None, float] | None = None
        self._scaled = False
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
        up: queue.SimpleQueue[OblError | None] = queue.SimpleQueue()
        try:
            if shows:
                begin(self.show_until_done, "obl-show")
            begin(self._supervise, "obl-supervisor", up)
        except OblError as error:
            self._end("failed", str(error))
            raise
        if shows and SERVER.is_coming_up(self._wanted()):
            return  # nobody is to wait for it; what goes wrong is the run's
        while True:
            try:
                problem = up.get(timeout=SHOW_EVERY_S)
            except queue.Empty:
                if not shows:
                    self._show()
            else:
                break
        if problem is not None:
            raise problem

    def _launch(self, goes_on: bool = False) -> Watched:
        """Brings up a world and gives it the job, to begin with or to go on from what the last one has kept."""
        channel, why = SERVER.channel(self._wanted(), lambda: bool(self._stopping))
        if why:
            said = f"{why}: it takes longer, and computes the same"
            self._ledger.add(Note(LAUNCHER, time.time(), said, "fork-server"))
        options = replace(self._options, workers=self._ranks)
        watched = Watched(
            channel, self._ledger, options, self._stopping, self._clock, self._deadline_s, moves=self._moves
        )
        channel.world.give(self._ledger.folder.job, goes_on)
        return watched

    def _wanted(self) -> Wanted:
        if self._options.slurm is not None:
            return queued(self._ranks, self._engine, self._imports, salloc.words(self._options.slurm))
        return wanted(self._ranks, self._engine, self._imports, hosts=self._hosts)

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

    def _supervise(self, up: queue.SimpleQueue[OblError | None]) -> None:
        """Sees the run to its end, in as many worlds as it may take; says how it went, and whether it began."""
        try:
            watched = self._launch()
        except OblError as problem:
            self._end("failed", str(problem))
            up.put(problem)
            return
        up.put(None)
        status, error = watched.see_to_its_end()
        attempt = 0
        while status == MOVES or (attempt < self._options.retries and self._worth_another(status)):
            try:
                if status == MOVES:
                    self._take_the_new_size()
                    self._say_again("", attempt)
                else:
                    attempt += 1
                    self._do_without(watched)
                    self._say_again(error, attempt)
                watched = self._launch(goes_on=True)
            except OblError as problem:
                status, error = "failed", str(problem)
                break
            status, error = watched.see_to_its_end()
        self._end(status, error)

    def _say_again(self, cause: str, attempt: int) -> None:
        told = self._hosts.told if self._hosts is not None else ""
        workers = self._ranks if self._ranks != self._ledger.state.workers or self._scaled else None
        self._ledger.add(Restarted(LAUNCHER, time.time(), cause, attempt, workers, told if workers else ""))

    def _do_without(self, watched: Watched) -> None:
        """Takes what is left of the ranks, where the user lets it.

        Raises:
            RunFailed: too few are left.
        """
        least = self._options.min_workers
        if least is None or not watched.lost_ranks:
            return
        if watched.lost_host and self._hosts is not None:
            self._hosts = self._hosts.without(watched.lost_host)
            if self._hosts.ranks < least:
                raise RunFailed(
                    f"{watched.lost_host} was lost, which leaves {self._hosts.ranks} of at least {least} ranks",
                    "",
                )
            self._ranks = self._hosts.ranks
        else:
            self._ranks = max(least, self._ranks - len(watched.lost_ranks))
            self._hosts = None if self._hosts is None else self._hosts.take(self._ranks)
        self._scaled = True

    def scale(self, options: RunOptions) -> None:
        """Has the run go on in a world of another size, from the next epoch that it keeps.

        Args:
            options: workers and hosts of that world.
        """
        self._asked_size = options.workers or 1, options.placed, time.time()

    def _take_the_new_size(self) -> None:
        assert self._asked_size is not None
        self._ranks, self._hosts, _ = self._asked_size
        self._asked_size, self._scaled = None, True

    def _moves(self) -> bool | None:
        """Whether an epoch was kept since another size was asked for; None where none was."""
        if self._asked_size is None:
            return None
        return self._ledger.folder.kept_s() > self._asked_size[2]

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
        self._done.set()
        self._held = None
        SERVER.renew()
