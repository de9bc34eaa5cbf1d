"""What a display is told, and what any display says of it. Writes nothing, asks no clock for the time.

:func:`view` turns the folded events into words and numbers once; the text and the notebook display only
lay them out, so that both say the same.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from obl_magic.events.event import Failed, Progress
from obl_magic.events.fold import MetricRow, RankState, RunState
from obl_magic.rundir.record import RunRecord

PER_SECOND = 4.0
"""How often a live display may be redrawn."""

SHOWN_METRICS = 12
SHOWN_NOTES = 20
SHOWN_PACES = 8
SHOWN_USAGES = 64
SHOWN_TAILS = 8
SHOWN_LINES = 5


class Display(Protocol):
    """Shows one run while it runs. The conductor calls it from one thread, in this order."""

    def begin(self, header: RunRecord) -> None:
        """Shows that the run is being launched."""

    def text(self, rank: int, stream: str, text: str, many: bool) -> None:
        """Shows what a rank printed, at once and as written.

        Args:
            rank: who printed it.
            stream: ``stdout`` or ``stderr``.
            text: may hold parts of lines and carriage returns.
            many: more than one rank is shown, so lines need their rank's name.
        """

    def shown(self, data: Mapping[str, str], name: str, update: bool) -> None:
        """Shows what the function displayed.

        Args:
            data: its forms by mime type.
            name: of the output, or "".
            update: it replaces the output of that name.
        """

    def update(self, state: RunState, rows: Sequence[MetricRow], now_s: float) -> None:
        """Shows the state; may be called at any rate.

        Args:
            state: the events so far, folded.
            rows: the metrics so far.
            now_s: Unix time in seconds.
        """

    def end(self, state: RunState, rows: Sequence[MetricRow], now_s: float) -> None:
        """Leaves what should stay after the run.

        Args:
            state: all events, folded.
            rows: all metrics of the run.
            now_s: Unix time in seconds.
        """


class NoDisplay:
    """The quiet display: shows nothing."""

    def begin(self, header: RunRecord) -> None:
        """Shows nothing."""

    def text(self, rank: int, stream: str, text: str, many: bool) -> None:
        """Shows nothing."""

    def shown(self, data: Mapping[str, str], name: str, update: bool) -> None:
        """Shows nothing."""

    def update(self, state: RunState, rows: Sequence[MetricRow], now_s: float) -> None:
        """Shows nothing."""

    def end(self, state: RunState, rows: Sequence[MetricRow], now_s: float) -> None:
        """Shows nothing."""


class Pace:
    """Lets at most so many drawings a second pass, by the time it is told.

    Args:
        per_second: the limit.
    """

    def __init__(self, per_second: float = PER_SECOND) -> None:
        self._gap_s = 1.0 / per_second
        self._last_s: float | None = None

    def due(self, now_s: float) -> bool:
        """Whether a drawing may happen now; if so, it is counted. A clock set back does not stop it."""
        if self._last_s is not None and 0 <= now_s - self._last_s < self._gap_s:
            return False
        self._last_s = now_s
        return True


class Lines:
    """Puts ``[rank 1] `` before each line when several ranks write to one place.

    A line that one rank left open is closed before another rank writes; a rank's own returns stay.
    """

    def __init__(self) -> None:
        self._owner: tuple[int, str] | None = None
        self._last = "\n"

    @property
    def open(self) -> bool:
        """Whether the last line has no end yet."""
        return self._last != "\n"

    def feed(self, rank: int, stream: str, text: str, many: bool) -> str:
        """What to write for this piece of text; see :meth:`Display.text`."""
        written = self._prefixed(rank, stream, text) if many and text else text
        self._owner = (rank, stream)
        self._last = text[-1:] or self._last
        return written

    def _prefixed(self, rank: int, stream: str, text: str) -> str:
        pieces: list[str] = []
        if self._owner not in (None, (rank, stream)) and self.open:
            pieces.append("\n")
            self._last = "\n"
        for line in re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+", text):
            closes_return = self._last == "\r" and line == "\n"
            if self._last in "\r\n" and not closes_return:
                pieces.append(f"[rank {rank}] ")
            pieces.append(line)
            self._last = line[-1]
        return "".join(pieces)


@dataclass(frozen=True, slots=True)
class Status:
    """How the run stands: a word, a symbol for who sees no colours, and what colour it deserves.

    Attributes:
        word: e.g. ``running``.
        phrase: how the time joins it, e.g. ``failed after``.
        symbol: one character.
        tone: ``active``, ``good``, ``bad``, ``caution`` or ``neutral``.
        over: the run has ended.
    """

    word: str
    phrase: str
    symbol: str
    tone: str
    over: bool


@dataclass(frozen=True, slots=True)
class Figure:
    """A named number, ready to be shown."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class Failure:
    """The first cause, and what became of the others.

    Attributes:
        cause: e.g. ``rank 1: ValueError: boom``.
        where: e.g. ``In [7], line 12``, or "".
        traceback: the rank's traceback, or "".
        others: e.g. ``ranks 0, 2: stopped``, or "".
    """

    cause: str
    where: str
    traceback: str
    others: str


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of a run.

    Attributes:
        name: ``starting``, ``first step`` or ``training``.
        took: e.g. ``4.1 s``.
        over: the next one has begun.
    """

    name: str
    took: str
    over: bool


@dataclass(frozen=True, slots=True)
class RankPace:
    """How one rank goes.

    Attributes:
        rank: its number.
        step: e.g. ``23 ms``.
        waits: share of that it waits for the others, 0 to 1.
        slowest: the others wait for it.
        host: where it is, where there are several; "" where there is one.
        share: of each batch, e.g. ``62 % of a batch``, where shares follow the ranks' pace; "" where they are equal.
    """

    rank: int
    step: str
    waits: float
    slowest: bool
    host: str = ""
    share: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """A run in words, the same for every display. Unknown things are empty strings or None.

    Attributes:
        function: the function's name.
        status: how the run stands.
        elapsed: e.g. ``1:23``.
        world: e.g. ``3 workers on 2 cores``.
        engine: e.g. ``mpi (Horovod is not installed)``.
        batch: e.g. ``global batch``.
        digest: first 12 hexadecimal digits.
        epoch: e.g. ``3/5``.
        step: e.g. ``120/938``.
        speed: e.g. ``12,300 samples/s``.
        fraction: done over all epochs, 0 to 1, or None while unknown.
        metrics: newest values.
        ranks: e.g. ``ranks 0-3 running``.
        remarks: said once, before the run.
        notes: said by the run.
        failure: first cause, or None.
        run_id: the run's id.
        folder: its folder.
        left: e.g. ``~3:50 left``.
        step_time: e.g. ``23 ms/step``.
        phases: what it has gone through, the present one last.
        paces: of the ranks that are in a fit, the slowest first where there are many.
        value: what rank 0's function returned, or the model so far of an interrupted fit, in a few words.
        usage: of each rank, processors and memory in use.
        tails: what ranks printed last, a few lines each, the rank's name before them.
        now: date and time, while it goes on.
        draws: curves are to be expected.
        seed: base seed.
        versions: of what it runs with.
    """

    function: str
    status: Status
    elapsed: str
    world: str
    engine: str
    batch: str
    digest: str
    epoch: str
    step: str
    speed: str
    fraction: float | None
    metrics: tuple[Figure, ...]
    ranks: str
    remarks: tuple[str, ...]
    notes: tuple[str, ...]
    failure: Failure | None
    run_id: str
    folder: str
    left: str = ""
    step_time: str = ""
    phases: tuple[Phase, ...] = ()
    paces: tuple[RankPace, ...] = ()
    value: str = ""
    usage: tuple[str, ...] = ()
    tails: tuple[tuple[str, tuple[str, ...]], ...] = ()
    now: str = ""
    draws: bool = False
    seed: int = 0
    versions: str = ""


def view(header: RunRecord, state: RunState, now_s: float) -> View:
    """The run in words.

    Args:
        header: what was known at the start.
        state: the events so far, folded.
        now_s: Unix time in seconds; not used once the run has ended.
    """
    standing = status_of(state)
    progress = state.progress
    until_s = now_s if state.ended_s is None else state.ended_s
    return View(
        function=one_line(header.function),
        status=standing,
        elapsed=elapsed(until_s - header.started_s, precise=standing.over),
        world=_world(header, state),
        engine=_engine(header, state),
        batch=one_line(f"{header.batch} batch" if header.batch and header.workers is not None else ""),
        digest=one_line(header.digest[:12]),
        epoch=f"{progress.epoch:,}/{progress.epochs:,}" if progress else "",
        step=_step(progress, state, standing),
        speed=_speed(progress),
        fraction=_fraction(progress),
        metrics=_figures(state),
        ranks=_ranks(header, state, standing),
        remarks=tuple(one_line(text) for text in header.lines),
        notes=_notes(state, standing),
        failure=_failure(header, state, standing),
        run_id=one_line(header.id),
        folder=one_line(header.folder),
        left=_left(state, standing, now_s),
        step_time=_step_time(state),
        phases=_phases(header, state, until_s),
        paces=_paces(header, state, standing),
        value=_value(state),
        usage=_usage(state),
        tails=_tails(state),
        now=clock(standing, now_s),
        draws=header.draws,
        seed=header.seed,
        versions=one_line(_versions(header)),
    )


def _value(state: RunState) -> str:
    """What there is in ``.value``, in a few words."""
    told = one_line(state.told)
    return f"{told} (the model so far, in .value)" if told and state.status == "interrupted" else told


def last_known_s(header: RunRecord, rows: Sequence[MetricRow]) -> float:
    """Unix time in seconds of a run's last metric, or of its begin."""
    return max([header.started_s, *(row.time_s for row in rows[-1:])])


