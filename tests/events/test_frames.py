"""Frames on a pipe shared by ranks: whole, small, and honest about what was lost."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obl_magic.events.frames import FRAME_BYTES, MARK, Decoder, Gap, Stray, Whole, encode

lengths = st.one_of(
    st.integers(0, 40), st.integers(FRAME_BYTES - 80, FRAME_BYTES + 20), st.integers(8000, 12400)
)


def text_of(length: int, salt: int) -> str:
    """Printable ASCII with spaces at its ends, different for every salt."""
    return "".join(chr(32 + (i * 7 + salt) % 95) for i in range(length))


def decoded(lines: list[bytes]) -> list[Whole | Gap | Stray]:
    """What one decoder makes of these lines."""
    decoder = Decoder()
    return [piece for line in lines for piece in decoder.feed(line)]


def interleaved(streams: list[list[bytes]], rng: random.Random) -> list[bytes]:
    """The streams' lines mixed; each stream's own order kept."""
    turns = [rank for rank, stream in enumerate(streams) for _ in stream]
    rng.shuffle(turns)
    iterators = [iter(stream) for stream in streams]
    return [next(iterators[rank]) for rank in turns]


@given(st.lists(st.lists(lengths, max_size=4), min_size=1, max_size=9), st.randoms(use_true_random=False))
def test_any_interleaving_of_any_ranks_comes_back_whole_and_in_order(
    world: list[list[int]], rng: random.Random
) -> None:
    """Per rank every event once, in its order; nothing lost, nothing stray."""
    said = [[text_of(n, rank + i) for i, n in enumerate(sizes)] for rank, sizes in enumerate(world)]
    streams = [
        [f for i, text in enumerate(texts) for f in encode(rank, i, text)] for rank, texts in enumerate(said)
    ]
    pieces = decoded(interleaved(streams, rng))
    assert all(isinstance(piece, Whole) for piece in pieces)
    for rank, texts in enumerate(said):
        assert [p.text for p in pieces if isinstance(p, Whole) and p.rank == rank] == texts


@given(lengths, st.integers(0, 9_999_999), st.integers(0, 10**12))
def test_no_frame_is_longer_than_one_pipe_write(length: int, rank: int, sequence: int) -> None:
    """At most 4,096 bytes with the newline, which is the only one."""
    for frame in encode(rank, sequence, text_of(length, 0)):
        assert len(frame) <= FRAME_BYTES
        assert frame.count(b"\n") == 1
        assert frame.endswith(b"\n")


@pytest.mark.parametrize("length", range(FRAME_BYTES - 70, FRAME_BYTES + 2))
def test_every_length_around_the_limit_survives(length: int) -> None:
    """Where one frame becomes two, no character is lost."""
    text = text_of(length, 3)
    assert decoded(list(encode(2, 0, text))) == [Whole(2, text)]


@given(
    st.lists(lengths, min_size=2, max_size=8).flatmap(
        lambda sizes: st.tuples(st.just(sizes), st.sets(st.integers(0, len(sizes) - 2)))
    ),
    st.randoms(use_true_random=False),
)
def test_an_event_that_lost_a_frame_is_reported_by_its_number(
    case: tuple[list[int], set[int]], rng: random.Random
) -> None:
    """Whichever part is missing: the others come whole, the lost ones are named, each once."""
    sizes, lost = case
    lines = []
    for number, size in enumerate(sizes):
        frames = list(encode(0, number, text_of(size, number)))
        if number in lost:
            del frames[rng.randrange(len(frames))]
        lines += frames
    pieces = decoded(lines)
    kept = [text_of(size, number) for number, size in enumerate(sizes) if number not in lost]
    assert [piece.text for piece in pieces if isinstance(piece, Whole)] == kept
    named = [n for piece in pieces if isinstance(piece, Gap) for n in range(piece.first, piece.last + 1)]
    assert named == sorted(lost)


@given(st.text(st.characters(exclude_characters="\n\r\x1e", exclude_categories=["Cs"]), min_size=1))
def test_what_others_print_is_a_stray_and_disturbs_nobody(words: str) -> None:
    """A launcher's own line between two parts of an event."""
    text = text_of(9000, 1)
    first, *rest = encode(0, 0, text)
    assert decoded([first, words.encode() + b"\n", *rest]) == [Stray(words), Whole(0, text)]


def test_a_print_without_line_end_before_a_frame_costs_no_event() -> None:
    """Half a line of somebody's, then an event: both arrive."""
    (frame,) = encode(0, 0, "event")
    assert decoded([b"half" + frame]) == [Stray("half"), Whole(0, "event")]


def test_a_damaged_frame_is_a_stray_told_once() -> None:
    """What looks like a frame and is none is shown, not dropped and not repeated."""
    assert decoded([b"half" + MARK.encode() + b"0 x\n"]) == [Stray("half"), Stray(MARK + "0 x")]


def test_bytes_that_are_no_text_are_shown_all_the_same() -> None:
    """Invalid UTF-8 of the launcher is replaced."""
    assert decoded([b"\xff\xfe bad\n", b"\n"]) == [Stray("\ufffd\ufffd bad")]
