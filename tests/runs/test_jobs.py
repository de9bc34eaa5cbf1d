"""What this process remembers of its runs' jobs, when their files are gone."""

from __future__ import annotations

from pathlib import Path

import pytest

import obl_magic
from obl_magic.runs.jobs import Jobs


def written(folder: Path, name: str, size: int) -> Path:
    """A job of that size."""
    file = folder / name
    file.write_bytes(name[:1].encode() * size)
    return file


def test_the_oldest_go_first(tmp_path: Path) -> None:
    """And what is larger than all of it together is never kept."""
    jobs = Jobs(most_bytes=100)
    for name in ("a.pkl", "b.pkl", "c.pkl"):
        jobs.keep(name, written(tmp_path, name, 40))
    jobs.keep("d.pkl", written(tmp_path, "d.pkl", 101))
    assert [jobs.of(f"{name}.pkl") for name in "abcd"] == [None, b"b" * 40, b"c" * 40, None]


def test_a_job_with_large_arrays_is_not_kept(tmp_path: Path) -> None:
    """Its pickle alone says little."""
    jobs = Jobs()
    file = written(tmp_path, "job.pkl", 10)
    written(tmp_path, "job.bin", 10)
    jobs.keep("run", file)
    assert jobs.of("run") is None


@pytest.mark.slow
def test_no_job_stays_on_disk(home: Path) -> None:
    """Of a run that ended well or badly, a search with its trials, and an ablation."""

    def train(lr: float = 0.1, loud: bool = False) -> dict[str, float]:
        if lr > 5:
            raise ValueError(lr)
        return {"loss": lr + loud}

    obl_magic.run(train, workers=2, engine="mpi", quiet=True)
    with pytest.raises(ValueError, match="9"):
        obl_magic.run(train, workers=1, engine="mpi", args={"lr": 9}, quiet=True)
    obl_magic.search(train, "lr=float(0,1)", trials=2, minimize="loss", workers=2, engine="mpi", quiet=True)
    obl_magic.ablate(train, "flags=loud", minimize="loss", workers=1, engine="mpi", quiet=True)
    left = [path.name for path in home.rglob("*") if path.name.startswith(("job", "changes"))]
    assert left == []
    assert len(list(home.rglob("run.json"))) == 2 + 2 + 2
