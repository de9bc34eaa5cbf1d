"""Keras' own tests as our conformance suite: every test that passes alone passes, unchanged, on 2 and on 3 ranks.

``python tests/keras_conformance/runner.py --gate --spread`` or ``... THEME [THEME ...] [--workers 2,3] [-k PART]``.
Reports go to ``build/keras-tests/``; the exit code is 1 if a test that is no listed exception differs.
"""

from __future__ import annotations

import argparse
import hashlib
import pickle
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import fetch
import processes
import report
import verdicts
from verdicts import Verdict

GATE = ("trainers", "callbacks", "metrics", "losses")
MORE = ("layers", "optimizers", "models", "saving", "regularizers", "constraints", "initializers")
LIMIT_S = 180.0
"""No test may take longer; one that takes seconds alone may take SLOWER times as long."""
SLOWER = 15.0
TRIED_AGAIN = 12
"""So few differing tests are each run once more, in a world of their own: what passes then was another's doing."""
SEEN = {"outcome": "passed", "message": "on ranks"}
"""What a test that passes on ranks is taken to do alone, where nobody looks."""
HERE = Path(__file__).parent


def main() -> int:
    """Fetches, runs, compares, reports."""
    asked = _arguments()
    began = time.monotonic()
    cache = Path(asked.build)
    tests = fetch.fetch(cache).absolute()
    with tempfile.TemporaryDirectory(prefix="keras-tests-") as scratch:
        folder = Path(scratch)
        if asked.keep:
            folder = Path(asked.keep).absolute()
            shutil.rmtree(folder, ignore_errors=True)
        series = Series(folder, tests, tuple(fetch.files(tests, asked.themes)), asked.engine, asked.limit)
        sizes = tuple(int(size) for size in asked.workers.split(","))
        alone, found = (_spread if asked.spread else _everywhere)(series, sizes, asked, cache)
    seconds = time.monotonic() - began
    shown = report.Report(
        asked.themes, asked.engine, alone, sizes, tuple(found), verdicts.exceptions(), seconds
    )
    place = shown.write(cache, asked.name)
    print(shown.summary())
    print(f"written to {place}.txt and {place.name}.json")
    return 0 if shown.holds() else 1


@dataclass(frozen=True, slots=True)
class Series:
    """Worlds of all sizes over the same test files.

    Attributes:
        folder: where records go. tests: the folder that the files are named in. files: of the tests.
        engine: the ranks' collectives. limit_s: what any test may take.
    """

    folder: Path
    tests: Path
    files: tuple[str, ...]
    engine: str
    limit_s: float

    def run(
        self,
        place: str,
        ids: Sequence[str] | None,
        workers: int | None,
        limits_s: Mapping[str, float] | None = None,
        share: tuple[int, int] = (0, 1),
    ) -> processes.Records:
        """See :func:`processes.run`."""
        name = "alone" if workers is None else f"{workers} ranks"
        return processes.run(
            self.folder / place, self.tests, self.files, ids, workers, share=share, engine=self.engine,
            limit_s=self.limit_s, limits_s=limits_s, note=lambda text: _tell(f"{name}: {text}"),
        )  # fmt: skip


def _everywhere(
    series: Series, sizes: Sequence[int], asked: argparse.Namespace, cache: Path
) -> tuple[processes.Records, list[Verdict]]:
    """All tests alone, then those that passed there in worlds of each size."""
    alone = _alone(series, cache, asked.fresh)
    _tell(f"alone: {report.outcomes(alone)}")
    ids = [name for name in verdicts.passed_alone(alone) if asked.part in name]
    limits_s = {name: series.limit_s + SLOWER * alone.by_test[name][0].get("seconds", 0.0) for name in ids}
    listed = verdicts.exceptions()

    def on_ranks(workers: int) -> list[Verdict]:
        ordered = sorted(ids, key=lambda name: listed.reason(verdicts.short(name), workers) is not None)
        records = series.run(str(workers), ordered, workers, limits_s)
        return _judged(series, ids, records, workers)

    with ThreadPoolExecutor(len(sizes) if asked.side_by_side else 1) as together:
        return alone, [verdict for found in together.map(on_ranks, sizes) for verdict in found]


