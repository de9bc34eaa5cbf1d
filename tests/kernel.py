"""A real kernel for tests: runs cells as a notebook would and keeps what a user would see. Tests nothing."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty
from types import TracebackType
from typing import Any, Self

import psutil
from below import is_server
from jupyter_client.manager import KernelManager

POLL_S = 0.05
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(slots=True)
class Cell:
    """What one executed cell left.

    Attributes:
        outputs: as a saved notebook keeps them, in nbformat's words; an updated display is kept in its last form.
        drawn: Unix time in seconds of each display and update, by display id.
        number: the cell's prompt. begun_s: Unix time in seconds at which the kernel took it, or None.
        result: plain text of its value, or "". pages: what it showed in the pager, or "".
        ename, evalue, traceback: its error without terminal colours, or "".
        seconds: how long it took. ended_s: Unix time in seconds at which the kernel was idle again.
        after_interrupt_s: seconds from the interrupt to the end, or None where there was none.
    """

    outputs: list[dict[str, Any]] = field(default_factory=list)
    drawn: dict[str, list[float]] = field(default_factory=dict)
    number: int = 0
    begun_s: float | None = None
    result: str = ""
    pages: str = ""
    ename: str = ""
    evalue: str = ""
    traceback: str = ""
    seconds: float = 0.0
    ended_s: float = 0.0
    after_interrupt_s: float | None = None

    def stream(self, name: str) -> str:
        """All text of ``stdout`` or ``stderr``."""
        return "".join(output["text"] for output in self.outputs if output.get("name") == name)

    @property
    def text(self) -> str:
        """Everything printed, on both streams."""
        return "".join(output["text"] for output in self.outputs if output["output_type"] == "stream")

    @property
    def displays(self) -> list[dict[str, Any]]:
        """The mime bundles of all displays and results."""
        return [output["data"] for output in self.outputs if "data" in output]

    def take(self, kind: str, content: Mapping[str, Any], now_s: float) -> None:
        """Takes one message of the kernel in."""
        if kind == "execute_input":
            self.number, self.begun_s = content["execution_count"], now_s
        elif kind == "stream":
            self.outputs.append({"output_type": kind, "name": content["name"], "text": content["text"]})
        elif kind in ("display_data", "execute_result", "update_display_data"):
            self._take_display(kind, content, now_s)
        elif kind == "error":
            self.ename, self.evalue = content["ename"], plain(content["evalue"])
            self.traceback = plain("\n".join(content["traceback"]))
            self.outputs.append({"output_type": kind, "ename": self.ename, "evalue": self.evalue})

    def _take_display(self, kind: str, content: Mapping[str, Any], now_s: float) -> None:
        name = content.get("transient", {}).get("display_id", "")
        self.drawn.setdefault(name, []).append(now_s)
        if kind == "update_display_data":
            for output in self.outputs:
                if name and output.get("display_id") == name:
                    output["data"] = dict(content["data"])
            return
        self.outputs.append({"output_type": kind, "data": dict(content["data"]), "display_id": name})
        if kind == "execute_result":
            self.result = content["data"].get("text/plain", "")


class Kernel:
    """A Python kernel and its one client.

    Args:
        cwd: its working folder. environ: variables on top of this process's.
    """

    def __init__(self, cwd: Path, environ: Mapping[str, str] | None = None) -> None:
        env = {**os.environ, "IPYTHONDIR": str(cwd / ".ipython"), **(environ or {})}
        self.cwd = cwd
        self._manager = KernelManager(kernel_name="python3")
        self._manager.start_kernel(cwd=str(cwd), env=env)
        self._client = self._manager.blocking_client()
        self._client.start_channels()
        try:
            self._client.wait_for_ready(timeout=60)
        except BaseException:
            self.shutdown()
            raise
        self.process = psutil.Process(self._manager.provisioner.pid)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.shutdown()

    def start(self, code: str) -> str:
        """Sends a cell and does not wait for it; returns what :meth:`finish` wants to know."""
        return str(self._client.execute(code))

    def run(
        self,
        code: str,
        *,
        interrupt_after: float | Callable[[Cell], bool] | None = None,
        deadline_s: float = 90,
    ) -> Cell:
        """Executes a cell.

        Args:
            code: its text, magics included.
            interrupt_after: interrupts the kernel once, so many seconds after it took the cell, or as soon as what it
                has put out so far satisfies this.
            deadline_s: seconds after which a test has waited long enough.

        Raises:
            TimeoutError: the cell did not end; its text says what it had put out.
        """
        return self.finish(self.start(code), interrupt_after=interrupt_after, deadline_s=deadline_s)

    def finish(
        self,
        sent: str,
        *,
        until: Callable[[Cell], bool] | None = None,
        interrupt_after: float | Callable[[Cell], bool] | None = None,
        deadline_s: float = 90,
    ) -> Cell:
        """Collects what a cell puts out, to its end or until it satisfies ``until``; otherwise as :meth:`run`."""
        cell, began, interrupted = Cell(), time.monotonic(), None
        while not (until and until(cell)):
            passed = time.monotonic() - began
            if passed > deadline_s:
                raise TimeoutError(f"the cell did not end in {deadline_s} s; so far: {cell}")
            if interrupted is None and _is_due(interrupt_after, cell):
                interrupted = time.monotonic()
                self._manager.interrupt_kernel()
            if self._is_idle(sent, cell):
                cell.pages = self._pages(sent)
                break
        cell.seconds, cell.ended_s = time.monotonic() - began, time.time()
        cell.after_interrupt_s = None if interrupted is None else time.monotonic() - interrupted
        return cell

    def value(self, expression: str) -> str:
        """The ``repr`` of an expression in the kernel; leaves its ``_`` alone."""
        cell = self.run(f"print(repr(({expression})))")
        if cell.ename:
            raise AssertionError(cell.traceback)
        return cell.text.rstrip("\n")

    def completed(self, code: str, at: int) -> list[str]:
        """What a frontend is offered for the Tab key, at that place of a cell."""
        reply = self._client.complete(code, at, reply=True, timeout=30)
        return list(reply["content"]["matches"])

    def children(self) -> list[psutil.Process]:
        """Every living process below the kernel but its fork server, which lives as long as it does."""
        below = [child for child in self.process.children(recursive=True) if _lives(child)]
        return [child for child in below if not is_server(child)]

    def servers(self) -> list[psutil.Process]:
        """The fork servers below the kernel."""
        return [child for child in self.process.children() if _lives(child) and is_server(child)]

    def kill(self) -> None:
        """Ends the kernel at once, without a word to it."""
        self._manager.shutdown_kernel(now=True)

    def shutdown(self) -> None:
        """Ends the kernel; a second call does nothing."""
        self._client.stop_channels()
        if self._manager.has_kernel:
            self._manager.shutdown_kernel(now=True)

    def _is_idle(self, sent: str, cell: Cell) -> bool:
        """Takes one message in, if one comes; whether it was the cell's last."""
        try:
            message = self._client.get_iopub_msg(timeout=POLL_S)
        except Empty:
            return False
        if message["parent_header"].get("msg_id") != sent:
            return False
        kind, content = message["msg_type"], message["content"]
        cell.take(kind, content, time.time())
        return bool(kind == "status" and content["execution_state"] == "idle")

    def _pages(self, sent: str) -> str:
        """What the cell's reply asks the frontend to show in its pager."""
        while True:
            message = self._client.get_shell_msg(timeout=10)
            if message["parent_header"].get("msg_id") == sent:
                pages = [each for each in message["content"].get("payload", []) if each["source"] == "page"]
                return plain("\n".join(page["data"]["text/plain"] for page in pages))


def plain(text: str) -> str:
    """Text without terminal colours."""
    return _ANSI.sub("", text)


def gone(processes: Sequence[psutil.Process], within_s: float) -> bool:
    """Whether all of some processes have ended within so many seconds."""
    deadline = time.monotonic() + within_s
    waiting = list(processes)
    while waiting and time.monotonic() < deadline:
        waiting = [process for process in waiting if _lives(process)]
        psutil.wait_procs(waiting, timeout=POLL_S)
    return not waiting


def _is_due(after: float | Callable[[Cell], bool] | None, cell: Cell) -> bool:
    if after is None or cell.begun_s is None:  # what arrives between two cells interrupts neither
        return False
    return after(cell) if callable(after) else time.time() - cell.begun_s >= after


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
