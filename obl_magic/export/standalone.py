"""Runs an exported function outside Jupyter: alone, or as one rank of a world that the user's own mpirun started.

The scripts of ``%oblivious export`` call this. It knows no kernel and no run folder.
"""

from __future__ import annotations

import numbers
import os
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TextIO

from obl_magic import payload
from obl_magic.errors import UsageProblem
from obl_magic.events.event import Event, Metric, Note
from obl_magic.events.fold import SINGLE_STEP
from obl_magic.hosts.cores import cores
from obl_magic.launchers import LAUNCHERS, launcher, mpirun
from obl_magic.payload import files
from obl_magic.rundir import RunDir
from obl_magic.values import HIDDEN, Job, Settings
from obl_magic.worker import execute, ranks, tracebacks
from obl_magic.worker.report import Reporter

PRINTED = 2000
"""Characters up to which a returned value is printed rather than saved."""


def prepare(engine: str) -> None:
    """Gives this rank its GPU and the environment that it has in a run, before any framework is imported.

    A rank of several starts itself again with that environment, of which Python reads some only when it starts.

    Args:
        engine: the collectives that will be used.
    """
    me = ranks.identify()
    if me.size > 1 and "OBLIVIOUS_THREADS" not in os.environ:
        started_by = (name for name in LAUNCHERS if launcher(name).VARIABLES.rank in os.environ)
        env = mpirun.environment(
            mpirun.Mpi(next(started_by, "openmpi"), "", ""),
            os.environ,
            ranks=me.local_size,
            cores=cores(),
            engine=engine,
        )
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], env)
    ranks.pin_gpu(me)
    ranks.pin_cores(me)


def run(
    function: Callable[..., Any] | str,
    *,
    script: str,
    args: Mapping[str, Any],
    provide: Mapping[str, Any] | None = None,
    needs: Collection[str] = (),
    seed: int = 0,
    engine: str = "mpi",
    batch: str = "global",
    lr_scale: str = "none",
    warmup_epochs: int = 0,
    sync_batchnorm: bool = True,
    verify: str = "auto",
    init_from: str = "",
    show_ranks: Collection[int] = (0,),
) -> Any:
    """Calls a training function as this process's rank would in a run; prints its epochs and what it returns.

    Args:
        function: the function, or its name where it comes from the payload.
        script: path of the script; its payload is ``<script>.pkl``.
        args: arguments by name; ``...`` stands for the payload's.
        provide: values for parameters without default; ``...`` stands for the payload's.
        needs: global names of the function that come from the payload.
        seed: as for :func:`obl_magic.run`.
        engine: as for :func:`obl_magic.run`.
        batch: as for :func:`obl_magic.run`.
        lr_scale: as for :func:`obl_magic.run`.
        warmup_epochs: as for :func:`obl_magic.run`.
        sync_batchnorm: as for :func:`obl_magic.run`.
        verify: as for :func:`obl_magic.run`.
        init_from: file of initial weights, or "".
        show_ranks: ranks whose prints are shown.

    Returns:
        What the function returned on this rank.

    Raises:
        UsageProblem: the payload is missing, or an argument still stands as ``***``.
    """
    for name in (name for name, value in args.items() if isinstance(value, str) and value == HIDDEN):
        raise UsageProblem(
            f"the argument {name}, which is {HIDDEN} in {Path(script).name}",
            "its value, which an export leaves out where it looks like a credential",
            f'write os.environ["{name.upper()}"] in its place, with import os above',
        )
    me, out = ranks.identify(), sys.stdout
    if me.rank not in show_ranks:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    given, filled = dict(args), dict(provide or {})
    sources: tuple[Any, ...] = ()
    if isinstance(function, str) or needs or any(v is ... for v in (*given.values(), *filled.values())):
        sent, original, provided = _payload(Path(f"{script}.pkl"))
        sources = sent.sources
        tracebacks.remember(sources)
        given = {name: sent.args[name] if value is ... else value for name, value in given.items()}
        filled = {name: provided[name] if value is ... else value for name, value in filled.items()}
        if not isinstance(function, str):
            function.__globals__.update({name: original.__globals__[name] for name in needs})
            original = function
    else:
        original = function
    settings = Settings(batch, lr_scale, warmup_epochs, sync_batchnorm, verify != "off", init_from=init_from)
    job = Job(
        name=original.__name__, digest="", source="", payload=b"", args=given, sources=sources, seed=seed,
        settings=settings, engine="alone" if me.size == 1 else engine, run_dir="",
    )  # fmt: skip
    reporter = Reporter(_Spoken(out) if me.rank == 0 else _unsaid, me.rank)
    try:
        value = execute.call_here(original, filled, job, reporter)
    except BaseException as error:
        if me.size == 1:
            raise
        _leave_together(error, job, me.rank)
    if me.rank == 0:
        out.write(_told(value, Path(f"{script}.value.pkl")))
        out.flush()
    return value


