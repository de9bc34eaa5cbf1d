"""A rank's process: takes its streams over, waits for a job, runs it, tells, leaves. Imports no IPython, no planner."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import faulthandler
import functools
import importlib
import json
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from obl_magic import payload
from obl_magic.events.event import Started
from obl_magic.rundir import RunDir
from obl_magic.values import Job
from obl_magic.worker import execute, heart, ranks
from obl_magic.worker.frameworks import on_import
from obl_magic.worker.report import Reporter
from obl_magic.worker.streams import EXIT_ORPHANED, TakenStreams

POLL_S = 0.005
SOON_S = 5.0
POLL_SELDOM_S = 0.05
"""A rank whose job does not come soon stands by, and must cost next to nothing."""
UNTIL_ENDED_S = 10.0
_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Runs one job as one rank; the process's exit code says whether it succeeded."""
    me = ranks.identify()
    _die_with_the_launcher()
    streams = TakenStreams(me.rank)
    faulthandler.enable(file=streams.raw_stderr)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ranks.pin_gpu(me)
    threads = int(os.environ.get("OBL_THREADS", "0"))
    _set_threads_when_asked(threads)
    if os.environ.pop(ranks.STANDS_BY, ""):
        with streams.starting(), contextlib.suppress(ImportError):
            importlib.import_module("keras")
    job = _receive(me)
    _keep_generated_code_in(RunDir.at(job.run_dir).scratch)
    reporter = Reporter(streams.pipe.emit, me.rank)
    reporter.emit(
        Started(
            me.rank, time.time(), os.getpid(), socket.gethostname(), execute.digest_of(job.source), job.engine,
            me.local_rank, threads,
        )
    )  # fmt: skip
    heart.dump_when_asked(RunDir.at(job.run_dir).stacks(me.rank))
    heart.Heart(reporter, job.sources, job.beat_s).start()
    _listen(reporter)
    with streams.starting():
        _import_what_it_uses(job)
    ok = execute.tell(execute.run(job, reporter), job, reporter)
    streams.close()
    if not ok:
        time.sleep(
            UNTIL_ENDED_S
        )  # the conductor ends the world; Open MPI takes seconds when ranks leave together
        os._exit(1)
    atexit._run_exitfuncs()
    _finalize_mpi()
    os._exit(0)


def _receive(me: ranks.Rank) -> Job:
    """Rank 0 reads the job's path from standard input and its bytes from there; the others get them over MPI."""
    if me.size == 1:
        return _load(*_read_job())
    from mpi4py import MPI

    comm = MPI.COMM_WORLD
    if me.rank == 0:
        told = _read_job()
        for other in range(1, me.size):
            comm.Send([b"", MPI.BYTE], dest=other, tag=1)
    else:
        began = time.monotonic()
        while not comm.Iprobe(source=0, tag=1):
            time.sleep(POLL_S if time.monotonic() - began < SOON_S else POLL_SELDOM_S)
        comm.Recv([bytearray(0), MPI.BYTE], source=0, tag=1)
        told = b"", False
    return _load(*comm.bcast(told, root=0))


def _read_job() -> tuple[bytes, bool]:
    """(the pickled job, whether it goes on from what an earlier world has kept)."""
    line = sys.stdin.readline()
    if not line:
        os._exit(EXIT_ORPHANED)
    told = json.loads(line)
    return Path(told["job"]).read_bytes(), bool(told["goes_on"])


def _load(data: bytes, goes_on: bool) -> Job:
    job: Any = payload.loads(data)
    assert isinstance(job, Job)
    job = replace(job, settings=replace(job.settings, goes_on=job.settings.goes_on or goes_on))
    sys.path += [entry for entry in job.path if entry not in sys.path]
    return job


def _import_what_it_uses(job: Job) -> None:
    """Imports the frameworks that the function names, so that their greetings are not taken for its own prints."""
    if b"keras" in job.payload or b"tensorflow" in job.payload:
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


def _listen(reporter: Reporter) -> None:
    """Rank 0 hears its kernel: that the run is to stop, or, at the end of standard input, that the kernel is gone."""
    if reporter.rank != 0:
        return

    def hear() -> None:
        for line in sys.stdin:
            reporter.stop_asked = reporter.stop_asked or bool(json.loads(line).get("stop"))
        os._exit(EXIT_ORPHANED)

    threading.Thread(target=hear, name="obl-kernel", daemon=True).start()


def _die_with_the_launcher() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == 1:
            os._exit(EXIT_ORPHANED)


def _set_threads_when_asked(threads: int) -> None:
    if threads <= 0:
        return

    def limit() -> None:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(max(2, threads))

    on_import("tensorflow", limit)


def _finalize_mpi() -> None:
    mpi = sys.modules.get("mpi4py.MPI")
    if mpi is not None and mpi.Is_initialized() and not mpi.Is_finalized():
        mpi.Finalize()


if __name__ == "__main__":
    main()
