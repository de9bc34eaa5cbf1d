"""Shares that follow the ranks' pace: who is slow gets less to do, all rows are somebody's, and the numbers stay."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import slowed
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

import obl_magic
from obl_magic.worker.frameworks.keras.balance import SCALE, Balance, Shares, following
from obl_magic.worker.frameworks.keras.shards import bounds

pytestmark = pytest.mark.slow

paces = st.lists(st.floats(0.05, 50.0), min_size=2, max_size=9)


@given(paces)
def test_the_next_shares_keep_all_ranks_busy_for_equally_long(seconds_a_row: list[float]) -> None:
    """Where work is proportional to rows, one look is enough; nobody is left without any, and all is somebody's."""
    equal = (1,) * len(seconds_a_row)
    parts = following(equal, seconds_a_row)
    assert sum(parts) == SCALE
    assert min(parts) >= 1
    pace = 1 / np.asarray(seconds_a_row)
    wished = pace / pace.sum()
    floor = 0.05 / len(equal)
    for part, wish in zip(parts, wished, strict=True):
        assert abs(part / SCALE - max(wish, floor)) <= 0.05 + 1 / SCALE
    slowest, fastest = int(np.argmax(seconds_a_row)), int(np.argmin(seconds_a_row))
    assert parts[slowest] <= parts[fastest]


@given(paces, st.floats(0.0, 5.0))
def test_looking_again_and_again_comes_to_rest(seconds_a_row: list[float], fixed_s: float) -> None:
    """A rank that needs some time whatever it is given gets its best share after some looks, and keeps it."""
    parts: tuple[int, ...] = (1,) * len(seconds_a_row)
    for _ in range(60):
        busy = [fixed_s + each * part / sum(parts) for each, part in zip(seconds_a_row, parts, strict=True)]
        parts = following(parts, busy)
    again = following(parts, [fixed_s + e * p / SCALE for e, p in zip(seconds_a_row, parts, strict=True)])
    assert max(abs(a - b) for a, b in zip(parts, again, strict=True)) <= 0.05 * SCALE


@given(st.lists(st.integers(1, 50), min_size=1, max_size=9), st.integers(0, 300))
def test_every_row_is_one_ranks(parts: list[int], total: int) -> None:
    """Whatever the parts are, the ranks' shares lie side by side from the first row to the last."""
    ends = [bounds(total, rank, parts) for rank in range(len(parts))]
    assert ends[0][0] == 0
    assert ends[-1][1] == total
    assert all(mine[1] == after[0] for mine, after in pairwise(ends))


def test_new_shares_hold_from_a_batch_on_and_at_once_in_a_new_pass() -> None:
    """What a pipeline has cut before stays as it is on all ranks, however far each has read ahead."""
    world: Any = SimpleNamespace(rank=1, size=2, parts=(1, 1))
    shares = Shares(world)

    def of(number: int) -> tuple[int, int]:
        first, last = shares.bounds(tf.constant(10, tf.int64), tf.constant(number, tf.int64))
        return int(first), int(last)

    assert of(0) == (5, 10)
    world.parts = (800, 200)
    shares.turn(7)
    assert [of(6), of(7), of(8)] == [(5, 10), (8, 10), (8, 10)]
    world.parts = (900, 100)
    shares.turn(20)
    assert [of(19), of(20)] == [(8, 10), (9, 10)]
    shares.begin()
    assert of(0) == (9, 10)


@pytest.mark.parametrize("helps", [True, False])
def test_shares_that_make_no_step_shorter_are_taken_back(helps: bool) -> None:
    """A rank may be busy with something else than its rows; then fewer of them do not help."""
    world: Any = SimpleNamespace(rank=0, size=2, parts=(1, 1), waited_s=0.0)
    said: list[str] = []
    reporter: Any = SimpleNamespace(share=None, note=lambda code, text: said.append(text))
    data: Any = SimpleNamespace(obl_shares=Shares(world), steps_per_execution=1, _steps_seen=0)
    balance = Balance(world, reporter, asked=True)
    stepped = seen = 0
    for _ in range(12):
        stepped, data._steps_seen = stepped + 50, data._steps_seen + 50
        balance._steps = 50
        first = world.parts[0] / sum(world.parts)
        busy = [first * 2.0 if helps else 1.2, 1 - first if helps else 0.8]
        step_s = max(busy) if helps else 1.2
        everyone = [(round(1e6 * each), round(1.5e6 * step_s)) for each in busy]
        balance.compare(everyone, None, data, stepped)
        seen = seen or int(world.parts != (1, 1))
    assert seen, "nothing was tried"
    assert said[0].startswith("ranks differ in pace")
    assert world.parts == (333, 667) if helps else world.parts == (1, 1)


def _alone(kind: str) -> dict[str, Any]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(slowed.fit, kind).result()


def _shares(run: obl_magic.Run) -> list[float | None]:
    ranks = run.ledger.state.ranks
    return [ranks[rank].share for rank in sorted(ranks)]


@pytest.mark.timing
@pytest.mark.parametrize(
    ("kind", "engine", "workers"),
    [("arrays", "mpi", 2), ("tf.data", "horovod", 2), ("PyDataset", "mpi", 3), ("generator", "horovod", 2)],
)
def test_a_slow_rank_gets_less_and_the_numbers_stay(home: Path, kind: str, engine: str, workers: int) -> None:
    """The last rank takes three times as long for a row: soon an epoch is hardly longer than it need be."""
    args = {"kind": kind, "times": 3.0}
    run = obl_magic.run(
        slowed.fit, workers=workers, engine=engine, args=args, balance=True, quiet=True, timeout=300
    )
    alone = _alone(kind)
    assert any(note.startswith("ranks differ in pace") for note in run.notes)
    shares = _shares(run)
    ideal = 1 / (1 + 3 * (workers - 1))
    assert shares[-1] is not None
    assert shares[-1] == pytest.approx(ideal, abs=0.08)
    equal = obl_magic.run(  # beside it, since other worlds may keep the processors busy
        slowed.fit,
        workers=workers,
        engine=engine,
        args={**args, "epochs": 3},
        balance=False,
        quiet=True,
        timeout=300,
    )
    assert min(run.value["took"][-2:]) < min(equal.value["took"][-2:])  # by how much: benchmarks/balance.py
    for value in run.values:
        for mine, theirs in zip(value["weights"], alone["weights"], strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-5)
    for name, curve in alone["history"].items():
        np.testing.assert_allclose(run.value["history"][name], curve, rtol=1e-4, atol=1e-5, err_msg=name)


def test_shares_stay_equal_where_the_user_says_so(home: Path) -> None:
    """And nothing is said about them."""
    run = obl_magic.run(
        slowed.fit, workers=2, engine="mpi", args={"times": 3.0, "epochs": 3}, balance=False, quiet=True
    )
    assert _shares(run) == [None, None]
    assert not any("pace" in note for note in run.notes)
