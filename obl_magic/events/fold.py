"""Folds events into the state of a run. Pure: (state, event) -> state; reads no clock, no file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from obl_magic.events.event import (
    STARTUP,
    Ended,
    Event,
    Failed,
    Heartbeat,
    Launched,
    Left,
    Log,
    Metric,
    Note,
    Progress,
    Restarted,
    Result,
    Started,
    Trained,
)

TAIL_LINES = 20
_INFORMS = re.compile(
    r"I\d{4} \d|WARNING: All log messages before absl|To enable the following instructions: "
)
"""How the lines begin that TensorFlow's C++ code writes for information."""
SINGLE_STEP = "batch_"
"""Names of a single step's metrics begin with this; the same numbers come with the progress."""


def of_rank(name: str, rank: int) -> str:
    """A metric's name where those of all ranks stand beside each other: rank 0's is plain."""
    return name if rank <= 0 else f"{name}/rank {rank}"


@dataclass(frozen=True, slots=True)
class RankState:
    """What is known of one rank.

    Attributes:
        pid: process id, 0 before it is up.
        host: host name.
        digest: sha256 of the source it ran.
        state: ``waiting``, ``running``, ``returned`` or ``failed``.
        step: last known step.
        where: last known place of its main thread.
        source: the text of that line.
        tail: its last lines of output.
        first_step_s: Unix time at which its first training step was done, or None.
        ticks: of its own count of getting further.
        beats: signs of life so far.
        moves: of these, signs that it got further.
        waits: it is in a step or a collective at that place.
        fitting: it is inside a Keras ``fit``.
        memory_bytes: the most memory that it was seen to have in use for itself.
        cores: how many processors it kept busy lately, or None.
        gpu_bytes: the most of the GPUs' memory that it was seen to have in use; 0 where it computes on none.
        step_s: seconds a step takes.
        waited: share of that it waits for other ranks, 0 to 1.
        validating: it evaluates.
        share: of each batch, this rank's; None where shares are equal.
        left: it has nothing more to say, and waits to be ended.
    """

    pid: int = 0
    host: str = ""
    digest: str = ""
    state: str = "waiting"
    step: int = 0
    where: str = ""
    tail: tuple[str, ...] = ()
    first_step_s: float | None = None
    ticks: int = 0
    beats: int = 0
    moves: int = 0
    waits: bool = False
    fitting: bool = False
    step_s: float | None = None
    waited: float | None = None
    source: str = ""
    memory_bytes: int = 0
    cores: float | None = None
    validating: bool = False
    gpu_bytes: int = 0
    share: float | None = None
    left: bool = False

    @property
    def last_lines(self) -> tuple[str, ...]:
        """Its last lines of output, without what is the same in every run."""
        return tuple(line for line in self.tail if not _INFORMS.match(line))


@dataclass(frozen=True, slots=True)
class MetricRow:
    """One row of ``Run.metrics``; see :class:`obl_magic.events.event.Metric`."""

    time_s: float
    rank: int
    epoch: int | None
    step: int | None
    name: str
    value: float


@dataclass(frozen=True, slots=True)
class RunState:
    """Everything a display or a Run needs to know, folded from the events so far.

    Attributes:
        ranks: by rank.
        progress: the last progress of a fit, or None.
        trains: the first progress of this world, or None.
        latest: newest value by name.
        notes: sentences by code, in order.
        failures: in order of arrival, first cause first.
        results: file name of each returned value, by rank.
        status: ``running`` until ended.
        started_s: Unix time of the first event.
        ended_s: of the end, or None.
        engine: collectives the ranks named.
        ready_s: Unix time at which the last rank started.
        restarts: worlds that failed and were replaced.
        returned: what is short of rank 0's value.
        told: what that value is, in a few words.
        trained: what a run of an ablation study trains, or None.
        workers: ranks of the world that runs now, or None for a call in the kernel.
        hosts: where they are since a restart, in words, or "".
        worlds: of each world that trained: ranks, hosts in words, and the epoch it began with.
    """

    ranks: dict[int, RankState]
    progress: Progress | None = None
    trains: Progress | None = None
    latest: dict[str, float] | None = None
    notes: tuple[Note, ...] = ()
    failures: tuple[Failed, ...] = ()
    results: dict[int, str] | None = None
    status: str = "running"
    error: str = ""
    started_s: float | None = None
    ended_s: float | None = None
    engine: str = ""
    ready_s: float | None = None
    restarts: int = 0
    returned: dict[str, Any] | None = None
    told: str = ""
    trained: Trained | None = None
    workers: int | None = None
    hosts: str = ""
    worlds: tuple[tuple[int | None, str, int], ...] = ()

    def name(self, rank: int) -> str:
        """A rank in a sentence: with its host, where there are several."""
        hosts = {each.host for each in self.ranks.values() if each.host}
        host = self.ranks[rank].host if rank in self.ranks else ""
        return f"rank {rank} on {host}" if host and len(hosts) > 1 else f"rank {rank}"


def empty() -> RunState:
    """The state before any event."""
    return RunState(ranks={})


