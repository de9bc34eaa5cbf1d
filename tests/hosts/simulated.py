"""Hosts on this machine, each with a network, an sshd, a home, a /tmp and processes of its own; see make_hosts.sh."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
TREE = HERE.parents[1]
_HIDDEN = ("/tmp/", f"{Path.home()}/")
_OURS = ("obl_magic", "prted", "prterun", "mpirun")
_LEFT = "ls -d /tmp/prte* /tmp/ompi* /tmp/obl-* /dev/shm/* 2> /dev/null; true"


class Hosts:
    """Some hosts, and a folder that all of them see.

    Args:
        names: theirs; the notebook is to run on one of them.
        script: brings them up and down.
        hide: what some do not see: ``NAME=PATH``.
        more: variables of the script.
    """

    def __init__(
        self,
        names: Sequence[str],
        script: str = "make_hosts.sh",
        hide: Sequence[str] = (),
        more: Mapping[str, str] = {},
    ) -> None:
        self.names = tuple(names)
        self._state = tempfile.mkdtemp(prefix="simulated-hosts-", dir="/tmp")
        self.shared = Path(tempfile.mkdtemp(prefix="shared-by-hosts-", dir="/tmp"))
        self._script = str(HERE / script)
        read = {str(path) for path in (sys.prefix, sys.base_prefix, TREE) if str(path).startswith(_HIDDEN)}
        self._env = {
            **os.environ, "HOSTS_STATE": self._state, "HOSTS_SHARE": str(self.shared),
            "HOSTS_READ": ":".join(sorted(read)), "HOSTS_HIDE": ":".join(hide), **more,
        }  # fmt: skip
        self._env.pop("TMPDIR", None)
        try:
            self.call("up", *self.names)
        except BaseException:
            self.down()
            raise

    def call(self, *words: str) -> str:
        """What the script prints."""
        done = subprocess.run(
            [self._script, *words], env=self._env, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(
        self,
        host: str,
        program: str,
        *args: str,
        env: Mapping[str, str] = {},
        before: Sequence[str] = (),
        wraps: bool = False,
    ) -> subprocess.Popen[str]:
        """Starts Python on a host, in the folder that all see.

        Args:
            host: its name.
            program: the text of a script.
            args: of the script.
            env: more variables.
            before: what starts it: ``salloc -N2``.
            wraps: what starts it takes a whole command line.
        """
        path = self.shared / f"script-{time.monotonic_ns()}.py"
        path.write_text(textwrap.dedent(program))
        argv = [sys.executable, "-u", str(path), *args]
        argv = [*before, *([shlex.join(argv)] if wraps else argv)] if before else argv
        return subprocess.Popen(
            [self._script, "in", host, *argv],
            env={**self._env, "PYTHONPATH": str(TREE), "TF_CPP_MIN_LOG_LEVEL": "3", **env},
            cwd=self.shared, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip

    def python(self, host: str, program: str, *args: str, within_s: float = 60, **how: Any) -> str:
        """What a script prints that runs on a host; see :meth:`start`."""
        process = self.start(host, program, *args, **how)
        try:
            said, _ = process.communicate(timeout=within_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            said, _ = process.communicate()
            pytest.fail(f"not over within {within_s} s:\n{said}")
        return said

    def shell(self, host: str, command: str) -> str:
        """What a shell command prints on a host."""
        return self.call("in", host, "bash", "-c", command)

    def pids(self, host: str, part: str) -> list[int]:
        """The processes of a host whose command line has this in it, as numbered there."""
        each = "printf '%s ' ${p#/proc/}; tr '\\0' ' ' < $p/cmdline; echo"
        listing = f"for p in /proc/[0-9]*; do {each}; done 2> /dev/null"
        lines = (line.partition(" ") for line in self.shell(host, listing).splitlines())
        return [int(pid) for pid, _, what in lines if part in what and "cmdline" not in what]

    def nobody_is_up(self) -> None:
        """Forgets which ranks have said that they are up, as files in the folder that all see: ``up-0``."""
        for path in self.shared.glob("up-*"):
            path.unlink()

    def wait_until_up(self, within_s: float = 30) -> None:
        """Waits until two ranks have said so."""
        until = time.monotonic() + within_s
        while len(list(self.shared.glob("up-*"))) < 2:
            assert time.monotonic() < until, "the ranks did not come up"
            time.sleep(0.02)

    def wait_until_empty(self, within_s: float = 5.0) -> None:
        """Waits until no process and no file of ours is on any host."""
        until = time.monotonic() + within_s
        while left := self.left():
            assert time.monotonic() < until, "\n".join(left)
            time.sleep(0.1)

    def left(self) -> list[str]:
        """Processes and files of ours on all hosts."""
        return [each for host in self.names for each in self.left_on(host)]

    def left_on(self, host: str) -> list[str]:
        """Processes and files of ours on one."""
        files = [f"{host}: {each}" for each in self.shell(host, _LEFT).split()]
        return files + [f"{host}: process {pid} ({part})" for part in _OURS for pid in self.pids(host, part)]

    def down(self) -> None:
        """Ends them."""
        subprocess.run([self._script, "down"], env=self._env, check=False, timeout=60)
        for folder in (self._state, self.shared):
            shutil.rmtree(folder, ignore_errors=True)


def results(said: str) -> list[Any]:
    """What a script has printed as lines of ``RESULT`` and JSON; at least one."""
    lines = (line.partition("RESULT ") for line in said.splitlines())
    found = [json.loads(text) for before, mark, text in lines if mark and not before]
    assert found, said
    return found


def why_not(*programs: str) -> str:
    """Why there can be no such hosts here; "" where there can.

    Args:
        programs: that they need.
    """
    if sys.platform != "linux" or os.geteuid() != 0:
        return "hosts are simulated on Linux, by root"
    missing = [
        name for name in programs if shutil.which(name, path=f"{os.environ.get('PATH')}:/usr/sbin") is None
    ]
    if missing:
        return f"no {missing[0]} here: apt-get install openssh-server iproute2 slurmctld slurmd slurm-client munge"
    tried = subprocess.run(
        ["unshare", "--net", "--pid", "--fork", "true"], capture_output=True, text=True, check=False
    )
    return f"no namespaces here: {tried.stderr.strip()}" if tried.returncode else ""
