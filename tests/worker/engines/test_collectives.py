"""What every engine must do, on real ranks: one launch for each engine and size, one test for each property."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from obl_magic.launchers import mpirun
from obl_magic.world.process import is_root

pytestmark = [pytest.mark.timing, pytest.mark.slow, pytest.mark.parametrize("size", [2, 3])]
PROGRAM = Path(__file__).with_name("collectives_program.py")


@functools.cache
def launched(engine: str, size: int) -> dict[str, list[Any]]:
    """What each property gave, by name, one entry a rank; run once."""
    launcher = mpirun.require()
    argv = mpirun.command(launcher, size, [sys.executable, str(PROGRAM), engine], cores=1, root=is_root())
    env = mpirun.environment(launcher, os.environ, ranks=size, cores=1, engine=engine)
    done = subprocess.run(
        argv, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=200, check=False
    )
    said: dict[str, list[Any]] = {}
    for line in done.stdout.splitlines():
        if line.startswith("["):
            rank, name, value = json.loads(line)
            said.setdefault(name, [None] * size)[rank] = value
    said["exit code"] = [done.returncode, done.stderr[-2000:]]
    return said


@pytest.fixture
def said(engine: str, size: int) -> dict[str, list[Any]]:
    """The launch's answers."""
    return launched(engine, size)


def same(said: dict[str, list[Any]], name: str) -> Any:
    """What every rank said, once it is sure that all said the same."""
    answers = said.get(name) or [said["exit code"]]
    assert all(answer == answers[0] for answer in answers), answers
    return answers[0]


