"""What a run writes down: whole pieces, private files, and a sentence about what could not be written."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from obl_magic.events.appending import Appending
from obl_magic.events.event import Log, Metric, to_json
from obl_magic.events.journal import Journal
from obl_magic.events.log import read

FULL_AFTER_1000_BYTES = """
import resource, sys
from pathlib import Path
from obl_magic.events.event import Log, Metric
from obl_magic.events.journal import Journal
folder = Path(sys.argv[1])
journal = Journal(folder / "events.jsonl", lambda rank: folder / f"rank-{rank}.log")
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
for step in range(100):
    journal.write(Metric(0, 0.0, {"loss": float(step)}, step, None))
journal.write(Log(0, 0.0, "stdout", "x" * 5000))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.write(Metric(0, 0.0, {"loss": -1.0}, 100, None))
journal.close()
print(journal.lost)
"""
"""In a process of its own: the limit holds for whatever this one's standard output is, too."""


def journal(folder: Path) -> Journal:
    """The journal of a run in a folder."""
    return Journal(folder / "events.jsonl", lambda rank: folder / f"rank-{rank}.log")


def test_events_and_what_ranks_print_are_written_down(tmp_path: Path) -> None:
    """Each rank's in a log of its own, which only the user can read; a line that is known is taken as it is."""
    events = [Log(0, 1.0, "stdout", "a\r\n"), Log(1, 1.0, "stdout", "é\x00"), Log(0, 2.0, "stderr", "b")]
    made = journal(tmp_path)
    for event in events:
        made.write(event, to_json(event))
    made.close()
    assert list(read(tmp_path / "events.jsonl")) == events
    assert (tmp_path / "rank-0.log").read_bytes() == b"a\r\nb"
    assert (tmp_path / "rank-1.log").read_bytes() == b"\xc3\xa9\x00"
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    assert made.lost == ""


def test_text_that_no_file_can_hold_is_written_all_the_same(tmp_path: Path) -> None:
    """A lone surrogate, printed in the kernel, must not fail the print."""
    made = journal(tmp_path)
    made.write(Log(0, 1.0, "stdout", "a\udc80b"))
    made.close()
    assert (tmp_path / "rank-0.log").read_bytes() == b"a?b"
    assert made.lost == ""


def test_a_full_disk_costs_whole_events_and_is_named(tmp_path: Path) -> None:
    """No half line stays in the log, what comes when there is room again is written, and the rest is counted."""
    done = subprocess.run(
        [sys.executable, "-c", FULL_AFTER_1000_BYTES, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    events = [event for event in read(tmp_path / "events.jsonl") if isinstance(event, Metric)]
    steps = [event.step for event in events]
    assert steps == [*range(len(steps) - 1), 100]
    assert 5 < len(steps) < 20
    assert (tmp_path / "rank-0.log").read_bytes() == b""
    assert done.stdout.strip() == (
        f"{102 - len(steps)} events could not be written to {tmp_path} (File too large): this kernel knows them, but "
        "who opens the run again will miss them; do: free or open that folder, or set OBLIVIOUS_HOME to another"
    )


ENDS = """
import resource, sys
from pathlib import Path
from obl_magic.events.appending import Appending
file = Appending(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
for line in range(10):
    file.append(f"line {line} ".encode() + b"." * 2 + b"\\n")
try:
    file.end_with(b"x" * int(sys.argv[2]) + b"\\n")
except OSError as error:
    print(error.strerror)
"""


@pytest.mark.parametrize(("length", "kept"), [(3, 9), (30, 6), (99, 0), (100, 10)])
def test_how_it_ended_takes_the_place_of_the_last_lines(tmp_path: Path, length: int, kept: int) -> None:
    """As few as need be; where nothing helps, everything stays as it was."""
    path = tmp_path / "log"
    done = subprocess.run(
        [sys.executable, "-c", ENDS, str(path), str(length)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    expected = [f"line {line} .." for line in range(kept)]
    fits = length < 100
    assert path.read_text().splitlines() == expected + ["x" * length] * fits
    assert done.stdout == ("" if fits else "File too large\n")


def test_a_folder_that_went_away_is_said_at_once(tmp_path: Path) -> None:
    """Before anything is started."""
    with pytest.raises(FileNotFoundError):
        journal(tmp_path / "gone")


def test_closing_twice_is_harmless(tmp_path: Path) -> None:
    """The second call does nothing."""
    file = Appending(tmp_path / "file")
    file.append(b"x")
    file.close()
    file.close()
    assert (tmp_path / "file").read_bytes() == b"x"
