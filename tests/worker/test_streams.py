"""What a rank prints, by whatever way, arrives as log events, whole and in order."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass

from obl_magic.events.event import Log, Metric, from_json
from obl_magic.events.frames import FRAME_BYTES, Decoder, Gap, Stray, Whole
from obl_magic.worker.streams import LONGEST_PIECE

BEGINS = """
import ctypes, os, subprocess, sys, threading, time
from obl_magic.worker.streams import TakenStreams
from obl_magic.events.event import Metric
streams = TakenStreams(3)
"""
ENDS = "\nstreams.close()\nos._exit(0)\n"


@dataclass
class Said:
    """What arrived from one process: its events, what was lost, what was no event, its launcher's words."""

    events: list[Log | Metric]
    gaps: list[Gap]
    strays: list[Stray]
    words: str
    longest: int

    def text(self, stream: str = "stdout") -> str:
        """All that was said on one stream."""
        return "".join(e.text for e in self.events if isinstance(e, Log) and e.stream == stream)


def rank(body: str, ends: str = ENDS) -> Said:
    """Runs a program as a rank that took its streams over."""
    done = subprocess.run(
        [sys.executable, "-c", BEGINS + body + ends], capture_output=True, timeout=60, check=False
    )
    decoder = Decoder()
    lines = done.stdout.splitlines(keepends=True)
    pieces = [piece for line in lines for piece in decoder.feed(line)]
    events = [from_json(piece.text) for piece in pieces if isinstance(piece, Whole)]
    assert all(isinstance(event, (Log, Metric)) and event.rank == 3 for event in events)
    return Said(
        [event for event in events if isinstance(event, (Log, Metric))],
        [piece for piece in pieces if isinstance(piece, Gap)],
        [piece for piece in pieces if isinstance(piece, Stray)],
        done.stderr.decode(),
        max(map(len, lines), default=0),
    )


def test_every_way_of_writing_arrives() -> None:
    """Python, descriptors, C, bytes and child processes; nothing reaches the launcher's own words."""
    said = rank("""
print("python"); print("python error", file=sys.stderr)
sys.stdout.buffer.write(b"buffer\\n")
os.write(1, b"descriptor\\n"); os.write(2, b"descriptor error\\n")
libc = ctypes.CDLL(None); libc.printf(b"C\\n"); libc.fflush(None)
subprocess.run([sys.executable, "-c", "import sys; print('child'); print('child error', file=sys.stderr)"])
os.system("echo shell")
""")
    assert sorted(said.text().split()) == sorted(["python", "buffer", "descriptor", "C", "child", "shell"])
    assert sorted(said.text("stderr").splitlines()) == ["child error", "descriptor error", "python error"]
    assert (said.words, said.strays, said.gaps) == ("", [], [])


def test_a_print_survives_the_end_of_the_process_in_the_next_instruction() -> None:
    """Python's prints are sent by the printing thread: a crash loses none."""
    said = rank(
        "for i in range(200): print(i)\nprint('last'); print('last error', file=sys.stderr)\n", "os._exit(9)"
    )
    assert said.text().split() == [*map(str, range(200)), "last"]
    assert said.text("stderr") == "last error\n"


def test_half_a_line_arrives_at_a_flush_and_at_the_end() -> None:
    """A progress indicator without line end is seen when it is flushed."""
    said = rank("print('half', end='', flush=True)\nprint(' more', end='')\nos.write(2, b'rest')")
    assert [e.text for e in said.events if isinstance(e, Log) and e.stream == "stdout"] == ["half", " more"]
    assert said.text("stderr") == "rest"


def test_a_carriage_return_ends_a_piece() -> None:
    """Progress bars are live; their text is kept as it was."""
    said = rank("for text in '1/2\\r', '2/2\\r\\n': sys.stdout.write(text); os.write(2, text.encode())")
    assert [e.text for e in said.events if isinstance(e, Log) and e.stream == "stdout"] == [
        "1/2\r",
        "2/2\r\n",
    ]
    assert said.text("stderr") == "1/2\r2/2\r\n"


def test_text_that_is_no_text_arrives_all_the_same() -> None:
    """Invalid UTF-8 and lone surrogates are replaced, so that every log can be written to disk."""
    said = rank("os.write(1, b'a\\xff\\n'); print('b\\udc80'); print('é\\x1eOBL 0 0 0 1 x\\x00')")
    assert "b?\n" in said.text()
    assert "a\ufffd\n" in said.text()
    assert "é\x1eOBL 0 0 0 1 x\x00\n" in said.text()
    said.text().encode()


def test_a_character_cut_in_two_by_its_writer_is_whole_again() -> None:
    """Bytes come in pieces; a piece may end inside a character."""
    said = rank(
        "for byte in 'é€😀\\n'.encode():\n    sys.stdout.buffer.write(bytes([byte]))\n"
        "for byte in 'ü\\n'.encode():\n    os.write(2, bytes([byte]))"
    )
    assert (said.text(), said.text("stderr")) == ("é€😀\n", "ü\n")