def _left(state: RunState, standing: Status, now_s: float) -> str:
    """How long the fit takes still, if it goes on as since its first step."""
    first, latest = state.trains, state.progress
    done, before = _fraction(latest), _fraction(first)
    if standing.over or first is None or latest is None or done is None or before is None or done <= before:
        return ""
    spent_s = latest.time_s - first.time_s
    if spent_s < 1.0:
        return ""
    left_s = spent_s * (1 - done) / (done - before) - max(0.0, now_s - latest.time_s)
    return f"~{elapsed(max(0.0, left_s))} left"


def _step_time(state: RunState) -> str:
    seconds = [rank.step_s for rank in state.ranks.values() if rank.step_s is not None]
    return f"{_milliseconds(max(seconds))}/step" if seconds else ""


def _milliseconds(seconds: float) -> str:
    """With two significant digits, which is as steady as it is exact."""
    return f"{float(f'{1000 * seconds:.2g}'):,g} ms"


def _phases(header: RunRecord, state: RunState, until_s: float) -> tuple[Phase, ...]:
    """What the run has gone through."""
    validates = state.ended_s is None and any(rank.validating for rank in state.ranks.values())
    marks = [("starting", header.started_s), ("running", state.ready_s)]
    if header.draws or state.trains:
        marks[1:] = [
            ("first step", state.ready_s),
            ("validating" if validates else "training", state.trains.time_s if state.trains else None),
        ]
    known = [(name, begin) for name, begin in marks if begin is not None]
    ends = [*(begin for _, begin in known[1:]), until_s]
    phases = []
    for at, ((name, begin), end) in enumerate(zip(known, ends, strict=True)):
        over = at < len(known) - 1 or state.ended_s is not None
        phases.append(Phase(name, elapsed(end - begin, precise=over), over))
    return tuple(phases)


