"""The event log: appended line by line, read back, torn end forgiven."""

from __future__ import annotations

from pathlib import Path

import pytest

from obl_magic.events.event import Event, Log, Note
from obl_magic.events.log import EventLog, Follower, read

EVENTS: list[Event] = [Log(0, 1.0, "stdout", "eins\nzwei é\x85\u2028\n"), Note(1, 2.0, "sentence", "code")]


def written(path: Path) -> Path:
    """A log with two events."""
    with EventLog(path) as log:
        for event in EVENTS:
            log.append(event)
    return path


def test_what_was_appended_is_read_back(tmp_path: Path) -> None:
    """In order, also with line separators inside the text."""
    assert list(read(written(tmp_path / "log"))) == EVENTS


def test_an_event_can_be_read_while_the_log_is_open(tmp_path: Path) -> None:
    """Whoever reads along sees an event as soon as append returns."""
    with EventLog(tmp_path / "log") as log:
        log.append(EVENTS[0])
        assert list(read(tmp_path / "log")) == EVENTS[:1]


def test_a_second_writer_adds_and_erases_nothing(tmp_path: Path) -> None:
    """The log is append-only."""
    written(tmp_path / "log")
    assert list(read(written(tmp_path / "log"))) == EVENTS * 2


@pytest.mark.parametrize("torn", [1, 5, 20])
def test_a_torn_last_line_is_left_out(tmp_path: Path, torn: int) -> None:
    """A kernel killed in the middle of a write costs that one event."""
    path = written(tmp_path / "log")
    path.write_bytes(path.read_bytes()[:-torn])
    assert list(read(path)) == EVENTS[:1]


@pytest.mark.parametrize(
    "damage", [b'{"kind":"x"}\n', b"\n", b"[]\n", b"\0\0\0\n", b"\xff{\n", b'{"kind":\n']
)
def test_damage_elsewhere_is_counted_and_the_rest_is_read(tmp_path: Path, damage: bytes) -> None:
    """Never silently a shorter history."""
    path = written(tmp_path / "log")
    path.write_bytes(damage + path.read_bytes())
    follower = Follower(path)
    assert follower.fresh() == EVENTS
    assert follower.damaged == 1


def test_zeros_that_a_power_cut_left_before_a_line_are_no_part_of_it(tmp_path: Path) -> None:
    """Some file systems grow a file before they fill it."""
    path = written(tmp_path / "log")
    path.write_bytes(b"\0" * 4096 + path.read_bytes())
    assert list(read(path)) == EVENTS


def test_a_log_that_does_not_exist_has_no_events(tmp_path: Path) -> None:
    """A run that has not begun to speak."""
    assert list(read(tmp_path / "none")) == []


def test_closing_twice_is_harmless(tmp_path: Path) -> None:
    """The second call does nothing."""
    log = EventLog(tmp_path / "log")
    log.close()
    log.close()


# Reading along


def test_a_follower_gives_each_event_once_as_it_comes(tmp_path: Path) -> None:
    """Also where the log did not exist yet."""
    follower = Follower(tmp_path / "log")
    assert follower.fresh() == []
    with EventLog(tmp_path / "log") as log:
        for event in EVENTS:
            log.append(event)
            assert follower.fresh() == [event]
            assert follower.fresh() == []


def test_a_follower_waits_for_the_end_of_a_half_written_line(tmp_path: Path) -> None:
    """Wherever it is cut, the event comes whole, and once."""
    whole = written(tmp_path / "log").read_bytes()
    second = whole.index(b"\n") + 1
    for cut in (1, second - 1, second, second + 1, len(whole) - 1):
        path = tmp_path / f"log-{cut}"
        path.write_bytes(whole[:cut])
        follower = Follower(path)
        first = follower.fresh()
        assert first == EVENTS[: whole[:cut].count(b"\n")]
        with path.open("ab") as file:
            file.write(whole[cut:])
        assert first + follower.fresh() == EVENTS
