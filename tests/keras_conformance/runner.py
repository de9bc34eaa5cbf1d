"""Keras' own tests as our conformance suite: every test that passes alone passes, unchanged, on 2 and on 3 ranks.

``python tests/keras_conformance/runner.py --gate`` or ``... THEME [THEME ...] [--workers 2,3] [-k PART]``. Reports
go to ``build/keras-tests/``; the exit code is 1 if a test that is no listed exception differs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import pickle
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path

import fetch
import processes
import report
import verdicts

GATE = ("trainers", "callbacks", "metrics", "losses")
MORE = ("layers", "optimizers", "models", "saving", "regularizers", "constraints", "initializers")
LIMIT_S = 180.0
"""No test may take longer; one that takes seconds alone may take SLOWER times as long."""
SLOWER = 15.0
TRIED_AGAIN = 12
"""So few differing tests are each run once more, in a world of their own: what passes there was another test's doing."""
HERE = Path(__file__).parent


def main() -> int:
    """Fetches, runs, compares, reports."""
    asked = _arguments()
    began = time.monotonic()
    cache = Path(asked.build)
    tests = fetch.fetch(cache).absolute()
    files = fetch.files(tests, asked.themes)
    with tempfile.TemporaryDirectory(prefix="keras-tests-") as scratch:
        folder = Path(scratch)
        if asked.keep:
            folder = Path(asked.keep).absolute()
            shutil.rmtree(folder, ignore_errors=True)
        alone = _alone(folder / "alone", tests, files, cache, asked.fresh)
        _tell(f"alone: {report.outcomes(alone)}")
        ids = [name for name in verdicts.passed_alone(alone) if asked.part in name]
        sizes = [int(size) for size in asked.workers.split(",")]
        with ThreadPoolExecutor(len(sizes) if asked.side_by_side else 1) as together:
            waiting = [
                together.submit(_on_ranks, folder, tests, files, ids, size, asked.engine, alone) for size in sizes
            ]
            found = [verdict for each in waiting for verdict in each.result()]
    known = verdicts.exceptions()
    seconds = time.monotonic() - began
    shown = report.Report(asked.themes, asked.engine, alone, ids, tuple(sizes), tuple(found), known, seconds)
    place = shown.write(cache, asked.name)
    print(shown.summary())
    print(f"written to {place}.txt and {place.name}.json")
    return 0 if shown.holds() else 1


def _arguments() -> argparse.Namespace:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("themes", nargs="*", help="folders or files below keras/src: losses, layers/core")
    asked.add_argument("--gate", action="store_true", help=f"the themes {', '.join(GATE)}")
    asked.add_argument("--workers", default="2,3", help="sizes of worlds")
    asked.add_argument("--engine", default="mpi")
    asked.add_argument("-k", dest="part", default="", help="only tests whose name contains this")
    asked.add_argument("--build", default="build/keras-tests", help="where Keras' tests and the reports are kept")
    asked.add_argument("--keep", help="a folder for the ranks' records; it is emptied first")
    asked.add_argument("--fresh", action="store_true", help="run alone again, even if that is known")
    asked.add_argument("--one-by-one", dest="side_by_side", action="store_false", help="one world at a time")
    given = asked.parse_args()
    given.name = "gate" if given.gate else "-".join(given.themes).replace("/", ".")[:60] or "all"
    given.themes = list(GATE) if given.gate else given.themes or [*GATE, *MORE]
    return given


def _alone(folder: Path, tests: Path, files: Sequence[str], cache: Path, fresh: bool) -> processes.Records:
    """What the tests do in a plain process; kept, since nothing of ours can change it."""
    known = cache / f"alone-{_setting(files)}.pickle"
    if known.is_file() and not fresh:
        return pickle.loads(known.read_bytes())  # type: ignore[no-any-return]
    records = processes.run(folder, tests, files, None, None, limit_s=LIMIT_S, note=_tell)
    unfinished = known.with_suffix(".unfinished")
    unfinished.write_bytes(pickle.dumps(records))
    unfinished.rename(known)
    return records


def _setting(files: Sequence[str]) -> str:
    """A number of everything that the outcome of a test alone depends on."""
    parts = [version(name) for name in ("keras", "numpy", "pytest")]
    parts += [f"{sys.version} {platform.platform()}", _tensorflow(), *files]
    parts += [(HERE / name).read_text() for name in ("in_process.py", "recorder.py", "keras_repository.py")]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _tensorflow() -> str:
    from importlib.util import find_spec

    spec = find_spec("tensorflow")
    return "" if spec is None or spec.origin is None else str(Path(spec.origin).stat().st_mtime_ns)


def _on_ranks(
    folder: Path,
    tests: Path,
    files: Sequence[str],
    ids: Sequence[str],
    workers: int,
    engine: str,
    alone: processes.Records,
) -> list[verdicts.Verdict]:
    listed = verdicts.exceptions()
    limits_s = {name: LIMIT_S + SLOWER * alone.by_test[name][0].get("seconds", 0.0) for name in ids}
    ordered = sorted(ids, key=lambda name: listed.reason(verdicts.short(name), workers) is not None)

    def run(place: str, names: Sequence[str]) -> processes.Records:
        return processes.run(
            folder / place, tests, files, names, workers, engine=engine, limit_s=LIMIT_S, limits_s=limits_s,
            note=lambda text: _tell(f"{workers} ranks: {text}"),
        )  # fmt: skip

    records = run(str(workers), ordered)
    found = {name: verdicts.judge(name, records, workers) for name in ids}
    unlisted = [
        name for name, v in found.items() if v.kind != "passed" and listed.reason(v.test, workers) is None
    ]
    if records.worlds + len(unlisted) > 1 and len(unlisted) <= TRIED_AGAIN:
        for number, name in enumerate(unlisted):
            found[name] = _second(found[name], verdicts.judge(name, run(f"{workers}-again-{number}", [name]), workers))
    differ = sum(verdict.kind != "passed" for verdict in found.values())
    _tell(f"{workers} ranks: {len(ids) - differ} of {len(ids)} as alone, in {records.worlds} worlds")
    return list(found.values())


def _second(first: verdicts.Verdict, again: verdicts.Verdict) -> verdicts.Verdict:
    """A test that differs only after others is told as that, and still differs."""
    if again.kind != "passed":
        return again
    return verdicts.after_others(first)


def _tell(text: str) -> None:
    print(f"keras-tests: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
