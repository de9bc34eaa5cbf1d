"""What ``%oblivious`` does in one line, from runs to doctor. Imports no IPython."""

from __future__ import annotations

import ast
import difflib
import html
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeGuard

from obl_magic.engines import CHOICES, CHOICES_IN_WORDS
from obl_magic.errors import OblError, UsageProblem
from obl_magic.export import export as write
from obl_magic.hosts.places import parse
from obl_magic.notebook.attach import attach as show_again
from obl_magic.notebook.attach import attach_study
from obl_magic.notebook.options import help_on, misplaced
from obl_magic.notebook.prune import prunable, remove, told
from obl_magic.rundir import existing as existing_runs
from obl_magic.rundir import existing_studies
from obl_magic.rundir.record import RunRecord
from obl_magic.runs.run import LIVE, Run, glance
from obl_magic.server.server import SERVER
from obl_magic.setup import doctor
from obl_magic.setup import hosts as hosts_of
from obl_magic.specs import parse_components, parse_space
from obl_magic.study.find import is_study, open_results
from obl_magic.study.results import Results

WORDS = ("runs", "attach", "logs", "stop", "scale", "server", "standby", "export", "prune", "doctor", "help")
_WHEN = "%Y-%m-%d %H:%M:%S"


class Table:
    """Something with a plain and a rich look."""

    def __init__(self, text: str, html: str) -> None:
        self._text, self._html = text, html

    def __repr__(self) -> str:
        return self._text

    def _repr_html_(self) -> str:
        return self._html


def line_magic(
    words: Sequence[str],
    rank: int,
    namespace: Mapping[str, Any] | None = None,
    workers: int | None = None,
    engine: str = "auto",
    keep: int | None = None,
    older_days: float | None = None,
    dry_run: bool = False,
    hosts: str | None = None,
) -> Any:
    """Runs one ``%oblivious`` line.

    Args:
        words: of the line, without its options.
        rank: whose log.
        namespace: the notebook's names.
        workers: of the world that is to stand by.
        engine: of the world that is to stand by.
        keep: how many of the newest a pruning leaves.
        older_days: how many days old it leaves.
        dry_run: whether it only says so.
        hosts: whom the doctor asks, or where a run goes on.

    Raises:
        UsageProblem: the line means nothing here.
    """
    if not words:
        raise UsageProblem("%oblivious alone", f"one of {', '.join(WORDS)}", "%oblivious runs")
    word, rest = words[0], list(words[1:])
    if word in ("attach", "logs", "stop", "scale", "export"):
        rest = [_meant(name, namespace or {}) for name in rest]
    if word == "runs":
        return runs_table()
    if word == "doctor":
        return doctor_table(hosts)
    if word == "logs":
        return Table(*_both(_logs(rest, rank)))
    if word == "stop":
        return stop(rest[0] if rest else None)
    if word in ("server", "standby"):
        return Table(*_both(server(rest, workers)))
    if word == "scale":
        return scale(rest[0] if rest else None, workers, hosts)
    if word == "attach":
        return attach(rest)
    if word == "prune":
        return Table(*_both(prune(rest, keep, older_days, dry_run)))
    if word == "export":
        return Table(*_both(export(rest, namespace)))
    if word == "help":
        return Table(*_both(help_on(rest)))
    close = difflib.get_close_matches(word, WORDS, n=1) or ["runs"]
    raise UsageProblem(f"%oblivious {word}", f"one of {', '.join(WORDS)}", f"%oblivious {close[0]}")


def is_held(value: Any) -> TypeGuard[Run | Results]:
    """Whether a value is a run or a study."""
    return isinstance(value, (Run, Results))


def newest_ids(most: int = 20) -> tuple[str, ...]:
    """Ids of the newest runs and studies beside this notebook, the newest first."""
    ids = [run.id for run in existing_runs()] + [study.id for study in existing_studies()]
    return tuple(sorted(ids, reverse=True)[:most])


