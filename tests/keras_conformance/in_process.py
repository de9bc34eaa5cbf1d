"""Runs tests of Keras in this process, or as one oblivious training function on the ranks of one world.

``python in_process.py PLACE`` reads what to run from ``PLACE/asked.json`` and leaves the ranks' records there.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def run_tests(place: str, asked: dict[str, Any]) -> int:
    """One pytest session over all the tests; on ranks, one on each. The number of the session's exit code."""
    import pytest
    from keras_repository import KerasRepository
    from recorder import Recorder

    rank = int(os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("PMI_RANK", "0")))
    tests = asked["tests"]
    recorder = Recorder(
        Path(place),
        rank,
        asked["workers"] or 0,
        asked["ids"],
        asked["share"],
        asked["limit_s"],
        asked["limits_s"],
    )
    ours = [KerasRepository(Path(tests)), recorder]
    before = Path.cwd()
    scratch = Path(place, "scratch")
    scratch.mkdir(exist_ok=True)
    os.chdir(scratch)  # one for all ranks, as a user's folder is
    try:
        code = pytest.main(
            [
                "-c", f"{tests}/pyproject.toml", "--rootdir", tests, "--import-mode=importlib",
                "-o", "addopts=", "-o", "norecursedirs=", "-q", "--tb=short", "--continue-on-collection-errors",
                # A rank's file descriptor 1 is the channel, and garbage is collected at other times than alone.
                "--capture=sys", "-p", "no:cacheprovider", "-p", "no:faulthandler", "-p", "no:unraisableexception",
                "-p", "no:threadexception", "--basetemp", f"{place}/tmp-{rank}",
                *(f"{tests}/{file}" for file in asked["files"]),
            ],
            plugins=ours,
        )  # fmt: skip
    finally:
        os.chdir(before)
    if recorder.torn:
        raise RuntimeError(recorder.torn)
    return int(code)


def main() -> None:
    """Here without the package, or on ranks."""
    place = sys.argv[1]
    asked = json.loads(Path(place, "asked.json").read_text())
    if asked["workers"] is None:
        run_tests(place, asked)
        assert not any(name.split(".")[0] == "obl_magic" for name in sys.modules)
        return
    import obl_magic

    obl_magic.run(
        run_tests, workers=asked["workers"], engine=asked["engine"], args={"place": place, "asked": asked}, quiet=True
    )  # fmt: skip


if __name__ == "__main__":
    main()
