"""One prefix for all that a user sets; older names are read, and noted once."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest

from obl_magic import environment
from obl_magic.environment import note_older, setting
from obl_magic.errors import UsageProblem
from obl_magic.hosts.cores import cores

PACKAGE = Path(environment.__file__).parent


@pytest.fixture(autouse=True)
def _nothing_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "_noted", set())


def test_an_older_name_is_read_and_noted_once() -> None:
    """With the new one."""
    assert setting("PIN", {"OBL_PIN": "off"}) == ("OBL_PIN", "off")
    with pytest.warns(FutureWarning, match="^OBL_PIN is now called OBLIVIOUS_PIN; it is read all the same$"):
        note_older("OBL_PIN")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        note_older("OBL_PIN")
        note_older("OBLIVIOUS_PIN")


def test_the_new_name_goes_first() -> None:
    """Set or not."""
    assert setting("PIN", {"OBL_PIN": "off", "OBLIVIOUS_PIN": "on"}) == ("OBLIVIOUS_PIN", "on")
    assert setting("PIN", {}) == ("OBLIVIOUS_PIN", "")


def test_processors_are_read_under_both_names() -> None:
    """A wrong number is one sentence, and no note beside it."""
    with pytest.warns(FutureWarning, match="OBL_CORES is now called OBLIVIOUS_CORES"):
        assert cores({"OBL_CORES": "3"}) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UsageProblem, match=r"^got OBL_CORES=two; .*; do: unset it, or OBL_CORES=2$"):
            cores({"OBL_CORES": "two"})


def test_no_other_prefix_is_in_use() -> None:
    """Anywhere in the package."""
    found = {
        name for path in PACKAGE.rglob("*.py") for name in re.findall(r"\bOBL_[A-Z]\w*", path.read_text())
    }
    assert found == set()