def _meant(name: str, names: Mapping[str, Any]) -> str:
    """A run's id, of a name that ``--out`` has bound; else what was typed."""
    held = names.get(name)
    return held.id if is_held(held) else name


def runs_table() -> Any:
    """All runs and studies beside this notebook, newest first, as a DataFrame."""
    import pandas as pd

    rows = [_row(_row_of_a_run, folder) for folder in existing_runs()[::-1]]
    rows += [_row(_row_of_a_study, folder) for folder in existing_studies()[::-1]]
    rows.sort(key=lambda row: row["started"], reverse=True)
    columns = ["run", "function", "status", "workers", "engine", "total_s", "started", "digest", "from"]
    if any(row.get("hosts") for row in rows):
        columns.insert(4, "hosts")
    return pd.DataFrame(rows, columns=columns)


def _row(of: Callable[[Any], dict[str, Any]], folder: Any) -> dict[str, Any]:
    """The row of a run or a study; of one that cannot be read, why."""
    try:
        return of(folder)
    except (OblError, ValueError, KeyError, TypeError, AttributeError) as error:
        why = error.got if isinstance(error, UsageProblem) else f"{type(error).__name__}: {error}"
        stamp, _, _ = folder.id.rpartition("-")
        return {"run": folder.id, "status": f"damaged: {why}", "started": _when_of(stamp)}


def _when_of(stamp: str) -> str:
    """When a run began, from its id."""
    try:
        return datetime.strptime(stamp, "%Y%m%d-%H%M%S").strftime(_WHEN)
    except ValueError:
        return ""


def _row_of_a_run(folder: Any) -> dict[str, Any]:
    told, (status, total_s) = folder.record(), glance(folder)
    return {
        "run": folder.id, "function": told.function, "status": status,
        "workers": told.workers or "here", "hosts": _hosts(told), "engine": told.engine, "total_s": total_s,
        "started": _when(told.started_s), "digest": told.digest[:12],
        "from": _origin(told),
    }  # fmt: skip


def _hosts(told: Any) -> str:
    """``a 4, b 4``, or "" where all ranks were on this host."""
    return str(told.hosts.rpartition(": ")[2])


def _row_of_a_study(folder: Any) -> dict[str, Any]:
    study = open_results(folder)
    told = study.record
    engine = told.engine or ("alone" if told.workers else "inline")
    return {
        "run": study.id, "function": f"{told.function} ({study.kind}, {len(study.ended_trials)} trials)",
        "status": study.status, "workers": told.workers or "here", "hosts": _hosts(told), "engine": engine,
        "total_s": told.ended_s - told.started_s if told.ended_s else None, "started": _when(told.began_s),
        "digest": study.digest[:12], "from": _origin(told),
    }  # fmt: skip


def _when(unix_s: float) -> str:
    return datetime.fromtimestamp(unix_s).strftime(_WHEN)


def _origin(record: RunRecord) -> str:
    """Which run gave a run its parameters and its weights; a trial's id begins with its search's."""
    given: dict[str, list[str]] = {}
    for what, source in record.lineage.items():
        given.setdefault(str(source["run"] or "a dict"), []).append(what)
    return "; ".join(f"{' + '.join(whats)}: {run}" for run, whats in given.items())


def doctor_table(asked: str | None = None) -> Table:
    """What works here, and what mends the rest; or the same of other hosts.

    Args:
        asked: hosts as they are typed, or None.
    """
    checks = doctor.examine() if asked is None else hosts_of.examine(parse(asked))
    return Table(doctor.table_text(checks), doctor.table_html(checks))


def scale(name: str | None, workers: int | None, hosts: str | None) -> Any:
    """Has a run under way go on with another number of ranks, or on other hosts; see :meth:`Run.scale`.

    Args:
        name: of the run, or None for the only one.
        workers: ranks, or None: as many as the hosts have places.
        hosts: as they are typed, or None: here.
    """
    running = [run for run in LIVE.values() if isinstance(run, Run) and run.status == "running"]
    found = [run for run in running if name is None or run.id.startswith(name) or run.id.endswith(name)]
    if len(found) != 1 or (workers is None and hosts is None):
        ids = ", ".join(run.id for run in running) or "none is running"
        raise UsageProblem(
            f"%oblivious scale {name or ''}".rstrip(),
            f"a run of this notebook ({ids}) and a number of ranks",
            "%oblivious scale RUN -w 4",
        )
    found[0].scale(workers, hosts)
    return found[0]


