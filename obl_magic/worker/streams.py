"""Keeps a rank's real standard streams: output for events, input for orders. What else is printed becomes log events.

Python's prints become events in the writing thread, so that nothing is lost when the rank dies in the next
instruction; what C code writes to descriptors 1 and 2 goes through a pipe and a thread. Who reads from standard
input finds its end. A forked child is no rank: it has none of the real streams.
"""

from __future__ import annotations

import codecs
import faulthandler
import io
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from obl_magic.events.event import STARTUP, Event, Log, to_json
from obl_magic.events.frames import encode

Emit = Callable[[Event], None]
_DRAIN_S = 0.005
LONGEST_PIECE = 1 << 22
"""Characters of one line that wait for its end."""
EXIT_ORPHANED = 99
"""Exit code of a rank that found its kernel or launcher gone."""


class EventPipe:
    """Writes events to a descriptor as frames, numbered without gaps, from any thread and any signal handler."""

    def __init__(self, descriptor: int, rank: int) -> None:
        self._descriptor = descriptor
        self._rank = rank
        self._sequence = 0
        self._lock = threading.RLock()
        self._writing = False
        self._waiting: deque[str] = deque()
        self._pid = os.getpid()

    def emit(self, event: Event) -> None:
        """Sends one event; returns when the launcher's pipe has it. A forked child says nothing: it is no rank.

        A signal handler may come in the middle of this, in the same thread: its event is sent right afterwards.
        """
        if os.getpid() != self._pid:
            return
        text = to_json(event)
        with self._lock:
            self._waiting.append(text)
            while self._waiting and not self._writing:
                self._writing = True
                try:
                    self._write(self._waiting.popleft())
                finally:
                    self._writing = False

    def _write(self, text: str) -> None:
        sequence, self._sequence = self._sequence, self._sequence + 1
        for frame in encode(self._rank, sequence, text):
            _write_all(self._descriptor, frame)


class _Pending:
    """Text that waits for the end of its line; a line without end is let go in long pieces."""

    def __init__(self) -> None:
        self._pieces: list[str] = []
        self._length = 0

    def add(self, text: str) -> str:
        """Takes text; gives what is to be sent now, or ""."""
        cut = max(text.rfind("\n"), text.rfind("\r")) + 1
        if not cut and self._length + len(text) > LONGEST_PIECE:
            cut = len(text)
        sent = self.rest() + text[:cut] if cut else ""
        if cut < len(text):
            self._pieces.append(text[cut:])
            self._length += len(text) - cut
        return sent

    def rest(self) -> str:
        """Gives all that waits, or ""."""
        text, self._pieces, self._length = "".join(self._pieces), [], 0
        return text


class LogStream(io.TextIOBase):
    """A text stream whose writes are log events; buffers up to a line end, a carriage return, or a flush."""

    def __init__(self, emit: Emit, rank: int, name: str, descriptor: int) -> None:
        super().__init__()
        self._emit, self._rank, self._stream, self._descriptor = emit, rank, name, descriptor
        self._pending = _Pending()
        self._lock = threading.RLock()
        self._adding = False
        self._pid = os.getpid()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    encoding = "utf-8"
    errors = "replace"

    @property
    def buffer(self) -> io.BufferedIOBase:
        """For code that writes bytes."""
        return BytesOf(self)

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        return self._descriptor

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        if os.getpid() != self._pid:
            self._become_a_childs()
        self._pass_on(text, self._pending.add)
        return len(text)

    def write_bytes(self, data: bytes) -> None:
        """Writes encoded text, which may end inside a character."""
        self.write(self._decoder.decode(data))

    def flush(self) -> None:
        if os.getpid() != self._pid:
            self._become_a_childs()
        self._pass_on("", lambda text: text + self._pending.rest())

    def _pass_on(self, text: str, pending: Callable[[str], str]) -> None:
        """Sends what ``pending`` gives for a text; as it is where a signal handler comes in the middle of that."""
        with self._lock:
            if self._adding:
                self._send(text)
                return
            self._adding = True
            try:
                sent = pending(text)
            finally:
                self._adding = False
            self._send(sent)

    def end(self) -> None:
        """Sends what is left, a character cut short included."""
        self.write(self._decoder.decode(b"", final=True))
        self.flush()

    def _become_a_childs(self) -> None:
        """A forked child prints as any child does, into the pipe of its rank; what was pending is its parent's."""
        self._pid, self._lock, self._pending = os.getpid(), threading.RLock(), _Pending()
        self._adding = False
        self._emit = lambda event: _write_all(self._descriptor, getattr(event, "text", "").encode())

    def _send(self, text: str) -> None:
        if not text:
            return
        whole = text.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate could not be kept on disk
        self._emit(Log(self._rank, time.time(), self._stream, whole))


