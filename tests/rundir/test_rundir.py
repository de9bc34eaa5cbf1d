"""Run folders: private, never reused, never half written, honest about what cannot be written."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
import sys
import threading
from datetime import datetime
from pathlib import Path

import pytest

from obl_magic import rundir
from obl_magic.errors import SetupProblem

NOON = datetime(2025, 1, 2, 12, 0, 0)


DISK_FULL_AFTER_1000_BYTES = """
import pathlib, resource, signal, sys
from obl_magic import errors, rundir
folder = rundir.create(pathlib.Path(sys.argv[1]))
folder.write_bytes(folder.value(0), b"old")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    folder.write_bytes(folder.value(0), b"x" * 5000)
except errors.SetupProblem as problem:
    print(problem)
"""
"""In a process of its own: the limit holds for whatever this one's standard output is, too."""


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_a_run_is_private_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    """0700 for the folder; its files are the owner's alone."""
    before = os.umask(umask)
    try:
        folder = rundir.create(tmp_path / "new" / "home")
        folder.write_bytes(folder.value(0), b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.value(0).stat().st_mode) == 0o600


def test_runs_of_the_same_moment_have_folders_of_their_own(tmp_path: Path) -> None:
    """Also from several threads at once."""
    made: list[rundir.RunDir] = []
    threads = [
        threading.Thread(target=lambda: made.extend(rundir.create(tmp_path, NOON) for _ in range(50)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({folder.id for folder in made}) == 200


def test_an_id_that_is_taken_is_never_taken_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even when chance repeats itself, the older run stays as it is."""
    draws = iter(["aaaaaa", "aaaaaa", "aaaaaa", "bbbbbb"])
    monkeypatch.setattr(rundir.secrets, "token_hex", lambda size: next(draws))
    first = rundir.create(tmp_path, NOON)
    first.write_bytes(first.source, b"mine")
    second = rundir.create(tmp_path, NOON)
    assert (first.id, second.id) == ("20250102-120000-aaaaaa", "20250102-120000-bbbbbb")
    assert first.source.read_bytes() == b"mine"
    assert list(second.path.iterdir()) == []


def test_no_reader_sees_half_a_file(tmp_path: Path) -> None:
    """While a file is replaced over and over, every read finds one whole version of it."""
    folder = rundir.create(tmp_path)
    versions = [bytes([65 + i]) * 300_000 for i in range(2)]
    folder.write_bytes(folder.job, versions[0])
    done = threading.Event()

    def write() -> None:
        for turn in range(60):
            folder.write_bytes(folder.job, versions[turn % 2])
        done.set()

    writer = threading.Thread(target=write)
    writer.start()
    seen = set()
    while not done.is_set():
        seen.add(folder.job.read_bytes())
    writer.join()
    assert seen <= set(versions)
    assert [path.name for path in folder.path.iterdir()] == ["job.pkl"]


def test_a_full_disk_is_named_and_leaves_the_old_file(tmp_path: Path) -> None:
    """Neither half a file, nor a file beside it, nor a traceback about a temporary name."""
    said = subprocess.run(
        [sys.executable, "-c", DISK_FULL_AFTER_1000_BYTES, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout
    assert re.search(r"cannot write the run's folder .*value-0\.pkl \(File too large\)", said)
    (folder,) = tmp_path.glob("runs/*")
    assert (folder / "value-0.pkl").read_bytes() == b"old"
    assert [path.name for path in folder.iterdir()] == ["value-0.pkl"]


def test_a_run_folder_that_went_away_is_named(tmp_path: Path) -> None:
    """Somebody deleted it while the run was on."""
    folder = rundir.create(tmp_path)
    folder.path.rmdir()
    with pytest.raises(SetupProblem, match=r"cannot write the run's folder .*value-0\.pkl \(No such file"):
        folder.write_bytes(folder.value(0), b"x")


def test_a_home_that_cannot_be_written_is_named_with_the_way_out(tmp_path: Path) -> None:
    """A file where the folder should be stops everybody, the superuser too."""
    (tmp_path / "file").write_text("")
    with pytest.raises(
        SetupProblem,
        match=r"cannot write the run's folder .*file/runs \(Not a directory\); "
        r"do: free or open it, or set OBLIVIOUS_HOME to a folder you can write",
    ):
        rundir.create(tmp_path / "file")


def test_runs_live_beside_the_notebook_or_where_the_user_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``OBLIVIOUS_HOME`` wins, knows ``~``, and an empty one says nothing."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert rundir.home({}, tmp_path) == tmp_path / ".oblivious"
    assert rundir.home({"OBLIVIOUS_HOME": ""}, tmp_path) == tmp_path / ".oblivious"
    assert rundir.home({"OBLIVIOUS_HOME": "~/runs"}) == tmp_path / "runs"
    monkeypatch.chdir(tmp_path)
    assert rundir.home({"OBLIVIOUS_HOME": "here"}) == tmp_path / "here"
    assert rundir.home({}) == tmp_path / ".oblivious"


def test_the_home_of_the_environment_is_used(home: Path) -> None:
    """Without arguments, a run is made where ``OBLIVIOUS_HOME`` says."""
    assert rundir.create().path.parent == home / "runs"


def test_runs_are_listed_oldest_first_also_within_a_second(tmp_path: Path) -> None:
    """And only those that got as far as having a manifest."""
    made = [rundir.create(tmp_path, NOON) for _ in range(6)]
    for nth, folder in enumerate(made[:-1]):
        folder.write_json(folder.manifest, {})
        os.utime(folder.manifest, ns=(nth, nth))
    later = rundir.create(tmp_path, datetime(2025, 1, 2, 12, 0, 1))
    later.write_json(later.manifest, {})
    os.utime(later.manifest, ns=(0, 0))
    assert rundir.existing(tmp_path) == [*made[:-1], later]
    assert rundir.existing(tmp_path / "nowhere") == []


def test_logs_have_a_file_a_rank_and_one_for_the_launcher(tmp_path: Path) -> None:
    """Invalid bytes in a log can be read all the same."""
    folder = rundir.create(tmp_path)
    assert (folder.log(3).name, folder.log(-1).name) == ("rank-3.log", "launcher.log")
    assert folder.read_log(3) == ""
    folder.log(3).write_bytes(b"ok \xff\n")
    assert folder.read_log(3) == "ok \ufffd\n"


def test_a_record_is_json_whatever_it_holds(tmp_path: Path) -> None:
    """What JSON does not know is written as text."""
    folder = rundir.create(tmp_path)
    folder.write_json(folder.manifest, {"where": Path("/x"), "n": 1})
    assert json.loads(folder.manifest.read_text()) == {"where": "/x", "n": 1}


def test_what_stays_of_a_run_is_on_the_disk_when_it_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file, and the names in the folder and beside it: a power cut loses no finished run."""
    folder = rundir.create(tmp_path)
    folder.write_bytes(folder.job, b"job")
    folder.write_json(folder.manifest, {})
    folder.write_bytes(folder.value(0), b"value")
    synced: list[str] = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda at: (synced.append(os.readlink(f"/proc/self/fd/{at}")), real(at)))
    folder.tidy()
    expected = {folder.manifest, folder.value(0), folder.path, folder.path.parent}
    assert set(synced) == {str(path.resolve()) for path in expected}
