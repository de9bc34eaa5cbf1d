"""A rank that does not see the run's folder, and the folder that gets what it sends."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obl_magic.events.event import Event, Result, Sent, from_json, to_json
from obl_magic.rundir import RunDir, buffers_of
from obl_magic.runs.arrivals import Arrivals
from obl_magic.worker import stand_in
from obl_magic.worker.stand_in import StandIn


def _sent_home(tmp_path: Path, parts: dict[str, bytes], rank: int = 3) -> tuple[list[Event], list[str]]:
    """The events of a rank that leaves some files and returns, and what the run's folder says of them."""
    sent: list[Event] = []
    away = StandIn(Path("/nowhere/runs/20260101-000000-abcdef"), sent.append)
    for name, data in parts.items():
        (away.folder.path / name).write_bytes(data)
    away.emit(Result(rank, 0.0, f"value-{rank}.pkl", 1, None))
    away.remove()
    assert not away.folder.path.exists()
    said: list[str] = []
    home = Arrivals(RunDir.at(tmp_path), said.append)
    for event in map(from_json, map(to_json, sent)):
        if isinstance(event, Sent):
            home.take(event)
    return sent, said


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, 3 << 20])
def test_files_come_home_as_they_are_and_before_their_event(tmp_path: Path, size: int) -> None:
    """In pieces, with the arrays that lie beside them."""
    data = bytes(range(256)) * (size // 256) + bytes(size % 256)
    value = RunDir.at(tmp_path).value(3)
    sent, said = _sent_home(tmp_path, {value.name: data, buffers_of(value).name: b"arrays"})
    assert value.read_bytes() == data
    assert buffers_of(value).read_bytes() == b"arrays"
    assert isinstance(sent[-1], Result)
    assert not said
    assert not list(tmp_path.glob(".*"))


@given(st.text(min_size=1))
def test_nothing_is_written_but_what_a_rank_leaves(name: str) -> None:
    """Neither elsewhere, nor over what is there."""
    said: list[str] = []
    Arrivals(RunDir.at("/nowhere-at-all"), said.append).take(Sent(1, 0.0, name, "", True))
    assert not said


def test_a_file_that_cannot_be_kept_is_told_once(tmp_path: Path) -> None:
    """The disk is full, say; or what came is no base64."""
    said: list[str] = []
    home = Arrivals(RunDir.at(tmp_path), said.append)
    for last in (False, True):
        home.take(Sent(1, 0.0, "value-1.pkl", "no base64!", last))
    assert len(said) == 1
    assert said[0].startswith("value-1.pkl of rank 1 could not be kept (")
    assert not list(tmp_path.iterdir())


def test_the_stand_in_is_a_trial_where_the_runs_folder_is_one() -> None:
    """Its last names are the run's."""
    away = StandIn(Path("/nowhere/studies/s/trials/s-001"), lambda event: None)
    assert away.folder.is_trial
    assert away.folder.id == "s-001"
    away.remove()


def test_pieces_are_of_one_megabyte(tmp_path: Path) -> None:
    """So that no event is large."""
    path = tmp_path / "x"
    path.write_bytes(bytes(2_500_000))
    assert [(len(piece), last) for piece, last in stand_in._pieces(path)] == [
        (1 << 20, False), (1 << 20, False), (2_500_000 - (2 << 20), True),
    ]  # fmt: skip
