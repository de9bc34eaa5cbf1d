"""How many processors this process may use. Pins nothing."""

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
