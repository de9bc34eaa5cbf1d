"""A job's large arrays reach every rank, with one copy on a host, whether its ranks see the file or not."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from obl_magic.hosts.cores import cores
from obl_magic.launchers import mpirun
from obl_magic.payload import buffers
from obl_magic.world.process import is_root

pytestmark = [pytest.mark.slow, pytest.mark.timing]

SIZE = 16 << 20
ARRAYS = [np.full(SIZE, 3, "uint8"), np.full(100, 5, "uint8")]
PROGRAM = Path(__file__).with_name("receive_program.py")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The arrays of a job."""
    path = tmp_path / "job.bin"
    path.write_bytes(b"".join(bytes(part) for part in buffers.parts(map(pickle.PickleBuffer, ARRAYS))))
    return path


def ranks(file: Path, blind: str, chunk_bytes: int = 3_000_001) -> list[dict[str, Any]]:
    """What three ranks found, of which the blind ones do not see the file."""
    program = [sys.executable, str(PROGRAM), str(file), blind, str(chunk_bytes)]
    launcher = mpirun.require()
    argv = mpirun.command(launcher, 3, program, cores=cores(), root=is_root())
    env = mpirun.environment(launcher, os.environ, ranks=3, cores=cores(), engine="mpi")
    done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    return sorted(told, key=lambda each: int(each["rank"]))


@pytest.mark.parametrize(
    ("blind", "sharing"), [("", (3, 3, 3)), ("1,2", (1, 2, 2)), ("2", (2, 2, 1))], ids=["none", "two", "one"]
)
def test_ranks_share_one_copy_until_they_write(file: Path, blind: str, sharing: tuple[int, ...]) -> None:
    """Ranks that see the file share its pages; those that do not share what was sent to one of them."""
    told = ranks(file, blind)
    assert [each["sums"] for each in told] == [[3 * SIZE, 500]] * 3
    for each, among in zip(told, sharing, strict=True):
        assert each["shared"] == pytest.approx(SIZE / among, rel=0.05)
        assert each["own"]
        assert each["dirty"] == pytest.approx(SIZE, rel=0.05)


def test_a_job_without_large_arrays_has_no_file(tmp_path: Path) -> None:
    """Nothing is waited for."""
    assert [each["sums"] for each in ranks(tmp_path / "none", "")] == [[], [], []]