def _paces(header: RunRecord, state: RunState, standing: Status) -> tuple[RankPace, ...]:
    """Of ranks in a fit; who waits least is waited for."""
    going = {
        number: (rank.step_s, rank.waited)
        for number, rank in sorted(state.ranks.items())
        if rank.step_s is not None and rank.waited is not None
    }
    if (header.workers or 1) < 2 or not going:
        return ()
    several = len({rank.host for rank in state.ranks.values() if rank.host}) > 1
    least, most = min(waited for _, waited in going.values()), max(waited for _, waited in going.values())
    paces = [
        RankPace(
            number,
            _milliseconds(step_s),
            round(20 * waited) / 20,
            waited == least and most - least > 0.1,
            state.ranks[number].host if several else "",
            _share(state.ranks[number].share),
        )
        for number, (step_s, waited) in going.items()
    ]
    if len(paces) <= SHOWN_PACES:
        return tuple(paces)
    return tuple(sorted(paces, key=lambda pace: (pace.waits, pace.rank))[:SHOWN_PACES])


def _usage(state: RunState) -> tuple[str, ...]:
    """Processors and memory of each rank, as far as it has told."""
    said = []
    for number, rank in sorted(state.ranks.items()):
        parts = [
            f"{rank.cores:.1f} cores" if rank.cores is not None else "",
            f"{rank.memory_bytes / 1e6:,.0f} MB" if rank.memory_bytes else "",
            f"{rank.gpu_bytes / 1e6:,.0f} MB of GPU" if rank.gpu_bytes else "",
        ]
        if any(parts):
            said.append(f"{state.name(number)}: {', '.join(part for part in parts if part)}")
    return tuple(said[:SHOWN_USAGES])


