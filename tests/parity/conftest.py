"""Worlds that are run once for all tests of this session."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
import worlds

Outcome = Callable[..., worlds.Outcomes]


@pytest.fixture(scope="session")
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Runs a world when it is first asked for, with the cases that this session's tests want of it."""
    items = request.session.items
    known: dict[tuple[int | None, str], Future[worlds.Outcomes]] = {}
    together = ThreadPoolExecutor(2)

    def start(workers: int | None, engine: str) -> None:
        wanted = {name for item in items for name in _wanted(item, workers, engine)}
        folder: Path = tmp_path_factory.mktemp(f"{engine}-{workers}", numbered=True)
        names = [name for name in worlds.case_names() if name in wanted]
        known[workers, engine] = together.submit(worlds.run, folder, names, workers, engine)

    def of(workers: int | None, engine: str = "mpi") -> worlds.Outcomes:
        if not known:  # one process each, so two of them do not wait for each other
            start(1, "mpi")
            start(None, "mpi")
            known[None, "mpi"].result()
            known[1, "mpi"].result()
        if (workers, engine) not in known:
            start(workers, engine)
        return known[workers, engine].result()

    return of


def _wanted(item: pytest.Item, workers: int | None, engine: str) -> list[str]:
    """The cases that a test needs of one world; one rank is what all of them are compared with."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    if "case" not in parameters:
        return list(getattr(item.module, "HANDFUL", ())) if workers == 1 else []
    world = (parameters.get("workers"), parameters.get("engine", "mpi"))
    return [parameters["case"]] if workers == 1 or world == (workers, engine) else []
