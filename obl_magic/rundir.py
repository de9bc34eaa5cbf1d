"""The only file that names the files of a run. A run never deletes or overwrites another.

``.oblivious/runs/<id>/`` beside the notebook, or ``$OBLIVIOUS_HOME/runs/<id>/``; private (0700).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from obl_magic.errors import SetupProblem


def home(environ: Mapping[str, str] = os.environ, cwd: Path | None = None) -> Path:
    """The folder that holds all runs: ``$OBLIVIOUS_HOME``, else ``.oblivious`` in ``cwd``."""
    named = environ.get("OBLIVIOUS_HOME")
    return Path(named).expanduser().absolute() if named else (cwd or Path.cwd()) / ".oblivious"


@dataclass(frozen=True, slots=True)
class RunDir:
    """Names of the files of one run.

    Attributes:
        path: the folder.
    """

    path: Path

    @classmethod
    def at(cls, path: str | Path) -> RunDir:
        """The run folder at a path that exists."""
        return cls(Path(path))

    @property
    def id(self) -> str:
        """The run's id, which is the folder's name."""
        return self.path.name

    @property
    def events(self) -> Path:
        """The event log, JSON lines: the truth about the run."""
        return self.path / "events.jsonl"

    @property
    def job(self) -> Path:
        """The pickled job that rank 0 reads; its large arrays lie in ``job.bin`` beside it while the run lasts."""
        return self.path / "job.pkl"

    @property
    def source(self) -> Path:
        """The function's source, exactly as written."""
        return self.path / "function.py"

    @property
    def manifest(self) -> Path:
        """Arguments, options, environment, seed, digest, captured names (JSON)."""
        return self.path / "run.json"

    @property
    def scratch(self) -> Path:
        """Files that frameworks generate while the run lasts; gone afterwards."""
        return self.path / "scratch"

    def tidy(self) -> None:
        """Removes what only a run under way needs."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        with contextlib.suppress(OSError):
            buffers_of(self.job).unlink(missing_ok=True)
            for stacks in self.path.glob("stacks-*.txt"):
                if not stacks.stat().st_size:  # nobody asked for them
                    stacks.unlink()

    def log(self, rank: int) -> Path:
        """What a rank wrote; ``launcher.log`` for rank -1."""
        return self.path / ("launcher.log" if rank < 0 else f"rank-{rank}.log")

    def stacks(self, rank: int) -> Path:
        """The stacks of all threads of a rank that was asked for them."""
        return self.path / f"stacks-{rank}.txt"

    def checkpoint(self, fit: int) -> Path:
        """What is kept of the function's n-th fit, from 1."""
        return self.path / "checkpoints" / f"fit-{fit}.pkl"

    @property
    def has_checkpoints(self) -> bool:
        """Whether anything is kept of the function's fits."""
        return any(self.path.glob("checkpoints/fit-*.pkl"))

    def take_checkpoints_of(self, other: RunDir) -> int:
        """Copies what another run has kept of its fits; how many there were."""
        found = sorted(other.path.glob("checkpoints/fit-*.pkl"))
        if found:
            self.checkpoint(1).parent.mkdir(mode=0o700, exist_ok=True)
        for path in found:
            shutil.copy2(path, self.checkpoint(1).parent)
        return len(found)

    def value(self, rank: int) -> Path:
        """The pickled return value of a rank."""
        return self.path / f"value-{rank}.pkl"

    def error(self, rank: int) -> Path:
        """The pickled exception of a rank."""
        return self.path / f"error-{rank}.pkl"

    def read_log(self, rank: int) -> str:
        """What a rank (or the launcher, -1) has written so far."""
        try:
            return self.log(rank).read_bytes().decode("utf-8", "replace")  # as it is: a return is no line end
        except FileNotFoundError:
            return ""

    def write_json(self, path: Path, record: Mapping[str, Any]) -> None:
        """Writes a JSON file so that no reader sees half of it."""
        self.write_bytes(path, (json.dumps(record, indent=1, default=str) + "\n").encode())

    def write_bytes(self, path: Path, data: bytes) -> None:
        """Writes a file beside and moves it, so that no reader sees half of it."""
        self.write_parts(path, [data])

    def write_parts(self, path: Path, parts: Iterable[bytes | memoryview]) -> None:
        """As :meth:`write_bytes`, from many pieces, none of which is copied.

        Raises:
            SetupProblem: the folder cannot be written.
        """
        try:
            handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        except OSError as error:
            raise unwritable(path, error) from error
        try:
            with os.fdopen(handle, "wb") as file:
                for part in parts:
                    file.write(part)
            os.replace(beside, path)
        except OSError as error:
            raise unwritable(path, error) from error
        finally:
            Path(beside).unlink(missing_ok=True)


def create(where: Path | None = None, now: datetime | None = None) -> RunDir:
    """A new, empty, private run folder with an id that no other run has.

    Raises:
        SetupProblem: the folder cannot be written.
    """
    runs = (where or home()) / "runs"
    stamp = (now or datetime.now()).strftime("%Y%m%d-%H%M%S")
    try:
        runs.mkdir(parents=True, exist_ok=True, mode=0o700)
        while True:
            path = runs / f"{stamp}-{secrets.token_hex(3)}"
            try:
                path.mkdir(mode=0o700)
                return RunDir(path)
            except FileExistsError:
                continue
    except OSError as error:
        raise unwritable(runs, error) from error


def existing(where: Path | None = None) -> list[RunDir]:
    """All runs of a home, oldest first."""
    runs = (where or home()) / "runs"
    if not runs.is_dir():
        return []
    return sorted((RunDir(path) for path in runs.iterdir() if (path / "run.json").is_file()), key=_age)


def with_arrays(where: Path | None = None) -> list[RunDir]:
    """The runs of a home that still have a job's large arrays on disk."""
    name = buffers_of(RunDir(Path()).job).name
    return [RunDir(path.parent) for path in ((where or home()) / "runs").glob(f"*/{name}")]


def _age(folder: RunDir) -> tuple[str, int]:
    """Orders runs by the second in their id, and within it by when they were written down."""
    return folder.id.rpartition("-")[0], folder.manifest.stat().st_mtime_ns


def buffers_of(pickle: Path) -> Path:
    """Where the large arrays of a pickled file lie: beside it."""
    return pickle.with_suffix(".bin")


def private(path: str, flags: int) -> int:
    """Opens a file that only the user may read, whatever the umask; an ``opener`` for :func:`open`."""
    return os.open(path, flags, 0o600)


def unwritable(path: Path, error: OSError) -> SetupProblem:
    """That a file of a run cannot be written, as a sentence."""
    return SetupProblem(
        f"cannot write the run's folder {path} ({error.strerror})",
        "free or open it, or set OBLIVIOUS_HOME to a folder you can write",
    )