def test_a_line_of_a_megabyte_arrives_whole() -> None:
    """From Python and from C code, in frames that no launcher tears."""
    said = rank(
        "print('x' * 1_000_000)\nline = b'y' * 1_000_000 + b'\\n'\nwhile line: line = line[os.write(2, line):]"
    )
    assert said.text() == "x" * 1_000_000 + "\n"
    assert said.text("stderr") == "y" * 1_000_000 + "\n"
    assert said.longest <= FRAME_BYTES
    assert said.gaps == []


def test_threads_and_events_do_not_tear_each_other() -> None:
    """Lines of four threads and metrics between them: every one whole."""
    said = rank("""
def talk(name):
    for i in range(50):
        sys.stdout.write(f"{name} {i} " + "z" * 5000 + "\\n")
        streams.pipe.emit(Metric(3, 0.0, {name: float(i)}, None, None))
threads = [threading.Thread(target=talk, args=(n,)) for n in "abcd"]
for t in threads: t.start()
for t in threads: t.join()
""")
    metrics = [event for event in said.events if isinstance(event, Metric)]
    assert len(metrics) == 200
    told = [line.split(" ", 2)[:2] for line in said.text().split("\n") if line]
    assert sorted(told) == sorted([name, str(i)] for name in "abcd" for i in range(50))
    assert (said.gaps, said.strays) == ([], [])


def test_a_forked_child_prints_as_any_child_does() -> None:
    """A multiprocessing worker must not speak with its parent's numbers: nothing lost, nothing told twice."""
    said = rank("""
import multiprocessing
from obl_magic.worker.report import Reporter, report, reporting
def work(i):
    report(child=i)
    print(f"child {i}")
with reporting(Reporter(streams.pipe.emit, 3)):
    print("before")
    workers = [multiprocessing.get_context("fork").Process(target=work, args=(i,)) for i in range(3)]
    for w in workers: w.start()
    for i in range(20): report(parent=i)
    for w in workers: w.join()
    for i in range(20): report(parent=i)
    print("after")
""")
    assert sorted(said.text().splitlines()) == ["after", "before", "child 0", "child 1", "child 2"]
    assert [event.values for event in said.events if isinstance(event, Metric)] == [
        {"parent": float(i)} for _ in range(2) for i in range(20)
    ]
    assert (said.gaps, said.strays, said.words) == ([], [], "")


def test_the_streams_look_as_streams_do() -> None:
    """What libraries ask of standard output: descriptor, encoding, whether it is a terminal."""
    said = rank(
        "out = sys.stdout; print(out.fileno(), sys.stderr.fileno(), out.encoding, out.isatty(), out.writable())"
    )
    assert said.text() == "1 2 utf-8 False True\n"


def test_a_rank_whose_launcher_is_gone_leaves() -> None:
    """Nobody could read what it says; it says so with its exit code."""
    reading, writing = os.pipe()
    os.close(reading)
    program = BEGINS + "print('nobody listens')\nprint('no')" + ENDS
    done = subprocess.run(
        [sys.executable, "-c", program], stdout=writing, stderr=subprocess.PIPE, timeout=60, check=False
    )
    os.close(writing)
    assert done.returncode == 99


def test_only_text_can_be_written() -> None:
    """As with any text stream, a number is a TypeError and not half a line."""
    said = rank("try: sys.stdout.write(3)\nexcept TypeError as error: print(error)")
    assert said.text() == "write() argument must be str, not int\n"


def test_a_line_without_end_goes_out_in_long_pieces() -> None:
    """It would fill the memory; no character is cut in two where a piece ends, and nothing is lost."""
    said = rank("""
line = ("é" * 5_999_999 + "x").encode()
while line: line = line[os.write(1, line):]
sys.stderr.write("é" * 2_999_999); sys.stderr.write("é" * 2_999_999)
""")
    assert said.text() == "é" * 5_999_999 + "x"
    assert said.text("stderr") == "é" * 5_999_998
    pieces = [len(e.text) for e in said.events if isinstance(e, Log) and e.stream == "stdout"]
    assert max(pieces) <= LONGEST_PIECE + 65536


def test_half_a_million_dots_on_one_line_take_no_time() -> None:
    """A progress indicator of many small writes; each costs as much as the first."""
    said = rank("""
began = time.perf_counter()
for _ in range(500_000): sys.stdout.write(".")
print(time.perf_counter() - began, file=sys.stderr)
""")
    assert said.text() == "." * 500_000
    assert float(said.text("stderr")) < 5


def test_a_character_that_never_ends_is_not_lost() -> None:
    """What is left of it at the end is shown as such."""
    said = rank("sys.stdout.buffer.write(b'a\\xc3'); os.write(2, b'b\\xe2\\x82')")
    assert (said.text(), said.text("stderr")) == ("a\ufffd", "b\ufffd")


def test_binary_data_arrives_as_what_it_looks_like() -> None:
    """Every byte there is, from Python and from C code."""
    said = rank("data = bytes(range(256)); sys.stdout.buffer.write(data); os.write(2, data)")
    assert said.text() == said.text("stderr") == bytes(range(256)).decode("utf-8", "replace")
