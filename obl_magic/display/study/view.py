"""What a study's display is told, and what any display says of it. Writes nothing, reads no clock.

:func:`study_view` turns a search or an ablation into words once, as ``base.view`` does for a run. Its size
depends on how many rows are asked for, never on how many trials there were.
"""

from __future__ import annotations

import math
import reprlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from typing import Any, Protocol

from obl_magic.display.charts.curves import Curve, drawable
from obl_magic.display.run.view import Status, clock, elapsed, number, one_line, shorten, status_of
from obl_magic.events.fold import empty
from obl_magic.rundir.record import StudyRecord

LIVE_ROWS = 15
STILL_ROWS = 60
"""How many trials a panel, and a still, show."""

NOTHING = "–"

_CALLED = {
    "tpe": "TPE", "random": "random", "grid": "grid", "cmaes": "CMA-ES", "gp": "Gaussian-process", "nsga2": "NSGA-II",
    "median": "median", "asha": "ASHA", "hyperband": "Hyperband",
}  # fmt: skip
"""How samplers and pruners are called in the literature."""
_MOST_RUNNING = 8
_MOST_PARAMS = 6
_MOST_WORLDS = 4
_ABLATED = ("feature", "layer", "group", "model", "flag")
_ENDED = ("succeeded", "failed", "pruned", "interrupted")
_MARKS = {
    "waiting": ("○", "neutral"),
    "running": ("●", "active"),
    "succeeded": ("✓", "good"),
    "failed": ("✗", "bad"),
    "pruned": ("◇", "neutral"),
    "interrupted": ("■", "caution"),
}


@dataclass(frozen=True, slots=True)
class TrialRow:
    """One trial, as far as it has come.

    Attributes:
        number: from 0.
        status: ``waiting``, ``running``, ``succeeded``, ``failed``, ``pruned`` or ``interrupted``.
        value: of the wanted quantity, or None.
        duration_s: seconds so far, or None.
        error: one line, or "".
        params: arguments by name.
        curve: step or epoch, and the quantity (or the loss) there.
        where: e.g. ``epoch 3/10``.
        label: of an ablation, the component and its repeat.
    """

    number: int
    status: str
    value: float | None = None
    duration_s: float | None = None
    error: str = ""
    params: dict[str, Any] = field(default_factory=dict)
    curve: tuple[tuple[int, float], ...] = ()
    where: str = ""
    label: str = ""


@dataclass(frozen=True, slots=True)
class ComponentRow:
    """One line of an ablation's table.

    Attributes:
        component: its name; the base run is ``base``, of no ablated kind.
        kind: ``feature``, ``layer``, ``group``, ``model`` or ``flag``; of the base run anything else.
        value: mean over the repeats, or None.
        delta: value − base, or None.
        std: spread of the value over the repeats, or None.
        repeats: runs that succeeded.
        status: as of a trial.
        within_noise: whether the delta may be chance, or None where that cannot be said.
        parameters: of the model, or None.
        inputs: features that were left, or None.
        layers: or None.
        error: one line, or "".
        interval: half of the 95 % confidence interval of the paired difference, which decides, or None.
    """

    component: str
    kind: str
    value: float | None = None
    delta: float | None = None
    std: float | None = None
    repeats: int = 0
    status: str = "waiting"
    within_noise: bool | None = None
    parameters: int | None = None
    inputs: int | None = None
    layers: int | None = None
    error: str = ""
    interval: float | None = None

    @property
    def base(self) -> bool:
        """Whether it is the run with nothing taken away; a feature may be called ``base`` too."""
        return self.component == "base" and self.kind not in _ABLATED


@dataclass(frozen=True, slots=True)
class StudyState:
    """A study at one moment.

    Attributes:
        rows: trials, in order of their numbers.
        components: of an ablation.
        importances: by parameter.
        busy: share of its time in which each world computed, 0 to 1.
        status: ``running``, ``succeeded``, ``interrupted`` or ``failed``.
        now_s: Unix time in seconds at which this was so; of a study that is over, its end.
    """

    rows: tuple[TrialRow, ...] = ()
    components: tuple[ComponentRow, ...] = ()
    importances: dict[str, float] = field(default_factory=dict)
    busy: tuple[float, ...] = ()
    status: str = "running"
    now_s: float = 0.0


