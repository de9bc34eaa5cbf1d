"""The fork server: worlds of any size are there at once, and a rank cannot tell that it was forked."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import obl_magic
from obl_magic.server import stub
from obl_magic.server.server import SERVER, grounds

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timing,
    pytest.mark.skipif(sys.platform != "linux", reason="forks on Linux only"),
]

FORKS = "-m obl_magic.server"


@pytest.fixture(autouse=True)
def _ready() -> Iterator[None]:
    """A server is there; what a test has changed about it is undone."""
    SERVER.warm()
    wait_until_ready()
    yield
    SERVER.allow()
    SERVER.renew()


def wait_until_ready() -> None:
    """Returns when worlds may come from it."""
    deadline = time.monotonic() + 60
    while "is ready" not in SERVER.status():
        assert time.monotonic() < deadline, SERVER.status()
        time.sleep(0.05)


def lives(pid: int) -> bool:
    """Whether a process runs."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False


def ancestors() -> list[str]:
    """The command lines above this process."""
    return [" ".join(parent.cmdline()) for parent in psutil.Process().parents()]


def cpu_s(pid: int) -> float:
    """Seconds of processor that a process has used so far, to the nanosecond."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def begun() -> tuple[float, list[str]]:
    """When the function began, after Keras was imported, and what is above it."""
    import keras

    assert keras.__version__
    return time.time(), ancestors()


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_a_world_of_any_size_is_there_before_a_fresh_one_has_imported_anything(
    home: Path, engine: str, ranks: int
) -> None:
    """TensorFlow alone takes three seconds to import."""
    asked = time.time()
    run = obl_magic.run(begun, workers=ranks, engine=engine, quiet=True)
    assert max(when for when, _ in run.values) - asked < 2.0 + 0.3 * ranks
    for _, above in run.values:
        assert any(FORKS in command for command in above)


def what_is_there() -> dict[str, Any]:
    """As a function finds it that imports nothing."""
    import inspect

    frameworks = [
        *(name[::-1] for name in ("wolfrosnet", "sarek", "dovoroh")),
        "mpi4py.MPI",
    ]  # names that no rank sees
    return {
        "frameworks": [name for name in frameworks if name in sys.modules],
        "argv": [os.path.basename(word) for word in sys.argv],
        "main": sys.modules["__main__"].__name__,
        "cwd": os.getcwd(),
        "rank": "OMPI_COMM_WORLD_RANK" in os.environ,
        "signals": [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGINT)],
        "stack": [os.path.join("obl_magic", "server") in frame.filename for frame in inspect.stack()].count(
            True
        ),
        "command": " ".join(psutil.Process().cmdline()[-3:]),
        "group": os.getpgid(0) == os.getpid(),
    }


def test_a_function_that_imports_nothing_finds_what_it_would_find_in_a_fresh_process(home: Path) -> None:
    """No framework, the same arguments, signals and stack: but for the one frame that everything began with."""
    forked = obl_magic.run(what_is_there, workers=2, engine="mpi", quiet=True).values
    SERVER.allowed = False
    fresh = obl_magic.run(what_is_there, workers=2, engine="mpi", quiet=True).values
    for found in (*forked, *fresh):
        assert found["frameworks"] == ["mpi4py.MPI"]  # by which two ranks get their job
        assert found.pop("stack") <= 3
    assert forked == fresh


def alone() -> tuple[list[str], bool, int]:
    """What a single rank has of MPI before and after it asks for it."""
    name = "mpi4py.MPI"
    before = [name] if name in sys.modules else []
    from mpi4py import MPI

    return before, MPI.Is_initialized(), MPI.Query_thread()


def test_mpi_begins_when_it_is_imported(home: Path) -> None:
    """As ever: with all threads allowed, and not before."""
    assert obl_magic.run(alone, workers=1, quiet=True).values == [([], True, 3)]


def drawn() -> list[str]:
    """Whatever chance gives to a function that fixes no seed."""
    import multiprocessing
    import random
    import secrets
    import ssl
    import tempfile
    import uuid

    import keras
    import numpy as np
    import tensorflow as tf

    return [
        str(each)
        for each in (
            random.random(),
            np.random.rand(),
            np.random.default_rng().random(),
            uuid.uuid4(),
            uuid.uuid1(),
            secrets.token_hex(8),
            ssl.RAND_bytes(8),
            os.path.basename(tempfile.mktemp()),
            bytes(multiprocessing.current_process().authkey),
            float(tf.random.uniform(())),
            float(tf.random.get_global_generator().normal(())),
            float(keras.random.uniform(())),
        )
    ]


def test_what_chance_gives_is_different_wherever_it_is_in_fresh_ranks(home: Path) -> None:
    """Neither two ranks nor two worlds draw the same, but for what our base seed makes equal on purpose."""

    def two_worlds() -> list[tuple[str, ...]]:
        worlds = [obl_magic.run(drawn, workers=2, engine="mpi", quiet=True).values for _ in range(2)]
        return list(zip(*(rank for world in worlds for rank in world), strict=True))

    forked = two_worlds()
    SERVER.allowed = False
    for of_forked, of_fresh in zip(forked, two_worlds(), strict=True):
        assert len(set(of_forked)) >= len(set(of_fresh))


def hashes() -> int:
    """What depends on the seed of hashing."""
    return hash("oblivious")


def test_the_hash_seed_is_the_one_that_a_fresh_rank_has(home: Path) -> None:
    """So that sets of strings come in the same order on all ranks."""
    forked = obl_magic.run(hashes, workers=2, quiet=True).values
    SERVER.allowed = False
    assert {*forked, *obl_magic.run(hashes, workers=2, quiet=True).values} == {forked[0]}


SEEN: list[int] = []


def leaves_something() -> tuple[int, str]:
    """Tells what an earlier run has left in this process, and leaves more."""
    import keras

    keras.utils.set_random_seed(1)
    before = getattr(keras, "left_behind", 0)
    keras.left_behind = before + 1
    os.environ["LEFT_BEHIND"] = os.environ.get("LEFT_BEHIND", "") + "x"
    return before, os.environ["LEFT_BEHIND"]


def test_nothing_of_a_run_is_seen_by_the_next(home: Path) -> None:
    """Neither in modules nor in the environment."""
    for _ in range(2):
        assert obl_magic.run(leaves_something, workers=2, quiet=True).values == [(0, "x")] * 2


def surroundings() -> tuple[str, tuple[int, int], int]:
    """What a process is started with."""
    mask = os.umask(0)
    os.umask(mask)
    return os.environ.get("TF_SOMETHING", ""), resource.getrlimit(resource.RLIMIT_NOFILE), mask


def test_what_was_set_since_holds_in_the_next_world(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable, a limit, a mask: the server is replaced where a fresh process would be another one."""
    before, pid = grounds(), SERVER.pid
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setenv("TF_SOMETHING", "set")
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard))
    mask = os.umask(0o027)
    try:
        assert grounds() != before
        assert (
            obl_magic.run(surroundings, workers=2, quiet=True).values
            == [("set", (soft - 1, hard), 0o027)] * 2
        )
        SERVER.renew()
        assert SERVER.pid != pid
    finally:
        os.umask(mask)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_our_own_variables_need_no_new_server(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are for the conductor and the ranks, which get them with their job."""
    pid = SERVER.pid
    monkeypatch.setenv("OBLIVIOUS_PIN", "off")
    SERVER.renew()
    assert SERVER.pid == pid


LEARNS = """
import time
import obl_magic
from obl_magic.server.server import SERVER
def train():
    import sys
    there = [name in sys.modules for name in ("optuna", "tensorflow_datasets")]
    import keras, optuna
    return there, keras.__version__
def until_ready():
    deadline = time.monotonic() + 60
    while "is ready" not in SERVER.status():
        assert time.monotonic() < deadline, SERVER.status()
        time.sleep(0.05)
def run():
    until_ready()
    print(SERVER.pid, [there for there, _ in obl_magic.run(train, workers=2, engine="mpi", quiet=True).values])
SERVER.warm()
run()
run()
import tensorflow_datasets
SERVER.renew()
run()
print(SERVER.status())
"""


def test_what_a_function_or_this_process_imports_the_same_server_has_from_then_on(home: Path) -> None:
    """Each is imported once more, and the server need not be another one."""
    program = home / "learns.py"
    program.write_text(LEARNS)
    for name in ("optuna", "tensorflow_datasets"):
        (home / f"{name}.py").touch()
    path = os.pathsep.join([str(home), os.environ["PYTHONPATH"]])
    said = subprocess.run(
        [sys.executable, str(program)], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
        check=True, timeout=120,
    ).stdout.splitlines()  # fmt: skip
    pid = said[0].partition(" ")[0]
    assert said[:3] == [
        f"{pid} {[[False, False]] * 2}",
        f"{pid} {[[True, False]] * 2}",
        f"{pid} {[[True, True]] * 2}",
    ]
    assert "optuna" in said[3]
    assert "tensorflow_datasets" in said[3]


def waits(folder: str) -> None:
    """Says that it is there, and ends when it is told to."""
    Path(folder, f"here-{os.getpid()}").touch()
    deadline = time.monotonic() + 60
    while not Path(folder, "go").exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def until_here(folder: Path, how_many: int) -> list[int]:
    """The processes that have said so."""
    deadline = time.monotonic() + 60
    while len(found := list(folder.glob("here-*"))) < how_many:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return [int(path.name.removeprefix("here-")) for path in found]


def test_a_world_outlives_the_server_that_it_came_from(home: Path) -> None:
    """Killed or told to go, it takes no run with it, and the next run has a new one."""
    run = obl_magic.run(waits, workers=2, args={"folder": str(home)}, quiet=True, background=True)
    until_here(home, 2)
    killed = SERVER.pid
    os.kill(killed, signal.SIGKILL)
    (home / "go").touch()
    assert run.wait(30)
    assert run.status == "succeeded", run.error
    deadline = time.monotonic() + 10
    while SERVER.pid == killed and time.monotonic() < deadline:  # until its end is noticed
        SERVER.warm()
        time.sleep(0.02)
    wait_until_ready()
    again = obl_magic.run(begun, workers=2, quiet=True)
    assert all(any(FORKS in command for command in above) for _, above in again.values), again.notes


KERNEL = """
import sys, obl_magic
from test_server import waits
run = obl_magic.run(waits, workers=2, args={"folder": sys.argv[1]}, quiet=True, background=True, engine="mpi")
run.wait()
"""


def test_when_its_kernel_is_killed_all_is_gone_within_a_second(home: Path) -> None:
    """The server, the conductor, the launcher, the stubs and the ranks."""
    import_path = os.pathsep.join([str(Path(__file__).parent), os.environ["PYTHONPATH"]])
    kernel = subprocess.Popen(
        [sys.executable, "-c", f"import keras\n{KERNEL}", str(home)],
        env={**os.environ, "PYTHONPATH": import_path},
    )
    ranks = until_here(home, 2)
    below = psutil.Process(kernel.pid).children(recursive=True)
    assert {*ranks} <= {process.pid for process in below}
    kernel.kill()
    kernel.wait()
    _, left = psutil.wait_procs(below, timeout=1.0)
    assert not [process for process in left if lives(process.pid)]


def test_it_costs_nothing_while_nobody_asks() -> None:
    """It sleeps until somebody does."""
    before = cpu_s(SERVER.pid)
    time.sleep(2)
    assert cpu_s(SERVER.pid) - before < 0.004  # 0.2 % of a core


def test_where_it_is_off_every_rank_is_a_fresh_process(home: Path) -> None:
    """And it says so."""
    SERVER.allowed = False
    (above, *_) = obl_magic.run(ancestors, workers=2, quiet=True).values
    assert not any(FORKS in command for command in above)
    assert "off" in SERVER.status()


THREADED = """
import optuna, obl_magic
from obl_magic.server.server import SERVER
def train():
    import keras
    return keras.__name__
run = obl_magic.run(train, workers=2, engine="mpi", quiet=True)
print(run.values, [note for note in run.notes])
print(SERVER.status())
"""


def test_a_library_that_starts_a_thread_when_imported_is_named_and_nothing_is_forked(home: Path) -> None:
    """What its thread holds would be held for ever in a rank."""
    (home / "optuna.py").write_text(
        "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    )
    path = os.pathsep.join([str(home), os.environ["PYTHONPATH"]])
    said = subprocess.run(
        [sys.executable, "-c", THREADED], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
        check=True, timeout=120,
    ).stdout  # fmt: skip
    why = "the fork server cannot fork: what it has imported started 1 thread"
    assert "['keras', 'keras']" in said
    assert f"{why}, so this world was started afresh: it takes longer, and computes the same" in said
    assert f"{why}; worlds are started afresh" in said


def test_a_stub_that_nobody_forks_for_becomes_the_rank_itself() -> None:
    """A rank may start although the conductor has no place for it."""
    program = [sys.executable, "-c", "import sys; print(sys.argv[1:]); sys.exit(3)", "given"]
    ended = subprocess.run(
        [sys.executable, "-I", "-S", "-E", stub.__file__, "obl-nobody", *program],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.stdout, ended.returncode) == ("['given']\n", 3)
