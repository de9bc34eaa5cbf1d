"""Where a world's ranks are: what was asked for, the notebook server's default, and the Slurm allocation, together."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from obl_magic.environment import setting
from obl_magic.errors import UsageProblem
from obl_magic.hosts.allocation import allocation, narrowed_to, placed_in
from obl_magic.hosts.places import Hosts, parse, read_hostfile


def asked_for(
    hosts: str | Sequence[str] | None,
    hostfile: str | None,
    workers: int | None,
    environ: Mapping[str, str] = os.environ,
) -> Hosts | None:
    """The hosts that a user names, here or in ``OBLIVIOUS_HOSTS``; None where nobody does.

    Args:
        hosts: as typed.
        hostfile: a file of them.
        workers: ranks in all, or None: as many as the hosts have places. The variable is a default for those who ask
            for workers.
        environ: variables by name.

    Raises:
        UsageProblem: they make no sense.
    """
    if hosts is not None and hostfile is not None:
        raise UsageProblem("hosts and hostfile", "one of them", "--hosts a:4,b:4")
    if hosts is not None:
        return parse(hosts, workers)
    if hostfile is not None:
        return read_hostfile(hostfile, workers)
    variable, named = setting("HOSTS", environ)
    if not named or workers is None:
        return None
    try:
        return parse(named, workers)
    except UsageProblem as problem:
        raise UsageProblem(f"{variable}: {problem.got}", problem.expected, problem.do) from None


def everywhere(
    hosts: str | Sequence[str] | None, hostfile: str | None, environ: Mapping[str, str] = os.environ
) -> Hosts | None:
    """All places there are for ranks; None where only this host's processors say how many.

    Args:
        hosts: as typed.
        hostfile: a file of them.
        environ: variables by name.

    Raises:
        UsageProblem: they make no sense.
    """
    named = setting("HOSTS", environ)[1]
    if hosts is None and hostfile is None and named:
        return parse(named)
    return asked_for(hosts, hostfile, None, environ) or allocation(environ)


def where(
    hosts: str | Sequence[str] | None,
    hostfile: str | None,
    workers: int,
    environ: Mapping[str, str] = os.environ,
) -> Hosts | None:
    """Where the ranks are; None where all are on this host, as without any of this.

    Args:
        hosts: as typed.
        hostfile: a file of them.
        workers: ranks in all.
        environ: variables by name.

    Raises:
        UsageProblem: a host that is not in the allocation, or fewer places than workers.
    """
    asked, job = asked_for(hosts, hostfile, workers, environ), allocation(environ)
    if job is not None:
        return placed_in(job, workers, environ) if asked is None else narrowed_to(job, asked)
    return None if asked is None or asked.is_here else asked
