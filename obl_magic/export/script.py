"""Lays a call out as a script: imports, constants, helpers, the function, the call. Writes no file."""

from __future__ import annotations

from dataclasses import dataclass
from types import FunctionType
from typing import Any

from obl_magic.export import plain
from obl_magic.export.surroundings import Surroundings
from obl_magic.values import Job, Settings

SENT = "..."
"""How a script writes a value that comes from its payload."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a function, as a run made it.

    Attributes:
        run_id: the run.
        job: what its ranks were sent.
        function: the job's payload, loaded.
        provided: the job's payload, loaded.
        workers: how many ranks it had.
        show_ranks: whose prints were shown.
    """

    run_id: str
    job: Job
    function: FunctionType
    provided: dict[str, Any]
    workers: int
    show_ranks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Script:
    """A script.

    Attributes:
        text: all of it.
        needs_payload: it reads the job beside itself.
    """

    text: str
    needs_payload: bool


def script_of(call: Call, file: str) -> Script:
    """The script of a call; ``file`` is the name that it will have."""
    job = call.job
    around = Surroundings(call.function, job.sources)
    provide = {name: plain.literal(v) or around.name_of(v) or SENT for name, v in call.provided.items()}
    args = {name: plain.literal(value) or SENT for name, value in job.args.items()}
    needs_payload = around.source is None or bool(around.needs) or SENT in {*args.values(), *provide.values()}
    definitions = [] if around.source is None else [*around.helpers, around.source]
    needs = tuple(around.needs) if definitions else (f"{job.name} with all it uses",)
    head = [
        _docstring(call, file, needs, needs_payload),
        "from __future__ import annotations" if any(map(plain.annotates, definitions)) else "",
        "import obl_magic.export.standalone",
        f"obl_magic.export.standalone.prepare(engine={job.engine!r})  # before any framework is imported",
        "\n".join(around.imports),
        "\n".join(around.constants),
    ]
    body = definitions or [_as_comment(job)]
    named = job.name if definitions else repr(job.name)
    parts = ["\n\n".join(filter(None, head)), *body, _call(call, named, args, provide, tuple(around.needs))]
    return Script("\n\n\n".join(parts) + "\n", needs_payload)


def _docstring(call: Call, file: str, needs: tuple[str, ...], needs_payload: bool) -> str:
    same = "any other number gives the same numbers"
    if call.job.settings.batch != "global":
        same = "each takes the code's batch, so that another number gives other numbers"
    number = max(2, call.workers)
    lines = [
        f'"""{call.job.name}, as run {call.run_id} ran it. Exported from a notebook by obl_magic, which it needs.',
        "",
        f"    python {file}    # one process",
        f"    mpirun -n {number} python {file}    # {number} ranks; {same}",
    ]
    if needs_payload:
        what = ", ".join(needs) or "values that have no text"
        lines += [
            "",
            f"It reads {file}.pkl beside it ({what}), and {file}.bin if there is one. A pickle is a program:",
            "run only what you have exported yourself.",
        ]
    return "\n".join(lines) + '\n"""'


def _as_comment(job: Job) -> str:
    lines = [
        f"The source of {job.name}, to be read. What runs comes from the payload: this text alone does not make the",
        "same function, since it has a closure, a decorator, or defaults that are made of other values.",
        "",
        *job.source.rstrip().splitlines(),
    ]
    return "\n".join(f"# {line}".rstrip() for line in lines)


def _call(
    call: Call, named: str, args: dict[str, str], provide: dict[str, str], needs: tuple[str, ...]
) -> str:
    job, ours, usual = call.job, call.job.settings, Settings()
    less_usual = [
        (f"{name}={getattr(ours, name)!r},", "")
        for name in ("lr_scale", "warmup_epochs", "sync_batchnorm")
        if getattr(ours, name) != getattr(usual, name)
    ]
    if not ours.prove:
        less_usual.append(("verify='off',", ""))
    lines = [
        (f"{named},", ""),
        ("script=__file__,", ""),
        (f"args={_dict(args)},", _said_of(args)),
        *([(f"provide={_dict(provide)},", _said_of(provide))] if provide else []),
        *([(f"needs={needs!r},", "global names that come from the payload")] if needs else []),
        (f"seed={job.seed},", ""),
        (f"engine={job.engine!r},", "under mpirun"),
        (f"batch={ours.batch!r},", ""),
        *less_usual,
        *([('init_from=f"{__file__}.npz",', "initial weights, beside it")] if ours.init_from else []),
        *([(f"show_ranks={call.show_ranks!r},", "")] if call.show_ranks != (0,) else []),
    ]
    head = 'if __name__ == "__main__":\n    obl_magic.export.standalone.run(\n'
    return (
        head + "".join(f"        {code}{'  # ' + said if said else ''}\n" for code, said in lines) + "    )"
    )


def _said_of(items: dict[str, str]) -> str:
    return f"{SENT}: from the payload" if SENT in items.values() else ""


def _dict(items: dict[str, str]) -> str:
    return "{" + ", ".join(f"{name!r}: {value}" for name, value in items.items()) + "}"
