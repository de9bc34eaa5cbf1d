"""Old runs are removed after they were shown; none that lives, and none that one which stays came from."""

from __future__ import annotations

from pathlib import Path

import pytest

import obl_magic
from obl_magic.errors import UsageProblem
from obl_magic.notebook import commands
from obl_magic.notebook.prune import prunable
from obl_magic.rundir import RunDir, existing
from obl_magic.runs.owner import this_process

pytestmark = pytest.mark.timing


def train(lr: float = 0.1) -> float:
    """A function to run."""
    return lr


def aged(run: RunDir, name: str) -> RunDir:
    """A run's folder as if it had begun at another time."""
    older = RunDir(run.path.with_name(name))
    run.path.rename(older.path)
    return older


@pytest.fixture
def three(home: Path) -> list[RunDir]:
    """Three runs of other days, oldest first."""
    made = [RunDir(obl_magic.run(train, quiet=True).dir) for _ in range(3)]
    return [aged(run, f"2020010{n}-120000-00000{n}") for n, run in enumerate(made, 1)]


def names(keep: int | None = None, older_days: float | None = None) -> list[str]:
    """What would go."""
    return [each.path.name for each in prunable(keep, older_days)]


def test_the_newest_stay(three: list[RunDir]) -> None:
    """As many as asked for."""
    assert names(keep=3) == []
    assert names(keep=1) == [three[1].id, three[0].id]
    assert names(keep=0) == [run.id for run in reversed(three)]


def test_the_young_stay(three: list[RunDir]) -> None:
    """By the time in their ids."""
    young = obl_magic.run(train, quiet=True)
    assert names(older_days=1) == [run.id for run in reversed(three)]
    assert names(keep=2, older_days=1) == [three[1].id, three[0].id]
    assert young.id not in names(older_days=0.5)


@pytest.mark.parametrize("params", ["run", "search"])
def test_what_a_run_that_stays_came_from_stays(home: Path, params: str) -> None:
    """Also the search whose trial gave it its parameters; once the run goes, so does that."""
    if params == "run":
        source = obl_magic.run(train, args={"lr": 0.2}, quiet=True)
        origin = source.id
    else:
        study = obl_magic.search(train, "lr=float(0,1)", trials=2, maximize="value", quiet=True)
        source, origin = study, study.id
    other = obl_magic.run(train, quiet=True)
    run = obl_magic.run(train, params=source, quiet=True)
    assert origin in names(keep=0)
    newest = aged(RunDir(run.dir), "20990101-000000-ffffff")
    assert names(keep=1) == [other.id]
    assert set(names(keep=0)) == {newest.id, other.id, origin}


def test_a_run_that_lives_stays(three: list[RunDir]) -> None:
    """Here one that this process is said to conduct, whose log has no end."""
    record = three[0].record()
    three[0].write_json(three[0].manifest, {**record.in_json, "kernel": this_process()})
    events = three[0].events.read_text().splitlines(keepends=True)
    three[0].events.write_text("".join(line for line in events if '"ended"' not in line))
    three[0].summary.unlink()
    assert names(keep=0) == [three[2].id, three[1].id]


def test_the_line_shows_what_and_how_much_and_removes_it(
    three: list[RunDir], capsys: pytest.CaptureFixture[str]
) -> None:
    """``--dry-run`` shows the same and removes nothing."""
    size = sum(path.lstat().st_size for path in three[0].path.rglob("*"))
    said = f"{three[0].id}  {size / 1e6:.1f} MB\ntogether 1 folder, {size / 1e6:.1f} MB\n"
    assert repr(commands.line_magic(["prune"], 0, keep=2, dry_run=True)) == "nothing was removed (--dry-run)"
    assert capsys.readouterr().out == said
    assert three[0].path.is_dir()
    assert repr(commands.line_magic(["prune"], 0, keep=2)) == "removed"
    assert capsys.readouterr().out == said
    assert existing() == three[1:]
    assert repr(commands.line_magic(["prune"], 0, keep=2)) == "nothing to remove"


def test_nothing_is_removed_where_nobody_said_what_stays(three: list[RunDir]) -> None:
    """A slip of the keys must not cost every run."""
    for asked in ({}, {"keep": -1}, {"older_days": -2.0}):
        with pytest.raises(UsageProblem, match=r"--(keep|older)"):
            commands.line_magic(["prune"], 0, **asked)
    with pytest.raises(UsageProblem, match="prune everything; expected --keep N or --older DAYS"):
        commands.line_magic(["prune", "everything"], 0)
    assert existing() == three


def test_a_damaged_run_can_be_removed(three: list[RunDir]) -> None:
    """Nobody can run it, and nothing is known of what it came from."""
    three[0].manifest.write_text("")
    assert names(keep=1) == [three[1].id, three[0].id]
