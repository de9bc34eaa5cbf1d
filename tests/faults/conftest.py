"""Puts the faults into a table."""

from __future__ import annotations

from collections.abc import Iterator

import breaking
import pytest

_TOOK: dict[tuple[str, str, str], float] = {}
"""(engine, way, place) -> seconds from the fault to the end of the cell."""


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