def _tails(state: RunState) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """What the ranks printed last."""
    said = []
    for number, rank in sorted(state.ranks.items()):
        if number >= 0 and (lines := rank.last_lines[-SHOWN_LINES:]):
            said.append((state.name(number), tuple(shorten(one_line(line), 120) for line in lines)))
            if len(said) == SHOWN_TAILS:
                break
    return tuple(said)


def _versions(header: RunRecord) -> str:
    packages: dict[str, str] = header.environment.get("packages") or {}
    return ", ".join(f"{name} {version}" for name, version in packages.items())


_STATUS = {
    "succeeded": ("✓", "good"),
    "failed": ("✗", "bad"),
    "interrupted": ("■", "caution"),
    "stalled": ("▲", "bad"),
    "timed out": ("▲", "bad"),
}


def status_of(state: RunState) -> Status:
    """How the run stands; ``launching`` until a rank is up."""
    if state.status == "running":
        up = any(rank.state != "waiting" for rank in state.ranks.values()) or state.progress or state.latest
        word, symbol, tone = ("running", "●", "active") if up else ("launching", "○", "neutral")
        return Status(word, word, symbol, tone, over=False)
    symbol, tone = _STATUS.get(state.status, ("■", "neutral"))
    word = one_line(state.status)
    joined = f"{word} {'in' if word == 'succeeded' else 'after'}"
    if word == "interrupted" and state.progress:  # by the user: no error
        joined = f"stopped at epoch {state.progress.epoch:,} after"
    return Status(word, joined, symbol, tone, over=True)


def clock(standing: Status, now_s: float) -> str:
    """Date and time as the kernel's machine has them; "" of what is over.

    Args:
        standing: how the run or study stands.
        now_s: Unix time in seconds.
    """
    return "" if standing.over else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now_s))


def elapsed(seconds: float, precise: bool = False) -> str:
    """A duration as ``1:23`` or ``2:05:00``.

    Args:
        seconds: the duration; what is no duration counts as zero.
        precise: write less than a minute as ``8.2 s``.
    """
    if not math.isfinite(seconds) or seconds < 0:
        seconds = 0.0
    if precise and seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def number(value: float) -> str:
    """A value with four significant digits: ``0.1234``, ``12.34``, ``1,234``, ``1.234e-05``, ``nan``."""
    try:
        value = float(value)
    except OverflowError:
        return ">1e308" if value > 0 else "<-1e308"
    except (TypeError, ValueError):
        return shorten(one_line(str(value)), 12)
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size == 0:
        return "0"
    if not 1e-4 <= size < 1e7:
        return f"{value:.3e}"
    digits = 3 - math.floor(math.log10(float(f"{size:.3e}")))
    return f"{value:,.{max(0, digits)}f}"


