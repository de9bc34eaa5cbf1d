"""How many processors this process may use, and how many threads a rank then has. Pins nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping

from obl_magic.environment import note_older, setting
from obl_magic.errors import UsageProblem


def cores(environ: Mapping[str, str] = os.environ) -> int:
    """Processors this process may use (its affinity), or ``OBLIVIOUS_CORES`` where a host lies about them."""
    variable, named = setting("CORES", environ)
    if named and (not named.isdecimal() or int(named) < 1):
        raise UsageProblem(
            f"{variable}={named}", "a number of processors, 1 or more", f"unset it, or {variable}=2"
        )
    note_older(variable)
    return int(named) if named else len(os.sched_getaffinity(0))


def threads_of(base: Mapping[str, str], each: int) -> dict[str, str]:
    """The variables by which a rank's libraries know their number of threads; what the user has set is not among them.

    Args:
        base: the user's own variables.
        each: processors that a rank has.
    """
    named = base.get("TF_NUM_INTRAOP_THREADS", "")
    ours = {"OMP_NUM_THREADS": str(each), "TF_NUM_INTRAOP_THREADS": str(each)}
    return {name: value for name, value in ours.items() if name not in base} | {
        "OBLIVIOUS_THREADS": named if named.isdigit() else str(each)
    }
