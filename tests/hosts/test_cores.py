"""How many processors there are for this process."""

from __future__ import annotations

import os

import pytest

from obl_magic.errors import UsageProblem
from obl_magic.hosts.cores import cores


def test_cores_are_those_this_process_may_use_or_those_the_user_names() -> None:
    """Its affinity, not the machine's."""
    assert cores({}) == len(os.sched_getaffinity(0))
    assert cores({"OBLIVIOUS_CORES": "7"}) == 7
    for wrong in ("0", "two", "-1", "1.5"):
        with pytest.raises(
            UsageProblem, match=f"^got OBLIVIOUS_CORES={wrong}; expected a number of processors, 1 or more"
        ):
            cores({"OBLIVIOUS_CORES": wrong})