def fold(state: RunState, event: Event) -> RunState:
    """The state after one more event."""
    if state.started_s is None:
        state = replace(state, started_s=event.time_s)
    match event:
        case Started():
            state = _moved(state, event)
            state = _rank(
                state, event.rank, pid=event.pid, host=event.host, digest=event.digest, state="running"
            )
            return replace(state, engine=event.engine, ready_s=max(state.ready_s or 0.0, event.time_s))
        case Launched():
            return replace(state, workers=event.workers)
        case Progress():
            if state.trains is None:
                state = replace(state, worlds=(*state.worlds, (state.workers, state.hosts, event.epoch)))
            state = _rank(_moved(state, event), event.rank, step=event.stepped)
            latest = {**(state.latest or {}), **event.logs}
            return replace(state, progress=event, trains=state.trains or event, latest=latest)
        case Metric():
            return _fold_metrics(state, [event])
        case Log():
            known = state.ranks.get(event.rank, RankState())
            if event.rank >= 0 and event.stream != STARTUP and not any(r.step for r in state.ranks.values()):
                state = _moved(state, event)  # a function that counts no steps gets further by its words
            lines = [line for line in event.text.replace("\r", "\n").split("\n") if line.strip()]
            return _rank(state, event.rank, tail=(*known.tail, *lines)[-TAIL_LINES:])
        case Note():
            if any(note.code == event.code and note.text == event.text for note in state.notes):
                return state
            return replace(state, notes=(*state.notes, event))
        case Heartbeat():
            if event.ticks != state.ranks.get(event.rank, RankState()).ticks:
                state = _moved(state, event)
            known = state.ranks.get(event.rank, RankState())
            return _rank(
                state, event.rank, step=event.step, ticks=event.ticks, where=event.where, waits=event.waits,
                fitting=event.fitting, validating=event.validating, beats=known.beats + 1, source=event.source,
                step_s=known.step_s if event.step_s is None else event.step_s,
                waited=known.waited if event.waited is None else event.waited,
                memory_bytes=max(known.memory_bytes, event.memory_bytes or 0),
                cores=known.cores if event.cores is None else event.cores,
                gpu_bytes=max(known.gpu_bytes, event.gpu_bytes or 0), share=event.share,
            )  # fmt: skip
        case Result():
            state = _moved(state, event)
            state = _rank(state, event.rank, state="returned", first_step_s=event.first_step_s)
            returned = event.returned if event.rank == 0 else state.returned
            told = event.told if event.rank == 0 else state.told
            return replace(
                state, results={**(state.results or {}), event.rank: event.file}, returned=returned, told=told
            )
        case Left():
            return _rank(state, event.rank, left=True)
        case Trained():
            return replace(state, trained=event)
        case Failed():
            state = _rank(state, event.rank, state="failed")
            return replace(state, failures=(*state.failures, event))
        case Restarted():
            return replace(
                state, ranks={}, progress=None, trains=None, failures=(), results=None, ready_s=None,
                restarts=event.attempt, workers=event.workers or state.workers,
                hosts=event.hosts if event.workers else state.hosts,
                notes=(*state.notes, Note(event.rank, event.time_s, _again(event), _code(event, state))),
            )  # fmt: skip
        case Ended():
            return replace(state, status=event.status, error=event.error, ended_s=event.time_s)
    return state


def _again(event: Restarted) -> str:
    ranks = "" if event.workers is None else f", on {event.workers} rank{'' if event.workers == 1 else 's'}"
    where = f" ({event.hosts})" if event.hosts else ""
    begun = (
        f"restarted after a failure ({event.cause}); it goes"
        if event.cause
        else "asked for another size: it goes"
    )
    return f"{begun} on from where it was kept last{ranks}{where}"


def _code(event: Restarted, state: RunState) -> str:
    return f"restart-{event.attempt}" if event.cause else f"scaled-{len(state.worlds)}"


def fold_all(state: RunState, events: Sequence[Event]) -> RunState:
    """The state after more events, in their order; the same as folding one by one, and cheaper."""
    for kind, group in groupby(events, type):
        if kind is Metric:
            state = _fold_metrics(state, [event for event in group if isinstance(event, Metric)])
        else:
            for event in group:
                state = fold(state, event)
    return state


def _fold_metrics(state: RunState, metrics: Sequence[Metric]) -> RunState:
    """The state after metrics that follow each other."""
    latest, moves = dict(state.latest or {}), Counter[int]()
    for metric in metrics:
        moves[metric.rank] += 1
        for name, value in metric.values.items():
            if not name.startswith(SINGLE_STEP):
                latest[name] = value
    ranks = {rank: _further(state.ranks.get(rank, RankState()), count) for rank, count in moves.items()}
    begun = metrics[0].time_s if state.started_s is None else state.started_s
    return replace(state, ranks={**state.ranks, **ranks}, latest=latest, started_s=begun)


def _moved(state: RunState, event: Event) -> RunState:
    """The rank was alive, and got further."""
    known = state.ranks.get(event.rank, RankState())
    return replace(state, ranks={**state.ranks, event.rank: _further(known, 1)})


def _further(rank: RankState, count: int) -> RankState:
    return replace(rank, beats=rank.beats + count, moves=rank.moves + count)


def _rank(state: RunState, rank: int, /, **changes: object) -> RunState:
    known = state.ranks.get(rank, RankState())
    return replace(state, ranks={**state.ranks, rank: replace(known, **changes)})  # type: ignore[arg-type]