class StudyDisplay(Protocol):
    """Shows one study while it runs. Called from one thread, in this order."""

    def begin(self, header: StudyRecord) -> None:
        """Shows that the study begins."""

    def update(self, state: StudyState) -> None:
        """Shows the state; may be called at any rate."""

    def end(self, state: StudyState) -> None:
        """Leaves what should stay after the study."""


class NoStudyDisplay:
    """The quiet display: shows nothing."""

    def begin(self, header: StudyRecord) -> None:
        """Shows nothing."""

    def update(self, state: StudyState) -> None:
        """Shows nothing."""

    def end(self, state: StudyState) -> None:
        """Shows nothing."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A status for a table: its word, a symbol for who sees no colours, and what colour it deserves."""

    word: str
    symbol: str
    tone: str


@dataclass(frozen=True, slots=True)
class TrialLine:
    """One trial in words.

    Attributes:
        name: its number, or what an ablation calls it.
        mark: how it stands.
        best: nothing was better.
        value: the quantity, or ``–``.
        duration: e.g. ``8.2 s``, or ``–``.
        params: one text for each shown parameter.
        called: all of them, e.g. ``lr=0.01 units=64``.
        error: one line, or "".
        where: e.g. ``epoch 3/10``.
        curve: its course, or None.
    """

    name: str
    mark: Mark
    best: bool
    value: str
    duration: str
    params: tuple[str, ...]
    called: str
    error: str
    where: str
    curve: Curve | None


@dataclass(frozen=True, slots=True)
class ComponentLine:
    """One component in words.

    Attributes:
        name: as in the table; ``–`` if unknown.
        kind: as in the table; ``–`` if unknown.
        value: as in the table; ``–`` if unknown.
        delta: as in the table; ``–`` if unknown.
        std: as in the table; ``–`` if unknown.
        repeats: as in the table; ``–`` if unknown.
        parameters: as in the table; ``–`` if unknown.
        inputs: as in the table; ``–`` if unknown.
        layers: as in the table; ``–`` if unknown.
        mark: how it stands.
        error: one line, or "".
        base: nothing was taken away.
        noise: the delta may be chance.
        change: delta as a number, or None.
        spread: half of the interval in which the change is, or None.
        interval: the same in words, or "".
        verdict: ``clear``, ``not clear (3 repeats)``, or "" where one repeat says nothing.
        harm: whether the quantity is worse without it.
    """

    name: str
    kind: str
    value: str
    delta: str
    std: str
    repeats: str
    parameters: str
    inputs: str
    layers: str
    mark: Mark
    error: str
    base: bool
    noise: bool
    change: float | None
    spread: float | None
    interval: str
    verdict: str
    harm: bool


@dataclass(frozen=True, slots=True)
class StudyView:
    """A study in words, the same for every display. Unknown things are empty.

    Attributes:
        function: the function's name.
        aim: e.g. ``search of 'val_accuracy' ↑``.
        status: how the study stands.
        elapsed: e.g. ``1:23``.
        counts: e.g. ``37/100 trials · 2 failed``.
        quantity: what is compared.
        shares: of a bar over all wanted trials, by tone; None where their number is open.
        world: e.g. ``2 worlds of 2 workers``.
        busy: e.g. ``worlds busy 92 %, 81 %``.
        method: engine, sampler, pruner.
        digest: first 12 hexadecimal digits.
        space: what is searched.
        best: value of the best trial, or of an ablation's base run.
        best_of: whose, e.g. ``trial 42``.
        best_params: e.g. ``lr=0.01 units=64``.
        running: trials on their way.
        running_more: how many are left out.
        names: shown parameters.
        names_more: how many are left out.
        trials: those that ended, best first.
        trials_more: how many are left out.
        components: of an ablation, base first, then by harm.
        remarks: sentences.
        study_id: the study's id.
        folder: its folder.
        left: e.g. ``~3:50 left``.
        planned: how many components there will be, the base run among them.
        worlds: trials that run at a time.
        wanted: trials, or 0 while open.
        now: date and time, while it goes on.
    """

    function: str
    aim: str
    status: Status
    elapsed: str
    counts: str
    quantity: str
    shares: tuple[tuple[str, float], ...] | None
    world: str
    busy: str
    method: tuple[str, ...]
    digest: str
    space: str
    best: str
    best_of: str
    best_params: str
    running: tuple[TrialLine, ...]
    running_more: int
    names: tuple[str, ...]
    names_more: int
    trials: tuple[TrialLine, ...]
    trials_more: int
    components: tuple[ComponentLine, ...]
    remarks: tuple[str, ...]
    study_id: str
    folder: str
    left: str = ""
    planned: int = 0
    worlds: int = 1
    wanted: int = 0
    now: str = ""


