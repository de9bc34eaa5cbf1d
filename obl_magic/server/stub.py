"""What a launcher starts in place of a rank whose world comes from a fork server: hands its place over, ends alike.

Run as a script, with as little of Python as there is, as ``stub.py ADDRESS PROGRAM...``. Its environment, which tells
a rank its place, and its open files go to whoever forks the rank; what comes back is the rank's process id, later how
it ended. Where nobody forks it, it becomes the rank itself.
"""

from __future__ import annotations

import _socket
import os
import signal
import sys

SIZE_BYTES = 4


def _files() -> list[int]:
    """The files that were open when this began."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            os.fstat(int(name))
        except OSError:  # the folder itself
            continue
        found.append(int(name))
    return sorted(found)


def _handed_over(address: str) -> int:
    """How the rank ended, as ``os.wait`` says it; -1 where none was forked."""
    files = _files()
    to = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        to.connect("\0" + address)
    except OSError:
        return -1
    about = b"\0".join(key + b"=" + value for key, value in os.environb.items())
    about = b" ".join(b"%d" % file for file in files) + b"\0" + about
    given = b"".join(file.to_bytes(4, sys.byteorder) for file in files)
    to.sendmsg([len(about).to_bytes(SIZE_BYTES, "big")], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, given)])
    to.sendall(about)
    if not _number(to):
        return -1
    nothing = os.open(os.devnull, os.O_RDWR)
    for file in files:
        os.dup2(nothing, file)
    return _number(to)


def _number(to: _socket.socket) -> int:
    """A number that was sent; that of a process killed by SIGKILL where the sender is gone."""
    said = b""
    while len(said) < SIZE_BYTES:
        if not (more := to.recv(SIZE_BYTES - len(said))):
            return int(signal.SIGKILL)
        said += more
    return int.from_bytes(said, "big")


def main() -> None:
    """Ends as the rank does."""
    status = _handed_over(sys.argv[1])
    if status < 0:
        os.execvp(sys.argv[2], sys.argv[2:])
    if os.WIFSIGNALED(status):
        import resource  # which few stubs need

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the rank has left its own, where it may
        number = os.WTERMSIG(status)
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    os._exit(os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 1)


if __name__ == "__main__":
    main()
