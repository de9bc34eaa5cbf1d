"""Awkward output of real ranks: on disk byte for byte as printed, live the same, nothing torn, lost, or merged."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import obl_magic
from obl_magic.display.run.text import TextDisplay

pytestmark = [pytest.mark.slow, pytest.mark.timing]

LONG = 1_000_000


def shown(fn: Any, workers: int | None = 2, **options: Any) -> tuple[obl_magic.Run, str, str]:
    """A run, and what a terminal's two streams were given of rank 0's output (or of all ranks')."""
    out, err = io.StringIO(newline=""), io.StringIO(newline="")
    done = obl_magic.run(fn, workers=workers, engine="mpi", display=TextDisplay(out, err), **options)
    text = out.getvalue()
    begins, ends = text.index("\n") + 1, text.rindex("✓ ")
    return done, text[begins:ends], err.getvalue()


def test_awkward_text_of_every_origin_is_kept_and_shown_as_it_was(home: Path) -> None:
    """Colours, NULs, returns, invalid UTF-8, from Python, descriptors and child processes."""

    def fit() -> None:
        print("\x1b[31mred\x1b[0m and \x00 nothing")
        sys.stdout.buffer.write(b"\xff\xfe binary \xc3\xa9\r\n")
        sys.stdout.flush()
        os.write(2, b"\x1b[1mbold\x1b[0m\x00 \x80\n")
        subprocess.run(["printf", r"child \303\251 \377\n"], check=True)

    done, out, err = shown(fit)
    said = "\x1b[31mred\x1b[0m and \x00 nothing\n", "\ufffd\ufffd binary é\r\n", "child é \ufffd\n"
    for piece in said:
        assert piece in out
    assert len(out) == sum(map(len, said))
    assert err == "\x1b[1mbold\x1b[0m\x00 \ufffd\n"
    for rank in (0, 1):
        log = done.logs(rank)
        assert len(log) == sum(map(len, said)) + len(err)
        assert all(piece in log for piece in (*said, err))


def test_lines_of_a_megabyte_from_two_ranks_do_not_tear_each_other(home: Path) -> None:
    """Live, with the name of the rank before each, from Python and from C code at once."""

    def fit() -> None:
        from mpi4py import MPI

        letter = "ab"[MPI.COMM_WORLD.rank]
        for _ in range(3):
            print(letter * LONG)
            line = letter.upper().encode() * LONG + b"\n"
            while line:
                line = line[os.write(1, line) :]

    done, out, _ = shown(fit, show_ranks="all")
    lines = out.splitlines()
    expected = [f"[rank {rank}] {letter * LONG}" for rank, letter in ((0, "a"), (0, "A"), (1, "b"), (1, "B"))]
    assert sorted(lines) == sorted(expected * 3)
    for rank, letter in ((0, "a"), (1, "b")):
        assert sorted(done.logs(rank).splitlines()) == sorted([letter * LONG, letter.upper() * LONG] * 3)


def test_a_progress_bar_is_kept_and_shown_with_its_returns(home: Path) -> None:
    """As tqdm draws: a return, the bar, a flush; and a line end at last."""

    def fit() -> None:
        for at in range(101):
            sys.stderr.write(f"\r{at:3}%|{'█' * (at // 10):10}|")
            sys.stderr.flush()
        sys.stderr.write("\n")

    done, _, err = shown(fit)
    expected = "".join(f"\r{at:3}%|{'█' * (at // 10):10}|" for at in range(101)) + "\n"
    assert err == expected
    assert done.logs(0) == done.logs(1) == expected


@pytest.mark.parametrize("workers", [None, 1])
def test_code_that_writes_bytes_or_surrogates_runs_in_every_mode(home: Path, workers: int | None) -> None:
    """In the kernel, too, standard output has a buffer, and no print fails for what it prints."""

    def fit() -> str:
        for byte in "é\n".encode():
            sys.stdout.buffer.write(bytes([byte]))
        sys.stdout.buffer.flush()
        print("a\udc80b")
        return "done"

    done = obl_magic.run(
        fit, workers=workers, engine="mpi", display=TextDisplay(io.StringIO(), io.StringIO())
    )
    assert done.value == "done"
    assert done.logs(0) == "é\na?b\n"


def test_two_hundred_thousand_lines_arrive_in_order(home: Path) -> None:
    """From Python, as fast as it prints, without the display losing any."""

    def fit() -> None:
        print("\n".join(map(str, range(150_000))))
        for line in range(150_000, 200_000):
            print(line)

    done, out, _ = shown(fit, workers=1)
    expected = "".join(f"{line}\n" for line in range(200_000))
    assert done.logs(0) == expected
    assert out == expected