def load(file: str) -> Any:
    """A returned value that a script has saved. Runs the pickle: load only what your own scripts wrote."""
    return files.load(Path(file))


def _payload(file: Path) -> tuple[Job, Any, dict[str, Any]]:
    """(the job as it was sent, its function, the values for parameters without default) of a script's payload."""
    if not file.is_file():
        raise UsageProblem(
            f"no {file.name} beside the script",
            "what the export wrote there: values that have no text",
            "copy it to where the script is, or export the run again",
        )
    job: Job = files.load(file)
    sys.path += [entry for entry in job.path if entry not in sys.path]
    function, provided = payload.loads(job.payload, job.buffers)
    return job, function, provided


def _leave_together(error: BaseException, job: Job, rank: int) -> None:
    """Says what was raised on this rank and ends it at once, whereupon the launcher ends the others."""
    text, _ = tracebacks.describe(error, job.sources)
    sys.stderr.write(f"rank {rank} raised:\n{text}")
    sys.stderr.flush()
    sys.stdout.flush()
    os._exit(1)


class _Spoken:
    """Says a rank's numbers and notes in plain lines.

    Args:
        out: where to.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def __call__(self, event: Event) -> None:
        if isinstance(event, Metric):
            self._say(_line(event))
        elif isinstance(event, Note):
            self._say(f"note: {event.text}")

    def _say(self, line: str) -> None:
        if line:
            self._out.write(line + "\n")
            self._out.flush()


def _unsaid(event: Event) -> None:
    """Says nothing: the first rank speaks for all."""


def _line(event: Metric) -> str:
    """``epoch 2  loss 0.1234567  accuracy 0.9``, or "" where there is nothing but a single step's numbers."""
    told = [f"{name} {value:.9g}" for name, value in event.values.items() if not name.startswith(SINGLE_STEP)]
    place = f"epoch {event.epoch}" if event.epoch is not None else f"step {event.step}"
    known = event.epoch is not None or event.step is not None
    return "  ".join([*([place] if known else []), *told]) if told else ""


def _told(value: Any, file: Path) -> str:
    """The sentence about what the function returned; a value that is no short text is saved."""
    if value is None:
        return ""
    if _is_text(value) and len(shown := repr(value)) <= PRINTED:
        return f"returned {shown}\n"
    kind = type(value).__qualname__
    try:
        files.save(value, RunDir.at(file.parent), file)
    except Exception as error:  # a __reduce__ may raise anything
        return f"returned a {kind}, which cannot be saved: {' '.join(str(error).split())}\n"
    return f"returned a {kind}, saved in {file.name}; to have it: obl_magic.export.standalone.load({str(file)!r})\n"


def _is_text(value: Any) -> bool:
    """Whether a value's ``repr`` says all of it."""
    if isinstance(value, dict):
        return all(map(_is_text, [*value, *value.values()]))
    if isinstance(value, (list, tuple, set)):
        return all(map(_is_text, value))
    return value is None or isinstance(value, (str, bytes, numbers.Number))
