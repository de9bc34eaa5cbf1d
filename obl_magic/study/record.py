"""What is kept of a trial that has ended: a row of a study, and a line of JSON. Runs nothing."""

from __future__ import annotations

import ast
import contextlib
import json
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from obl_magic.events.appending import Appending
from obl_magic.rundir import unwritable
from obl_magic.rundir.record import FORMAT


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One trial that has ended.

    Attributes:
        number: from 0.
        run_id: of its run.
        status: ``succeeded``, ``failed`` or ``pruned``.
        value: of the wanted quantity, or None.
        error: one line, or "".
        params: what the plan gave it, by name.
        seed: its base seed.
        began_s: Unix time in seconds; a world that had to come up first did so before.
        ended_s: Unix time in seconds.
        returned: what is short of its value.
        world: in which it ran, from 0.
        component: what an ablation took away; ``base`` of its base run.
        kind: of which kind that is; "" of the base run.
        repeat: from 0.
        parameters: how many were really trained, or None.
        layers: names of those that were really there.
        inputs: number of features that it really had, or None.
    """

    number: int
    run_id: str
    status: str
    value: float | None
    error: str
    params: dict[str, Any]
    seed: int
    began_s: float
    ended_s: float
    returned: dict[str, Any] = field(default_factory=dict)
    world: int = 0
    component: str = ""
    kind: str = ""
    repeat: int = 0
    parameters: int | None = None
    layers: tuple[str, ...] = ()
    inputs: int | None = None

    @property
    def duration_s(self) -> float:
        """Seconds from the trial's begin to its end."""
        return max(0.0, self.ended_s - self.began_s)


class Records:
    """The trials of a study that have ended, as a file that grows.

    Args:
        path: the file; its lines so far are read.

    Raises:
        SetupProblem: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.all = read(path)
        self.lost = ""
        try:
            self._file = Appending(path)
            if _ends_within_a_line(path):  # its kernel was killed there
                self._file.append(b"\n")
        except OSError as error:
            raise unwritable(path, error) from error

    def add(self, record: TrialRecord) -> None:
        """Keeps one more; where the disk is full the study goes on, and says so."""
        self.all.append(record)
        try:
            params = {name: repr(value) for name, value in record.params.items()}
            row = {**asdict(record), "params": params, "format": FORMAT}
            self._file.append((json.dumps(row) + "\n").encode())
            self._file.sync()
        except OSError as error:
            self.lost = str(unwritable(self._path, error))

    def close(self) -> None:
        """Closes the file."""
        self._file.close()


def read(path: Path) -> list[TrialRecord]:
    """The records of a file, by number; what is no whole line is passed over."""
    found = []
    known = {field.name for field in fields(TrialRecord)}
    for line in path.read_text().splitlines() if path.is_file() else []:
        with contextlib.suppress(ValueError, TypeError, AttributeError):
            said = json.loads(line)
            said["layers"] = tuple(said.get("layers") or ())
            said["params"] = {name: _literal(text) for name, text in said["params"].items()}
            found.append(TrialRecord(**{name: value for name, value in said.items() if name in known}))
    return sorted(found, key=lambda record: record.number)


def _ends_within_a_line(path: Path) -> bool:
    return path.read_bytes()[-1:] not in (b"", b"\n")


def ranked(records: list[TrialRecord], direction: str) -> list[TrialRecord]:
    """The trials that succeeded with a number, best first; the earlier one of equals."""
    sign = -1 if direction == "maximize" else 1
    good = [r for r in records if r.status == "succeeded" and r.value is not None and not math.isnan(r.value)]
    return sorted(good, key=lambda record: (sign * (record.value or 0.0), record.number))


def _literal(text: str) -> Any:
    """A parameter's value from its ``repr``; the text where that is no literal."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
