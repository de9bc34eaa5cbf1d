"""Puts the faults into a table."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import breaking
import pytest

from obl_magic.server.server import SERVER

_TOOK: dict[tuple[str, str, str], float] = {}
"""(engine, way, place) -> seconds from the fault to the end of the cell."""


HERE = Path(__file__).parent
WAYS = ("forked", "afresh")


@pytest.fixture(autouse=True, params=WAYS)
def _started(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every fault in a world of each kind: its ranks forked from a server, or started as processes of their own."""
    monkeypatch.setattr(SERVER, "allowed", request.param == "forked")
    if request.param == "afresh":
        monkeypatch.setenv("OBLIVIOUS_FORK", "off")  # for the kernels that a test starts


@pytest.fixture
def took(request: pytest.FixtureRequest) -> Iterator[dict[tuple[str, str, str], float]]:
    """Where a test notes its seconds for the table."""
    return _TOOK


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Seconds from each fault to the end of the run, by engine and way, by place."""
    if not _TOOK:
        return
    terminalreporter.section("seconds from a fault to the end of the run")
    wide = 2 + max(map(len, breaking.PLACES))
    terminalreporter.write_line(f"{'':22}" + "".join(place.rjust(wide) for place in breaking.PLACES))
    for engine, way in dict.fromkeys((engine, way) for engine, way, _ in _TOOK):
        cells = (_TOOK.get((engine, way, place)) for place in breaking.PLACES)
        row = "".join(("" if cell is None else f"{cell:.2f}").rjust(wide) for cell in cells)
        terminalreporter.write_line(f"{engine + ' ' + way:22}{row}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every fault meets one way of starting, in turn; ``OBL_FAULTS=all`` (``make faults``) has each meet both."""
    if os.environ.get("OBL_FAULTS") == "all":
        return
    seen: dict[str, int] = {}
    for item in [each for each in items if HERE in each.path.parents]:
        how = getattr(item, "callspec", None) and item.callspec.params.get("_started")  # type: ignore[attr-defined]
        if how is None:
            continue
        same = item.nodeid.replace(how, "")
        turn = seen.setdefault(same, len(seen))
        if (turn % 2 == 0) != (how == WAYS[0]):
            items.remove(item)
