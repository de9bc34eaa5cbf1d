"""The only file that names the files of a run or a study. A run never deletes or overwrites another.

``.oblivious/runs/<id>/`` beside the notebook, or ``$OBLIVIOUS_HOME/runs/<id>/``; private (0700).
Studies lie beside, in ``studies/<id>/``.
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

from obl_magic.errors import Damaged, SetupProblem
from obl_magic.rundir import trust
from obl_magic.rundir.record import RunRecord, StudyRecord


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
    def is_trial(self) -> bool:
        """Whether it is one of a study's."""
        return self.path.parent.name == "trials"

    @property
    def events(self) -> Path:
        """The event log, JSON lines: the truth about the run."""
        return self.path / "events.jsonl"

    @property
    def job(self) -> Path:
        """The pickled job that rank 0 reads, while the run lasts; its large arrays lie in ``job.bin`` beside it."""
        return self.path / "job.pkl"

    @property
    def changes(self) -> Path:
        """Of a trial: the pickled fields in which its job differs from the one that all trials share."""
        return self.path / "changes.pkl"

    @property
    def source(self) -> Path:
        """The function's source, exactly as written."""
        return self.path / "function.py"

    @property
    def manifest(self) -> Path:
        """Arguments, options, environment, seed, digest, captured names (JSON)."""
        return self.path / "run.json"

    def record(self) -> RunRecord:
        """What is known of the run; see :meth:`RunRecord.read`."""
        return RunRecord.read(self.manifest)

    @property
    def logs(self) -> list[Path]:
        """What grows while the run lasts, and what stands there when it begins."""
        return [self.manifest, self.events]

    @property
    def summary(self) -> Path:
        """How the run ended (JSON), so that a table of many runs need not read their events."""
        return self.path / "summary.json"

    @property
    def scratch(self) -> Path:
        """Files that frameworks generate while the run lasts; gone afterwards."""
        return self.path / "scratch"

    def tidy(self) -> None:
        """Removes what only a run under way needs; sees the rest onto the disk, where no power cut undoes it."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        with contextlib.suppress(OSError):
            for path in (self.job, buffers_of(self.job), self.changes):
                path.unlink(missing_ok=True)
            for stacks in self.path.glob("stacks-*.txt"):
                if not stacks.stat().st_size:
                    stacks.unlink()
            for path in (*self.path.iterdir(), *self.path.glob("checkpoints/*"), self.path, self.path.parent):
                _onto_the_disk(path)

    def log(self, rank: int) -> Path:
        """What a rank wrote; ``launcher.log`` for rank -1."""
        return self.path / ("launcher.log" if rank < 0 else f"rank-{rank}.log")

    def stacks(self, rank: int) -> Path:
        """The stacks of all threads of a rank that stood still."""
        return self.path / f"stacks-{rank}.txt"

    def checkpoint(self, fit: int) -> Path:
        """What is kept of the function's n-th fit, from 1; 0: of its loop by hand."""
        return self.path / "checkpoints" / f"fit-{fit}.pkl"

    @property
    def weights(self) -> Path:
        """The model's weights at its best epoch, a NumPy archive that another run can begin from."""
        return self.path / "weights.npz"

    @property
    def has_checkpoints(self) -> bool:
        """Whether anything is kept of the function's fits."""
        return any(self.path.glob("checkpoints/fit-*.pkl"))

    def kept_s(self) -> float:
        """Unix time in seconds at which an epoch was kept last; 0 where none was."""
        found = [path.stat().st_mtime for path in self.path.glob("checkpoints/fit-*.pkl")]
        return max(found, default=0.0)

    def take_checkpoints_of(self, other: RunDir) -> int:
        """Copies what another run has kept of its fits; how many there were."""
        found = sorted(other.path.glob("checkpoints/fit-*.pkl"))
        if found:
            self.checkpoint(1).parent.mkdir(mode=0o700, exist_ok=True)
        for path in found:
            shutil.copy2(path, self.checkpoint(1).parent)
        if found and other.weights.is_file():
            shutil.copy2(other.weights, self.weights)
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


