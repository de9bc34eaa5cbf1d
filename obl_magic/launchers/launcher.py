"""What a launcher's file must say. Does nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from obl_magic.hosts.places import Hosts


class Variables(NamedTuple):
    """Environment variables by which a rank knows its place.

    Attributes:
        rank: of the rank's number.
        size: of the number of ranks.
        local_rank: of its number on its host.
        local_size: of the number of ranks there.
    """

    rank: str
    size: str
    local_rank: str
    local_size: str


@dataclass(frozen=True, slots=True)
class Death:
    """How a rank ended without saying why.

    Attributes:
        rank: which, or None where the launcher did not say.
        how: ``signal 9 (Killed)`` or ``exit code 3``.
        host: which was lost with all its ranks, or "".
    """

    rank: int | None
    how: str
    host: str = ""


class Launcher(Protocol):
    """A module of this folder.

    Attributes:
        TITLE: what people call it.
        PROGRAMS: names of its program, the preferred one first.
        VARIABLES: by which its ranks know their place.
        SEGMENTS: pattern of its shared memory's names in ``/dev/shm``, which stays behind when a rank is
            killed.
    """

    TITLE: str
    PROGRAMS: tuple[str, ...]
    VARIABLES: Variables
    SEGMENTS: str

    def version(self, said: str) -> str | None:
        """Its version, of what ``--version`` printed; None where another program printed it."""

    def arguments(self, version: str, ranks: int, cores: int, root: bool) -> list[str]:
        """What follows the program's name, up to the ranks' own command line.

        Args:
            version: as it says itself.
            ranks: how many processes.
            cores: processors this process may use; more ranks than that are oversubscribed.
            root: whether we are the superuser.
        """

    def settings(self, version: str, several: bool = False) -> dict[str, str]:
        """Its environment variables, beside the user's own.

        Args:
            version: as it says itself.
            several: the ranks are on several hosts.
        """

    def on_hosts(self, version: str, hosts: Hosts) -> list[str] | None:
        """What more follows the program's name where ranks are on these hosts; None where it was never tried."""

    def exported(self, names: Iterable[str]) -> list[str]:
        """What more follows so that variables of these names reach the ranks on other hosts."""

    def death(self, said: str) -> Death | None:
        """What its own words tell about the first process that died; None if nothing."""

    def session_folders(self, temporary: str, uid: int) -> list[str]:
        """Patterns of the folders that it leaves behind when it is killed, ``{pid}`` being its process id.

        Args:
            temporary: the folder for temporary files, escaped as a pattern.
            uid: the user's number.
        """
