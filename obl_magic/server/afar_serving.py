"""The server on another host than its kernel's: it forks ranks for the stubs that the launcher's daemon starts there.

Its kernel speaks through ssh, a line of JSON at a time. The launcher is not here, so the kernel says when a world is
over. Where it does not although all stubs of a world are gone, this host was cut off, and the server ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

from obl_magic.server.imported import NEEDS_BYTES, why_not
from obl_magic.server.ranks import IsRank, Ranks, look_like
from obl_magic.server.serving import Server
from obl_magic.worker.swept import sweep
from obl_magic.world.free_memory import available_bytes
from obl_magic.world.leash import PR_SET_CHILD_SUBREAPER, PR_SET_PDEATHSIG, Ear, Leash, deaf, prctl

CUT_OFF_S = 5.0
_CHUNK_BYTES = 1 << 16


class AfarServer(Server):
    """Takes the lines of a kernel on another host.

    Args:
        modules: what to import first.
    """

    def __init__(self, modules: Sequence[str]) -> None:
        hears, self._says = os.dup(0), os.dup(1)
        _be_silent()  # what is imported may write
        self._rest = b""
        self._worlds: dict[str, int] = {}
        self._enough = available_bytes() >= NEEDS_BYTES
        super().__init__(hears, modules if self._enough else ())

    def _tell(self, what: dict[str, object]) -> None:
        if not self._enough:
            what = {**what, "no": "too little memory is free there"}
        with contextlib.suppress(OSError):
            os.write(self._says, json.dumps(what).encode() + b"\n")

    def _take(self) -> None:
        said = os.read(self._hears, _CHUNK_BYTES)
        if not said:
            self._end()
            return
        *lines, self._rest = (self._rest + said).split(b"\n")
        for line in lines:
            self._do(json.loads(line))

    def _do(self, asked: dict[str, Any]) -> None:
        if "imports" in asked:
            self._import(asked["imports"])
        elif "over" in asked:
            if (pid := self._worlds.pop(asked["over"], None)) is not None:
                _end(pid)
        elif problem := why_not():
            self._tell({"door": "", "no": problem})
        elif (pid := os.fork()) == 0:
            deaf()
            os.close(self._hears)
            _fork_ranks(self._says, asked)
        else:
            self._worlds[asked["world"]] = pid

    def _has_ended(self, pid: int) -> None:
        if pid in self._worlds.values():  # by itself
            self._end()

    def _end(self) -> None:
        """It serves no more, and nothing of it lives on."""
        self._over = True
        self._ear.forget(self._hears)
        for pid in self._worlds.values():
            _end(pid)
        self._worlds.clear()


def _fork_ranks(says: int, asked: dict[str, Any]) -> NoReturn:
    """Is the parent of a world's ranks on this host, in a child of the server's, until it is told that it is over."""
    try:
        server = os.getppid()
        prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        os.setsid()
        look_like(tuple(asked["mark"]))
        ear = Ear()
        ranks = Ranks(ear, asked["world"])
        leash = Leash(0, asked["segments"], ear, ranks.ended)
        os.write(says, json.dumps({"door": asked["world"]}).encode() + b"\n")
        os.close(says)
        since = time.monotonic()
        while signal.SIGTERM not in ear.hear(CUT_OFF_S) and os.getppid() == server:
            leash.reap()
            if ranks.any or not ranks.came:
                since = time.monotonic()
            elif time.monotonic() - since > CUT_OFF_S:
                break
        leash.end_the_rest()
        sweep()
    except IsRank:
        raise
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _be_silent() -> None:
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(nothing, number)
    os.close(nothing)


def _end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
