"""A fork server: imports once what ranks import, and forks worlds whose ranks have it from their first moment on.

Run as ``python -P -m obl_magic.server``. For each request of its kernel it
forks a conductor, which holds the launcher on a leash as ever (``leash``) and forks a rank for each stub that the
launcher starts (``stub``). So everything of a world lives below its conductor, and ranks end, are killed and are
reaped like any others. A conductor does not depend on the server: a new one may take its place while worlds run.
On another host than its kernel's there is no launcher to hold, and what forks the ranks ends with the server.
"""

from __future__ import annotations

import os
import signal
import socket
import traceback

from obl_magic.server.afar_serving import AfarServer
from obl_magic.server.asking import STARTED
from obl_magic.server.ranks import IsRank, be_a_rank
from obl_magic.server.serving import HereServer, Server
from obl_magic.world.leash import PR_SET_PDEATHSIG, prctl


def main(parent: int, descriptor: int, modules: list[str]) -> None:
    """Serves until its kernel is gone.

    Args:
        parent: the kernel's process id; 0: it is on another host.
        descriptor: of the socket to it.
        modules: what to import first.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        if parent:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                return
            kernel = socket.socket(fileno=descriptor)
            kernel.set_inheritable(False)
            server: Server = HereServer(kernel, modules)
        else:
            server = AfarServer(modules)
        server.serve()
    except IsRank as rank:
        of_stub = rank
    else:
        return
    try:
        be_a_rank(of_stub)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


if __name__ == "__main__":
    parent, descriptor, *modules = os.environ.pop(STARTED).split()
    main(int(parent), int(descriptor), modules)
