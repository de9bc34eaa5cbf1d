"""Hosts as users write them, and who is where."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obl_magic.errors import UsageProblem
from obl_magic.hosts.places import Hosts, Place, beside, parse, read_hostfile
from obl_magic.hosts.where import asked_for, where
from obl_magic.options import RUN, SEARCH, RunOptions, StudyOptions

NAMES = st.lists(
    st.sampled_from(["a", "b", "node-7", "gpu01.lan", "10.0.0.3", "me@c"]), min_size=1, unique=True
)
COUNTS = st.lists(st.integers(1, 9), min_size=6, max_size=6)
HOSTS = st.tuples(NAMES, COUNTS)


def _hosts(of: tuple[list[str], list[int]]) -> Hosts:
    names, counts = of
    return Hosts(tuple(Place(name, count) for name, count in zip(names, counts, strict=False)))


@given(HOSTS)
def test_what_is_typed_is_read_back(of: tuple[list[str], list[int]]) -> None:
    """Names with numbers, in their order."""
    hosts = _hosts(of)
    assert parse(hosts.typed) == hosts
    assert parse(hosts.typed.split(",")) == hosts
    assert parse(hosts.typed, hosts.ranks) == hosts


@given(NAMES, st.integers(1, 40))
def test_hosts_without_numbers_share_the_workers(names: list[str], workers: int) -> None:
    """As evenly as can be, the first ones get one more: ``a,b -w 7`` is 4 + 3."""
    counts = [place.ranks for place in parse(",".join(names), workers).places]
    assert sum(counts) == workers
    assert max(counts) - min(counts) <= 1
    assert counts == sorted(counts, reverse=True)


def test_the_issues_own_lines() -> None:
    """``a:4,b:4``, ``a,b -w 7``, the same host twice."""
    assert parse("a:4,b:4").told == "8 ranks on 2 hosts: a 4, b 4"
    assert parse("a,b", 7).in_words == "a 4, b 3"
    assert parse("a:1,b:1,a:2").in_words == "a 3, b 1"
    assert parse("a:4,b:4", 5).in_words == "a 4, b 1"


def test_this_host_goes_first() -> None:
    """The run's folder is here."""
    me = socket.gethostname()
    assert parse(f"b:2,{me}:1").names == (me, "b")
    assert parse("b:2,localhost:1").names == ("localhost", "b")


@pytest.mark.parametrize(
    "text", ["a:x", "a:0", "", ",", "a b", "-oProxyCommand=evil", "a:1,", "a:-1", "a;b", "[::1"]
)
def test_what_names_no_hosts_is_refused(text: str) -> None:
    """No word of it reaches a command line."""
    with pytest.raises(UsageProblem) as caught:
        parse(text)
    said = f"got hosts {text!r}; expected NAME or NAME:RANKS with commas; do: --hosts a:4,b:4"
    assert str(caught.value).startswith(said)


def test_numbers_for_some_hosts_only_are_refused() -> None:
    """It would be a guess."""
    with pytest.raises(UsageProblem, match="after each name, or after none"):
        parse("a:4,b")


def test_more_ranks_than_places_are_refused() -> None:
    """With the hosts that would do."""
    with pytest.raises(UsageProblem) as caught:
        parse("a:4,b:4", 12)
    assert str(caught.value) == (
        "got 12 workers on hosts with 8 places (a 4, b 4); expected as many places as workers; do: --hosts a:6,b:6"
    )


def test_a_hostfile_is_read_as_open_mpi_reads_it(tmp_path: Path) -> None:
    """With comments, blank lines, most slots."""
    file = tmp_path / "hosts"
    file.write_text("# mine\na slots=4\n\nb slots = 2 max_slots=8 # half\nc\n")
    assert read_hostfile(file).in_words == "a 4, b 2, c 1"
    file.write_text("a\nb\n")
    assert read_hostfile(file, 5).in_words == "a 3, b 2"


