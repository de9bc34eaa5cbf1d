"""One prefix for all that a user sets; older names are read, and noted once."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest

from obl_magic import environment
from obl_magic.environment import setting

PACKAGE = Path(environment.__file__).parent


@pytest.fixture(autouse=True)
def _nothing_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_noted", set())


def test_an_older_name_is_read_and_noted_once() -> None:
    """With the new one."""
    with pytest.warns(FutureWarning, match="^OBL_PIN is now called OBLIVIOUS_PIN; it is read all the same$"):
        assert setting("PIN", {"OBL_PIN": "off"}) == ("OBL_PIN", "off")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert setting("PIN", {"OBL_PIN": "on"}) == ("OBL_PIN", "on")


def test_the_new_name_goes_first_and_is_no_news() -> None:
    """Set or not."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert setting("PIN", {"OBL_PIN": "off", "OBLIVIOUS_PIN": "on"}) == ("OBLIVIOUS_PIN", "on")
        assert setting("PIN", {}) == ("OBLIVIOUS_PIN", "")


def test_no_other_prefix_is_in_use() -> None:
    """Anywhere in the package."""
    found = {
        name for path in PACKAGE.rglob("*.py") for name in re.findall(r"\bOBL_[A-Z]\w*", path.read_text())
    }
    assert found == set()