def stop(name: str | None) -> Any:
    """Stops a live run: the named one, or the only one."""
    running = {run_id: run for run_id, run in LIVE.items() if run.status == "running"}
    if name is None and len(running) == 1:
        name = next(iter(running))
    found = [
        run for run_id, run in running.items() if name and (run_id.startswith(name) or run_id.endswith(name))
    ]
    if len(found) != 1:
        raise UsageProblem(
            f"%oblivious stop {name or ''}".strip(),
            f"one running run of this kernel; running: {', '.join(running) or 'none'}",
            "%oblivious stop RUN",
        )
    found[0].stop()
    return Table(*_both(f"stopped {found[0].id}"))


def attach(rest: Sequence[str]) -> Any:
    """Shows a run or a study again: the named one, the newest run under way, or the newest."""
    if len(rest) > 1:
        raise UsageProblem("%oblivious attach " + " ".join(rest), "one run", "%oblivious attach RUN")
    if rest and is_study(rest[0]):
        return attach_study(rest[0])
    return show_again(rest[0] if rest else None)


def export(rest: Sequence[str], namespace: Mapping[str, Any] | None) -> str:
    """Writes a script that reproduces a run; the sentence that says so."""
    if len(rest) == 1 and (runs := existing_runs()):
        rest = [runs[-1].id, *rest]
    if len(rest) != 2:
        raise UsageProblem(
            " ".join(["%oblivious export", *rest]), "a run and a file", "%oblivious export RUN train.py"
        )
    return write(rest[0], _unquoted(rest[1]), namespace).text()


def prune(rest: Sequence[str], keep: int | None, older_days: float | None, dry_run: bool) -> str:
    """Removes runs and studies, once it has been shown which; the sentence that says what was done.

    Raises:
        UsageProblem: it is not said what stays. SetupProblem: a folder cannot be removed.
    """
    if rest:
        raise UsageProblem(
            " ".join(["%oblivious prune", *rest]), "--keep N or --older DAYS", "%oblivious prune --keep 20"
        )
    found = prunable(keep, older_days)
    if not found:
        return "nothing to remove"
    sys.stdout.write(told(found) + "\n")
    if dry_run:
        return "nothing was removed (--dry-run)"
    remove(found)
    return "removed"


def server(rest: Sequence[str], workers: int | None = None) -> str:
    """Says what the fork server is at, or brings it up anew (``restart``), or forbids it (``off``).

    ``standby`` is an older word for it: ``standby -w 2`` brings it up, for worlds of any size.

    Raises:
        UsageProblem: another word.
    """
    if list(rest) == ["off"] and workers is None:
        SERVER.allowed = False
        SERVER.end()
        return "no fork server from now on: worlds are started afresh (to have one again: %oblivious server restart)"
    if list(rest) == ["restart"] or (not rest and workers is not None and workers > 0):
        SERVER.allow()
        if workers is None:
            SERVER.end()
        SERVER.warm()
    elif list(rest) not in ([], ["status"]) or workers is not None:
        got = " ".join(("%oblivious server", *rest, *(() if workers is None else ("-w", str(workers)))))
        raise UsageProblem(got, "status, restart or off", "%oblivious server status")
    return SERVER.status()


def argument_value(text: str) -> tuple[str, Any]:
    """``lr=0.1`` as ("lr", 0.1): a Python literal after the first equals sign.

    Raises:
        UsageProblem: no name, or no literal.
    """
    text = _unquoted(text)
    name, equals, literal = text.partition("=")
    name = name.strip()
    try:
        if not equals or not name.isidentifier():
            raise ValueError
        return name, ast.literal_eval(literal.strip())
    except (ValueError, SyntaxError):
        raise UsageProblem(
            f"--arg {text}",
            "name=value with a Python literal (text in quotes)",
            "--arg lr=0.1 --arg \"act='relu'\"",
        ) from None


