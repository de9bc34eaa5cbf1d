"""Removes runs and studies that are no longer wanted; never one that lives or that one which stays came from."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from obl_magic.errors import OblError, SetupProblem, UsageProblem
from obl_magic.rundir import RunDir, StudyDir, existing, existing_studies, readable
from obl_magic.rundir.record import RunRecord
from obl_magic.runs.run import glance
from obl_magic.study.find import open_results

DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Prunable:
    """A run or a study that is to be removed.

    Attributes:
        path: its folder.
        size_bytes: of all its files.
    """

    path: Path
    size_bytes: int


def prunable(keep: int | None = None, older_days: float | None = None) -> list[Prunable]:
    """What would be removed, newest first. A trial goes with its study.

    Args:
        keep: so many of the newest stay.
        older_days: what began fewer days ago stays. Given both, either lets it stay.

    Raises:
        UsageProblem: neither is given, or one is less than 0.
    """
    if keep is None and older_days is None:
        raise UsageProblem(
            "%oblivious prune without saying what stays",
            "--keep N (the newest) or --older DAYS, or both",
            "%oblivious prune --keep 20 --dry-run",
        )
    for name, value in (("keep", keep), ("older", older_days)):
        if value is not None and value < 0:
            raise UsageProblem(f"--{name} {value}", "0 or more", f"--{name} 20")
    folders: list[RunDir | StudyDir] = [*existing(), *existing_studies()]
    folders.sort(key=lambda folder: folder.id, reverse=True)
    now_s, needed, found = time.time(), set[str](), []
    for number, folder in enumerate(folders):  # whatever a run came from is older than the run
        stays = number < (keep or 0) or (
            older_days is not None and now_s - _began_s(folder) < older_days * DAY_S
        )
        if stays or folder.id in needed or _lives(folder):
            needed |= {_unit(source) for source in _sources(readable(folder))}
        else:
            found.append(Prunable(folder.path, sum(map(_size, folder.path.rglob("*")))))
    return found


def remove(found: Iterable[Prunable]) -> None:
    """Removes them.

    Raises:
        SetupProblem: a folder cannot be removed; those before it are gone.
    """
    for each in found:
        try:
            shutil.rmtree(each.path)
        except OSError as error:
            raise SetupProblem(
                f"cannot remove {error.filename or each.path} ({error.strerror})", f"rm -r {each.path}"
            ) from error


def told(found: Iterable[Prunable]) -> str:
    """One line each, with sizes, and how much it is together."""
    found = list(found)
    lines = [f"{each.path.name}  {_in_words(each.size_bytes)}" for each in found]
    total = _in_words(sum(each.size_bytes for each in found))
    return "\n".join([*lines, f"together {len(found)} folder{'' if len(found) == 1 else 's'}, {total}"])


def _began_s(folder: RunDir | StudyDir) -> float:
    try:
        return datetime.strptime(folder.id.rpartition("-")[0], "%Y%m%d-%H%M%S").timestamp()
    except ValueError:
        return folder.manifest.stat().st_mtime


def _lives(folder: RunDir | StudyDir) -> bool:
    try:
        status = glance(folder)[0] if isinstance(folder, RunDir) else open_results(folder).status
    except OblError:
        return False
    return status == "running"


def _sources(record: RunRecord | None) -> Iterator[str]:
    for source in (record.lineage if record else {}).values():
        yield from filter(None, (source.get("run"), source.get("study")))


def _unit(run_id: str) -> str:
    """What is removed as a whole: a run, or the study of a trial (``<study>-007``)."""
    return "-".join(run_id.split("-")[:3])


def _size(path: Path) -> int:
    return path.lstat().st_size


def _in_words(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"
