"""How another host is reached, and why it could not be: the one line that says it, among the many that ssh writes."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping, Sequence

from obl_magic.errors import SetupProblem

BATCH = "-o BatchMode=yes -o ConnectTimeout=10"
"""It asks nobody for a password."""
_NOTICES = ("-o", "ServerAliveInterval=2", "-o", "ServerAliveCountMax=3")
"""That a cable is out."""
_AGENT, _ARGS = "PRTE_MCA_plm_ssh_agent", "PRTE_MCA_plm_ssh_args"
_REMOTE = re.compile(r"Remote host:\s+(\S+)")
_WORDS = (
    (re.compile(r"(?:ssh: )?(Could not resolve hostname .*)"), "getent hosts {host} (is the name right?)"),
    (re.compile(r"(Host key verification failed)"), "ssh {host} once, and accept its key"),
    (re.compile(r"\S+: (Permission denied \(.*\))"), "ssh-copy-id {host}"),
    (re.compile(r"ssh: connect to host .*: (Connection timed out)"), "ping {host} (is it on?)"),
    (re.compile(r"ssh: connect to host .*: (Connection refused)"), "start sshd on {host}"),
    (
        re.compile(r"ssh: connect to host .*: (No route to host|Network is unreachable)"),
        "ping {host} (is it on?)",
    ),
    (re.compile(r"(Connection (?:closed|reset) by .*)"), "ssh {host} true"),
)
"""What ssh says, and what to do about it."""
_NO_DAEMON = re.compile(r"(?:line \d+: |sh: |: )(/\S*prted): (?:No such file|not found)")
_NO_PROGRAM = re.compile(r"could not access an executable:\s+Executable: (\S+)\s+Node: (\S+)")
_NO_SSH = "No available launching agents were found"
_SAME = "make the same environment there, or use a shared folder"


def command(host: str, program: Sequence[str], environ: Mapping[str, str] = os.environ) -> list[str]:
    """What runs a program on another host, by the ssh that Open MPI's launcher takes there.

    Args:
        host: its name, as a user writes it.
        program: its command line.
        environ: where the user may have set another one.
    """
    agent = shlex.split(environ.get(_AGENT, "ssh").partition(":")[0])
    return [*agent, *_NOTICES, *shlex.split(environ.get(_ARGS, BATCH)), host, f"exec {shlex.join(program)}"]


def problem(said: str) -> SetupProblem | None:
    """What kept a launcher from a host.

    Args:
        said: all that the launcher wrote.

    Returns:
        The problem with what mends it; None where it was nothing of the kind.
    """
    remote = _REMOTE.search(said)
    host = remote[1] if remote else "a host"
    if found := _NO_PROGRAM.search(said):
        return SetupProblem(f"{found[2]} has no {found[1]}", _SAME)
    if found := _NO_DAEMON.search(said):
        return SetupProblem(f"{host} has no {found[1]}", _SAME)
    for line in said.splitlines():
        for words, do in _WORDS:
            if found := words.match(line.strip()):
                return SetupProblem(
                    f'{host} cannot be reached: ssh says "{found[1].rstrip(".")}"', do.format(host=host)
                )
    if _NO_SSH in said:
        return SetupProblem(
            "there is no ssh here", "install an ssh client, e.g. apt-get install openssh-client"
        )
    return None
