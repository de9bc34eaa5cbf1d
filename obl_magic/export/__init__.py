"""A run becomes a script outside Jupyter, and where need be a payload beside it. Overwrites nothing, runs nothing."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from obl_magic import payload
from obl_magic.capture.credentials import hidden
from obl_magic.capture.own_modules import own_modules
from obl_magic.errors import SetupProblem, UsageProblem
from obl_magic.export.found import job_of
from obl_magic.export.script import Call, script_of
from obl_magic.payload import files
from obl_magic.rundir import RunDir, buffers_of
from obl_magic.runs.run import Run
from obl_magic.values import Job


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote.

    Attributes:
        script: the script.
        payload: what it reads beside itself, or None.
        captured_anew: the function's surroundings are those of the notebook now.
    """

    script: Path
    payload: Path | None
    captured_anew: bool

    def text(self) -> str:
        """What was written and how to run it, for a user."""
        beside = f" and {self.payload.name} beside it" if self.payload else ""
        anew = (
            "; the values beside it are the notebook's of now" if self.payload and self.captured_anew else ""
        )
        return f"wrote {self.script}{beside}{anew}; to run it: python {shlex.quote(str(self.script))}"


def export(
    name: str, file: str, namespace: Mapping[str, Any] | None = None, *, trust: bool = False
) -> Exported:
    """Writes a run's function, arguments and settings as a script that runs with ``python`` and with ``mpirun``.

    Args:
        name: the run, as for :meth:`Run.open`.
        file: path of the script; it must not exist yet.
        namespace: the notebook's names, for runs whose folder does not hold everything.
        trust: read its pickles whoever may have written them; see :meth:`Run.open`.

    Raises:
        UsageProblem: there is no such run, a file is in the way, or not everything can be had any more.
        SetupProblem: the files cannot be written.
    """
    run = Run.open(name, trust=trust)
    script = Path(file).expanduser()
    beside = script.with_name(script.name + ".pkl")
    weights = script.with_name(script.name + ".npz")
    for path in (script, beside, buffers_of(beside), weights):
        if path.exists():
            raise UsageProblem(
                f"export to {path}, which exists",
                "a name that is free: nothing is overwritten",
                f"%oblivious export {name} {script.with_name('another_' + script.name)}",
            )
    if not script.parent.is_dir():
        raise UsageProblem(
            f"export to {script}", "a file in a folder that exists", f"mkdir -p {script.parent}"
        )
    job, anew = job_of(run, namespace or {})
    with _modules_as_found(job):
        function, provided = payload.loads(job.payload, job.buffers)
        shown = run.record.options.get("show_ranks")
        job = replace(job, args={name: hidden(name, value) for name, value in job.args.items()})
        call = Call(run.id, job, function, provided, run.workers or 1, tuple(shown or ()))
        text = script_of(call, script.name)
    if text.needs_payload:
        files.save(job, RunDir.at(script.parent), beside, own_modules())
    if job.settings.init_from:
        _copy_new(Path(job.settings.init_from), weights)
    _write_new(script, text.text)
    return Exported(script, beside if text.needs_payload else None, anew)


@contextmanager
def _modules_as_found(job: Job) -> Iterator[None]:
    """Within it modules are also looked for where the run's kernel found them."""
    before = list(sys.path)
    sys.path += [entry for entry in job.path if entry not in sys.path]
    try:
        yield
    finally:
        sys.path[:] = before


def _copy_new(weights: Path, path: Path) -> None:
    """Copies the weights that a run began from."""
    try:
        shutil.copyfile(weights, path)
    except OSError as error:
        raise SetupProblem(
            f"cannot copy the initial weights {weights} to {path} ({error.strerror})",
            "free its folder, or run again with --init-from",
        ) from error


def _write_new(path: Path, text: str) -> None:
    """Writes a file that does not exist yet."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise SetupProblem(
            f"cannot write {path} ({error.strerror})", "free its folder, or name another"
        ) from error
