"""A rank's process: takes its streams over, waits for a job, runs it, tells, leaves or waits for the next.

Imports no IPython, no planner.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import functools
import gc
import importlib
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from obl_magic.engines import ENGINES
from obl_magic.events.event import Asks, Event, Heartbeat, Left, Started
from obl_magic.hosts.cores import cores, threads_of
from obl_magic.rundir import RunDir
from obl_magic.values import Job
from obl_magic.worker import execute, heartbeat, ranks, stand_in
from obl_magic.worker.engines.collectives import Connections
from obl_magic.worker.leaving import Leaving
from obl_magic.worker.on_import import on_import, uses_keras
from obl_magic.worker.orders import Orders, lines_from
from obl_magic.worker.receive import Inbox
from obl_magic.worker.report import Reporter
from obl_magic.worker.streams import EXIT_ORPHANED, TakenStreams
from obl_magic.worker.swept import sweep

UNTIL_ENDED_S = 10.0
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Runs one job as one rank, or one after another where the world stays; the exit code is 0 if all went well."""
    me = ranks.identify()
    _die_with_the_launcher()
    streams = TakenStreams(me.rank)
    faulthandler.enable(file=streams.raw_stderr)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    inbox: Inbox | None = None
    try:
        streams.pipe.emit(
            Heartbeat(me.rank, time.time(), 0, "", waits=True)
        )  # before it waits for the others
        placed = ranks.beside_others(me)
        allowed = cores()
        ranks.pin_gpu(placed)
        ranks.pin_cores(placed)
        if "OBLIVIOUS_THREADS" not in os.environ:  # its host is not the kernel's
            os.environ.update(threads_of(os.environ, max(1, allowed // placed.local_size)))
            if placed.local_rank == 0:
                sweep()
        threads = int(os.environ["OBLIVIOUS_THREADS"])
        _set_threads_when_asked(threads)
        if engine := os.environ.pop(ranks.AHEAD, ""):
            with streams.starting(), contextlib.suppress(ImportError):
                for module in ("keras", "obl_magic.worker.frameworks.keras.adapter", ENGINES[engine].module):
                    importlib.import_module(module)
        stays = bool(os.environ.pop(ranks.STAYS, ""))
        orders = Orders(lines_from(streams.orders))
        if me.rank == 0:
            orders.listen()
        inbox = Inbox(me, orders if me.rank == 0 else None)
        connections = Connections(stays)
        folder, variables = Path.cwd(), dict(os.environ)
        while (leaving := _served(inbox.next(), me, orders, streams, connections, threads)) and stays:
            execute.tidy()
            os.chdir(folder)
            os.environ.clear()
            os.environ.update(variables)
        connections.close()
    except BaseException as error:  # outside the function: the others would wait for this rank for ever
        streams.pipe.emit(execute.failed(error, (), inbox.folder if inbox else None, me.rank))
        _until_ended(streams)
    leaving.leave()
    streams.close()
    _finalize_mpi()  # others may still need what this rank has sent
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    streams.pipe.emit(Left(me.rank, time.time()))
    while True:  # mpirun loses the last words of ranks on other hosts that leave by themselves
        signal.pause()


def _served(
    job: Job, me: ranks.Rank, orders: Orders, streams: TakenStreams, connections: Connections, threads: int
) -> Leaving:
    """Runs one job and tells how it went; returns only if it has succeeded."""
    with stand_in.at_hand(job, me.rank, streams.pipe.emit) as (job, emit, send):
        leaving = _ran(job, emit, send, me, orders, streams, connections, threads)
    if leaving is None:
        _until_ended(streams)
    return leaving


def _ran(
    job: Job,
    emit: Callable[[Event], None],
    send: Callable[[Path], None],
    me: ranks.Rank,
    orders: Orders,
    streams: TakenStreams,
    connections: Connections,
    threads: int,
) -> Leaving | None:
    """Runs a job that is at hand; None if it has failed."""
    _keep_generated_code_in(RunDir.at(job.run_dir).scratch)
    reporter = Reporter(emit, me.rank)
    if job.quantity:
        reporter.asks(job.quantity, _question(me, orders, reporter))
    orders.serve(reporter)
    reporter.emit(
        Started(
            me.rank, time.time(), os.getpid(), socket.gethostname(), execute.digest_of(job.source), job.engine,
            me.local_rank, threads,
        )
    )  # fmt: skip
    stacks = None
    if job.stall_s is not None:
        path = RunDir.at(job.run_dir).stacks(me.rank)
        stacks = heartbeat.Stacks(path, heartbeat.STANDS_STILL * job.stall_s, send)
    with heartbeat.beating(reporter, job.sources, job.beat_s, stacks):
        with streams.starting():
            _import_what_it_uses(job)
        if connections.stay and not gc.get_freeze_count():
            gc.freeze()  # what was imported is never garbage, and looking through it takes longer than many a trial
        finished = execute.run(job, reporter, connections)
        streams.flush()
    if execute.tell(finished, job, reporter):
        leaving = Leaving(reporter, job.sources)
        if connections.stay:
            leaving.join_threads()
            reporter.over()
        return leaving
    return None


def _until_ended(streams: TakenStreams) -> NoReturn:
    """The conductor ends the world; Open MPI takes seconds when ranks leave together."""
    streams.close()
    time.sleep(UNTIL_ENDED_S)
    os._exit(1)


def _question(me: ranks.Rank, orders: Orders, reporter: Reporter) -> Callable[[int, float], bool]:
    """How a trial asks whether it is to end: rank 0 asks the kernel, and its answer holds on every rank."""

    def ask(step: int, value: float) -> bool:
        answer = False
        if me.rank == 0:
            reporter.emit(Asks(0, time.time(), step, value))
            answer = orders.answer()
        if me.size > 1:
            from mpi4py import MPI

            answer = MPI.COMM_WORLD.bcast(answer, root=0)
        return answer

    return ask


def _import_what_it_uses(job: Job) -> None:
    """Imports the frameworks that the function names, so that their greetings are not taken for its own prints."""
    if uses_keras(job.payload):
        with contextlib.suppress(ImportError):
            importlib.import_module("keras")


def _keep_generated_code_in(folder: Path) -> None:
    """TensorFlow's autograph leaves generated files behind when a rank is killed; here the run tidies them up."""

    def move() -> None:
        from tensorflow.python.autograph.pyct import loader

        class InFolder:
            NamedTemporaryFile = staticmethod(functools.partial(tempfile.NamedTemporaryFile, dir=folder))

        loader.tempfile = InFolder

    folder.mkdir(mode=0o700, exist_ok=True)
    on_import("keras", move)


def _die_with_the_launcher() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == 1:
            os._exit(EXIT_ORPHANED)


def _set_threads_when_asked(threads: int) -> None:
    if threads <= 0:
        return

    def limit() -> None:
        from tensorflow.python.eager import context

        context.context().intra_op_parallelism_threads = threads
        context.context().inter_op_parallelism_threads = max(2, threads)

    # before TensorFlow's own import goes on to Keras', which makes the function's world and with it the context
    on_import("tensorflow.python.eager.context", limit)


def _finalize_mpi() -> None:
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized():
        mpi.Finalize()


if __name__ == "__main__":
    main()
