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
from pathlib import Path

from obl_magic.events.event import Started
from obl_magic.rundir import RunDir
from obl_magic.values import Job
from obl_magic.worker import execute, heart, ranks
from obl_magic.worker.frameworks import on_import
from obl_magic.worker.receive import receive
from obl_magic.worker.report import Reporter
from obl_magic.worker.streams import EXIT_ORPHANED, TakenStreams

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
    ranks.pin_cores(me)
    threads = int(os.environ.get("OBL_THREADS", "0"))
    _set_threads_when_asked(threads)
    if os.environ.pop(ranks.STANDS_BY, ""):
        with streams.starting(), contextlib.suppress(ImportError):
            importlib.import_module("keras")
    job = receive(me)
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