def summed(size: int) -> list[Any]:
    """The sum of the program's mixed tensors."""
    total = size * (size + 1) / 2
    return [
        ["float32", [2, 2], [[total, 2 * total], [3 * total, 4 * total]]],
        ["int64", [], float(size * 2**40 + size * (size - 1) // 2)],
        ["float16", [2], [0.5 * total, 0.25 * total]],
        ["bool", [3], [1.0, 1.0, 0.0]],
        ["float64", [], 3.0 * size],
        ["float32", [0, 3], []],
        ["int32", [1, 1, 1], [[[float(size)]]]],
        ["bfloat16", [1], [1.5 * size]],
        ["uint8", [1], [2.0 * size]],
        ["uint64", [1], [7.0 * size]],
    ]


def of_rank(rank: int) -> list[Any]:
    """The program's mixed tensors as that rank holds them."""
    return [
        ["float32", [2, 2], [[1.0 * (rank + 1), 2.0 * (rank + 1)], [3.0 * (rank + 1), 4.0 * (rank + 1)]]],
        ["int64", [], float(2**40 + rank)],
        ["float16", [2], [0.5 * (rank + 1), 0.25 * (rank + 1)]],
        ["bool", [3], [1.0, float(rank == 0), 0.0]],
        ["float64", [], 3.0],
        ["float32", [0, 3], []],
        ["int32", [1, 1, 1], [[[1.0]]]],
        ["bfloat16", [1], [1.5]],
        ["uint8", [1], [2.0]],
        ["uint64", [1], [7.0]],
    ]


def gathered(size: int) -> list[list[float]]:
    """2r rows of r + 1 from every rank r, in rank order."""
    return [[rank + 1.0] * 2 for rank in range(size) for _ in range(2 * rank)]


def test_every_rank_knows_its_place(said: dict[str, list[Any]], engine: str, size: int) -> None:
    """Rank, size, and both on this host."""
    assert said["place"] == [[engine, rank, size, rank, size] for rank in range(size)]


def test_sums_keep_shapes_and_types(said: dict[str, list[Any]], size: int) -> None:
    """Scalars, empty tensors, halves, integers beyond 2^32 and truth values in one call."""
    assert same(said, "allreduce_of_mixed_tensors") == summed(size)


def test_sums_are_the_same_when_traced(said: dict[str, list[Any]], size: int) -> None:
    """And their static shapes are known to what follows in the function."""
    values, static = same(said, "allreduce_of_mixed_tensors_when_traced")
    assert values == summed(size)
    assert static == [shape for _, shape, _ in summed(size)]


def test_large_tensors_are_summed_too(said: dict[str, list[Any]], size: int) -> None:
    """Of any type, in any shape, eagerly and traced; a sum stays as it is when the next one is taken."""
    total = size * (size + 1) / 2
    numbers = [
        [[300, 1000], total], [[1_700_001], total], [[], total - size], [[900_000], 899_999 * total],
        [[3000, 999], total],
    ]  # fmt: skip
    assert same(said, "allreduce_of_large_tensors") == [[*numbers, [[2_000_000], 1.0], *numbers]] * 2


def test_a_sum_of_nothing_is_nothing(said: dict[str, list[Any]]) -> None:
    """A model without weights."""
    assert same(said, "allreduce_of_nothing") == [[], []]


def test_numbers_and_arrays_are_tensors_too(said: dict[str, list[Any]], size: int) -> None:
    """What is no tensor yet becomes one."""
    expected = [["float32", [], 1.0 * size], ["int64", [2], [1.0 * size, 2.0 * size]]]
    assert same(said, "allreduce_of_numbers_and_arrays") == expected


def test_what_was_given_is_not_changed(said: dict[str, list[Any]]) -> None:
    """Neither a tensor nor a variable."""
    assert same(said, "allreduce_leaves_its_argument_alone") == [[1.0, 2.0], [3.0]]


def test_every_step_is_exact(said: dict[str, list[Any]], size: int) -> None:
    """Two hundred traced ones, fifty eager ones with two shapes in turn."""
    total = size * (size + 1) / 2
    assert same(said, "many_steps_of_one_function") == [total]
    assert same(said, "many_eager_steps") == [[1, total], [2, total]]


def test_independent_reductions_of_one_function_are_not_mixed_up(
    said: dict[str, list[Any]], size: int
) -> None:
    """Nothing but their order tells them apart."""
    total = size * (size + 1) / 2
    assert same(said, "several_reductions_in_one_function") == [total * k for k in (1, 10, 100, 1000)]


def test_reductions_work_in_branches_and_loops(said: dict[str, list[Any]], size: int) -> None:
    """As loss scaling and gradient accumulation need them."""
    total = size * (size + 1) / 2
    assert same(said, "reductions_in_a_branch") == [total, 200 * total, total]
    assert same(said, "reductions_in_a_loop") == float(size**3)


def test_shapes_may_be_unknown_when_traced(said: dict[str, list[Any]], size: int) -> None:
    """Even the number of axes."""
    ones = ["float32", [3, 2], [[1.0 * size] * 2] * 3]
    assert same(said, "unknown_shapes") == [ones, ["float32", [2], [1.0 * size, 2.0 * size]]]


def test_a_broadcast_gives_the_roots_values(said: dict[str, list[Any]], size: int) -> None:
    """Whoever is root, whatever the types, traced too."""
    assert same(said, "broadcast_of_mixed_tensors") == [of_rank(0), of_rank(size - 1)]
    assert same(said, "broadcast_when_traced") == [["float32", [1], [5.0]]]


def test_uneven_rows_are_gathered_in_rank_order(said: dict[str, list[Any]], size: int) -> None:
    """Also from a rank that has none, for numbers and truth values."""
    rows = gathered(size)
    shape = [len(rows), 2]
    true = [[1.0, 1.0]] * len(rows)
    answers = same(said, "allgather_of_uneven_rows")
    assert answers == [["float32", shape, rows], ["int64", shape, rows], ["bool", shape, true]]
    assert same(said, "allgather_when_traced") == [["float32", shape, rows], [[None, 2]]]


def test_vectors_and_nothing_at_all_are_gathered(said: dict[str, list[Any]], size: int) -> None:
    """One axis; and a gathering to which nobody brings a row."""
    answers = same(said, "allgather_of_vectors_and_of_no_rows_at_all")
    assert answers == [["int32", [size], [float(rank) for rank in range(size)]], ["float32", [0, 4], []]]


def test_objects_are_gathered_in_rank_order(said: dict[str, list[Any]], size: int) -> None:
    """Of any size."""
    expected = [{"rank": rank, "text": "x" * 1000 * rank, "none": None} for rank in range(size)]
    assert same(said, "allgather_of_objects") == expected


PARTED = "NotOblivious: the ranks no longer do the same: rank 0 was about to "


def others(size: int) -> str:
    """All ranks but the first, as a sentence names them."""
    return {2: "rank 1", 3: "ranks 1 and 2"}[size]


def test_ranks_with_other_shapes_are_named(said: dict[str, list[Any]], size: int) -> None:
    """On every rank, whatever is exchanged, eagerly or traced, rather than as a truncated message or by waiting."""
    answers = same(said, "ranks_with_other_shapes")
    verbs = ("sum a tensor", "take from rank 0 a tensor", "gather the rows of a tensor")
    for verb, answer in zip([v for v in verbs for _ in range(2)], answers, strict=True):
        assert answer.startswith(f"{PARTED}{verb}: float32 (")
        assert f", {others(size)} to {verb}: float32 (" in answer
        assert "do: look for code that acts on one rank only" in answer
    assert "float32 (1, 2) (collectives_program.py, line " in answers[0]


def test_shapes_known_only_when_run_are_compared_too(said: dict[str, list[Any]], size: int) -> None:
    """As many numbers in another shape are another sum."""
    answer = same(said, "ranks_whose_shapes_are_only_known_when_run")
    assert answer.startswith(f"{PARTED}sum a tensor: float32 (2, 3)")
    assert f"{others(size)} to sum a tensor: float32 (3, 2)" in answer


def test_ranks_with_other_types_are_named(said: dict[str, list[Any]], size: int) -> None:
    """Also of constants, which TensorFlow would like to sum before the function runs."""
    for answer in same(said, "ranks_with_other_types"):
        assert answer.startswith(PARTED)
        assert "float64 (" in answer
        assert "float32 (" in answer


def test_a_rank_that_skips_an_exchange_is_named(said: dict[str, list[Any]], size: int) -> None:
    """It is already at its next one, or at the end of its function."""
    answers = same(said, "a_rank_that_skips_an_exchange")
    does = ("gather the rows of", "wait for the others", "tell the others an object", "end its function")
    for verb, answer in zip([v for v in does for _ in range(2)], answers, strict=True):
        assert answer.startswith(f"{PARTED}{verb}")
        assert f"{others(size)} to sum a tensor: float32 (2,)" in answer


def test_exchanges_are_told_apart_by_their_purpose(said: dict[str, list[Any]], size: int) -> None:
    """The same tensors for something else are something else."""
    answer = same(said, "ranks_of_other_purpose")
    assert answer.startswith(f"{PARTED}sum the gradients of dense/kernel: float32 (2,)")
    assert f"{others(size)} to sum the votes of dense/kernel" in answer


def test_ranks_that_parted_do_not_meet_again_by_chance(said: dict[str, list[Any]]) -> None:
    """Even where the user's code goes on after the error."""
    assert same(said, "ranks_that_parted_stay_parted").startswith(f"{PARTED}sum a tensor")


def test_an_attempt_that_succeeds_is_the_block(said: dict[str, list[Any]], size: int) -> None:
    """Also one in another."""
    assert same(said, "attempts_that_succeed") == [[1.0 * size, size], 2 * size]


def test_an_attempt_fails_on_every_rank_when_one_raises(said: dict[str, list[Any]], size: int) -> None:
    """Whatever the others were at; and the ranks are in step afterwards."""
    last = size - 1
    for rank, answers in enumerate(said["attempts_that_fail_on_one_rank"]):
        *failures, nested = answers
        assert nested == ["went on", size]
        for value, total in failures:
            assert value.startswith(f"rank {last} failed: ")
            assert total == size
        reasons = [value.rpartition(" / ") for value, _ in failures]
        assert [reason for reason, _, _ in reasons[:3]] == [
            f"rank {last} failed: ValueError: not this one"
        ] * 3
        assert "InvalidArgumentError" in failures[3][0]
        if rank == last:
            assert [cause for _, _, cause in reasons[:3]] == ["ValueError"] * 3


def test_every_reason_of_a_failed_attempt_is_told(said: dict[str, list[Any]], size: int) -> None:
    """In rank order, the same on every rank."""
    (value, total) = same(said, "attempts_that_fail_on_every_rank")
    reasons = "; ".join(f"rank {rank} failed: ValueError: of rank {rank}" for rank in range(size))
    assert (value, total) == (f"{reasons} / ValueError", size)


def test_ranks_that_part_in_an_attempt_only_fail_it(said: dict[str, list[Any]], size: int) -> None:
    """Eagerly and traced; the reason says what each was about to do."""
    for answers in said["attempts_in_which_ranks_part"]:
        for value, total in answers:
            assert value.startswith("the ranks no longer do the same: rank 0 was about to sum a tensor")
            assert total == size


def test_a_rank_that_does_not_attempt_is_named(said: dict[str, list[Any]], size: int) -> None:
    """What is attempted by some ranks only ends the run."""
    answer = same(said, "a_rank_that_does_not_attempt")
    assert answer.startswith(f"{PARTED}wait for the others")
    assert f"{others(size)} to give up the proof" in answer


def test_agreeing_costs_microseconds(said: dict[str, list[Any]], size: int) -> None:
    """Tens of them on a quiet machine; the bound is for a busy one with fewer processors than ranks."""
    assert max(said["microseconds_of_an_agreement"]) < 6000  # beside other tests; alone some 300


def test_a_barrier_can_be_passed_again(said: dict[str, list[Any]]) -> None:
    """It returns nothing."""
    assert same(said, "barrier") == [None, None]


def test_a_function_traced_anew_on_one_rank_only_goes_on(said: dict[str, list[Any]], size: int) -> None:
    """Uneven shards give ranks different shapes at different steps; nobody may wait for ever."""
    expected = [[4, 5, 5, 6], [5, 6, 6, 7]][size - 2]
    assert same(said, "a_function_traced_anew_on_one_rank_only") == expected


def test_closing_ends_the_engine_and_not_mpi(said: dict[str, list[Any]], size: int) -> None:
    """The rank still has to leave in order, with exit code 0."""
    assert same(said, "after_close") == list(range(size))
    assert said["exit code"][0] == 0
