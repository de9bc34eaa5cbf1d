"""What holds for every test: nothing is left behind; and the fixtures that many rooms share."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import uuid
import zlib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from hypothesis import settings

from obl_magic.errors import SetupProblem
from obl_magic.setup import doctor

settings.register_profile("obl", deadline=None)  # a busy machine is not a failure
settings.load_profile("obl")

TREE = Path(__file__).parents[1]
SHM = Path("/dev/shm")
MARK = "OBL_TEST_GUARD"
GOING_S = 1.0
"""How long a process may still be on its way out when its test has ended."""
SHM_GOING_S = 10.0
"""How long shared memory may be there that no process has mapped: of worlds of tests that run beside this one, too."""

_ALONE = re.compile(r"sm_segment\..*0000\.\d+$")
"""Shared memory of a process that used MPI without a launcher: of no world."""
_OF_JOBLIB = re.compile(r"joblib_memmapping_folder_(\d+)_")
_CACHES = {".git", "__pycache__", "build", "dist", "node_modules"}
_NOT_CACHES = {".oblivious", ".ci"}
_WRITTEN_BY_PEOPLE = {".py", ".md", ".cfg", ".toml", ".ipynb", ".txt", ".yml", ".pyi"}
"""Somebody may be writing sources in this checkout while its tests run."""


LONGEST = (
    "parity/test_parity",
    "browser/",
    "test_notebooks",
    "parity/test_mutations",
    "keras_conformance/",
    "faults/",
)
"""Tests that take minutes come first, so that none is left for one process alone at the end."""


PARTS = 8
"""A landing (``OBL_PART=K``) tries every eighth of a file's tests marked ``slow`` or ``timing``, eight in a row all."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What takes longest comes first, and in turn. Where CI is set, tests marked ``timing`` have a second try.

    Both outcomes are told; no other test has one.
    """
    items.sort(key=_turn)
    if part := os.environ.get("OBL_PART"):
        later = _of_other_turns(items, int(part) % PARTS)
        items[:] = [item for item in items if item not in later]
        config.hook.pytest_deselected(items=list(later))
    if os.environ.get("CI"):
        for item in items:
            if item.get_closest_marker("timing"):
                item.add_marker(pytest.mark.flaky(reruns=1))


def _of_other_turns(items: list[pytest.Item], part: int) -> dict[pytest.Item, None]:
    seen: dict[Path, int] = {}
    found = {}
    for item in (
        each for each in items if each.get_closest_marker("slow") or each.get_closest_marker("timing")
    ):
        first = zlib.crc32(item.path.name.encode())  # so that no part has the first test of every file
        number = seen[item.path] = seen.get(item.path, first) + 1
        if number % PARTS != part:
            found[item] = None
    return found


def _turn(item: pytest.Item) -> int:
    file = item.path.relative_to(TREE / "tests").as_posix()
    return next((turn for turn, name in enumerate(LONGEST) if file.startswith(name)), len(LONGEST))


@pytest.fixture(scope="session", autouse=True)
def _temporary_folder_of_our_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Launchers put their session folders here, so that those of other people's runs are never taken for ours."""
    tmp_path_factory.getbasetemp()  # stays where people look for it
    folder = Path(tempfile.mkdtemp(prefix="obl-"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setattr(tempfile, "tempdir", None)
        yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session", autouse=True)
def _this_checkout_in_every_process() -> Iterator[None]:
    """Processes that tests start import the package from here, wherever they work."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(TREE), prepend=os.pathsep)
        yield


class _Acts:
    """Notices what may leave something behind: processes, and files outside pytest's folders.

    A look at all processes and files costs more than most tests; who has done neither, and has no child that could, is
    not looked after.
    """

    STARTS = frozenset({"subprocess.Popen", "os.posix_spawn", "os.fork", "os.forkpty"})
    MAKES = frozenset({"os.mkdir", "os.rename", "os.link", "os.symlink"})
    WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT

    def __init__(self) -> None:
        self.seen = self.started = True
        self.children: set[int] = set()
        self.files: set[Path] = set()
        sys.addaudithook(self._notice)

    def _notice(self, event: str, args: tuple[object, ...]) -> None:
        if self.started:
            return
        if event in self.STARTS:
            self.seen = self.started = True
        elif self.seen:
            return
        elif event == "open":
            path, _, flags = args
            self.seen = isinstance(flags, int) and bool(flags & self.WRITES) and not _of_pytest(path)
        elif event in self.MAKES:
            self.seen = not _of_pytest(args[0])

    def look(self, temporary: Path) -> None:
        """Takes what there is for what was there before."""
        self.children = {child.pid for child in _children() if not _stays(child)}
        self.files = _files(temporary)
        self.seen = self.started = False


ACTS = _Acts()


def _of_pytest(path: object) -> bool:
    """Whether a file lies where pytest and Python keep what they write."""
    name = os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else ""
    return "/pytest-of-" in name or "/__pycache__/" in name or name in ("", os.devnull)


@pytest.fixture(autouse=True)
def _nothing_left_behind(_temporary_folder_of_our_own: Path) -> Iterator[None]:
    """Fails a test that leaves a process or a stray file, and removes what it left."""
    if ACTS.seen:  # by fixtures that outlive the test
        ACTS.look(_temporary_folder_of_our_own)
    mark = uuid.uuid4().hex
    before = os.environ.get(MARK)
    os.environ[MARK] = mark
    yield
    if before is None:
        os.environ.pop(MARK, None)
    else:
        os.environ[MARK] = before
    if not ACTS.seen and not ACTS.children:
        return
    left = [f"process {p.pid}: {what}" for p, what in _end(_processes(mark, ACTS.children))]
    new = _files(_temporary_folder_of_our_own) - ACTS.files
    if not ACTS.started and not ACTS.children:  # worlds of tests that run beside this one
        new = {path for path in new if not path.name.startswith("sm_segment")}
    left += [f"file {path}" for path in _stray(new)]
    ACTS.look(_temporary_folder_of_our_own)
    if left:
        pytest.fail("the test left behind:\n  " + "\n  ".join(left), pytrace=False)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of its own that is the working folder and the home of all runs."""
    monkeypatch.setenv("OBLIVIOUS_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(params=["horovod", "mpi"])
def engine(request: pytest.FixtureRequest) -> str:
    """Every engine in turn; one that is not installed is skipped here and an error where ``CI`` is set."""
    name: str = request.param
    try:
        return doctor.choose_engine(name).engine
    except SetupProblem as problem:
        absent = (
            importlib.util.find_spec("horovod") is None if name == "horovod" else doctor.look().mpi is None
        )
        if absent and not os.environ.get("CI"):
            pytest.skip(str(problem))
        raise


def _command(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _stays(process: psutil.Process) -> bool:
    """Whether it lives as long as its parent, by design: a fork server, and multiprocessing's tracker."""
    command = _command(process)
    if "-m obl_magic.server" in command:
        with contextlib.suppress(psutil.Error):
            return process.ppid() in {os.getpid(), *ACTS.children}
    return "resource_tracker" in command


def _children() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _processes(mark: str, known: set[int]) -> list[psutil.Process]:
    """New descendants of this process, and those re-parented ones that inherited this test's mark."""
    found = {child.pid: child for child in _children() if child.pid not in known}
    needle = f"{MARK}={mark}".encode()
    for pid in psutil.pids():
        with contextlib.suppress(OSError, psutil.NoSuchProcess):
            if (
                pid not in found
                and pid != os.getpid()
                and needle in Path(f"/proc/{pid}/environ").read_bytes()
            ):
                found[pid] = psutil.Process(pid)
    return list(found.values())


def _end(found: list[psutil.Process]) -> list[tuple[psutil.Process, str]]:
    """Those that do not end by themselves, killed, each with what it was."""
    deadline = time.monotonic() + GOING_S
    found = [process for process in found if not _stays(process)]
    psutil.wait_procs(found, timeout=max(0.0, deadline - time.monotonic())) if found else None
    ended = []
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            what = " ".join(process.cmdline())
            if process.status() != psutil.STATUS_ZOMBIE and not _stays(process):
                process.send_signal(signal.SIGKILL)
                ended.append((process, what))
    psutil.wait_procs([process for process, _ in ended], timeout=GOING_S)
    return ended


def _files(temporary: Path) -> set[Path]:
    """What is in the checkout, in shared memory, and of launchers' session folders."""
    found = {path for path in SHM.iterdir() if not _ALONE.match(path.name)} if SHM.is_dir() else set()
    found |= {
        path for path in temporary.iterdir() if path.name.startswith(("prte", "ompi", "openmpi", "mpich"))
    }
    folders = [str(TREE)]
    while folders:
        with contextlib.suppress(FileNotFoundError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if not _is_cache(entry.name):
                        folders.append(entry.path)
                elif Path(entry.name).suffix not in _WRITTEN_BY_PEOPLE and not entry.name.startswith(
                    ".coverage"
                ):
                    found.add(Path(entry.path))
    return found


def _is_cache(name: str) -> bool:
    hidden = name.startswith(".") and name not in _NOT_CACHES
    return hidden or name in _CACHES or name.endswith(".egg-info")


def _stray(new: set[Path]) -> list[Path]:
    """New files that stay; removed, but for shared memory, which may be somebody else's."""
    deadline = time.monotonic() + SHM_GOING_S
    while (
        shared := [path for path in new if path.parent == SHM and path.exists()]
    ) and time.monotonic() < deadline:
        if all(map(_in_use, shared)):
            break
        time.sleep(0.05)
    stray = []
    for path in sorted(new):
        if not path.exists() or (path.parent == SHM and _in_use(path)):
            continue
        stray.append(path)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.parent != SHM:
            path.unlink(missing_ok=True)
    return stray


def _in_use(path: Path) -> bool:
    """Whether a living process has this file mapped, or names it by its number (ours have ended when this is asked)."""
    if named := _OF_JOBLIB.match(path.name):
        return int(named[1]) != os.getpid() and psutil.pid_exists(int(named[1]))
    needle = str(path).encode()
    for pid in psutil.pids():
        with contextlib.suppress(OSError):
            if pid != os.getpid() and needle in Path(f"/proc/{pid}/maps").read_bytes():
                return True
    return False
