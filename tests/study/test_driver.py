"""How trials are pulled into seats, with seats that run nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from obl_magic import rundir
from obl_magic.errors import SetupProblem, UsageProblem
from obl_magic.events.event import LAUNCHER, Ended, Metric, Result
from obl_magic.launch.interrupts import Presses
from obl_magic.rundir.record import RunRecord
from obl_magic.study.driver import Driver, Shared
from obl_magic.study.objective import Objective
from obl_magic.study.plan.ablation import Ablation
from obl_magic.study.record import Records
from obl_magic.study.seats import Prepared
from obl_magic.values import Component, Job, Outcome, Settings, Trial

pytestmark = pytest.mark.timing

Runs = Callable[[Prepared], None]
SOON_S = 20.0


class Numbers:
    """A plan of so many trials; remembers what it was told. ``breaks`` is what it does at a number's end."""

    def __init__(self, planned: int, breaks: Callable[[Trial], None] = lambda trial: None) -> None:
        self.planned: int | None = planned
        self.told: dict[int, Outcome] = {}
        self.judged: list[tuple[int, int, float]] = []
        self._breaks, self._lock, self._next = breaks, threading.Lock(), 0

    def ask(self) -> Trial | None:
        with self._lock:
            number, self._next = self._next, self._next + 1
            return Trial(number, {"x": number}, 100 + number) if number < (self.planned or 0) else None

    def judge(self, trial: Trial, step: int, value: float) -> bool:
        self.judged.append((trial.number, step, value))
        return value > 1

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        self.told[trial.number] = outcome
        self._breaks(trial)


class Seat:
    """Runs trials by calling a function; is closed once."""

    def __init__(self, runs: Runs) -> None:
        self._runs, self.closed, self.calls = runs, 0, list[Prepared]()

    def run(self, call: Prepared) -> None:
        self.calls.append(call)
        self._runs(call)

    def close(self) -> None:
        self.closed += 1


def ends(call: Prepared, status: str = "succeeded", error: str = "", **returned: float) -> None:
    """Says that a trial has ended."""
    if status == "succeeded":
        call.ledger.add(Result(0, time.time(), "", 0, None, dict(returned)))
    call.ledger.add(Ended(LAUNCHER, time.time(), status, error))


def well(call: Prepared) -> None:
    """Ends with a loss equal to its number."""
    ends(call, loss=float(call.changes["args"]["x"]))


def conducted(
    tmp_path: Path, plan: Numbers, *seats: Seat, stopping: Presses | None = None, keep: int = 0,
    timeout_s: float | None = None, judges: bool = False,
) -> Driver:  # fmt: skip
    """A driver over seats, not started."""
    folder = rundir.create_study(tmp_path)
    job = Job("f", "", "", b"", {"y": 1}, (), 0, Settings(), "alone", str(folder.path))
    record = RunRecord("", "f", "", 1, "alone")
    shared = Shared(folder, job, record, Objective("loss", "minimize"), judges, keep)
    return Driver(
        shared, plan, seats, Records(folder.rows), Presses() if stopping is None else stopping, timeout_s
    )


def to_its_end(driver: Driver) -> Driver:
    """Starts it, and waits."""
    driver.start()
    assert driver.wait(SOON_S)
    driver.over()
    return driver


def test_every_trial_is_run_and_told_once(tmp_path: Path) -> None:
    """Whichever seat takes it."""
    plan, seats = Numbers(7), (Seat(well), Seat(well))
    driver = to_its_end(conducted(tmp_path, plan, *seats))
    assert plan.told == {number: Outcome("succeeded", float(number)) for number in range(7)}
    assert sum(len(seat.calls) for seat in seats) == 7
    assert [seat.closed for seat in seats] == [1, 1]
    assert (driver.problem, driver.timed_out, driver.live) == (None, False, [])


def test_no_seat_waits_for_another(tmp_path: Path) -> None:
    """Six trials pass while one is under way."""
    others = threading.Event()

    def slow(call: Prepared) -> None:
        if call.changes["args"]["x"] == 0:
            assert others.wait(SOON_S)
        elif len(plan.told) == 5:
            others.set()
        well(call)

    plan = Numbers(7)
    first, second = Seat(slow), Seat(slow)
    to_its_end(conducted(tmp_path, plan, first, second))
    assert sorted([len(first.calls), len(second.calls)]) == [1, 6]


