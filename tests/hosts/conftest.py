"""Hosts that the tests of a file share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import simulated


@pytest.fixture(scope="module")
def hosts() -> Iterator[simulated.Hosts]:
    """Three of them: the notebook's is nb or a."""
    if why := simulated.why_not("sshd", "ip", "nsenter"):
        pytest.skip(why)
    up = simulated.Hosts(("nb", "a", "b"))
    yield up
    up.down()
