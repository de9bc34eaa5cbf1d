"""Event types and their JSON lines. Knows nothing of processes or files.

An event is a frozen record that one rank emits. ``rank`` is -1 for the launcher and the conductor.
``time_s`` is Unix time in seconds on the host that emitted it.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

LAUNCHER = -1
STARTUP = "startup"
"""Stream of what frameworks print while they are imported; kept, not shown."""


@dataclass(frozen=True, slots=True)
class Event:
    """Base of all events.

    Attributes:
        rank: the emitting rank, or -1.
        time_s: Unix time in seconds.
    """

    kind: ClassVar[str] = ""
    rank: int
    time_s: float


@dataclass(frozen=True, slots=True)
class Launched(Event):
    """The run began; written by the conductor before anything is started.

    Attributes:
        workers: number of ranks, or None for a call inside the kernel.
        format: of the log that this event begins.
    """

    kind: ClassVar[str] = "launched"
    workers: int | None
    format: int = 1


@dataclass(frozen=True, slots=True)
class Started(Event):
    """A rank is up and has the job.

    Attributes:
        pid: its process id.
        host: its host name.
        digest: sha256 of the source it is about to run.
        engine: collectives in use.
        local_rank: position on its host.
        threads: intra-op threads.
    """

    kind: ClassVar[str] = "started"
    pid: int
    host: str
    digest: str
    engine: str
    local_rank: int
    threads: int


@dataclass(frozen=True, slots=True)
class Progress(Event):
    """Where a Keras fit is.

    Attributes:
        epoch: 1-based.
        epochs: how many there will be.
        step: 1-based within the epoch.
        steps: steps per epoch, or None while unknown.
        samples_per_s: of the whole world, or None.
        logs: the last known metrics (exact over all ranks).
        stepped: optimizer steps of this fit so far.
    """

    kind: ClassVar[str] = "progress"
    epoch: int
    epochs: int
    step: int
    steps: int | None
    samples_per_s: float | None
    logs: dict[str, float]
    stepped: int


@dataclass(frozen=True, slots=True)
class Metric(Event):
    """One or more named numbers at one moment.

    Attributes:
        values: name -> number.
        step: global step (optimizer steps so far), or None.
        epoch: 1-based epoch, or None outside epochs.
    """

    kind: ClassVar[str] = "metric"
    values: dict[str, float]
    step: int | None
    epoch: int | None


@dataclass(frozen=True, slots=True)
class Log(Event):
    """Text written by the user's code, C code, or the launcher.

    Attributes:
        stream: ``stdout``, ``stderr`` or ``startup``.
        text: the text, with its line ends.
    """

    kind: ClassVar[str] = "log"
    stream: str
    text: str


@dataclass(frozen=True, slots=True)
class Shown(Event):
    """What the function displayed: a picture, HTML.

    Attributes:
        data: its forms by mime type; pictures in base64.
        name: of the output, or "".
        update: it replaces the output of that name.
    """

    kind: ClassVar[str] = "shown"
    data: dict[str, str]
    name: str
    update: bool


@dataclass(frozen=True, slots=True)
class Note(Event):
    """A sentence about what was made distributed, or was not, in plain words.

    Attributes:
        text: the sentence.
        code: a stable short name for it.
    """

    kind: ClassVar[str] = "note"
    text: str
    code: str


@dataclass(frozen=True, slots=True)
class Heartbeat(Event):
    """A rank's sign of life.

    Attributes:
        step: optimizer steps it has done.
        where: the user's line that it is at, e.g. ``In [7], line 12``, or "".
        ticks: grows while it gets further.
        waits: it is inside a step or a collective there, rather than running Python of that line.
        fitting: it is inside a Keras ``fit``.
        step_s: seconds a step took since the last beat, or None.
        waited: share of that time in which it waited for other ranks, 0 to 1, or None.
        source: the text of the line ``where``, or "".
        memory_bytes: of the machine's memory, what this rank alone has in use; None where it is not known.
        cores: how many processors it kept busy since the last beat, or None.
        validating: it evaluates, as a fit does at the end of an epoch.
        gpu_bytes: of the GPUs' memory, what this rank has in use; None where it computes on none.
        share: of each batch, this rank's; None where shares are equal.
    """

    kind: ClassVar[str] = "heartbeat"
    step: int
    where: str
    ticks: int = 0
    waits: bool = False
    fitting: bool = False
    step_s: float | None = None
    waited: float | None = None
    source: str = ""
    memory_bytes: int | None = None
    cores: float | None = None
    validating: bool = False
    gpu_bytes: int | None = None
    share: float | None = None


@dataclass(frozen=True, slots=True)
class Result(Event):
    """A rank's function returned, and its value is in the run folder.

    Attributes:
        file: name of the value's file in the run folder.
        size_bytes: its size.
        first_step_s: Unix time of the end of the first training step, or None.
        returned: what is short of it: a dict's numbers and texts by key, or a bare number as ``value``.
        told: what it is, in a few words.
        imported: libraries that the rank has imported by then, of those that may be imported ahead.
    """

    kind: ClassVar[str] = "result"
    file: str
    size_bytes: int
    first_step_s: float | None
    returned: dict[str, Any] = field(default_factory=dict)
    told: str = ""
    imported: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Sent(Event):
    """A piece of a file that a rank leaves in the run's folder, from a host that does not see it. Written into no log.

    Attributes:
        file: its name in the run's folder.
        data: the piece, in base64; the pieces of a file come in order.
        last: whether the file is whole with it.
    """

    kind: ClassVar[str] = "sent"
    file: str
    data: str
    last: bool


@dataclass(frozen=True, slots=True)
class Left(Event):
    """A rank has returned, with all that it had to do; nothing more comes from it, and it waits to be ended."""

    kind: ClassVar[str] = "left"


@dataclass(frozen=True, slots=True)
class Asks(Event):
    """A trial asks whether it is worth going on, and waits for the answer.

    Attributes:
        step: what the value is compared by: an epoch, or the step that was reported.
        value: of the wanted quantity.
    """

    kind: ClassVar[str] = "asks"
    step: int
    value: float


@dataclass(frozen=True, slots=True)
class Trained(Event):
    """What a run of an ablation study really trains, as the proof that something was taken away.

    Attributes:
        parameters: weights of the model, or None.
        layers: their names.
        inputs: width of the data, or None.
    """

    kind: ClassVar[str] = "trained"
    parameters: int | None
    layers: list[str]
    inputs: int | None


@dataclass(frozen=True, slots=True)
class Failed(Event):
    """A rank's function raised, or a rank went away.

    Attributes:
        error: ``Type: message``.
        traceback: text, user frames only.
        where: the deepest line of the user's own code, e.g. ``In [7], line 12``.
        file: name of the pickled exception, or "".
    """

    kind: ClassVar[str] = "failed"
    error: str
    traceback: str
    where: str
    file: str


@dataclass(frozen=True, slots=True)
class Restarted(Event):
    """Another world goes on from what the last one has kept; written by the conductor.

    Attributes:
        cause: why the last one failed; "" where somebody asked for another size.
        attempt: of the restarts after a failure, from 1.
        workers: ranks of the next one, or None: as many as before.
        hosts: where they are, in words; "" where all are on this host.
    """

    kind: ClassVar[str] = "restarted"
    cause: str
    attempt: int
    workers: int | None = None
    hosts: str = ""


@dataclass(frozen=True, slots=True)
class Ended(Event):
    """The run is over; written by the conductor.

    Attributes:
        status: final status.
        error: first cause, or "".
    """

    kind: ClassVar[str] = "ended"
    status: str
    error: str


KINDS: dict[str, type[Event]] = {
    cls.kind: cls
    for cls in (
        *(
            Launched,
            Started,
            Progress,
            Metric,
            Log,
            Note,
            Shown,
            Heartbeat,
            Asks,
            Trained,
            Result,
            Sent,
            Left,
            Failed,
            Restarted,
        ),
        Ended,
    )
}


_NAMES = {cls: tuple(f.name for f in fields(cls)) for cls in KINDS.values()}
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode


def to_json(event: Event) -> str:
    """One line of JSON: ASCII, no newline; NaN and infinities as strings, so that any reader can parse it."""
    kind = type(event)
    return _encode({"kind": kind.kind, **{name: _plain(getattr(event, name)) for name in _NAMES[kind]}})


def from_json(line: str) -> Event:
    """The event of a line that :func:`to_json` wrote.

    Raises:
        ValueError: the line is not such an event.
    """
    try:
        record = json.loads(line)
        cls = KINDS[record.pop("kind")]
        known = _NAMES[cls]
        return cls(**{name: _number(value) for name, value in record.items() if name in known})
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not an event: {line[:80]!r}") from error


_NUMBERS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def _plain(value: Any) -> Any:
    """What JSON can say: ``{"~": "nan"}`` for NaN, and a dict that looks like that inside another."""
    if isinstance(value, dict):
        plain = {key: _plain(item) for key, item in value.items()}
        return {"~": plain} if set(value) == {"~"} else plain
    if isinstance(value, float) and not math.isfinite(value):
        return {"~": str(value)}
    return value


def _number(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {"~"}:
            inner = value["~"]
            return _NUMBERS[inner] if isinstance(inner, str) else {key: _number(inner[key]) for key in inner}
        return {key: _number(item) for key, item in value.items()}
    return value