def test_a_call_has_the_shared_arguments_its_own_and_its_seed(tmp_path: Path) -> None:
    """And a folder of its own, whose id begins with the study's."""
    seat = Seat(well)
    to_its_end(conducted(tmp_path, Numbers(2), seat))
    assert [call.job.args for call in seat.calls] == [{"y": 1, "x": 0}, {"y": 1, "x": 1}]
    assert [call.job.seed for call in seat.calls] == [100, 101]
    assert [call.run.id[-4:] for call in seat.calls] == ["-000", "-001"]
    assert all(call.judge is None for call in seat.calls)


@pytest.mark.parametrize(
    ("status", "error", "returned", "told"),
    [
        ("failed", "OSError: no", {}, Outcome("failed", None, "OSError: no")),
        ("stalled", "no progress", {}, Outcome("failed", None, "no progress")),
        ("failed", "", {}, Outcome("failed", None, "failed")),
        ("pruned", "", {}, Outcome("pruned", None, "")),
        ("succeeded", "", {"loss": 0.0}, Outcome("succeeded", 0.0, "")),
    ],
)
def test_how_a_trial_ended_is_told(
    tmp_path: Path, status: str, error: str, returned: dict[str, float], told: Outcome
) -> None:
    """A failed one with its error; the others go on."""
    plan = Numbers(2)
    to_its_end(
        conducted(
            tmp_path,
            plan,
            Seat(lambda c: well(c) if c.changes["seed"] == 101 else ends(c, status, error, **returned)),
        )
    )
    assert plan.told == {0: told, 1: Outcome("succeeded", 1.0)}


def test_nan_is_a_failed_trial(tmp_path: Path) -> None:
    """With the reason; its number is kept."""
    plan = Numbers(1)
    to_its_end(conducted(tmp_path, plan, Seat(lambda call: ends(call, loss=float("nan")))))
    assert (plan.told[0].status, plan.told[0].error) == ("failed", "loss is nan")


def test_a_trial_without_the_number_is_a_failed_row_where_others_had_it(tmp_path: Path) -> None:
    """The function returns it sometimes."""
    plan = Numbers(3)
    driver = to_its_end(
        conducted(tmp_path, plan, Seat(lambda c: ends(c) if c.changes["seed"] == 101 else well(c)))
    )
    assert driver.problem is None
    assert [plan.told[number].status for number in range(3)] == ["succeeded", "failed", "succeeded"]
    assert plan.told[1].error == "loss was neither returned nor reported"


def test_a_number_that_nobody_produced_ends_the_study_at_once(tmp_path: Path) -> None:
    """After the first trial, with the names there were."""
    plan, stopping = Numbers(50), Presses()
    driver = to_its_end(conducted(tmp_path, plan, Seat(lambda call: ends(call, acc=1.0)), stopping=stopping))
    assert isinstance(driver.problem, UsageProblem)
    assert "expected one of acc; do: --minimize acc" in str(driver.problem)
    assert len(plan.told) == 1
    assert stopping.count > 1


def test_what_goes_wrong_in_the_plan_ends_the_study(tmp_path: Path) -> None:
    """It is nobody's trial; seats are closed."""
    error, seat = OSError("the journal is gone"), Seat(well)

    def breaks(trial: Trial) -> None:
        raise error

    problem = to_its_end(conducted(tmp_path, Numbers(5, breaks), seat)).problem
    assert isinstance(problem, SetupProblem)
    assert problem.__cause__ is error
    assert "the journal is gone); do: free or open it" in str(problem)
    assert (len(seat.calls), seat.closed) == (1, 1)


def test_an_interrupt_ends_it_and_an_interrupted_trial_is_not_told(tmp_path: Path) -> None:
    """It may be done again."""
    plan, stopping = Numbers(5), Presses()

    def interrupted(call: Prepared) -> None:
        if call.changes["seed"] == 102:
            stopping.press()
            ends(call, "interrupted", "interrupted")
        else:
            well(call)

    driver = to_its_end(conducted(tmp_path, plan, Seat(interrupted), stopping=stopping))
    assert sorted(plan.told) == [0, 1]
    assert (driver.problem, driver.timed_out) == (None, False)