def shorten(text: str, width: int) -> str:
    """The text in at most ``width`` characters, the middle left out if need be."""
    if len(text) <= width:
        return text
    tail = (width - 1) // 2
    return text[: width - 1 - tail] + "…" + (text[-tail:] if tail else "")


_ESCAPE = re.compile(r"\x1b(?:\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")


def printable(text: str) -> str:
    """The text without terminal colours; what cannot be printed becomes U+FFFD. Line ends stay."""
    plain = _ESCAPE.sub("", text).replace("\r\n", "\n").expandtabs(4)
    if plain.isprintable():
        return plain
    return "".join(c if c == "\n" or c.isprintable() else "\ufffd" for c in plain)


def one_line(text: str) -> str:
    """The text on one line, printable, its runs of white space made single spaces."""
    return printable(" ".join(text.split()))


def rank_names(ranks: Iterable[int]) -> str:
    """Ranks as a user would say them: ``rank 1``, ``ranks 0-3``, ``ranks 0, 2, 4-7``; -1 is the launcher."""
    known = sorted(set(ranks))
    spans: list[list[int]] = []
    for rank in (rank for rank in known if rank >= 0):
        if spans and rank == spans[-1][1] + 1:
            spans[-1][1] = rank
        else:
            spans.append([rank, rank])
    parts = [
        piece
        for first, last in spans
        for piece in ([f"{first}-{last}"] if last - first > 1 else [str(r) for r in range(first, last + 1)])
    ]
    words = ["launcher"] if any(rank < 0 for rank in known) else []
    if parts:
        words.append(("ranks " if len(parts) > 1 or "-" in parts[0] else "rank ") + ", ".join(parts))
    return ", ".join(words)


def _world(header: RunRecord, state: RunState) -> str:
    """Where it runs: in the world that it is in now."""
    if header.workers is None:
        return "in the kernel"
    many, hosts = (state.workers, state.hosts) if state.workers else (header.workers, "")
    if hosts or (header.hosts and many == header.workers):
        return hosts or header.hosts
    workers = f"{many:,} worker" + ("" if many == 1 else "s")
    return f"{workers} on {header.cores:,} cores" if many > header.cores > 0 else workers


def _engine(header: RunRecord, state: RunState) -> str:
    """The engine in use; the reason belongs to the one that was chosen. In the kernel there is none."""
    if header.workers is None:
        return ""
    engine = state.engine or header.engine
    reason = header.engine_reason if engine and engine == header.engine else ""
    return one_line(f"{engine} ({reason})" if reason else engine)


def _step(progress: Progress | None, state: RunState, standing: Status) -> str:
    if progress:
        return f"{progress.step:,}/{progress.steps:,}" if progress.steps is not None else f"{progress.step:,}"
    furthest = max((rank.step for rank in state.ranks.values()), default=0)
    return f"{furthest:,}" if furthest > 0 and not standing.over else ""


def _speed(progress: Progress | None) -> str:
    speed = progress.samples_per_s if progress else None
    if speed is None or not math.isfinite(speed) or speed <= 0:
        return ""
    return (f"{speed:,.0f}" if speed >= 100 else f"{speed:.3g}") + " samples/s"


def _fraction(progress: Progress | None) -> float | None:
    if progress is None or progress.epochs <= 0:
        return None
    within = min(1.0, max(0.0, progress.step / progress.steps)) if progress.steps else 0.0
    return min(1.0, max(0.0, (progress.epoch - 1 + within) / progress.epochs))


def _figures(state: RunState) -> tuple[Figure, ...]:
    return tuple(Figure(one_line(name), number(value)) for name, value in (state.latest or {}).items())


def _expected(header: RunRecord, state: RunState) -> dict[int, RankState]:
    known = {rank: of for rank, of in state.ranks.items() if rank >= 0}
    expected = state.workers or header.workers or 0
    return {rank: known.get(rank, RankState()) for rank in sorted({*range(expected), *known})}