def study_view(header: StudyRecord, state: StudyState, most: int = LIVE_ROWS) -> StudyView:
    """The study in words.

    Args:
        header: what was known at the start.
        state: the study now.
        most: trials to show at most.
    """
    standing = status_of(replace(empty(), latest={"": 0.0}, status=state.status))
    best = best_trial(header, state)
    ended = [row for row in state.rows if _status(row, state) in _ENDED]
    chosen = _chosen(header, ended, most) if header.kind == "search" else []
    going = [row for row in state.rows if _status(row, state) == "running"]
    names = tuple(dict.fromkeys(name for row in ended for name in row.params))
    shown = names[:_MOST_PARAMS]
    value, of, params = _best(header, state, best)
    return StudyView(
        function=one_line(header.function),
        aim=aim(header),
        status=standing,
        elapsed=elapsed(state.now_s - header.started_s, precise=standing.over),
        counts=_counts(header, state),
        quantity=one_line(header.quantity),
        shares=_shares(header, state),
        world=_world(header),
        busy=_busy(state.busy),
        method=_method(header),
        digest=one_line(header.digest[:12]),
        space=shorten(one_line(" ".join(header.space)), 400),
        best=value,
        best_of=of,
        best_params=params,
        running=tuple(trial_line(row, state, ()) for row in going[:_MOST_RUNNING]),
        running_more=max(0, len(going) - _MOST_RUNNING),
        names=tuple(shorten(one_line(name), 24) for name in shown),
        names_more=max(0, len(names) - _MOST_PARAMS),
        trials=tuple(trial_line(row, state, shown, best) for row in chosen),
        trials_more=len(ended) - len(chosen) if header.kind == "search" else 0,
        components=component_lines(header, state.components),
        remarks=tuple(one_line(text) for text in header.lines),
        study_id=one_line(header.id),
        folder=one_line(header.folder),
        left=_left(header, state),
        planned=(header.wanted or 0) // max(1, header.repeats) if header.kind != "search" else 0,
        worlds=header.worlds,
        wanted=header.wanted or 0,
        now=clock(standing, state.now_s),
    )


def _method(header: StudyRecord) -> tuple[str, ...]:
    """Engine, sampler and pruner in a data scientist's words."""
    engine = "" if header.workers is None else header.engine
    draws = f"{_CALLED.get(header.sampler, header.sampler)} sampler" if header.sampler else ""
    ends = f"{_CALLED.get(header.pruner, header.pruner)} pruner" if header.pruner else ""
    ends = "no pruning" if header.pruner == "none" else ends
    return tuple(one_line(text) for text in (engine, draws, ends) if text)


def aim(header: StudyRecord) -> str:
    """What the study is after, e.g. ``search of 'val_accuracy' ↑``."""
    arrow = "↑" if header.direction == "maximize" else "↓"
    return f"{one_line(header.kind)} of '{shorten(one_line(header.quantity), 40)}' {arrow}"


def harm(header: StudyRecord, delta: float) -> float:
    """By how much the quantity is worse; negative where it is better."""
    return -delta if header.direction == "maximize" else delta


def placed(value: float | None) -> float | None:
    """The value if it has a place on an axis, as a float; otherwise None."""
    try:
        known = math.nan if value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return known if drawable(known) else None


def best_trial(header: StudyRecord, state: StudyState) -> TrialRow | None:
    """The best of the trials that succeeded with a number, the earliest of equals; None without any."""
    ranked = _ranked(header, state.rows)
    return ranked[0] if ranked else None


