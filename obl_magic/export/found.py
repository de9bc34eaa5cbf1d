"""The job of a run, to be run again: this process's own, else from the notebook that still has the same function."""

from __future__ import annotations

import ast
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import FunctionType
from typing import Any

from obl_magic import payload
from obl_magic.capture import capture
from obl_magic.errors import SetupProblem, UsageProblem
from obl_magic.runs.jobs import JOBS
from obl_magic.runs.run import Run
from obl_magic.setup.doctor import choose_engine
from obl_magic.values import Job, Settings

LARGE_BYTES = 1_000_000


def job_of(run: Run, namespace: Mapping[str, Any]) -> tuple[Job, bool]:
    """(the job, whether it was captured anew).

    Jobs are on disk while a run lasts; this process remembers its last ones that have no large arrays. Without it,
    and for a run in the kernel, which sends nothing, the function is captured again, if the notebook has it as it was,
    with what the notebook has now.

    Args:
        run: the run.
        namespace: the notebook's names.

    Raises:
        UsageProblem: the notebook does not have it as it was.
    """
    run.refuse_foreign("the record")
    _refuse_ablated(run)
    study = run.record.study
    kept, changes = JOBS.of(study or run.id), JOBS.of(run.id) if study else None
    if kept is None or (study and changes is None):
        return _captured_anew(run, namespace), True
    job: Job = payload.loads(kept)
    if changes is not None:
        job = replace(job, **{**payload.loads(changes), "quantity": ""})
    return replace(job, settings=_settings(run), engine=_engine(run)), False


def _refuse_ablated(run: Run) -> None:
    """Refuses by the run's record, which is there when its job is not: captured anew, nothing would be left out."""
    if left_out := run.record.component:
        raise UsageProblem(
            f"export of {run.id}, which left out {left_out}",
            "a run of the function as it is: a script leaves nothing out",
            f"%oblivious export {run.id.rpartition('-')[0]}-000 train.py (the base run)",
        )


def _captured_anew(run: Run, namespace: Mapping[str, Any]) -> Job:
    name = run.record.function
    function = namespace.get(name)
    if not isinstance(function, FunctionType):
        raise _gone(run, f"and no function {name} is here")
    args = _arguments(run)
    captured = capture(function, namespace=namespace, args=args)
    if captured.digest != run.digest:
        raise _gone(run, f"and {name} has changed since")
    then = {each["path"]: each["size_bytes"] for each in run.record.captured}
    now = {each.path: each.size_bytes for each in captured.names}
    changed = [path for path, size in then.items() if size >= LARGE_BYTES and now.get(path) != size]
    if changed:
        raise _gone(run, f"and {changed[0]} is not what it was")
    return Job(
        name=captured.name, digest=captured.digest, source=captured.source, payload=captured.payload, args=args,
        sources=captured.sources, seed=run.seed, settings=_settings(run), engine=_engine(run), run_dir="",
        path=tuple(str(Path(entry).absolute()) for entry in sys.path), buffers=captured.buffers,
    )  # fmt: skip


def _gone(run: Run, why: str) -> UsageProblem:
    lost = (
        "whose function and data were removed from the disk when it ended"
        if run.workers is not None
        else "which ran in the kernel and was sent nowhere"
    )
    return UsageProblem(
        f"export of {run.id}, {lost}, {why}",
        "the notebook with the same function and the same data",
        "execute the cells that define them, then export again; or load the data inside the function",
    )


def _settings(run: Run) -> Settings:
    """How its ranks made Keras oblivious, without what belongs to one run."""
    told = run.record.settings
    kept = ("batch", "lr_scale", "warmup_epochs", "sync_batchnorm", "prove", "init_from")
    return Settings(**{name: told[name] for name in kept if name in told})


def _arguments(run: Run) -> dict[str, Any]:
    found = {}
    for name, text in run.record.arguments.items():
        try:
            found[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            raise _gone(run, f"and its argument {name} is no literal ({text[:40]})") from None
    return found


def _engine(run: Run) -> str:
    """The collectives under mpirun: the run's own, or for a run in the kernel those that would be taken."""
    if run.workers is not None:
        return run.engine
    try:
        return choose_engine("auto").engine
    except SetupProblem:
        return "mpi"
