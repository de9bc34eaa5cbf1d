"""A world of real processes: it starts, it speaks, and when it is stopped nothing of it is left."""

from __future__ import annotations

import json
import os
import queue
import sys
import time
from pathlib import Path

import psutil
import pytest

from obl_magic.errors import SetupProblem
from obl_magic.launchers import mpirun
from obl_magic.server.server import SERVER
from obl_magic.world.process import Start, World, is_root

pytestmark = pytest.mark.timing

SAYS = "import os, sys; os.write(1, b'ready %d\\n' % os.getpid()); "
WAITS = "import signal; signal.pause()"
STUBBORN = "import signal as s; s.signal(s.SIGTERM, s.SIG_IGN); s.signal(s.SIGINT, s.SIG_IGN); "
CHILDREN = f"""
import os, signal, subprocess, sys
{STUBBORN}
child = {STUBBORN + SAYS + WAITS!r}
orphan = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]], start_new_session=True)"
subprocess.Popen([sys.executable, "-c", child])
subprocess.Popen([sys.executable, "-c", child], start_new_session=True)
subprocess.run([sys.executable, "-c", orphan, child], check=True)
"""
"""Starts a child, one with a session of its own, and one whose parent is gone; none heeds SIGTERM."""


class Heard:
    """What a world said, line by line, each within a deadline."""

    def __init__(self) -> None:
        self.lines: queue.Queue[str] = queue.Queue()
        self.words: queue.Queue[str] = queue.Queue()

    def line(self) -> str:
        """The next line of the event stream."""
        return self.lines.get(timeout=30)

    def pids(self, how_many: int) -> list[int]:
        """The process ids of ``how_many`` processes that said they are ready."""
        return [int(self.line().split("ready ")[1]) for _ in range(how_many)]


@pytest.fixture(autouse=True, params=["leashed", "conducted"])
def _holder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever holds the launcher, a world is the same: a leash of its own, or a conductor that a server has forked."""
    monkeypatch.setattr(sys.modules[__name__], "CONDUCTED", request.param == "conducted")


CONDUCTED = False


def conducted() -> Start:
    """How a server that is ready starts a world."""
    SERVER.warm()
    running = SERVER._current()
    assert running is not None
    assert running.problem() == ""
    return running.start


def start(argv: list[str], heard: Heard, cwd: Path, **env: str) -> World:
    """A world whose lines go to ``heard``."""
    return World(
        argv, {**os.environ, **env}, cwd,
        lambda line: heard.lines.put(line.decode().rstrip("\n")),
        lambda line: heard.words.put(line.decode().rstrip("\n")),
        start=conducted() if CONDUCTED else None,
    )  # fmt: skip


def lives(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def python(text: str) -> list[str]:
    """The command line of a small program."""
    return [sys.executable, "-c", text]


def on_ranks(ranks: int, text: str) -> tuple[list[str], dict[str, str]]:
    """The command line and environment of a small program on some ranks."""
    launcher = mpirun.require()
    argv = mpirun.command(launcher, ranks, python(text), cores=1, root=is_root())
    return argv, mpirun.environment(launcher, os.environ, ranks=ranks, cores=1, engine="mpi")


def test_a_world_says_its_lines_and_its_words_apart(tmp_path: Path) -> None:
    """Standard output is the event stream, standard error the launcher's; all of it was read when it has ended."""
    heard = Heard()
    world = start(
        python("import sys; print('event'); print('word', file=sys.stderr); sys.exit(3)"), heard, tmp_path
    )
    assert world.wait(30)
    assert (heard.line(), heard.words.get_nowait(), world.exit_code) == ("event", "word", 3)
    world.close()


def test_a_world_that_runs_has_no_exit_code(tmp_path: Path) -> None:
    """And waiting for it takes no longer than it may."""
    heard = Heard()
    world = start(python(SAYS + WAITS), heard, tmp_path)
    assert heard.pids(1) == [world.pid]
    assert not world.wait(0.01)
    assert world.exit_code is None
    world.stop()
    assert world.exit_code == -15  # it has no ranks whose end would end it


def test_a_job_reaches_the_standard_input(tmp_path: Path) -> None:
    """As one line of JSON with the job's path, and whether it was begun by an earlier world."""
    heard = Heard()
    world = start(python("import sys; sys.stdout.write(sys.stdin.readline())"), heard, tmp_path)
    world.give(tmp_path / 'a "job".pkl')
    assert json.loads(heard.line()) == {
        "job": str(tmp_path / 'a "job".pkl'),
        "goes_on": False,
        "changes": None,
    }
    assert world.wait(30)
    world.close()


def test_a_job_for_a_world_that_is_gone_is_no_error(tmp_path: Path) -> None:
    """Its end is noticed elsewhere, with its cause."""
    world = start(python("pass"), Heard(), tmp_path)
    assert world.wait(30)
    world.give(tmp_path / "job.pkl")
    world.close()
    world.close()