def _rank_words(header: RunRecord, state: RunState, standing: Status) -> dict[int, str]:
    return {rank: _rank_word(of, standing.over) for rank, of in _expected(header, state).items()}


def _rank_word(of: RankState, over: bool) -> str:
    if over and of.state in ("waiting", "running"):
        return "stopped"
    return "starting" if of.state == "waiting" else of.state


def _ranks(header: RunRecord, state: RunState, standing: Status) -> str:
    if header.workers is None or standing.word == "succeeded":
        return ""
    words = _rank_words(header, state, standing)
    if not standing.over and (header.workers or 1) > 1:
        words = {rank: _going(word, state.ranks.get(rank, RankState())) for rank, word in words.items()}
    return _by_word(words, " ")


def _going(word: str, rank: RankState) -> str:
    """What a rank does, with its pace while it is in a fit: who is slow never waits, and keeps the others waiting."""
    return f"{word} at {going}" if word == "running" and rank.fitting and (going := pace(rank)) else word


def _share(share: float | None) -> str:
    return "" if share is None else f"{share:.0%}".replace("%", " % of a batch")


def pace(rank: RankState) -> str:
    """How fast a rank is, and for how much of that it waits for the others, e.g. ``12 ms a step, 35 % waiting``.

    The share is rounded to 5 %, so that ranks that are alike are told together. "" while unknown.
    """
    if rank.step_s is None or rank.waited is None:
        return ""
    share = f", {_share(rank.share)}" if rank.share is not None else ""
    return f"{float(f'{1000 * rank.step_s:.2g}'):g} ms a step, {5 * round(20 * rank.waited)} % waiting{share}"


def _by_word(words: dict[int, str], separator: str) -> str:
    grouped: dict[str, list[int]] = {}
    for rank, word in words.items():
        grouped.setdefault(word, []).append(rank)
    return " · ".join(f"{rank_names(ranks)}{separator}{word}" for word, ranks in grouped.items())


def _current_failures(state: RunState, standing: Status) -> tuple[Failed, ...]:
    """The failures that still hold: those of an attempt that was retried do not."""
    if standing.word == "succeeded":
        return ()
    if standing.over:
        return state.failures
    return tuple(f for f in state.failures if f.rank < 0 or state.ranks[f.rank].state == "failed")


def _notes(state: RunState, standing: Status) -> tuple[str, ...]:
    notes = [one_line(note.text) for note in state.notes]
    current = _current_failures(state, standing)
    notes += [
        f"an earlier attempt failed: {rank_names([f.rank])}: {shorten(one_line(f.error), 200)}"
        for f in state.failures
        if f not in current
    ]
    left_out = len(notes) - SHOWN_NOTES
    return (*notes[:SHOWN_NOTES], *([f"and {left_out} more notes"] if left_out > 0 else []))


def _failure(header: RunRecord, state: RunState, standing: Status) -> Failure | None:
    failures = _current_failures(state, standing)
    if not failures and standing.word == "interrupted":  # by the user, who knows
        return None
    if not failures:
        error = printable(state.error).strip()
        if not error or not standing.over:
            return None
        return Failure(error, "", "", _others(header, state, standing, {}))
    first = next((f for f in failures if f.error and f.error in state.error), failures[0])
    others = {f.rank: one_line(f.error) for f in failures if f.rank != first.rank}
    return Failure(
        cause=f"{rank_names([first.rank])}: {printable(first.error).strip()}",
        where=one_line(first.where),
        traceback=printable(first.traceback).strip("\n"),
        others=_others(header, state, standing, {first.rank: "", **others}),
    )


def _others(header: RunRecord, state: RunState, standing: Status, failed: dict[int, str]) -> str:
    """One line for all ranks but the first of ``failed``; one whose error is known says its type."""
    if header.workers is None or header.workers < 2:
        return ""
    words = _rank_words(header, state, standing)
    for rank, error in failed.items():
        words[rank] = shorten(error, 60) or "failed"
    for first in list(failed)[:1]:
        words.pop(first)
    return _by_word(words, ": ")
