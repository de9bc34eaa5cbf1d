"""Keeps the ranks of a world together while each runs the same tests, and writes down what came out of each.

Every rank has a file of its own (``rank.K.jsonl``) to which it only appends; the ranks read one another's, so that a
world whose ranks part is left at once and what was finished survives it. Knows pytest; starts nothing.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import random
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

OTHERS_S = 15.0
"""How long a rank whose test failed waits for the others to come to its end too."""
COLLECTED_EVERY = 50
"""Tests after which garbage is collected."""


class Recorder:
    """The plugin.

    Args:
        folder: of the records. rank, workers: this process in its world; ``workers`` is 0 where there is none.
        ids: the tests to run, in this order; None: all that are found.
        share: (k, n): of those, only every nth, from the kth on.
        limit_s: no test may take longer; its process is then ended, with the places of all its threads on file.
        limits_s: the same for single tests.
    """

    def __init__(
        self,
        folder: Path,
        rank: int,
        workers: int,
        ids: list[str] | None,
        share: tuple[int, int],
        limit_s: float,
        limits_s: dict[str, float],
    ) -> None:
        self._folder, self._rank, self._workers = folder, rank, workers
        self._ids, self._share, self._limit_s, self._limits_s = ids, share, limit_s, limits_s
        self._count = 0
        self._told: list[str] = []
        self._files = {other: folder / f"rank.{other}.jsonl" for other in range(max(1, workers))}
        self._read = {other: (0, 0) for other in self._files if other != rank}
        self._last: dict[int, dict[str, Any]] = {}
        self._outcome: dict[str, Any] = {}
        self._canary: list[float] | None = None
        self._stacks = open(folder / f"stacks.{rank}.txt", "w")  # noqa: SIM115  as long as the process
        self.torn = ""

    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        if self._ids is not None:
            order = {name: number for number, name in enumerate(self._ids)}
            items[:] = sorted((i for i in items if i.nodeid in order), key=lambda i: order[i.nodeid])
        items[:] = items[self._share[0] :: self._share[1]]
        if self._rank == 0:
            names = [item.nodeid for item in items]
            (self._folder / "collected.json").write_text(json.dumps(names))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed and self._rank == 0:
            with open(self._folder / "uncollected.jsonl", "a") as file:
                file.write(json.dumps({"id": report.nodeid, "text": str(report.longrepr)[-3000:]}) + "\n")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        if self._workers:
            self._canary = _fit()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
        self._count += 1
        if self._count % COLLECTED_EVERY == 0:
            gc.collect()
        limit_s = self._limits_s.get(item.nodeid, self._limit_s)
        self._stacks.seek(0)
        self._stacks.truncate()
        faulthandler.dump_traceback_later(limit_s, exit=True, file=self._stacks)
        try:
            _seed(item.nodeid)
            self._outcome = {"outcome": "passed"}
            self._write({"event": "began", "id": item.nodeid})
            began = time.perf_counter()
            try:
                return (yield)
            finally:
                mine = {"event": "ended", "id": item.nodeid, **self._outcome}
                self._write({**mine, "seconds": round(time.perf_counter() - began, 3)})
                if self._workers:
                    self._stay_together(item.session, mine)
        finally:
            faulthandler.cancel_dump_traceback_later()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[Any]:
        report = yield
        if report.failed and self._outcome["outcome"] != "failed":
            self._outcome = {"outcome": "failed", "when": report.when, "text": report.longreprtext[-8000:]}
            if call.excinfo is not None:
                self._outcome |= _described(call.excinfo)
        elif report.skipped and self._outcome["outcome"] == "passed":
            why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            self._outcome = {"outcome": "skipped", "message": str(why)[:200]}
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Subtests have reports of their own, which are made elsewhere."""
        if report.failed and self._outcome["outcome"] != "failed":
            text = report.longreprtext[-8000:]
            self._outcome = {
                "outcome": "failed",
                "type": "AssertionError",
                "message": text[-500:],
                "text": text,
            }

    def _stay_together(self, session: pytest.Session, mine: dict[str, Any]) -> None:
        """Ends the session where the ranks have parted, or may have: their next exchange would be another's."""
        everyone = self._others(None if mine["outcome"] != "failed" else OTHERS_S)
        if everyone is None:
            self.torn = f"{mine['id']} failed here, and other ranks did not come to its end"
        elif any((o["event"], o["id"], o["outcome"]) != _key(mine) for o in everyone):
            self.torn = f"{mine['id']} did not end alike on all ranks"
        elif mine["outcome"] == "failed" and not (_same_line(mine, everyone) or self._still_in_step()):
            self.torn = f"after {mine['id']} the ranks were no longer in step"
        if self.torn:
            session.shouldstop = self.torn

    def _still_in_step(self) -> bool:
        """Whether a small fit gives on all ranks what it gave when the world was new."""
        faulthandler.dump_traceback_later(2 * OTHERS_S, exit=True)
        try:
            well = _fit() == self._canary
        except BaseException:
            well = False
        self._write({"event": "canary", "id": "", "outcome": "passed" if well else "failed"})
        everyone = self._others(OTHERS_S)
        return well and everyone is not None and all(other["outcome"] == "passed" for other in everyone)

    def _write(self, record: dict[str, Any]) -> None:
        with open(self._files[self._rank], "a") as file:
            file.write(json.dumps(record) + "\n")
        self._told.append(record["event"])

    def _others(self, wait_s: float | None) -> list[dict[str, Any]] | None:
        """What each other rank has told at this place; None if one of them did not within ``wait_s`` seconds."""
        until = None if wait_s is None else time.monotonic() + wait_s
        found = []
        for other in self._read:
            while (record := self._nth(other, len(self._told))) is None:
                if until is not None and time.monotonic() > until:
                    return None
                time.sleep(0.002)
            found.append(record)
        return found

    def _nth(self, other: int, wanted: int) -> dict[str, Any] | None:
        count, offset = self._read[other]
        if count < wanted and self._files[other].exists():
            with open(self._files[other], "rb") as file:
                file.seek(offset)
                for line in file:
                    if count == wanted or not line.endswith(b"\n"):
                        break
                    count, offset, self._last[other] = count + 1, offset + len(line), json.loads(line)
            self._read[other] = count, offset
        return self._last[other] if count == wanted else None