class TakesBytes(Protocol):
    """A text stream that can be given encoded text."""

    def write_bytes(self, data: bytes) -> None: ...
    def flush(self) -> None: ...


class BytesOf(io.BufferedIOBase):
    """The ``buffer`` of a text stream that has none.

    Args:
        stream: takes what is written.
    """

    def __init__(self, stream: TakesBytes) -> None:
        super().__init__()
        self._stream = stream

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        raw = bytes(data)  # type: ignore[call-overload]
        self._stream.write_bytes(raw)
        return len(raw)

    def flush(self) -> None:
        self._stream.flush()


class TakenStreams:
    """This process's standard streams, taken over for one rank.

    Attributes:
        orders: descriptor of the real standard input.
        raw_stderr: of the real standard error.
        pipe: for events.
    """

    def __init__(self, rank: int) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        self.orders = _taken_input()
        self.raw_stderr = os.dup(2)
        said = os.dup(1)
        self.pipe = EventPipe(said, rank)
        ours = [self.orders, self.raw_stderr, said]
        os.register_at_fork(after_in_child=lambda: _as_a_child(ours))
        self._starting = False
        self._threads = [self._redirect(1, rank, "stdout"), self._redirect(2, rank, "stderr")]
        self._streams = [
            LogStream(self.pipe.emit, rank, "stdout", 1),
            LogStream(self.pipe.emit, rank, "stderr", 2),
        ]
        sys.stdout, sys.stderr = self._streams

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Within it what C code prints is kept as ``startup``: frameworks greet, and no user wants to read it."""
        self._starting = True
        try:
            yield
        finally:
            time.sleep(_DRAIN_S)
            self._starting = False

    def flush(self) -> None:
        """Sends what was printed so far; what C code wrote has a moment to arrive."""
        for stream in self._streams:
            stream.flush()
        time.sleep(_DRAIN_S)

    def close(self) -> None:
        """Flushes what was printed and waits until all of it was sent."""
        for stream in self._streams:
            stream.end()
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        for thread in self._threads:
            thread.join(timeout=1)

    def _redirect(self, descriptor: int, rank: int, name: str) -> threading.Thread:
        reading, writing = os.pipe()
        os.dup2(writing, descriptor)
        os.close(writing)
        thread = threading.Thread(
            target=self._forward, args=(reading, rank, name), name=f"obl-{name}", daemon=True
        )
        thread.start()
        return thread

    def _forward(self, reading: int, rank: int, name: str) -> None:
        pending, decoder = _Pending(), codecs.getincrementaldecoder("utf-8")("replace")
        while chunk := os.read(reading, 65536):
            if text := pending.add(decoder.decode(chunk)):
                self.pipe.emit(Log(rank, time.time(), STARTUP if self._starting else name, text))
        if text := pending.rest() + decoder.decode(b"", final=True):
            self.pipe.emit(Log(rank, time.time(), name, text))
        os.close(reading)


def _taken_input() -> int:
    """Another descriptor of the standard input, which from now on is empty.

    A thread that reads from ``sys.stdin`` holds its lock, and each forked child of ``multiprocessing`` closes that.
    """
    taken = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return taken


def _as_a_child(descriptors: list[int]) -> None:
    """In a forked child: nobody waits for the end of what only a rank may say, and it can be interrupted.

    A child of a child finds none of these descriptors any more.
    """
    if faulthandler.is_enabled():
        faulthandler.enable(file=2)
    while descriptors:
        os.close(descriptors.pop())
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _write_all(descriptor: int, data: bytes) -> None:
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except BrokenPipeError:  # the launcher is gone, and with it everyone who could want to know
        os._exit(EXIT_ORPHANED)
