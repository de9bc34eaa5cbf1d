"""Sees one job in one world to its end: takes what its ranks say, and decides when it is over and why.

The world's readers call the ``on_...`` methods; whoever calls :meth:`Watched.see_to_its_end` decides. Starts no world,
and ends one unless its job has ended well.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from obl_magic.events.event import LAUNCHER, Event, Failed, Left, Log, Note, Result
from obl_magic.events.frames import Gap, Stray
from obl_magic.launch import stall
from obl_magic.launch.awake import Awake
from obl_magic.launch.headroom import HEADROOM
from obl_magic.launch.interrupts import Presses
from obl_magic.launchers import ssh
from obl_magic.launchers.launcher import Death
from obl_magic.options import RunOptions
from obl_magic.runs.failures import read_death
from obl_magic.runs.run import Ledger
from obl_magic.server.server import SERVER
from obl_magic.worker.leaving import AT
from obl_magic.world.channel import Channel, Piece
from obl_magic.world.queue import Queue

TICK_S = 0.1
OTHERS_MAY_FAIL_TOO_S = 0.25
STEP_MAY_TAKE_S = 3.0
"""How long a run that is asked to stop has for it, before it is ended."""
COMING_UP_S = 30.0
"""Ranks that come up are not taken for stalled ones any sooner."""
UP_WITHIN_S = 300.0
"""A world none of whose ranks gets any further for so long before it is up never will."""
LOOKS_EVERY_S = 0.25
DESERTED_S = 3.0
"""How long a launcher may run on without the ranks that it has started."""
ENDING_S = 10.0
"""What ranks have to end by themselves when all of them have returned: for threads, exit handlers, children."""
COMMAND_CHARS = 60
MOVES = "moves"
"""Status of a job that goes on in another world."""
LEFT_ALONE = "Horovod has been shut down"
"""What Horovod says on a rank that waits for one which has returned."""


class Watched:
    """One job in one world.

    Args:
        channel: the world; from now on it speaks to the ledger.
        ledger: of the run.
        options: of the run.
        stopping: counts how often the user has asked for the end.
        clock: by which the run is judged; made here if None.
        deadline_s: when it must be over, on that clock.
        stays: the world outlives a job that ends well.
        moves: whether what is kept of the job will do for another world; None where nobody wants it to go on in one.

    Attributes:
        lost_ranks: that went away without a word.
        lost_host: that went away with all its ranks, or "".
    """

    def __init__(
        self,
        channel: Channel,
        ledger: Ledger,
        options: RunOptions,
        stopping: Presses,
        clock: Awake | None = None,
        deadline_s: float | None = None,
        stays: bool = False,
        moves: Callable[[], bool | None] = lambda: None,
    ) -> None:
        self._moves = moves
        self._world, self._ledger, self._options = channel.world, ledger, options
        self._ranks = options.workers or 1
        self._stopping, self._deadline_s, self._stays = stopping, deadline_s, stays
        self._turned = threading.Event()
        self._asked_to_stop = self._asked_to_keep = self._noted = self._ended_late = False
        self._clock, self._waited_s = clock or Awake(), 0.0
        self._lookout = stall.Lookout(self._ranks, self._clock.now())
        self._looks_again_s = self._clock.now() + LOOKS_EVERY_S
        self._deserted_s: float | None = None
        self.lost_ranks: tuple[int, ...] = ()
        self.lost_host = ""
        self._queue = Queue(self._note) if options.slurm is not None else None
        ledger.listen(self._notice)
        channel.speak_to(self)

    def on_piece(self, piece: Piece) -> None:
        """Takes an event, or says what came in place of one."""
        if isinstance(piece, Stray):
            self._ledger.add(Log(LAUNCHER, time.time(), "stdout", piece.text + "\n"))
        elif isinstance(piece, Gap):
            said = f"lost events {piece.first} to {piece.last} of rank {piece.rank}\n"
            self._ledger.add(Log(LAUNCHER, time.time(), "stderr", said))
        else:
            self._ledger.take(piece.text)

    def on_word(self, line: bytes) -> None:
        """Keeps a line of the launcher's own."""
        text = line.decode("utf-8", "replace")
        if self._queue is not None:
            self._queue.hear(text)
        self._ledger.add(Log(LAUNCHER, time.time(), "stderr", text))

    def on_end(self) -> None:
        """Wakes whoever sees to the end."""
        self._turned.set()

    def _notice(self, event: Event) -> None:
        if isinstance(event, Result):
            SERVER.learn(event.imported)
        if isinstance(event, (Result, Failed, Left)):
            self._turned.set()

    def see_to_its_end(self) -> tuple[str, str]:
        """Waits for whatever ends the job; (status, first cause). A world that has to go is gone then."""
        try:
            return self._see_to_its_end()
        except Exception as error:  # a fault of ours must not leave a world, nor whoever waits for it
            self._world.stop()
            return "failed", f"obl_magic itself failed: {type(error).__name__}: {error}"
        finally:
            if self._queue is not None:
                self._queue.cancel()
            HEADROOM.learn(self._ledger.state)

    def _see_to_its_end(self) -> tuple[str, str]:
        failed_at: float | None = None
        patience: float | None = None
        status = error = ""
        while not self._world.wait(0):
            if self._is_complete():
                if not self._stays:
                    self._let_it_end()
                    break
                return "succeeded", ""
            self._turned.wait(TICK_S)
            self._turned.clear()
            now = self._clock.now() - self._queued_s()
            self._lookout.look(self._ledger.state, now)
            if self._ledger.state.failures:
                failed_at = failed_at or now
                if now - failed_at > OTHERS_MAY_FAIL_TOO_S:
                    break
            if self._stopping:
                patience = self._ask_to_stop(now) if patience is None else patience
                if self._stopping.count > 1 or now >= patience:
                    status, error = "interrupted", "interrupted"
                    break
            moves = self._moves()
            if moves:
                self._world.stop()
                return MOVES, ""
            if moves is False and not self._asked_to_keep:
                self._asked_to_keep = True
                self._world.ask_to_keep()
            if self._deadline_s is not None and now > self._deadline_s:
                status, error = "timed out", f"the run passed its timeout of {self._options.timeout:g} s"
                break
            if stalled := self._stalled():
                status, error = "stalled", stalled
                break
            if why := self._does_not_come_up(now):
                status, error = "failed", why
                break
        if not status and self._is_complete() and not self._stopping and not self._ended_late:
            self._world.end()
        else:
            self._world.stop()
        if status:
            return status, error
        verdict = self._verdict()
        if verdict[0] == "succeeded":
            self._say_what_was_left()
        return verdict

    def _queued_s(self) -> float:
        """Seconds that the job has waited for its allocation: nothing that is counted had begun."""
        if self._queue is not None and (
            self._queue.waits or not any(r >= 0 for r in self._ledger.state.ranks)
        ):
            self._waited_s = self._clock.now()
        return self._waited_s

    def _let_it_end(self) -> None:
        """All values are there: the ranks may do what is left to do, for a while, unless the user is in a hurry."""
        until = time.monotonic() + ENDING_S
        while not self._world.wait(0) and not self._stopping:
            if sum(rank.left for rank in self._ledger.state.ranks.values()) == self._ranks:
                break
            if time.monotonic() > until:
                self._ended_late = True
                break
            self._turned.wait(TICK_S)
            self._turned.clear()

    def _say_what_was_left(self) -> None:
        """Says what had to be ended that a function had left behind when it had returned everywhere."""
        ranks = self._ledger.state.ranks
        late = [
            f"{self._ledger.state.name(rank)} in {it.where}"
            for rank, it in sorted(ranks.items())
            if it.where.startswith(AT)
        ]
        pids = {it.pid for it in ranks.values()}
        names = [
            f"{what[:COMMAND_CHARS]} (process {pid})"
            for pid, what in self._world.left.items()
            if pid not in pids and "resource_tracker" not in what
        ]
        parts = []
        if self._ended_late:
            who = ", ".join(late) or "their processes"
            parts.append(f"every rank had returned, and {ENDING_S:g} s later there was still {who}: ended")
        if names:
            parts.append(
                f"processes that the function had started still ran and were ended: {', '.join(names[:5])}"
            )
        if parts:
            self._note(
                "left-behind", "; ".join([*parts, "do: end what the function starts before it returns"])
            )

    def _does_not_come_up(self, now: float) -> str:
        """Why a world is given up that does not come up; "" while it may, or when it has."""
        state = self._ledger.state
        if now < self._looks_again_s or stall.is_up(state, self._ranks):
            return ""
        self._looks_again_s = now + LOOKS_EVERY_S
        if not self._world.is_deserted(heard=any(rank >= 0 for rank in state.ranks)):
            self._deserted_s = None
        elif now - (self._deserted_s or now) > DESERTED_S:
            return self._death().error
        else:
            self._deserted_s = self._deserted_s or now
        if self._lookout.still_s <= UP_WITHIN_S:
            return ""
        who = self._lookout.culprit(state)
        return f"the ranks did not come up within {UP_WITHIN_S:.0f} s: {who}; do: python -m obl_magic doctor"

    def _ask_to_stop(self, now: float) -> float:
        """Asks a fit under way to stop at the end of a step; until when to wait for it."""
        if not any(rank.fitting for rank in self._ledger.state.ranks.values()):
            return now
        self._asked_to_stop = True
        self._world.ask_to_stop()
        self._note("stopping", "asked to stop at the end of a step; a second interrupt ends it at once")
        return now + STEP_MAY_TAKE_S

    def _stalled(self) -> str:
        """Why the run is ended for want of progress; "" while it need not be."""
        state = self._ledger.state
        limit, still = self._options.stall_timeout, self._lookout.still_s
        if not stall.is_up(state, self._ranks):
            limit = None if limit is None else max(limit, COMING_UP_S)
        if limit is not None and still > limit:
            said = f"no progress for {still:.0f} s: {self._lookout.culprit(state)}"
            if not any(rank.pid for rank in state.ranks.values()):  # nobody who could have written stacks
                return said
            stacks = f"{self._ledger.folder.path}{os.sep}stacks-*.txt"
            return f"{said}; all stacks: {stacks}{stall.lines_of(state)}"
        if still > stall.NOTED_AFTER_S and stall.one_waits_for_another(state) and not self._noted:
            self._noted = True
            self._note("stall", f"no progress for {still:.0f} s: {self._lookout.culprit(state)}")
        return ""

    def _note(self, code: str, text: str) -> None:
        self._ledger.add(Note(LAUNCHER, time.time(), text, code))

    def _verdict(self) -> tuple[str, str]:
        """(status, first cause) of a world that ended by itself or after a failure."""
        state = self._ledger.state
        if self._asked_to_stop:
            return "interrupted", "interrupted"
        if self._is_complete():
            return "succeeded", ""
        if self._stopping:  # Jupyter's interrupt may reach a launcher before it has its own session
            return "interrupted", "interrupted"
        if not state.failures:
            self._ledger.add(self._death())
        first = next((f for f in self._ledger.state.failures if f.traceback), self._ledger.state.failures[0])
        if LEFT_ALONE in first.error and any(
            r.state == "returned" for r in self._ledger.state.ranks.values()
        ):
            return "stalled", stall.left_alone(self._ledger.state, first)
        return "failed", first.error

    def _death(self) -> Failed:
        """The failure of a rank that went without a word, in the launcher's terms."""
        state = self._ledger.state
        said = read_death(self._ledger.folder.read_log(LAUNCHER))
        silent = [rank for rank in range(self._ranks) if rank not in (state.results or {})]
        rank = said.rank if said and said.rank is not None else (silent[0] if silent else 0)
        how = said.how if said else f"mpirun's exit code {self._world.exit_code}"
        known = state.ranks.get(rank)
        if known is None or known.state == "waiting":
            if self._queue is not None and self._queue.refused:
                text = f"Slurm refused the allocation: {self._queue.refused}; do: salloc {self._options.slurm} true"
                return Failed(rank, time.time(), text, "", "", "")
            if (problem := ssh.problem(self._ledger.folder.read_log(LAUNCHER))) is not None:
                return Failed(rank, time.time(), str(problem), "", "", "")
            words = self._ledger.folder.read_log(LAUNCHER).strip().splitlines()
            reason = f"the ranks did not come up ({how})" + (f": {' '.join(words[:6])}" if words else "")
            return Failed(rank, time.time(), reason + "; do: python -m obl_magic doctor", "", "", "")
        after = f" after step {known.step}" if known.step else ""
        if said and said.host:
            return self._lost(said, after)
        self.lost_ranks = (rank,)
        return Failed(rank, time.time(), f"{state.name(rank)} died: {how}{after}", "", known.where, "")

    def _lost(self, said: Death, after: str) -> Failed:
        """The failure of a host that went with all its ranks."""
        mine = [
            rank
            for rank, it in sorted(self._ledger.state.ranks.items())
            if it.host == said.host and rank >= 0
        ]
        self.lost_ranks, self.lost_host = tuple(mine), said.host
        whose = f"; its rank was {mine[0]}" if len(mine) == 1 else ""
        if len(mine) > 1:
            whose = f"; its ranks were {mine[0]} to {mine[-1]}"  # those of a host follow each other
        text = f"host {said.host} was lost ({said.how}){after}{whose}"
        return Failed(mine[0] if mine else 0, time.time(), text, "", "", "")

    def _is_complete(self) -> bool:
        """Whether every rank has returned."""
        state = self._ledger.state
        return not state.failures and len(state.results or {}) == self._ranks