def test_a_launcher_that_is_missing_is_a_setup_problem(tmp_path: Path) -> None:
    """Named, with what to do; nothing was started."""
    with pytest.raises(
        SetupProblem, match=r"/no/such/mpirun could not be started \(No such file .*; do: python -m obl_magic"
    ):
        start(["/no/such/mpirun", "-n", "2"], Heard(), tmp_path)


def test_a_world_has_a_session_of_its_own(tmp_path: Path) -> None:
    """An interrupt of the kernel's process group does not reach it."""
    heard = Heard()
    world = start(python(SAYS + WAITS), heard, tmp_path)
    heard.pids(1)
    assert os.getsid(world.pid) == world.pid != os.getsid(0)
    world.stop()


def test_stop_ends_every_process_of_a_world(tmp_path: Path) -> None:
    """Children that ignore SIGTERM, those with sessions of their own, and those whose parent is gone."""
    heard = Heard()
    world = start(python(CHILDREN + SAYS + WAITS), heard, tmp_path)
    pids = heard.pids(4)
    world.stop()
    assert not [pid for pid in pids if lives(pid)]


def test_stop_ends_what_a_world_that_went_by_itself_left_behind(tmp_path: Path) -> None:
    """The launcher was killed or crashed; its children were nobody's any more."""
    heard = Heard()
    world = start(python(CHILDREN + SAYS + WAITS), heard, tmp_path)
    pids = heard.pids(4)
    psutil.Process(world.pid).kill()
    began = time.monotonic()
    world.stop()
    assert not [pid for pid in pids if lives(pid)]
    assert time.monotonic() - began < 5
    assert world.exit_code == -9


def test_a_launcher_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    """Interrupt always ends a run."""
    heard = Heard()
    world = start(python(STUBBORN + SAYS + WAITS), heard, tmp_path)
    heard.pids(1)
    world.stop(grace_s=0.2)
    assert world.exit_code == -9


def test_stopping_twice_is_harmless(tmp_path: Path) -> None:
    """And so is stopping a world that has ended."""
    world = start(python("pass"), Heard(), tmp_path)
    assert world.wait(30)
    world.stop()
    world.stop()
    assert world.exit_code == 0


def test_another_world_is_left_alone(tmp_path: Path) -> None:
    """Stop ends what is its own, also where two worlds run side by side."""
    heard, other = Heard(), Heard()
    worlds = (
        start(python(SAYS + WAITS), heard, tmp_path),
        start(python(CHILDREN + SAYS + WAITS), other, tmp_path),
    )
    pids = other.pids(4)
    heard.pids(1)
    worlds[0].stop()
    assert all(lives(pid) for pid in pids)
    worlds[1].stop()


@pytest.mark.parametrize("grace_s", [0.3, 0.0], ids=["launcher tidies", "launcher killed"])
def test_real_ranks_in_a_collective_are_gone_at_once(tmp_path: Path, grace_s: float) -> None:
    """Three ranks that ignore SIGTERM, each with children; session folders and shared memory go too."""
    stuck = "from mpi4py import MPI; MPI.COMM_WORLD.barrier()\n"
    never = "\nMPI.COMM_WORLD.bcast(None, root=MPI.COMM_WORLD.rank % 2) if MPI.COMM_WORLD.rank else signal.pause()"
    argv, env = on_ranks(3, stuck + CHILDREN + SAYS + never)
    heard = Heard()
    world = start(argv, heard, tmp_path, **env)
    pids = heard.pids(12)
    began = time.monotonic()
    world.stop(grace_s)
    assert time.monotonic() - began < 5
    assert not [pid for pid in pids if lives(pid)]


def test_a_rank_that_is_killed_takes_the_world_with_it(tmp_path: Path) -> None:
    """And the launcher says who it was."""
    argv, env = on_ranks(2, STUBBORN + SAYS + WAITS)
    heard = Heard()
    world = start(argv, heard, tmp_path, **env)
    pids = heard.pids(2)
    psutil.Process(pids[1]).kill()
    assert world.wait(30)
    world.stop()
    assert not [pid for pid in pids if lives(pid)]
    said = []
    while not heard.words.empty():
        said.append(heard.words.get())
    assert "signal 9 (Killed)" in " ".join(said)


def test_a_launcher_without_ranks_is_deserted_once_one_was_heard(tmp_path: Path) -> None:
    """They may have come and gone between two looks; before that it may only be about to start them."""
    heard = Heard()
    world = start(python("import time; print('ready', flush=True); time.sleep(600)"), heard, tmp_path)
    try:
        heard.line()
        assert not world.is_deserted(heard=False)
        assert world.is_deserted(heard=True)
        assert world.is_deserted(heard=False), "what was heard stays heard"
    finally:
        world.stop()
    assert not world.is_deserted(heard=True), "it has ended"
