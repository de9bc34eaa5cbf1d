"""Starts worlds that run the suite, and collects what their ranks left. Restarts a world that hung or died."""

from __future__ import annotations

import ast
import os
import pickle
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
SUITE_S = 3000.0
EARLIER_CELL = "earlier_cell"
"""A function of this name in a file of cases is no case: it runs before them, where they are started."""


@dataclass(slots=True)
class Outcomes:
    """What the ranks of one world made of the cases.

    Attributes:
        by_case: case → rank → ``{"value": flat result}`` or ``{"error", "traceback"}``, with ``seconds``.
        died: case → what the world said when it ended in the middle of it.
    """

    by_case: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict)
    died: dict[str, str] = field(default_factory=dict)


def themes() -> dict[str, list[str]]:
    """Names of all cases by theme, in the order of their files, without importing them."""
    found = {}
    for path in sorted(HERE.glob("cases_*.py")):
        names = [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
        found[path.stem.removeprefix("cases_")] = [
            name for name in names if name[0] != "_" and name != EARLIER_CELL
        ]
    return found


def case_names() -> list[str]:
    """Names of all cases, without importing them."""
    return [name for names in themes().values() for name in names]


def run(
    folder: Path, names: list[str], workers: int | None, engine: str = "mpi", mutation: str | None = None
) -> Outcomes:
    """Runs the cases on ``workers`` ranks, or in a plain Python process (None)."""
    outcomes, left, attempt = Outcomes(), list(names), 0
    while left:
        attempt += 1
        place = folder / str(attempt)
        place.mkdir(parents=True)
        said = _start(place, left, workers, engine, mutation)
        _collect(place / "outcomes", workers or 1, outcomes)
        begun = {path.name.split(".")[0] for path in place.glob("outcomes/*.began")}
        unfinished = [name for name in left if name in begun and not _complete(name, workers or 1, outcomes)]
        for name in unfinished[:1]:
            stacks = [
                f"{path.name}:\n{text}"
                for path in sorted(place.glob(f"outcomes/{name}.*.stacks"))
                if (text := path.read_text())
            ]
            outcomes.died[name] = "\n".join([said, *stacks])
        later = [name for name in left if name not in begun or name in unfinished[1:]]
        if len(later) == len(left):
            raise RuntimeError(f"no case began:\n{said}")
        left = later
    return outcomes


def _complete(name: str, workers: int, outcomes: Outcomes) -> bool:
    return len(outcomes.by_case.get(name, {})) == workers


def _collect(folder: Path, workers: int, outcomes: Outcomes) -> None:
    for rank in range(workers):
        for path in folder.glob(f"*.{rank}.done"):
            outcomes.by_case.setdefault(path.name.split(".")[0], {})[rank] = pickle.loads(path.read_bytes())


def _start(place: Path, names: list[str], workers: int | None, engine: str, mutation: str | None) -> str:
    command = [sys.executable, str(HERE / "suite.py"), str(place), "--cases", ",".join(names)]
    if workers is not None:
        command += ["--workers", str(workers), "--engine", engine]
    if mutation:
        command += ["--mutation", mutation]
    environment = {**os.environ, "OBLIVIOUS_HOME": str(place), "TF_CPP_MIN_LOG_LEVEL": "2"}
    ended = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
        timeout=SUITE_S,
        check=False,
    )
    return f"exit code {ended.returncode}\n{ended.stdout[-2000:]}\n{ended.stderr[-6000:]}"
