"""Finds earlier studies by what a user calls them. Changes nothing."""

from __future__ import annotations

from obl_magic.errors import UsageProblem
from obl_magic.rundir import StudyDir, existing_studies, readable
from obl_magic.rundir.record import StudyRecord
from obl_magic.study.ablation_result import AblationResult
from obl_magic.study.search_result import Study


def open_results(name: str | StudyDir) -> Study | AblationResult:
    """An earlier study by its id, by the beginning or end of its id, or by the name that ``--out`` gave it.

    Raises:
        UsageProblem: there is no such study, more than one, or its record is damaged.
    """
    folder = name if isinstance(name, StudyDir) else _find(name)
    kind = folder.record().kind
    return (Study if kind == "search" else AblationResult).open(folder)


def is_search(folder: StudyDir) -> bool:
    """Whether a folder holds a search that can be read."""
    record = readable(folder)
    return isinstance(record, StudyRecord) and record.kind == "search"


def is_study(name: str) -> bool:
    """Whether a name means a study."""
    try:
        _find(name)
    except UsageProblem:
        return False
    return True


def _find(name: str) -> StudyDir:
    folders = existing_studies()
    found = [each for each in folders if each.id == name]
    found = found or [each for each in folders if each.id.startswith(name) or each.id.endswith(name)]
    if not found:  # a name may have been given to many; the newest is meant, as in a notebook
        found = [each for each in folders if getattr(readable(each), "out", None) == name][-1:]
    if len(found) == 1:
        return found[0]
    known = ", ".join(each.id for each in folders[-3:]) or "none"
    what = "no study of that name" if not found else f"{len(found)} studies of that id"
    raise UsageProblem(
        f"study {name!r} ({what})",
        f"the id of one study, or its --out; the newest: {known}",
        "%oblivious runs",
    )
