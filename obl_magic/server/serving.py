"""How a server serves: it imports what it is told to, and forks who is to fork ranks.

It forks only while it has a single thread: what other threads hold would be held for ever in a child.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from obl_magic.server.asking import Request, receive
from obl_magic.server.imported import HELD, files, give_pages_back, import_ahead, why_not
from obl_magic.server.ranks import IsRank, Ranks, look_like
from obl_magic.world.leash import Ear, Leash, deaf, end_as, hold


class Server:
    """Takes its kernel's requests, one after another.

    Args:
        hears: the descriptor on which they come.
        modules: what to import first.
    """

    def __init__(self, hears: int, modules: Sequence[str]) -> None:
        self._hears, self._ear = hears, Ear()
        self._over = False
        self._held: list[str] = []
        self._variables = dict(os.environ)
        self._import(modules)
        self._ear.listen(hears, self._take)

    def serve(self) -> None:
        """Until the kernel wants no more worlds, and those that there are have ended."""
        while not self._over or _has_children():
            self._ear.hear()
            self._reap()

    def _take(self) -> None:
        """A request has come, or the end of all."""
        raise NotImplementedError

    def _tell(self, what: dict[str, object]) -> None:
        """Says something to the kernel."""
        raise NotImplementedError

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while ended := os.waitpid(-1, os.WNOHANG)[0]:
                self._has_ended(ended)

    def _has_ended(self, pid: int) -> None:
        """A child has."""

    def _import(self, modules: Sequence[str]) -> None:
        """Has these, too, in memory from now on; tells the kernel."""
        before = files()
        self._held += import_ahead(modules)
        HELD.update(files().keys() - before.keys())
        gc.freeze()  # a collection in a rank would write into all pages that it shares
        give_pages_back()
        changed = {name: value for name, value in os.environ.items() if self._variables.get(name) != value}
        self._tell({"held": self._held, "modules": list(sys.modules), "set": changed, "no": why_not()})


class HereServer(Server):
    """That of a kernel on this host, which asks for whole worlds.

    Args:
        kernel: the socket to it.
        modules: what to import first.
    """

    def __init__(self, kernel: socket.socket, modules: Sequence[str]) -> None:
        self._kernel = kernel
        super().__init__(kernel.fileno(), modules)

    def _tell(self, what: dict[str, object]) -> None:
        self._kernel.sendall(json.dumps(what).encode() + b"\n")

    def _take(self) -> None:
        said, given = receive(self._kernel)
        if not said:
            self._over = True
            self._ear.forget(self._hears)
            self._kernel.close()
            return
        if not given:
            self._import(json.loads(said))
            return
        says = socket.socket(fileno=given[3])
        if problem := why_not():
            says.sendall(json.dumps({"no": problem}).encode() + b"\n")
        elif os.fork() == 0:
            deaf()
            self._kernel.close()
            _conduct(Request(*json.loads(said)), given[:3], says, given[4])
        says.close()
        for file in (*given[:3], given[4]):
            os.close(file)


def _conduct(asked: Request, streams: list[int], says: socket.socket, kernel: int) -> NoReturn:
    """Holds a world, in a child of the server's."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        handle = os.pidfd_open(os.getpid())  # told first, by the same process that tells the rest
        socket.send_fds(says, [json.dumps({"leash": os.getpid()}).encode() + b"\n"], [handle])
        os.close(handle)
        os.setsid()
        look_like(asked.mark)
        os.environ.clear()
        os.environ.update(asked.env)
        os.chdir(asked.cwd)
        for number, file in enumerate(streams):
            os.dup2(file, number)
            os.close(file)
        for file in (says.fileno(), kernel):
            os.set_inheritable(file, False)
        ear = Ear()
        ranks = Ranks(ear, asked.address)

        def leashed(launcher: int) -> Leash:
            leash = Leash(launcher, asked.segments, ear, ranks.ended)

            def kernel_is_gone() -> None:
                leash.asked = True
                ear.forget(kernel)

            ear.listen(kernel, kernel_is_gone)
            return leash

        status = hold(ear, leashed, says.fileno(), asked.folders, asked.argv)
    except IsRank:
        says.close()
        os.close(kernel)
        raise
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    end_as(status)
    raise AssertionError("it has ended")


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True