_ASKS_FOR_A_SEARCH = ("search", "space", "trials", "sampler", "pruner")
_ASKS_FOR_AN_ABLATION = ("ablate", "study")
_ONE = {"run": "one run", "search": "a search", "ablate": "an ablation"}


def kind_of(options: Any) -> str:
    """What the options ask for: ``run``, ``search`` or ``ablate``; a spec that cannot be read is refused here.

    Raises:
        UsageProblem: options that do not go together, or a spec that cannot be read.
    """
    searches = [name for name in _ASKS_FOR_A_SEARCH if getattr(options, name) is not None]
    ablates = [name for name in _ASKS_FOR_AN_ABLATION if getattr(options, name) is not None]
    if searches and ablates:
        raise UsageProblem(
            f"--{searches[0]} with --{ablates[0]}",
            "a search or an ablation",
            f"first one, then: --{ablates[0]} ... --params best",
        )
    if options.search is not None:
        parse_space(_unquoted(options.search))
    if options.ablate is not None:
        parse_components(_unquoted(options.ablate))
    kind = "ablate" if ablates else "search" if searches or _resumes_a_search(options.resume) else "run"
    wrong = misplaced(kind, options)
    if wrong is not None and kind == "run":
        raise UsageProblem(
            f"{wrong.flag} without a search or an ablation",
            "what is to be searched or left out",
            '--search "lr=log(1e-4,1e-1)"',
        )
    if wrong is not None:
        raise UsageProblem(
            f"{wrong.flag} with {_ONE[kind]}",
            f"{wrong.flag} where {' or '.join(_ONE[call] for call in wrong.calls)} is made",
            f"leave out {wrong.flag}",
        )
    return kind


def spec_of(what: str, text: str | None, name: str | None, names: Mapping[str, Any]) -> Any:
    """A spec as it was typed, or the notebook's value of that name; None where neither is given.

    Raises:
        UsageProblem: both, or there is no such name.
    """
    if text is not None and name is not None:
        raise UsageProblem(f"--{what} {name} and the same as text", "one of them", f"--{what} {name}")
    if name is not None and name not in names:
        raise UsageProblem(
            f"--{what} {name}", "a dict or a text of this notebook", f"define {name} in a cell first"
        )
    return names[name] if name is not None else None if text is None else _unquoted(text)


def _resumes_a_search(name: str | None) -> bool:
    return name is not None and is_study(name)


def check_before_the_cell(workers: int | str | None, engine: str) -> None:
    """Refuses what can be refused before the cell is executed.

    Raises:
        UsageProblem: a bad number of workers or an unknown engine.
    """
    if isinstance(workers, int) and workers < 1:
        raise UsageProblem(f"--workers {workers}", "a whole number of ranks, 1 or more", "--workers 2")
    if engine not in CHOICES:
        raise UsageProblem(f"--engine {engine}", CHOICES_IN_WORDS, "--engine auto")


def _logs(rest: Sequence[str], rank: int) -> str:
    if not rest and (runs := existing_runs()):
        rest = [runs[-1].id]
    if len(rest) != 1:
        raise UsageProblem(
            "%oblivious logs " + " ".join(rest), "one run's id", "%oblivious logs RUN --rank 0"
        )
    run = Run.open(rest[0])
    text = run.logs(rank)
    if not text and not 0 <= rank < (run.workers or 1):
        raise UsageProblem(f"--rank {rank}", f"a rank between 0 and {(run.workers or 1) - 1}", "--rank 0")
    return text


def _unquoted(text: str) -> str:
    """An argument without the quotes that IPython leaves on."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def _both(text: str) -> tuple[str, str]:
    return text, f"<pre>{html.escape(text)}</pre>"