def test_a_deadline_ends_trials_under_way(tmp_path: Path) -> None:
    """And no more are begun."""
    plan, stopping = Numbers(5), Presses()

    def until_the_end(call: Prepared) -> None:
        while not stopping:
            threading.Event().wait(0.01)
        ends(call, "interrupted", "interrupted")

    driver = conducted(tmp_path, plan, Seat(until_the_end), stopping=stopping, timeout_s=0.1)
    driver.start()
    assert not driver.wait(0.0)
    assert driver.wait(0.2) or driver.wait(SOON_S)
    assert (driver.timed_out, stopping.count > 1, plan.told) == (True, True, {})


def test_an_interrupt_in_the_calling_thread_passes_through(tmp_path: Path) -> None:
    """Where trials run in the kernel; it is counted, and the seat closed."""
    stopping = Presses()

    def pressed(call: Prepared) -> None:
        raise KeyboardInterrupt

    seat = Seat(pressed)
    driver = conducted(tmp_path, Numbers(5), seat, stopping=stopping)
    with pytest.raises(KeyboardInterrupt):
        driver.work(0)
    assert (stopping.count, seat.closed, driver.problem, driver.live) == (1, 1, None, [])


def test_values_on_the_way_are_judged_by_the_plan_where_it_prunes(tmp_path: Path) -> None:
    """By trial and step."""
    plan, answers = Numbers(2), list[bool]()

    def asks(call: Prepared) -> None:
        assert call.judge is not None
        answers.append(call.judge(3, float(2 * call.changes["args"]["x"])))
        well(call)

    to_its_end(conducted(tmp_path, plan, Seat(asks), judges=True))
    assert plan.judged == [(0, 3, 0.0), (1, 3, 2.0)]
    assert answers == [False, True]


@pytest.mark.parametrize("keep", [1, 2])
def test_weights_of_the_best_trials_only_are_kept(tmp_path: Path, keep: int) -> None:
    """The disk does not grow with the study; a failed trial's go as well."""
    values = [3.0, 1.0, 2.0, float("nan"), 0.5]

    def weighs(call: Prepared) -> None:
        call.ledger.folder.weights.write_bytes(b"w")
        ends(call, loss=values[call.changes["args"]["x"]])

    driver = to_its_end(conducted(tmp_path, Numbers(5), Seat(weighs), keep=keep))
    left = [path.parent.name[-3:] for path in driver._shared.folder.path.glob("trials/*/weights.npz")]
    assert sorted(left) == ["001", "004"][2 - keep :]


def test_busy_shares_stay_between_nothing_and_all(tmp_path: Path) -> None:
    """While it runs, and afterwards as they were."""
    running = list[float]()
    driver: Driver

    def looks(call: Prepared) -> None:
        running.extend(driver.busy)
        assert [live.trial.number for live in driver.live] == [call.changes["args"]["x"]]
        well(call)

    driver = conducted(tmp_path, Numbers(3), Seat(looks))
    to_its_end(driver)
    assert all(0 <= share <= 1 for share in running)
    assert driver.busy == driver.busy
    assert 0 < driver.busy[0] <= 1


def test_every_metric_of_a_curve_is_kept(tmp_path: Path) -> None:
    """Five sent, five kept."""

    def curve(call: Prepared) -> None:
        for step in range(5):
            call.ledger.add(Metric(0, time.time(), {"loss": float(step)}, step, None))
        ends(call)

    seat = Seat(curve)
    plan = Numbers(1)
    to_its_end(conducted(tmp_path, plan, seat))
    assert seat.calls[0].run.metrics.value.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert plan.told[0] == Outcome("succeeded", 4.0)


def test_an_ablation_makes_the_base_runs_first_and_repeats_with_the_same_seeds() -> None:
    """A component is compared with base runs that drew the same numbers."""
    plan = Ablation([Component("a", "flag", ("a",)), Component("b", "flag", ("b",))], 2, 7)
    trials = list(iter(plan.ask, None))
    assert plan.planned == len(trials) == 6
    assert [(t.component.name if t.component else "base", t.repeat, t.seed) for t in trials] == [
        ("base", 0, 7), ("base", 1, 8), ("a", 0, 7), ("a", 1, 8), ("b", 0, 7), ("b", 1, 8),
    ]  # fmt: skip
    assert not plan.judge(trials[0], 1, 1e9)
