"""Run by test_collectives.py as every rank of a world: ``python collectives_program.py ENGINE``. Asserts nothing.

Each property prints a line of JSON ``[rank, name, what came out]`` as soon as it is known, so that a property that
hangs does not hide those before it.
"""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import json
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

faulthandler.dump_traceback_later(100, exit=True)

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from mpi4py import MPI  # noqa: E402 - as on a rank, which gets its job over MPI before it connects

from obl_magic.worker.engines import collectives  # noqa: E402 - as on a rank

PROPERTIES: dict[str, Callable[[Any], Any]] = {}


def prop(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Names a property after its function."""
    PROPERTIES[function.__name__] = function
    return function


def plain(value: Any) -> Any:
    """Tensors as [dtype, static shape, numbers]."""
    if tf.is_tensor(value):
        return [value.dtype.name, value.shape.as_list(), tf.cast(value, tf.float64).numpy().tolist()]
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def mixed(me: int) -> list[Any]:
    """Many shapes and types, two of them empty or scalar."""
    return [
        tf.constant([[1.0, 2.0], [3.0, 4.0]]) * (me + 1),
        tf.constant(2**40 + me, tf.int64),
        tf.constant([0.5, 0.25], tf.float16) * (me + 1),
        tf.constant([True, me == 0, False]),
        tf.constant(3.0, tf.float64),
        tf.zeros([0, 3]),
        tf.constant([[[1]]], tf.int32),
        tf.constant([1.5], tf.bfloat16),
        tf.constant([2], tf.uint8),
        tf.constant([7], tf.uint64),
    ]


@prop
def place(world: Any) -> Any:
    """Who I am."""
    return [world.name, world.rank, world.size, world.local_rank, world.local_size]


@prop
def allreduce_of_mixed_tensors(world: Any) -> Any:
    """Sums, shapes and types kept."""
    return plain(world.allreduce(mixed(world.rank)))


@prop
def allreduce_of_mixed_tensors_when_traced(world: Any) -> Any:
    """The same inside a function."""
    static: list[Any] = []

    @tf.function
    def step(tensors: list[Any]) -> list[Any]:
        summed = world.allreduce(tensors)
        static.extend(s.shape.as_list() for s in summed)
        return summed

    summed = step(mixed(world.rank))
    return [plain(summed), static]


def large(rank: int) -> list[Any]:
    """Tensors that are summed in memory which the ranks share: of several shapes and types, each of some megabytes."""
    return [
        tf.fill([300, 1000], float(rank + 1)),
        tf.fill([1_700_001], tf.cast(rank + 1, tf.float32)),
        tf.constant(float(rank)),
        tf.range(900_000, dtype=tf.int64) * (rank + 1),
        tf.fill([3000, 999], tf.cast(rank + 1, tf.bfloat16)),
        tf.fill([2_000_000], rank == 0),
    ]


@prop
def allreduce_of_large_tensors(world: Any) -> Any:
    """Sums of two calls, looked at after both, so that the second may not have written into the first."""

    def twice(tensors: list[Any]) -> list[Any]:
        first = world.allreduce(tensors)
        second = world.allreduce([tensor for tensor in tensors if tensor.dtype != tf.bool])
        return [*first, *second]

    mine = large(world.rank)
    told = []
    for found in (twice(mine), tf.function(twice)(mine)):
        told.append(
            [
                [
                    list(each.shape),
                    float(tf.cast(each[..., -1], tf.float64))
                    if each.shape.rank == 1
                    else float(tf.reduce_max(tf.cast(each, tf.float64))),
                ]
                for each in found
            ]
        )
    return told


@prop
def allreduce_of_nothing(world: Any) -> Any:
    """No tensors, eagerly and traced."""
    return [world.allreduce([]), tf.function(lambda: world.allreduce([]))()]


@prop
def allreduce_of_numbers_and_arrays(world: Any) -> Any:
    """What is no tensor yet."""
    return plain(world.allreduce([1.0, np.array([1, 2], np.int64)]))


@prop
def allreduce_leaves_its_argument_alone(world: Any) -> Any:
    """No sum in place."""
    mine = tf.constant([1.0, 2.0])
    world.allreduce([mine])
    variable = tf.Variable([3.0])
    world.allreduce([variable])
    return [mine.numpy().tolist(), variable.numpy().tolist()]


@prop
def many_steps_of_one_function(world: Any) -> Any:
    """Two hundred calls; each is 1 + … + size."""

    @tf.function
    def step(x: Any) -> Any:
        (total,) = world.allreduce([x])
        return total

    return sorted({float(step(tf.constant(world.rank + 1.0 + i)) - i * world.size) for i in range(200)})


@prop
def many_eager_steps(world: Any) -> Any:
    """Fifty eager calls with two shapes in turn."""
    seen = set()
    for i in range(50):
        shape = [1 + i % 2]
        (total,) = world.allreduce([tf.fill(shape, world.rank + 1.0)])
        seen.add((*total.shape.as_list(), float(total[0])))
    return sorted(seen)


@prop
def several_reductions_in_one_function(world: Any) -> Any:
    """Independent of one another, so that only their order keeps them apart."""

    @tf.function
    def step(x: Any) -> Any:
        return [world.allreduce([x * k])[0] for k in (1.0, 10.0, 100.0, 1000.0)]

    return [plain([float(v) for v in step(tf.constant(world.rank + 1.0))]) for _ in range(20)][-1]


@prop
def reductions_in_a_branch(world: Any) -> Any:
    """The same branch on every rank, decided while it runs."""

    @tf.function
    def step(x: Any, flag: Any) -> Any:
        return tf.cond(flag, lambda: world.allreduce([x])[0], lambda: world.allreduce([x * 2.0])[0] * 100.0)

    x = tf.constant(world.rank + 1.0)
    return [float(step(x, tf.constant(flag))) for flag in (True, False, True)]


@prop
def reductions_in_a_loop(world: Any) -> Any:
    """Each round needs the sum of the round before."""

    @tf.function
    def steps(x: Any) -> Any:
        for _ in tf.range(3):
            x = world.allreduce([x])[0]
        return x

    return float(steps(tf.constant(1.0)))


@prop
def unknown_shapes(world: Any) -> Any:
    """Static shapes need not be known."""

    @tf.function(input_signature=[tf.TensorSpec([None, 2]), tf.TensorSpec(None)])
    def step(x: Any, y: Any) -> Any:
        return world.allreduce([x, y])

    return plain(list(step(tf.ones([3, 2]), tf.constant([1.0, 2.0]))))


@prop
def broadcast_of_mixed_tensors(world: Any) -> Any:
    """The root's, for the first and the last rank as root."""
    return [plain(world.broadcast(mixed(world.rank), root=root)) for root in (0, world.size - 1)]


@prop
def broadcast_when_traced(world: Any) -> Any:
    """The same inside a function."""
    return plain(list(tf.function(lambda x: world.broadcast([x]))(tf.constant([5.0 + world.rank]))))


def uneven(me: int, dtype: Any = tf.float32) -> Any:
    """Rank r has 2r rows: the first none."""
    return tf.cast(tf.fill([2 * me, 2], me + 1), dtype)


@prop
def allgather_of_uneven_rows(world: Any) -> Any:
    """In rank order, a rank without rows included."""
    return [plain(world.allgather(uneven(world.rank, dtype))) for dtype in (tf.float32, tf.int64, tf.bool)]


@prop
def allgather_when_traced(world: Any) -> Any:
    """The same inside a function, where the rows are unknown."""
    static: list[Any] = []

    @tf.function(input_signature=[tf.TensorSpec([None, 2])])
    def step(x: Any) -> Any:
        gathered = world.allgather(x)
        static.append(gathered.shape.as_list())
        return gathered

    return [plain(step(uneven(world.rank))), static]


@prop
def allgather_of_vectors_and_of_no_rows_at_all(world: Any) -> Any:
    """One axis; and nobody has anything."""
    return [plain(world.allgather(tf.fill([1], world.rank))), plain(world.allgather(tf.zeros([0, 4])))]


@prop
def allgather_of_objects(world: Any) -> Any:
    """Of different size on every rank."""
    return world.allgather_object({"rank": world.rank, "text": "x" * 1000 * world.rank, "none": None})


def parted(world: Any, act: Callable[[], Any]) -> str:
    """What a rank is told when ranks do different things; the world is then made good for the next property."""
    try:
        act()
    except Exception as error:
        said = (
            error if world.failed is None else world.failed
        )  # a traced function raises TensorFlow's own error
        return f"{type(said).__name__}: {said}"
    else:
        return "not noticed"
    finally:
        world.begin()


@prop
def ranks_with_other_shapes(world: Any) -> Any:
    """Each exchange, eager and traced, of something wider on the other ranks."""
    x = tf.zeros([1, 3 if world.rank else 2])
    calls = [
        functools.partial(world.allreduce, [x]),
        functools.partial(world.broadcast, [x]),
        functools.partial(world.allgather, x),
    ]
    return [parted(world, call) for each in calls for call in (each, tf.function(each))]


@prop
def ranks_whose_shapes_are_only_known_when_run(world: Any) -> Any:
    """As many numbers, in another shape."""

    @tf.function(input_signature=[tf.TensorSpec([None, None])])
    def step(x: Any) -> Any:
        return world.allreduce([x])

    return parted(world, lambda: step(tf.zeros([3, 2] if world.rank else [2, 3])))


@prop
def ranks_with_other_types(world: Any) -> Any:
    """Eager and traced."""
    dtype = tf.float32 if world.rank else tf.float64
    return [
        parted(world, call)
        for call in (
            lambda: world.allreduce([tf.zeros([2], dtype)]),
            tf.function(lambda: world.allreduce([tf.zeros([2], dtype)])),
            lambda: world.allgather(tf.zeros([2], dtype)),
        )
    ]


@prop
def a_rank_that_skips_an_exchange(world: Any) -> Any:
    """The others sum, it gathers, or waits, or tells an object, or is already at its function's end."""
    x = tf.zeros([2])
    skips = [lambda: world.allgather(x), world.barrier, lambda: world.allgather_object(1), world.end]
    return [
        parted(world, other if world.rank == 0 else call)
        for other in skips
        for call in (lambda: world.allreduce([x]), tf.function(lambda: world.allreduce([x])))
    ]


@prop
def ranks_of_other_purpose(world: Any) -> Any:
    """The same tensors, for something else."""

    def act() -> None:
        with world.purpose("sum the votes" if world.rank else "sum the gradients", ["dense/kernel"]):
            world.allreduce([tf.zeros([2])])

    return parted(world, act)


@prop
def ranks_that_parted_stay_parted(world: Any) -> Any:
    """Whoever catches the error does not meet the others again by chance."""

    def act() -> None:
        with contextlib.suppress(Exception):
            world.allreduce([tf.zeros([2 + world.rank])])
        world.barrier()

    return parted(world, act)


def attempted(world: Any, act: Callable[[], Any], good: int) -> Any:
    """What an attempt gives and what the next exchange gives after it; all ranks but the last have a good one."""
    try:
        with world.attempt("the proof"):
            value = act()
    except collectives.AttemptFailed as error:
        value = f"{error} / {type(error.__cause__).__name__}"
    (total,) = world.allreduce([tf.constant(good)])
    return [value, int(total)]


@prop
def attempts_that_succeed(world: Any) -> Any:
    """Eager, traced, in one another."""

    def nested() -> Any:
        with world.attempt("the inner one"):
            return float(world.allreduce([tf.constant(1.0)])[0])

    return [attempted(world, nested, 1), attempted(world, tf.function(nested_free(world)), 2)[1]]


def nested_free(world: Any) -> Callable[[], Any]:
    """A traced sum."""
    return lambda: world.allreduce([tf.constant(1.0)])[0]


@prop
def attempts_that_fail_on_one_rank(world: Any) -> Any:
    """While the others sum (eager, traced), or do nothing more; after some exchanges; in a traced function; nested."""
    last = world.rank == world.size - 1

    def raise_after(exchanges: int, then: Callable[[], Any]) -> Any:
        for _ in range(exchanges):
            world.allreduce([tf.constant(1.0)])
        if last:
            raise ValueError("not this one")
        return then()

    def eager() -> Any:
        return world.allreduce([tf.zeros([3])])

    def traced() -> Any:
        return tf.function(eager)()

    def in_graph() -> Any:
        @tf.function
        def step(x: Any) -> Any:
            with tf.control_dependencies([tf.debugging.assert_less(x, 1.0)]):
                y = tf.identity(x)
            return world.allreduce([y])[0]

        return step(tf.constant(2.0 if last else 0.0))

    def nested() -> Any:
        try:
            with world.attempt("the inner one"):
                raise_after(1, eager)
        except collectives.AttemptFailed:
            return "went on"

    return [
        attempted(world, lambda: raise_after(0, eager), 1),
        attempted(world, lambda: raise_after(2, traced), 1),
        attempted(world, lambda: raise_after(1, lambda: None), 1),
        attempted(world, in_graph, 1),
        attempted(world, nested, 1),
    ]


@prop
def attempts_that_fail_on_every_rank(world: Any) -> Any:
    """Each with a reason of its own."""

    def act() -> None:
        raise ValueError(f"of rank {world.rank}")

    return attempted(world, act, 1)


@prop
def attempts_in_which_ranks_part(world: Any) -> Any:
    """Other shapes, eager and traced, are no end of the run there."""
    x = tf.zeros([2 + world.rank])
    return [
        attempted(world, call, 1)
        for call in (lambda: world.allreduce([x]), tf.function(lambda: world.allreduce([x])))
    ]


@prop
def a_rank_that_does_not_attempt(world: Any) -> Any:
    """It is not answered as if it had."""

    def act() -> None:
        if world.rank == 0:
            world.barrier()
        with world.attempt("the proof"):
            raise ValueError("not this one")

    return parted(world, act)


@prop
def microseconds_of_an_agreement(world: Any) -> Any:
    """Of a thousand that find nothing."""
    began = time.perf_counter()
    for _ in range(1000):
        world.barrier()
    return round((time.perf_counter() - began) * 1e3)


@prop
def barrier(world: Any) -> Any:
    """Twice."""
    return [world.barrier(), world.barrier()]


@prop
def a_function_traced_anew_on_one_rank_only(world: Any) -> Any:
    """A hand-written loop over uneven shards: ranks see their shapes, and so trace, at different times."""

    @tf.function
    def step(x: Any) -> Any:
        (total,) = world.allreduce([tf.reduce_sum(x)])
        return total

    sizes = [[2, 2, 3, 3], [2, 3, 2, 3], [1, 1, 1, 1]][world.rank]
    return [float(step(tf.ones([size]))) for size in sizes]


def main() -> None:
    """Runs every property, then ends the engine and looks whether MPI still works."""
    rank = MPI.COMM_WORLD.rank
    world = collectives.connect(sys.argv[1])
    for name, function in PROPERTIES.items():
        try:
            said = plain(function(world))
        except Exception:
            said = traceback.format_exc()[-1500:]
        print(json.dumps([rank, name, said]), flush=True)
    world.close()
    print(json.dumps([rank, "after_close", MPI.COMM_WORLD.allgather(rank)]), flush=True)


if __name__ == "__main__":
    main()
