"""A process that may start no more threads: a sentence, nothing under way, no process left."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import below
import pytest

import obl_magic
from obl_magic.errors import SetupProblem
from obl_magic.study.find import open_results
from obl_magic.world.threads import begin

pytestmark = [pytest.mark.slow, pytest.mark.timing]

SAID = r"^no more threads can be started here \(can't start new thread\); do: end processes that you don't need, or "
MPI = {"workers": 1, "engine": "mpi", "quiet": True}


def train(lr: float = 0.1) -> dict[str, float]:
    """Takes a moment."""
    return {"loss": lr}


def searched(**options: Any) -> Any:
    """A short search in a world."""
    return obl_magic.search(train, "lr=float(0,1)", trials=2, minimize="loss", **MPI, **options)


CALLS: dict[str, Callable[[], Any]] = {
    "run": lambda: obl_magic.run(train, **MPI),  # type: ignore[arg-type]
    "background run": lambda: obl_magic.run(train, background=True, **MPI).wait().value,  # type: ignore[arg-type]
    "search": searched,
    "background search": lambda: searched(background=True).wait(),
}


@pytest.fixture
def only(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """From now on so many more threads start, as under a limit of processes."""
    real, started = threading.Thread.start, 0

    def limit(most: int) -> None:
        def start(thread: threading.Thread) -> None:
            nonlocal started
            started += 1
            if started > most:
                raise RuntimeError("can't start new thread")
            real(thread)

        monkeypatch.setattr(threading.Thread, "start", start)

    return limit


@pytest.mark.parametrize("most", [0, 1, 2, 3])
@pytest.mark.parametrize("what", CALLS)
def test_whichever_thread_cannot_start_is_said_and_leaves_nothing(
    home: Path, only: Callable[[int], None], what: str, most: int
) -> None:
    """What a thread serves is started after it."""
    only(most)
    if what == "background search" and most:  # its end is told by its status
        CALLS[what]()
    else:
        with pytest.raises(SetupProblem, match=SAID):
            CALLS[what]()
    assert below.worlds() == []
    for record in home.rglob("run.json"):
        assert obl_magic.Run.open(record.parent).status != "running"
    for record in home.rglob("study.json"):
        assert open_results(record.parent.name).status == "failed"


def test_a_search_in_the_kernel_needs_no_thread(home: Path, only: Callable[[int], None]) -> None:
    """One shows it; without, it is shown at its end."""
    only(0)
    study = obl_magic.search(train, "lr=float(0,1)", trials=2, minimize="loss", quiet=True)
    assert [trial.status for trial in study.trials.itertuples()] == ["succeeded"] * 2


def test_a_thread_does_what_it_is_given() -> None:
    """With its name; it keeps no process from ending."""
    said: list[int] = []
    thread = begin(said.append, "obl-test", 3)
    thread.join()
    assert (said, thread.name, thread.daemon) == ([3], "obl-test", True)
