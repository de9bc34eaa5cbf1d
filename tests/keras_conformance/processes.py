"""Starts the processes and worlds that run Keras' tests, a fresh one after each that ended early. Judges nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
START_S = 240.0
"""A world that has recorded nothing for so long beyond a test's own limit is ended."""
POLL_S = 0.2
LEAVE_S = 20.0


@dataclass(slots=True)
class Records:
    """What the ranks of the worlds of one size have recorded.

    Attributes:
        by_test: test → rank → its record (``outcome``, ``seconds``, and of a failure ``type``, ``message``, ``text``).
        stacks: test → rank → where all its threads were when its time was over.
        said: test → what the world said that ended in the middle of it.
        collected: all tests that were found, in order. uncollected: file → why it could not be imported.
        worlds: how many it took.
    """

    by_test: dict[str, dict[int, dict[str, Any]]] = field(default_factory=dict)
    stacks: dict[str, dict[int, str]] = field(default_factory=dict)
    said: dict[str, str] = field(default_factory=dict)
    collected: list[str] = field(default_factory=list)
    uncollected: dict[str, str] = field(default_factory=dict)
    worlds: int = 0


def run(
    folder: Path,
    tests: Path,
    files: Sequence[str],
    ids: Sequence[str] | None,
    workers: int | None,
    *,
    share: tuple[int, int] = (0, 1),
    engine: str = "mpi",
    limit_s: float = 60.0,
    limits_s: Mapping[str, float] | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> Records:
    """Runs tests on ``workers`` ranks, or in a plain process (None), in as many worlds as it takes.

    Args:
        folder: where records go, one folder a world.
        tests: the folder that the files are named in.
        files: where the tests are.
        ids: which, in what order; None: all.
        workers: ranks; None: a plain process.
        share: (k, n): every nth of all tests from the kth on.
        engine: the ranks' collectives.
        limit_s: how long any test may take.
        limits_s: the same for single tests.
        note: is told what is going on.
    """
    records = Records()
    left = None if ids is None else list(ids)
    while left is None or left:
        records.worlds += 1
        place = folder / str(records.worlds)
        place.mkdir(parents=True)
        wanted = (
            files if left is None else [file for file in files if any(_is_in(name, file) for name in left)]
        )
        asked = {
            "tests": str(tests), "files": list(wanted), "ids": left, "share": share if left is None else (0, 1),
            "workers": workers, "engine": engine, "limit_s": limit_s, "limits_s": dict(limits_s or {}),
        }  # fmt: skip
        (place / "asked.json").write_text(json.dumps(asked))
        said = _start(place, limit_s)
        begun = _collect(place, workers or 1, records, said)
        if left is None:
            left = list(records.collected)
        later = [name for name in left if name not in begun]
        if len(later) == len(left):
            raise RuntimeError(f"no test began in {place}:\n{said}")
        if later:
            last = next((name for name in reversed(left) if name in begun), "?")
            note(f"world {records.worlds} ended after {last}; {len(later)} tests left")
        left = later
    return records


def _is_in(name: str, file: str) -> bool:
    return name.startswith(f"{file}::")


def _collect(place: Path, workers: int, records: Records, said: str) -> set[str]:
    """Adds a world's records; the tests that began in it and are not to be run again."""
    if (place / "collected.json").is_file() and not records.collected:
        records.collected = json.loads((place / "collected.json").read_text())
    for line in _lines(place / "uncollected.jsonl"):
        records.uncollected[line["id"]] = line["text"]
    ended: dict[str, dict[int, dict[str, Any]]] = {}
    began: dict[str, set[int]] = {}
    for rank in range(workers):
        for record in _lines(place / f"rank.{rank}.jsonl"):
            if record["event"] == "ended":
                ended.setdefault(record["id"], {})[rank] = record
            elif record["event"] == "began":
                began.setdefault(record["id"], set()).add(rank)
    records.by_test.update(ended)
    for name in [name for name in began if len(ended.get(name, {})) < workers]:
        records.by_test.setdefault(name, {})
        records.said[name] = said
        for rank in range(workers):
            stacks = place / f"stacks.{rank}.txt"
            if rank not in ended.get(name, {}) and stacks.is_file() and (text := stacks.read_text()):
                records.stacks.setdefault(name, {})[rank] = text
    return set(began)


def _lines(path: Path) -> list[dict[str, Any]]:
    """Complete records of a file that a dying process may have left in the middle of one."""
    text = path.read_text() if path.is_file() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def _start(place: Path, limit_s: float) -> str:
    """Runs one world to its end, whatever that is; what it said."""
    environment = {
        **os.environ,
        "KERAS_BACKEND": "tensorflow",
        "OBLIVIOUS_HOME": str(place),
        "OBLIVIOUS_FORK": "off",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    with open(place / "said.txt", "w+", errors="replace") as said:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "in_process.py"), str(place)],
            env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            silent = _watch(process, place, limit_s + START_S)
        finally:
            _end(process)
        said.seek(0)
        text = said.read()
    return f"{silent}exit code {process.returncode}\n{text[-6000:]}"


def _watch(process: subprocess.Popen[bytes], place: Path, silence_s: float) -> str:
    """Waits for the end, or for a silence that no test explains."""
    seen, since = -1, time.monotonic()
    while process.poll() is None:
        size = sum(path.stat().st_size for path in place.glob("rank.*.jsonl"))
        if size != seen:
            seen, since = size, time.monotonic()
        elif time.monotonic() - since > silence_s:
            return f"nothing was recorded for {silence_s:.0f} s\n"
        time.sleep(POLL_S)
    return ""


def _end(process: subprocess.Popen[bytes]) -> None:
    """Interrupts it as a user would, so that its ranks end too; kills what does not listen."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(LEAVE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
