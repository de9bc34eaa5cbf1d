"""Asks every host of a run, once a session, whether ranks there are as good as ranks here; refuses where they are not.

One small process is started on each, as ranks are started, so that what keeps ranks from a host is found here.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import queue
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from obl_magic.errors import SetupProblem
from obl_magic.hosts.allocation import allocation, for_mpirun
from obl_magic.hosts.cores import cores
from obl_magic.hosts.places import Hosts, Place
from obl_magic.launchers import mpirun, ssh
from obl_magic.rundir import home
from obl_magic.setup.doctor import Check
from obl_magic.setup.on_host import PACKAGES, versions
from obl_magic.world.process import MARK, World, is_root

WITHIN_S = 40.0
_LOOPBACK = "127.0.0.0/8"


@dataclass(frozen=True, slots=True)
class Host:
    """What one host says of itself.

    Attributes:
        name: as the user wrote it.
        versions: of Python and of what a run imports, by name.
        cores: processors that its ranks may use.
        gpus: their names.
        free_bytes: memory that is free.
        sees_runs: it sees the folder of runs.
        sees_cwd: it has the kernel's working folder.
        networks: (address, mask) of each.
    """

    name: str
    versions: Mapping[str, str]
    cores: int
    gpus: tuple[str, ...]
    free_bytes: int
    sees_runs: bool
    sees_cwd: bool
    networks: tuple[tuple[str, str], ...]


class Known:
    """Hosts that were asked in this session."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, str, str, str], Host] = {}

    def ready(self, hosts: Hosts, firsts: Sequence[str] = ()) -> tuple[list[Host], list[str], dict[str, str]]:
        """What the hosts say, in their order, with what :func:`check` makes of it.

        Only those are asked that were not, or were refused: somebody may have mended them.

        Raises:
            SetupProblem: one cannot be had, or will not do.
        """
        about = {name: (name, hosts.of, str(home()), str(Path.cwd())) for name in hosts.names}
        new = Hosts(
            tuple(place for place in hosts.places if about[place.host] not in self._answers), hosts.of
        )
        asked = {host.name: host for host in ask(new)} if new.places else {}
        answers = [asked.get(name) or self._answers[about[name]] for name in hosts.names]
        notes, variables = check(hosts, answers, firsts)
        self._answers.update({about[name]: host for name, host in asked.items()})
        return answers, notes, variables


KNOWN = Known()
"""This process's."""


def ask(hosts: Hosts) -> list[Host]:
    """Asks each host anew; see :func:`check`.

    Raises:
        SetupProblem: one cannot be had.
    """
    one_each = Hosts(tuple(Place(name, 1) for name in hosts.names), hosts.of)
    launcher = mpirun.require()
    with _visible() as seen:
        asked = json.dumps({"seen": str(seen), "cwd": str(Path.cwd())})
        program = (sys.executable, "-P", "-m", "obl_magic.setup.on_host", asked)
        argv = mpirun.command(launcher, one_each.ranks, (), cores=cores(), root=is_root(), hosts=one_each)
        env = mpirun.environment(launcher, os.environ, ranks=1, cores=1, engine="mpi", several=True)
        if (job := allocation()) is not None:
            env |= for_mpirun(job, one_each)
        said = _answers([*argv, *mpirun.exported({**env, MARK: ""})], env, program, one_each.ranks)
    return [_host(name, said[rank]) for rank, name in enumerate(hosts.names)]


def check(
    hosts: Hosts, answers: Sequence[Host], firsts: Sequence[str] = ()
) -> tuple[list[str], dict[str, str]]:
    """Whether ranks on these hosts compute as ranks here.

    Args:
        hosts: of a run.
        answers: theirs.
        firsts: the hosts on which there is a rank 0; by default the first.

    Returns:
        What the user should know, and variables for the launcher.

    Raises:
        SetupProblem: something differs that changes numbers, or rank 0 would not see the run's folder.
    """
    here = versions()
    for host in answers:
        if differs := _differs(here, host):
            raise differs
        if host.name in (firsts or hosts.names[:1]) and not host.sees_runs:
            raise SetupProblem(
                f"the folder of runs, {home()}, is not on {host.name}, where rank 0 is to be",
                "name a host that sees it first, or set OBLIVIOUS_HOME to a folder on a shared disk",
            )
    notes = [
        f"the working folder {Path.cwd()} is not on {host.name}; relative paths will not be found there"
        for host in answers
        if not host.sees_cwd
    ]
    return notes, network(answers)