@pytest.mark.parametrize("line", ["a slots=x", "a slots=0", "a b", "--evil"])
def test_a_line_of_a_hostfile_that_is_none_is_named(tmp_path: Path, line: str) -> None:
    """With its number."""
    file = tmp_path / "hosts"
    file.write_text(f"a slots=1\n{line}\n")
    with pytest.raises(UsageProblem, match="line 2"):
        read_hostfile(file)
    with pytest.raises(UsageProblem, match="No such file"):
        read_hostfile(tmp_path / "none")
    file.write_text("# nobody\n")
    with pytest.raises(UsageProblem, match="without a host"):
        read_hostfile(file)


@given(HOSTS, st.integers(1, 6), st.integers(1, 6))
def test_no_world_spans_hosts_while_one_has_room(
    of: tuple[list[str], list[int]], worlds: int, each: int
) -> None:
    """Every place is taken once at most, and each world has its ranks."""
    hosts = _hosts(of)
    if worlds * each > hosts.ranks:
        return
    room = {place.host: place.ranks for place in hosts.places}
    for world in hosts.worlds(worlds, each):
        assert world.ranks == each
        assert len(world.places) == 1 or all(free < each for free in room.values())
        for place in world.places:
            room[place.host] -= place.ranks
    assert min(room.values()) >= 0


@given(HOSTS, st.integers(1, 6), st.integers(1, 6))
def test_ranks_of_all_worlds_count_on_their_own_host(
    of: tuple[list[str], list[int]], worlds: int, each: int
) -> None:
    """Each number of a host is there once."""
    hosts = _hosts(of)
    if worlds * each > hosts.ranks:
        return
    placed = hosts.worlds(worlds, each)
    seen: dict[str, list[tuple[int, int]]] = {}
    for world, told in zip(placed, beside(placed), strict=True):
        names = [place.host for place in world.places for _ in range(place.ranks)]
        for name, entry in zip(names, told.split(","), strict=True):
            mine, everyone = map(int, entry.split("/"))
            seen.setdefault(name, []).append((mine, everyone))
    for found in seen.values():
        assert sorted(found) == [(number, len(found)) for number in range(len(found))]


def test_the_default_of_a_server_is_for_runs_with_workers() -> None:
    """A cell without ``-w`` runs here, as ever; what is typed goes before."""
    env = {"OBLIVIOUS_HOSTS": "a:2,b:2"}
    assert asked_for(None, None, None, env) is None
    assert where(None, None, 4, env) == parse("a:2,b:2")
    assert where("c:1", None, 1, env) == parse("c:1")
    with pytest.raises(UsageProblem, match="OBLIVIOUS_HOSTS: hosts 'a:x'"):
        where(None, None, 4, {"OBLIVIOUS_HOSTS": "a:x"})


def test_all_on_this_host_is_as_without_hosts() -> None:
    """So its worlds come from the fork server."""
    assert where("localhost:2", None, 2, {}) is None


def test_options_take_their_workers_from_the_hosts() -> None:
    """For runs and studies alike."""
    assert RunOptions.of(RUN, {"hosts": "a:4,b:4"}).workers == 8
    assert StudyOptions.of(SEARCH, {"hosts": ["a:1", "b:1"]}).workers == 2
    with pytest.raises(UsageProblem, match="12 workers on hosts with 8 places"):
        RunOptions.of(RUN, {"hosts": "a:4,b:4", "workers": 12})
    with pytest.raises(UsageProblem, match="hosts and hostfile"):
        RunOptions.of(RUN, {"hosts": "a:4", "hostfile": "x"})
    with pytest.raises(UsageProblem, match="slurm with hosts"):
        RunOptions.of(RUN, {"hosts": "a:4", "slurm": "-N 2"})
    with pytest.raises(UsageProblem, match="salloc's options"):
        RunOptions.of(RUN, {"slurm": "-p 'x"})