def has_ended(row: TrialRow, state: StudyState) -> bool:
    """Whether the trial is over; with its study, at the latest."""
    return _status(row, state) in _ENDED


def trial_line(
    row: TrialRow, state: StudyState, names: Sequence[str], best: TrialRow | None = None
) -> TrialLine:
    """One trial in words, with the parameters of these names."""
    word = _status(row, state)
    error = shorten(one_line(row.error), 200) if word != "succeeded" else ""
    return TrialLine(
        name=shorten(one_line(row.label), 40) or f"{row.number}",
        mark=mark(word),
        best=best is not None and row.number == best.number,
        value=told(row.value),
        duration=NOTHING if row.duration_s is None else elapsed(row.duration_s, precise=True),
        params=tuple(param(row.params[name]) if name in row.params else NOTHING for name in names),
        called=params_text(row.params),
        error=error,
        where=shorten(one_line(row.where), 40),
        curve=_curve(row),
    )


def component_lines(header: StudyRecord, rows: Sequence[ComponentRow]) -> tuple[ComponentLine, ...]:
    """The components in words: the base run, then the most harmful to lose, then those that failed."""

    def place(row: ComponentRow) -> tuple[bool, bool, float]:
        delta = placed(row.delta)
        return not row.base, delta is None, 0.0 if delta is None else -harm(header, delta)

    digits = _digits(rows)
    return tuple(_component(header, row, digits) for row in sorted(rows, key=place))


def mark(status: str) -> Mark:
    """How a status is shown."""
    symbol, tone = _MARKS.get(status, ("·", "neutral"))
    return Mark(shorten(one_line(status), 24), symbol, tone)


def param(value: object) -> str:
    """A parameter's value, short."""
    if isinstance(value, str):
        return shorten(one_line(value), 24)
    if isinstance(value, bool) or not isinstance(value, Real):
        return shorten(one_line(reprlib.repr(value)), 24)
    if isinstance(value, Integral):
        return str(int(value)) if abs(int(value)) < 10**12 else number(int(value))
    return f"{float(value):.4g}"


def params_text(params: dict[str, Any]) -> str:
    """Parameters as they are called, e.g. ``lr=0.01 units=64``."""
    said = " ".join(f"{shorten(one_line(name), 24)}={param(value)}" for name, value in params.items())
    return shorten(said, 200)


def told(value: float | None, signed: bool = False) -> str:
    """A number, or ``–`` where there is none."""
    if value is None:
        return NOTHING
    text = number(value)
    return f"+{text}" if signed and (known := placed(value)) is not None and known > 0 else text


def _status(row: TrialRow, state: StudyState) -> str:
    return "interrupted" if state.status != "running" and row.status == "running" else row.status


def _ranked(header: StudyRecord, rows: Iterable[TrialRow]) -> list[TrialRow]:
    known = [(row, placed(row.value)) for row in rows if row.status == "succeeded"]
    places = [
        (harm(header, value), row.number, at) for at, (row, value) in enumerate(known) if value is not None
    ]
    return [known[at][0] for _, _, at in sorted(places)]


