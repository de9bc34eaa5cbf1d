"""Where a trial runs: in a world that takes one trial after another, or here in the kernel.

A world is replaced after any failure; a trial finds the frameworks imported, and nothing of the trials before it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from obl_magic import payload
from obl_magic.display.run.view import NoDisplay
from obl_magic.errors import SetupProblem
from obl_magic.events.event import LAUNCHER, Asks, Ended, Event, Note
from obl_magic.hosts.places import LOCAL, Hosts, Place, beside
from obl_magic.launch import in_process
from obl_magic.launch.interrupts import Presses
from obl_magic.launch.watch import Watched
from obl_magic.options import RunOptions
from obl_magic.runs.jobs import JOBS
from obl_magic.runs.run import Ledger, Run
from obl_magic.server.server import SERVER
from obl_magic.values import Captured, Job
from obl_magic.worker.ranks import AHEAD, BESIDE, STAYS
from obl_magic.world.channel import Channel, Wanted

RENEWED_AFTER = 100
"""Trials that one world takes: TensorFlow keeps some four megabytes of each fit, however it is cleared."""

Judge = Callable[[int, float], bool]
"""(step, value) -> whether the trial is to end."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """One trial, ready to run.

    Attributes:
        job: the whole job.
        changes: in which fields it differs from the one that all trials share.
        ledger: takes its events.
        run: what the user will hold.
        judge: decides at each value of the quantity, or None.
    """

    job: Job
    changes: dict[str, Any]
    ledger: Ledger
    run: Run
    judge: Judge | None = None


class Seat(Protocol):
    """A place for one trial at a time."""

    def run(self, call: Prepared) -> None:
        """Runs it to its end, and says so in its ledger; what the function raises is its failure."""

    def close(self) -> None:
        """No more trials; nothing is left running."""


class WorldSeat:
    """One world of some ranks, brought up for the first trial, again after a failure, and after many trials.

    Args:
        want: what starts it.
        job: file of the job that all trials share.
        options: of a trial.
        stopping: counts how often the user has asked for the end.
    """

    def __init__(self, want: Wanted, job: Path, options: RunOptions, stopping: Presses) -> None:
        self._want, self._job, self._options, self._stopping = want, job, options, stopping
        self._channel: Channel | None = None
        self._trials = 0

    def run(self, call: Prepared) -> None:
        """Runs a trial in the world.

        Raises:
            SetupProblem: no world comes up, for this trial or any other.
        """
        problem: SetupProblem | None = None
        try:
            status, error = self._see_to(call)
        except SetupProblem as none:
            status, error, problem = "failed", str(none), none
        call.ledger.add(Ended(LAUNCHER, time.time(), status, error))
        if status == "failed" and problem is None and call.ledger.state.ready_s is None:
            problem = SetupProblem(error, "python -m obl_magic doctor")
        if problem is not None:
            raise problem

    def close(self) -> None:
        """Ends the world."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.world.stop()

    def _see_to(self, call: Prepared) -> tuple[str, str]:
        folder = call.ledger.folder
        folder.write_bytes(folder.changes, payload.dumps(call.changes))
        JOBS.keep(folder.id, folder.changes)
        if self._trials >= RENEWED_AFTER:
            self.close()
        if self._channel is None or self._channel.world.exit_code is not None:
            self._trials = 0
            self._channel, why = SERVER.channel(self._want, lambda: bool(self._stopping))
            if why:
                call.ledger.add(Note(LAUNCHER, time.time(), why, "fork-server"))
        self._trials += 1
        world, pruned, problem = self._channel.world, False, ""

        def answer(event: Event) -> None:
            nonlocal pruned, problem
            if isinstance(event, Asks) and call.judge is not None:
                try:
                    pruned = bool(call.judge(event.step, event.value))
                except Exception as error:  # the trial's, since this thread belongs to nobody
                    pruned, problem = True, str(error)
                world.answer(pruned)

        call.ledger.listen(answer)
        watched = Watched(self._channel, call.ledger, self._options, self._stopping, stays=True)
        world.give(self._job, changes=folder.changes)
        status, error = watched.see_to_its_end()
        if status != "succeeded":
            self._channel = None
        if not pruned or status != "succeeded":
            return status, error.partition("\n")[0]  # one line of a table; the trial's log has the rest
        return ("failed", problem) if problem else ("pruned", "")


class KernelSeat:
    """This process, one trial after another, in the calling thread.

    Args:
        fn: the function.
        captured: what was found about it.
        models: what an ablation may call in place of ``model_fn``, by name.
    """

    def __init__(
        self, fn: Callable[..., Any], captured: Captured, models: dict[str, Callable[..., Any]]
    ) -> None:
        self._fn, self._captured, self._models = fn, captured, models

    def run(self, call: Prepared) -> None:
        """Runs a trial here.

        Raises:
            KeyboardInterrupt: the user asked for the end.
        """
        try:
            in_process.run(
                self._fn, call.job, self._captured, call.ledger, call.run, NoDisplay(), False,
                ask=call.judge, models=self._models,
            )  # fmt: skip
        except KeyboardInterrupt:
            raise
        except BaseException:  # as in a world: the ledger has it, and the study goes on
            return

    def close(self) -> None:
        """Nothing is running."""


def in_worlds(
    wants: Sequence[Wanted], job: Path, options: RunOptions, stopping: Presses, engine: str
) -> list[Seat]:
    """Seats for as many trials at once as there are worlds, each with its share of its host's processors and GPUs.

    Args:
        wants: what starts each of the worlds.
        job: file of the job that all trials share.
        options: of a trial.
        stopping: counts how often the user has asked for the end.
        engine: a world's collectives.
    """
    seats: list[Seat] = []
    ranks = options.workers or 1
    here = Hosts((Place(LOCAL[0], ranks),))
    for want, told in zip(wants, beside([want.hosts or here for want in wants]), strict=True):
        env = {**want.env, STAYS: "1", BESIDE: told}
        if want.imports:  # before the first trial, rather than within it
            env[AHEAD] = engine if ranks > 1 else "alone"
        seats.append(WorldSeat(replace(want, env=env), job, options, stopping))
    return seats