@dataclass(frozen=True, slots=True)
class StudyDir:
    """Names of the files of one study: a search or an ablation, and the runs that are its trials.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def id(self) -> str:
        """The study's id, which is the folder's name."""
        return self.path.name

    @property
    def shared(self) -> RunDir:
        """Where lies what all trials have in common: the job, the function's source."""
        return RunDir(self.path)

    @property
    def manifest(self) -> Path:
        """What was asked for, and what became of it (JSON)."""
        return self.path / "study.json"

    def record(self) -> StudyRecord:
        """What is known of the study; see :meth:`RunRecord.read`."""
        return StudyRecord.read(self.manifest)

    @property
    def logs(self) -> list[Path]:
        """What grows while the study lasts, its trials' logs among it, and what stands there when it begins."""
        return [self.manifest, self.rows, *self.path.glob("trials/*/events.jsonl")]

    @property
    def journal(self) -> Path:
        """Optuna's own journal of the search."""
        return self.path / "optuna.journal"

    @property
    def held(self) -> Path:
        """Locked by the process that conducts the study, as long as it does."""
        return self.path / ".held"

    @property
    def rows(self) -> Path:
        """One line of JSON for each trial that has ended."""
        return self.path / "trials.jsonl"

    def trial(self, number: int) -> RunDir:
        """The folder of a trial, which is a run; its id begins with the study's."""
        return RunDir(self.path / "trials" / f"{self.id}-{number:03d}")

    def new_trial(self, number: int) -> RunDir:
        """Makes the folder of a trial.

        Raises:
            SetupProblem: the folder cannot be written.
        """
        folder = self.trial(number)
        try:
            folder.path.parent.mkdir(mode=0o700, exist_ok=True)
            folder.path.mkdir(mode=0o700)
            trust.made(folder.path)
        except OSError as error:
            raise unwritable(folder.path, error) from error
        return folder

    def trials(self) -> list[RunDir]:
        """The trials that were written down, by number."""
        found = (RunDir(path.parent) for path in self.path.glob("trials/*/run.json"))
        return sorted(found, key=lambda run: int(run.id.rpartition("-")[2]))


def create(where: Path | None = None, now: datetime | None = None) -> RunDir:
    """A new, empty, private run folder with an id that no other run has.

    Raises:
        SetupProblem: the folder cannot be written, or others can write it, too.
    """
    return RunDir(_new_folder((where or home()) / "runs", now))


def create_study(where: Path | None = None, now: datetime | None = None) -> StudyDir:
    """As :func:`create`, for a study.

    Raises:
        SetupProblem: the folder cannot be written.
    """
    return StudyDir(_new_folder((where or home()) / "studies", now))


def _new_folder(among: Path, now: datetime | None) -> Path:
    stamp = (now or datetime.now()).strftime("%Y%m%d-%H%M%S")
    try:
        with contextlib.suppress(FileExistsError):
            among.parent.mkdir(parents=True, mode=0o700)
        among.mkdir(exist_ok=True, mode=0o700)
        for folder in (among.parent, among):
            trust.refuse_open(folder)
        while True:
            path = among / f"{stamp}-{secrets.token_hex(3)}"
            try:
                path.mkdir(mode=0o700)
                trust.made(path)
                return path
            except FileExistsError:
                continue
    except OSError as error:
        raise unwritable(among, error) from error


def existing(where: Path | None = None) -> list[RunDir]:
    """All runs of a home, oldest first."""
    runs = (where or home()) / "runs"
    if not runs.is_dir():
        return []
    return sorted((RunDir(path) for path in runs.iterdir() if (path / "run.json").is_file()), key=_age)


def existing_studies(where: Path | None = None) -> list[StudyDir]:
    """All studies of a home, oldest first."""
    folders = (StudyDir(path.parent) for path in ((where or home()) / "studies").glob("*/study.json"))
    return sorted(folders, key=_age)


def with_jobs(where: Path | None = None) -> list[RunDir]:
    """The runs of a home that still have their job on disk, and what studies share: each begins by looking for them."""
    job = RunDir(Path()).job
    found = {
        path.parent
        for kind in ("runs", "studies")
        for file in (job.name, buffers_of(job).name)
        for path in (where or home()).glob(f"{kind}/*/{file}")
    }
    return [RunDir(path) for path in sorted(found)]


def _age(folder: RunDir | StudyDir) -> tuple[str, int]:
    """Orders runs by the second in their id, and within it by when they were written down."""
    return folder.id.rpartition("-")[0], folder.manifest.stat().st_mtime_ns


def _onto_the_disk(path: Path) -> None:
    """Waits until a file or a folder's list of names is on the disk itself."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def buffers_of(pickle: Path) -> Path:
    """Where the large arrays of a pickled file lie: beside it."""
    return pickle.with_suffix(".bin")


def private(path: str, flags: int) -> int:
    """Opens a file that only the user may read, whatever the umask; an ``opener`` for :func:`open`."""
    return os.open(path, flags, 0o600)


def readable(folder: RunDir | StudyDir) -> RunRecord | StudyRecord | None:
    """The record of a run or a study; None if it is damaged, which is named where the run or study is asked for."""
    try:
        return folder.record()
    except Damaged:
        return None


def unwritable(path: Path, error: OSError) -> SetupProblem:
    """That a file of a run cannot be written, as a sentence."""
    return SetupProblem(
        f"cannot write the run's folder {path} ({error.strerror or error})",
        "free or open it, or set OBLIVIOUS_HOME to a folder you can write",
    )
