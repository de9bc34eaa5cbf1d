"""What rank 0 hears from its kernel: each kind of line goes where it belongs, also while a job runs."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

from obl_magic.worker.orders import Orders
from obl_magic.worker.report import Reporter
from obl_magic.worker.streams import EXIT_ORPHANED


class Lines:
    """Lines that end only when the test does, since their end would be that of this process."""

    def __init__(self, *lines: str) -> None:
        self._lines = lines
        self.told = threading.Event()

    def __iter__(self) -> Iterator[str]:
        yield from self._lines
        self.told.set()
        threading.Event().wait()


def test_jobs_answers_and_the_wish_to_stop_are_told_apart() -> None:
    """A wish to stop is for the job that is served then, and not for the next one."""
    lines = Lines('{"job": "a"}', '{"prune": true}', '{"stop": true}', '{"prune": false}', '{"job": "b"}')
    first = Reporter(lambda event: None, 0)
    orders = Orders(lines)
    orders.serve(first)
    orders.listen()
    assert [orders.job(), orders.answer(), orders.answer(), orders.job()] == [
        {"job": "a"}, True, False, {"job": "b"},
    ]  # fmt: skip
    assert lines.told.wait(10)
    assert first.stop_asked
    second = Reporter(lambda event: None, 0)
    orders.serve(second)
    assert not second.stop_asked


def test_the_end_of_the_lines_is_the_end_of_the_process() -> None:
    """The kernel is gone: nobody would take the result."""
    program = (
        "import sys\nfrom obl_magic.worker.orders import Orders\no = Orders(sys.stdin)\no.listen()\no.job()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], stdin=subprocess.DEVNULL, timeout=60, check=False)
    assert done.returncode == EXIT_ORPHANED
