"""What somebody else may have written is refused by name before a byte of it is read, and never kept among our own."""

from __future__ import annotations

import os
import pickle
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import obl_magic
from obl_magic.errors import OblError, SetupProblem, UsageProblem
from obl_magic.export import export
from obl_magic.rundir import trust
from obl_magic.runs.run import Run

ANOTHER = 12345
"""A user who is not here."""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


class Planted:
    """A pickle that leaves a mark where it is loaded."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def train() -> float:
    """A run that succeeds."""
    return 0.5


def fails() -> None:
    """One that does not."""
    raise ValueError("here")


def _writable_folder(run: Path) -> Path:
    run.chmod(0o777)
    return run


def _writable_file(run: Path) -> Path:
    pickled = next(run.glob("*.pkl"))
    pickled.chmod(0o666)
    return pickled


def _writable_folder_above(run: Path) -> Path:
    run.parent.chmod(0o777)
    return run.parent


def _foreign_folder(run: Path) -> Path:
    os.chown(run, ANOTHER, ANOTHER)
    return run


def _foreign_file(run: Path) -> Path:
    pickled = next(run.glob("*.pkl"))
    os.chown(pickled, ANOTHER, ANOTHER)
    return pickled


def _foreign_folder_above(run: Path) -> Path:
    os.chown(run.parent, ANOTHER, ANOTHER)
    return run.parent


WAYS = [
    _writable_folder,
    _writable_file,
    _writable_folder_above,
    *(
        pytest.param(way, marks=as_root)
        for way in (_foreign_folder, _foreign_file, _foreign_folder_above)
    ),
]  # fmt: skip


@pytest.fixture
def copied(home: Path, tmp_path: Path) -> Callable[[Callable[..., Any]], Path]:
    """A run's folder elsewhere, with planted pickles in place of all that it holds."""

    def make(fn: Callable[..., Any]) -> Path:
        try:
            run = obl_magic.run(fn, quiet=True)
        except ValueError as error:
            run = error.run  # type: ignore[attr-defined]
        folder = tmp_path / "shared" / run.id
        shutil.copytree(run.dir, folder)
        folder.parent.chmod(0o755)
        planted = pickle.dumps(Planted(tmp_path / "mark"))
        for name in ("value-0.pkl", "error-0.pkl", "job.pkl", "weights.npz", "checkpoints/fit-1.pkl"):
            (folder / name).parent.mkdir(mode=0o700, exist_ok=True)
            (folder / name).write_bytes(planted)
            (folder / name).chmod(0o600)
        return folder

    return make


DOORS: dict[str, Callable[[Path], Any]] = {
    "value": lambda folder: Run.open(str(folder)).value,
    "values": lambda folder: Run.open(str(folder)).values,
    "init_from": lambda folder: obl_magic.run(train, init_from=str(folder), quiet=True),
    "init_from a run": lambda folder: obl_magic.run(train, init_from=Run.open(str(folder)), quiet=True),
    "resume": lambda folder: obl_magic.run(train, resume=str(folder), quiet=True),
    "export": lambda folder: export(str(folder), str(folder.parent / "train.py")),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("door", DOORS)
def test_what_others_may_have_written_is_not_read(
    door: str, way: Callable[[Path], Path], copied: Callable[[Callable[..., Any]], Path], tmp_path: Path
) -> None:
    """Whoever owns or can write the folder, a file in it, or a folder above; the path is named."""
    folder = copied(train)
    culprit = way(folder)
    with pytest.raises(UsageProblem) as refused:
        DOORS[door](folder)
    assert not (tmp_path / "mark").exists()
    said = str(refused.value)
    assert f"others can write {culprit};" in said or f"{culprit} belongs to user {ANOTHER};" in said
    assert "files that only you can write, since reading them runs what they hold" in said
    assert ("trust=True" in said) or (door == "resume" and f"copy it: cp -r {folder}" in said)


def test_an_error_of_others_is_not_read(copied: Callable[[Callable[..., Any]], Path], tmp_path: Path) -> None:
    """The run can be looked at, its text is there; its pickled exception is not loaded."""
    folder = copied(fails)
    folder.chmod(0o777)
    run = Run.open(str(folder))
    assert run.status == "failed"
    with pytest.raises(UsageProblem, match=r"the error of .* others can write"):
        _ = run.error
    assert not (tmp_path / "mark").exists()


def test_who_knows_whose_it_is_says_so(home: Path, tmp_path: Path) -> None:
    """``trust=True`` reads it, and what the advice says mends it."""
    made = obl_magic.run(train, quiet=True)
    folder = tmp_path / made.id
    shutil.copytree(made.dir, folder)
    folder.chmod(0o777)
    assert Run.open(str(folder), trust=True).value == 0.5
    folder.chmod(stat.S_IMODE(folder.stat().st_mode) & ~0o022)
    assert Run.open(str(folder)).value == 0.5


def test_a_search_of_others_is_not_gone_on_with(home: Path) -> None:
    """Its journal and its trials may be anybody's."""

    def score(x: float = 0.0) -> float:
        return x

    study = obl_magic.search(score, "x=float(0,1)", trials=1, maximize="value", quiet=True)
    trust._MADE.clear()  # as in another kernel
    study.folder.path.chmod(0o777)
    with pytest.raises(UsageProblem, match=r"resume=.* others can write .*chmod go-w .*copy it: cp -r"):
        obl_magic.search(score, resume=study.id, trials=2, quiet=True)
    study.folder.path.chmod(0o700)
    assert len(obl_magic.search(score, resume=study.id, trials=2, quiet=True).trials) == 2


@pytest.mark.parametrize("which", [".", "runs"])
def test_runs_are_not_kept_where_others_can_change_them(home: Path, which: str) -> None:
    """The command that mends it is named, and it does."""
    obl_magic.run(train, quiet=True)
    (home / which).chmod(0o777)
    with pytest.raises(
        SetupProblem, match=f"others can write .*; do: chmod go-w {(home / which)}, or set OBLIVIOUS_HOME"
    ):
        obl_magic.run(train, quiet=True)
    (home / which).chmod(0o755)
    assert obl_magic.run(train, quiet=True).value == 0.5


@as_root
def test_runs_are_not_kept_in_a_folder_of_somebody_else(home: Path) -> None:
    """Its owner could change them."""
    home.mkdir(exist_ok=True)
    os.chown(home, ANOTHER, ANOTHER)
    with pytest.raises(
        OblError, match=f"belongs to user {ANOTHER}; do: set OBLIVIOUS_HOME to a folder of your own"
    ):
        obl_magic.run(train, quiet=True)


def test_a_home_is_private_under_any_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``.oblivious`` itself, too."""
    monkeypatch.delenv("OBLIVIOUS_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    before = os.umask(0)
    try:
        obl_magic.run(train, quiet=True)
    finally:
        os.umask(before)
    made = [tmp_path / ".oblivious", *(tmp_path / ".oblivious").rglob("*")]
    assert [path for path in made if path.is_dir() and path.stat().st_mode & 0o077] == []


def test_a_shared_sticky_folder_above_is_no_danger(home: Path, tmp_path: Path) -> None:
    """In /tmp others can add files, but replace none of ours."""
    made = obl_magic.run(train, quiet=True)
    folder = tmp_path / "sticky" / made.id
    shutil.copytree(made.dir, folder)
    folder.parent.chmod(0o1777)
    assert Run.open(str(folder)).value == 0.5