def _same_line(mine: dict[str, Any], everyone: list[dict[str, Any]]) -> bool:
    """Whether all ranks failed in one line that is not ours, so that they have exchanged the same until then."""
    return not mine.get("ours") and all(other.get("place") == mine.get("place") for other in everyone)


def _key(record: dict[str, Any]) -> tuple[str, str, str]:
    return record["event"], record["id"], record["outcome"]


def _seed(name: str) -> None:
    """Random numbers do not depend on which tests came before."""
    import keras
    import numpy as np

    seed = zlib.crc32(name.encode())
    random.seed(seed)
    np.random.seed(seed)
    keras.utils.set_random_seed(seed)


def _fit() -> list[float]:
    """The losses of a small fit, which goes through what ranks do together."""
    import keras
    import numpy as np

    keras.backend.clear_session(free_memory=False)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="ones")])
    model.compile("sgd", "mse")
    x = np.arange(14, dtype="float32").reshape(7, 2) / 14
    losses = model.fit(x, x[:, :1], batch_size=4, epochs=2, verbose=0, shuffle=False).history["loss"]
    return [round(float(loss), 6) for loss in losses]


def _described(excinfo: pytest.ExceptionInfo[BaseException]) -> dict[str, Any]:
    """The error, and where in our package and where at all it was raised."""
    frames = [(str(entry.path), entry.lineno + 1, entry.name) for entry in excinfo.traceback]
    ours = [frame for frame in frames if f"{os.sep}obl_magic{os.sep}" in frame[0]]
    kind = type(excinfo.value)
    return {
        "type": f"{kind.__module__}.{kind.__qualname__}",
        "message": str(excinfo.value)[:1500],
        "ours": [_place(frame) for frame in ours[-3:]],
        "place": _place(frames[-1]) if frames else "",
    }


def _place(frame: tuple[str, int, str]) -> str:
    path, line, name = frame
    for root in sorted(sys.path, key=len, reverse=True):
        path = path.removeprefix(root + os.sep) if root else path
    return f"{path}:{line} {name}"
