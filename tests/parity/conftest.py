"""Worlds that are run once for all tests of this session."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import worlds

Outcome = Callable[..., worlds.Outcomes]


@pytest.fixture(scope="session")
def outcomes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Runs a world when it is first asked for, with the cases that this session's tests want of any world."""
    wanted = {name for item in request.session.items for name in _cases(item)}
    names = [name for name in worlds.case_names() if name in wanted]
    known: dict[tuple[int | None, str], worlds.Outcomes] = {}

    def of(workers: int | None, engine: str = "mpi") -> worlds.Outcomes:
        key = (workers, engine)
        if key not in known:
            folder: Path = tmp_path_factory.mktemp(f"{engine}-{workers}", numbered=True)
            known[key] = worlds.run(folder, names, workers, engine)
        return known[key]

    return of


def _cases(item: pytest.Item) -> list[str]:
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    return [parameters["case"]] if "case" in parameters else list(getattr(item.module, "HANDFUL", ()))