def _chosen(header: StudyRecord, ended: list[TrialRow], most: int) -> list[TrialRow]:
    """The best trials; of those without a number the latest, which a fifth of the rows is kept for."""
    ranked = _ranked(header, ended)
    numbers = {row.number for row in ranked}
    others = [row for row in reversed(ended) if row.number not in numbers]
    others.sort(key=lambda row: row.status != "failed")
    kept = max(most - len(ranked), min(most // 5, len(others)))
    return [*ranked[: most - min(kept, len(others))], *others[:kept]]


def _best(header: StudyRecord, state: StudyState, best: TrialRow | None) -> tuple[str, str, str]:
    if header.kind != "search":
        base = next((row for row in state.components if row.base and row.value is not None), None)
        return ("", "", "") if base is None else (told(base.value), "base", "")
    return (
        ("", "", "") if best is None else (told(best.value), f"trial {best.number}", params_text(best.params))
    )


def _counts(header: StudyRecord, state: StudyState) -> str:
    tally = Counter(_status(row, state) for row in state.rows)
    done = sum(tally[word] for word in _ENDED)
    wanted = f"/{header.wanted:,}" if header.wanted is not None else ""
    noun = "trial" if (header.wanted if header.wanted is not None else done) == 1 else "trials"
    parts = [
        f"{tally[word]:,} {word}" for word in ("running", "pruned", "failed", "interrupted") if tally[word]
    ]
    return " · ".join([f"{done:,}{wanted} {noun}", *parts])


def _shares(header: StudyRecord, state: StudyState) -> tuple[tuple[str, float], ...] | None:
    if header.wanted is None or header.wanted <= 0:
        return None
    tally = Counter(row.status for row in state.rows)
    whole = max(header.wanted, sum(tally[word] for word in _ENDED))
    return tuple((_MARKS[word][1], tally[word] / whole) for word in _ENDED if tally[word])


def _world(header: StudyRecord) -> str:
    if header.workers is None:
        return "in the kernel"
    per = f"{header.workers_per_trial:,} worker" + ("" if header.workers_per_trial == 1 else "s")
    return f"{header.worlds:,} world" + ("" if header.worlds == 1 else "s") + f" of {per}"


def _busy(shares: tuple[float, ...]) -> str:
    known = [round(100 * min(1.0, max(0.0, share))) for share in shares if math.isfinite(share)]
    if not known:
        return ""
    if len(known) == 1:
        return f"busy {known[0]} %"
    if len(known) <= _MOST_WORLDS:
        return "worlds busy " + ", ".join(f"{share} %" for share in known)
    return f"worlds busy {min(known)}–{max(known)} %"


def _left(header: StudyRecord, state: StudyState) -> str:
    """How long it takes still, if the trials to come take as long as those that have ended."""
    done = sum(_status(row, state) in _ENDED for row in state.rows)
    if state.status != "running" or not done or header.wanted is None or header.wanted <= done:
        return ""
    return f"~{elapsed((state.now_s - header.started_s) / done * (header.wanted - done))} left"


def _verdict(row: ComponentRow) -> str:
    """Whether so large a change comes by chance in one of twenty studies at most."""
    if row.base or row.within_noise is None:
        return ""
    return f"not clear ({row.repeats} repeats)" if row.within_noise else "clear"


def _curve(row: TrialRow) -> Curve | None:
    if not row.curve:
        return None
    xs, ys = zip(*row.curve, strict=True)
    return Curve("", "step", xs, ys, None)


def _digits(rows: Sequence[ComponentRow]) -> int | None:
    """Decimals that give the largest delta three digits, so that a column compares; None where none would."""
    sizes = [abs(delta) for row in rows if (delta := placed(row.delta)) is not None and not row.base]
    top = max(sizes, default=0.0)
    return max(0, 2 - math.floor(math.log10(top))) if 1e-4 <= top < 1e7 else None


def _aligned(value: float | None, digits: int | None, signed: bool = False) -> str:
    """A delta or its spread, as exact as the others in its column."""
    known = placed(value)
    if known is None or digits is None or abs(known) >= 1e7:
        return told(value, signed)
    text = f"{known:+,.{digits}f}" if signed else f"{known:,.{digits}f}"
    return text if float(text.replace(",", "")) or not known else told(value, signed)


def _component(header: StudyRecord, row: ComponentRow, digits: int | None) -> ComponentLine:
    change = None if row.base else placed(row.delta)
    spread = placed(row.interval)
    return ComponentLine(
        name=shorten(one_line(row.component), 40),
        kind=shorten(one_line(row.kind), 24) if not row.base else "",
        value=told(row.value),
        delta="" if row.base else _aligned(row.delta, digits, signed=True),
        std=_aligned(row.std, digits),
        repeats=f"{row.repeats:,}",
        parameters=_whole(row.parameters),
        inputs=_whole(row.inputs),
        layers=_whole(row.layers),
        mark=mark(row.status),
        error=shorten(one_line(row.error), 200),
        base=row.base,
        noise=bool(row.within_noise) and not row.base,
        change=change,
        spread=abs(spread) if spread else None,
        interval="" if spread is None else _aligned(abs(spread), digits),
        verdict=_verdict(row),
        harm=change is not None and harm(header, change) > 0,
    )


def _whole(count: int | None) -> str:
    return NOTHING if count is None else f"{count:,}"
