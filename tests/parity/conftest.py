"""Worlds that are run once for all tests of this session."""

from __future__ import annotations

import fcntl
import os
import pickle
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import worlds

Outcome = Callable[..., worlds.Outcomes]

HALVES = 2
"""Plain Python uses one core only: so many processes share its cases."""


@pytest.fixture(scope="session")
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Runs a world when it is first asked for, with the cases that this session's tests want of it."""
    items = request.session.items
    known: dict[tuple[int | None, str], list[Future[worlds.Outcomes]]] = {}
    plain: list[worlds.Outcomes] = []
    together = ThreadPoolExecutor(HALVES)

    def start(workers: int | None, engine: str) -> None:
        wanted = {name for item in items for name in _wanted(item, workers, engine)}
        names = [name for name in worlds.case_names() if name in wanted]
        known[workers, engine] = []
        for part in range(HALVES if workers is None else 1):
            mine = names[part::HALVES] if workers is None else names
            folder: Path = tmp_path_factory.mktemp(f"{engine}-{workers}", numbered=True)
            known[workers, engine].append(together.submit(worlds.run, folder, mine, workers, engine))

    def of(workers: int | None, engine: str = "mpi") -> worlds.Outcomes:
        if workers is not None:
            return run(workers, engine)
        if not plain:
            plain.append(once(tmp_path_factory, "plain", lambda: run(None, engine)))
        return plain[0]

    def run(workers: int | None, engine: str) -> worlds.Outcomes:
        if (workers, engine) not in known:
            start(workers, engine)
        parts = [part.result() for part in known[workers, engine]]
        return worlds.Outcomes(
            {case: found for part in parts for case, found in part.by_case.items()},
            {case: said for part in parts for case, said in part.died.items()},
        )

    return of


def once(
    tmp_path_factory: pytest.TempPathFactory, name: str, make: Callable[[], worlds.Outcomes]
) -> worlds.Outcomes:
    """What several processes of pytest-xdist need is made by one of them; the others wait for it."""
    place = tmp_path_factory.getbasetemp()
    place = place.parent if "PYTEST_XDIST_WORKER" in os.environ else place
    kept = place / f"{name}.pkl"
    with open(place / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if kept.exists():
            found: worlds.Outcomes = pickle.loads(kept.read_bytes())
        else:
            found = make()
            kept.write_bytes(pickle.dumps(found))
    return found


def _wanted(item: pytest.Item, workers: int | None, engine: str) -> list[str]:
    """The cases that a test needs of one world; plain Python is what all of them are compared with."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    if "case" not in parameters:
        return list(getattr(item.module, "HANDFUL", ())) if workers is None else []
    world = (parameters.get("workers", 1), getattr(item.module, "ENGINE", "mpi"))
    return [parameters["case"]] if workers is None or world == (workers, engine) else []