def _spread(
    series: Series, sizes: Sequence[int], asked: argparse.Namespace, cache: Path
) -> tuple[processes.Records, list[Verdict]]:
    """Each test in a world of one of the sizes; alone only what did not pass there, to see whether it ever does."""

    def on_ranks(number: int) -> processes.Records:
        return series.run(
            str(sizes[number]),
            None,
            sizes[number],
            share=(asked.part_of[0] * len(sizes) + number, asked.part_of[1] * len(sizes)),
        )

    with ThreadPoolExecutor(len(sizes) if asked.side_by_side else 1) as together:
        several = list(together.map(on_ranks, range(len(sizes))))
    first = {
        name: verdicts.judge(name, records, workers)
        for workers, records in zip(sizes, several, strict=True)
        for name in records.collected
    }
    doubtful = [name for name, verdict in first.items() if verdict.kind != "passed"]
    alone = series.run("alone", doubtful, None) if doubtful else processes.Records()
    alone.collected = list(first)
    alone.by_test.update({name: {0: SEEN} for name in first if name not in alone.by_test})
    ids = set(verdicts.passed_alone(alone))
    found = []
    for workers, records in zip(sizes, several, strict=True):
        found += _judged(series, [name for name in records.collected if name in ids], records, workers)
    return alone, found


def _part(text: str) -> tuple[int, int]:
    """``1/2``: the second half."""
    which, _, of = text.partition("/")
    return int(which) % int(of), int(of)


def _arguments() -> argparse.Namespace:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("themes", nargs="*", help="folders or files below keras/src: losses, layers/core")
    asked.add_argument("--gate", action="store_true", help=f"the themes {', '.join(GATE)}")
    asked.add_argument("--workers", default="2,3", help="sizes of worlds")
    asked.add_argument(
        "--spread",
        action="store_true",
        help="each test in one of these worlds, and alone only what differs there",
    )
    asked.add_argument(
        "--part",
        dest="part_of",
        type=_part,
        default=(0, 1),
        help="with --spread, of all tests: 0/2 or 1/2, 3/4",
    )
    asked.add_argument("--limit", type=float, default=LIMIT_S, help="seconds that any test may take")
    asked.add_argument("--engine", default="mpi")
    asked.add_argument("-k", dest="part", default="", help="only tests whose name contains this")
    asked.add_argument(
        "--build", default="build/keras-tests", help="where Keras' tests and the reports are kept"
    )
    asked.add_argument("--keep", help="a folder for the ranks' records; it is emptied first")
    asked.add_argument("--fresh", action="store_true", help="run alone again, even if that is known")
    asked.add_argument("--one-by-one", dest="side_by_side", action="store_false", help="one world at a time")
    given = asked.parse_args()
    given.name = "gate" if given.gate else "-".join(given.themes).replace("/", ".")[:60] or "all"
    given.themes = list(GATE) if given.gate else given.themes or [*GATE, *MORE]
    return given


def _alone(series: Series, cache: Path, fresh: bool) -> processes.Records:
    """What the tests do in a plain process; kept, since nothing of ours can change it."""
    known = cache / f"alone-{_setting(series.files)}.pickle"
    if known.is_file() and not fresh:
        return pickle.loads(known.read_bytes())  # type: ignore[no-any-return]
    records = series.run("alone", None, None)
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


def _judged(series: Series, ids: Sequence[str], records: processes.Records, workers: int) -> list[Verdict]:
    """Verdicts on tests in one series of worlds; a few that differ are tried again, each in a world of its own."""
    listed = verdicts.exceptions()
    found = {name: verdicts.judge(name, records, workers) for name in ids}
    unlisted = [n for n, v in found.items() if v.kind != "passed" and listed.reason(v.test, workers) is None]
    if len(unlisted) <= TRIED_AGAIN:
        for number, name in enumerate(unlisted):
            found[name] = _again(series, found[name], name, ids, f"{workers}-again-{number}")
    differ = sum(verdict.kind != "passed" for verdict in found.values())
    _tell(f"{workers} ranks: {len(ids) - differ} of {len(ids)} as alone, in {records.worlds} worlds")
    return list(found.values())


def _again(series: Series, first: Verdict, name: str, ids: Sequence[str], place: str) -> Verdict:
    """Tries a test that differs in a world of its own, and then after the tests of its file that came before it.

    What differs only there is another test's doing, and still differs. What differs neither way is told, with the
    places where its threads were, and let be, as our own tests marked ``timing`` are.
    """
    again = verdicts.judge(name, series.run(place, [name], first.workers), first.workers)
    if again.kind != "passed":
        return again
    file = name.partition("::")[0]
    before = [other for other in ids[: list(ids).index(name)] if other.startswith(f"{file}::")]
    if before:
        together = series.run(f"{place}-after", [*before, name], first.workers)
        again = verdicts.judge(name, together, first.workers)
    if again.kind != "passed":
        return verdicts.after_others(again)
    _tell(f"{first.workers} ranks: passed when tried twice more: {first.test}: {first.kind}: {first.error}")
    for line in first.ours:
        _tell(f"    at {line}")
    return again


def _tell(text: str) -> None:
    print(f"keras-tests: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