def network(answers: Sequence[Host]) -> dict[str, str]:
    """Keeps MPI from networks in which two hosts have one address, as every host with Docker has its bridge.

    Args:
        answers: of the hosts.
    """
    everyone = Counter(address for host in answers for address, _ in set(host.networks))
    twice = sorted(
        {
            str(ipaddress.ip_network(f"{address}/{mask}", strict=False))
            for host in answers
            for address, mask in host.networks
            if everyone[address] > 1
        }
    )
    chosen = any(
        name in os.environ for name in ("OMPI_MCA_btl_tcp_if_include", "OMPI_MCA_btl_tcp_if_exclude")
    )
    return {"OMPI_MCA_btl_tcp_if_exclude": ",".join([_LOOPBACK, *twice])} if twice and not chosen else {}


def examine(hosts: Hosts) -> list[Check]:
    """The doctor's row for each host; one that cannot be had keeps nobody else's from being told."""
    try:
        return [_row(at, host) for at, host in enumerate(ask(hosts))]
    except SetupProblem as problem:
        if len(hosts.places) == 1:
            return [Check(hosts.names[0], "wrong", problem.what, problem.do)]
    return [row for place in hosts.places for row in examine(Hosts((place,), hosts.of))]


def _row(at: int, host: Host) -> Check:
    problem = _differs(versions(), host)
    if problem is not None:
        return Check(host.name, "wrong", problem.what, problem.do)
    folder = home()
    found = ", ".join(
        [
            f"Python {host.versions['Python']}",
            *(
                f"{name} {host.versions[name]}"
                for name in ("TensorFlow", "Keras", "Horovod")
                if name in host.versions
            ),
            "1 core" if host.cores == 1 else f"{host.cores} cores",
            f"{len(host.gpus)} GPU{'' if len(host.gpus) == 1 else 's'}",
            f"{host.free_bytes / 1e9:.1f} GB free",
            f"{'sees' if host.sees_runs else 'does not see'} the folder of runs",
            f"{'has' if host.sees_cwd else 'does not have'} the working folder",
            " ".join(address for address, _ in host.networks),
        ]
    )
    if at == 0 and not host.sees_runs:
        return Check(
            host.name, "wrong", found, f"OBLIVIOUS_HOME on a shared disk ({folder} is not seen there)"
        )
    return Check(host.name, "ok" if host.sees_cwd else "note", found)


def _differs(here: Mapping[str, str], host: Host) -> SetupProblem | None:
    """What is another version on a host than here."""
    for name in [*here, *host.versions]:
        mine, its = here.get(name, "missing"), host.versions.get(name, "missing")
        if mine == its:
            continue
        do = f"make the same environment on {host.name} as here: {sys.prefix}"
        if name in PACKAGES and name != "obl_magic" and "missing" not in (mine, its):
            do = f"ssh {host.name} {sys.executable} -m pip install {PACKAGES[name][0]}=={mine}"
        return SetupProblem(f"{name} is {mine} here and {its} on {host.name}", do)
    return None


@contextlib.contextmanager
def _visible() -> Iterator[Path]:
    """A file in the folder of runs that only those see who see that folder."""
    folder = home()
    path = folder / f".seen-{secrets.token_hex(8)}"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch()
        yield path
    finally:
        path.unlink(missing_ok=True)


def _answers(
    argv: Sequence[str], env: Mapping[str, str], program: Sequence[str], ranks: int
) -> dict[int, Any]:
    """What each rank says."""
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    words: list[str] = []
    world = World(
        argv, env, Path.cwd(), lines.put, lambda line: words.append(line.decode("utf-8", "replace")),
        lambda: lines.put(None), program,
    )  # fmt: skip
    found: dict[int, Any] = {}
    until = time.monotonic() + WITHIN_S
    try:
        while len(found) < ranks:
            line = lines.get(timeout=max(0.0, until - time.monotonic()))
            if line is None:
                break
            try:
                said = json.loads(line)
                found[said["rank"]] = said
            except (ValueError, KeyError, TypeError):  # the launcher's own words
                words.append(line.decode("utf-8", "replace"))
    except queue.Empty:
        words.append(f"not all hosts answered within {WITHIN_S:g} s")
    finally:
        world.stop()
    if len(found) < ranks:
        raise _why("".join(words))
    return found


def _why(words: str) -> SetupProblem:
    if (problem := ssh.problem(words)) is not None:
        return problem
    first = " ".join(line.strip() for line in words.splitlines() if line.strip("- \n"))
    return SetupProblem(
        f"not all hosts could be had: {first[:400]}", "ssh to each of them, and python -m obl_magic doctor"
    )


def _host(name: str, said: Mapping[str, Any]) -> Host:
    return Host(
        name, said["versions"], said["cores"], tuple(said["gpus"]), said["free_bytes"], said["sees_runs"],
        said["sees_cwd"], tuple((address, mask) for address, mask in said["networks"]),
    )  # fmt: skip
