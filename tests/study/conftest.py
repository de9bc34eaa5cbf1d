"""What holds for every test of studies."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _functions_are_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """They lie in the first folder that Python looks in, as beside a notebook: each trial gets its own copy of them."""
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parent), *sys.path])
