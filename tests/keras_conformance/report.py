"""The report on Keras' tests: both counts, what differs and of which kind, as text and as JSON. Decides what holds."""

from __future__ import annotations

import collections
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import fetch
import verdicts
from processes import Records
from verdicts import Exceptions, Verdict

EXAMPLES = 4


@dataclass(frozen=True, slots=True)
class Report:
    """What was run and what came out.

    Attributes:
        themes: of the tests. engine: the ranks' collectives. alone: records of a plain process.
        sizes: of worlds. found: one verdict a test and size.
        known: the listed exceptions. seconds: that all of it took.
    """

    themes: Sequence[str]
    engine: str
    alone: Records
    sizes: tuple[int, ...]
    found: tuple[Verdict, ...]
    known: Exceptions
    seconds: float

    def unlisted(self, workers: int | None = None) -> list[Verdict]:
        """Tests that differ and may not."""
        return [v for v in self._differing(workers) if self.known.reason(v.test, v.workers) is None]

    def listed(self, workers: int | None = None) -> list[Verdict]:
        """Tests that differ and are known to."""
        return [v for v in self._differing(workers) if self.known.reason(v.test, v.workers) is not None]

    def needless(self) -> list[str]:
        """Listed tests that passed in every world that was tried."""
        tried = {v.test for v in self.found if self.known.reason(v.test, v.workers) is not None}
        return sorted(tried - {v.test for v in self.listed()})

    def holds(self) -> bool:
        """Whether every test that passes alone passes on ranks, or is a listed exception that is still one."""
        return not self.unlisted() and not self.needless() and bool(self.found)

    def _differing(self, workers: int | None) -> list[Verdict]:
        return [v for v in self.found if v.kind != "passed" and workers in (None, v.workers)]

    def summary(self) -> str:
        """A few lines: the counts, and what differs by kind."""
        lines = [
            f"Keras {fetch.installed()}, {', '.join(self.themes)}, engine {self.engine}, {self.seconds:.0f} s",
            f"  alone     {outcomes(self.alone)}",
        ]
        for size in self.sizes:
            differ, listed = self.unlisted(size), self.listed(size)
            kinds = collections.Counter(v.kind for v in differ)
            told = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
            tried = sum(v.workers == size for v in self.found)
            same = tried - len(differ) - len(listed)
            counts = f"{same} of {tried} passed, {len(listed)} listed exceptions, {len(differ)} differ"
            lines.append(f"  {size} ranks   {counts}{f' ({told})' if told else ''}")
        for (kind, error, place), group in verdicts.by_kind(self.unlisted()):
            lines.append(f"{len(group):4d} {kind}: {error}")
            lines.append(f"       at {place or '?'}")
            if kind.endswith("hung"):
                lines += [f"       {v.test}: {', '.join(v.ours)}" for v in group[:EXAMPLES]]
            names = sorted({v.test for v in group})
            more = f" and {len(names) - EXAMPLES} more" if len(names) > EXAMPLES else ""
            lines += [f"       {name}" for name in names[:EXAMPLES]] + ([f"      {more}"] if more else [])
        lines += [f"no exception any more, take it off the list: {test}" for test in self.needless()]
        return "\n".join(lines)

    def write(self, folder: Path, name: str) -> Path:
        """Writes everything that is known; the path of both files without their endings."""
        path = folder / f"report-{name}"
        lines = [self.summary(), "", "Listed exceptions:"]
        lines += [
            f"  {v.test} on {v.workers}: {v.kind}; {self.known.reason(v.test, v.workers)}"
            for v in self.listed()
        ]
        lines += ["", "Test by test (alone: passed):"]
        for v in self.unlisted():
            lines += [f"  {v.test} on {v.workers}: {v.kind}", f"      {v.error}"]
            lines += [f"      by {place}" for place in v.ours] + ([f"      at {v.place}"] if v.place else [])
        lines += ["", "Not passed alone:"]
        for test in self.alone.collected:
            record = self.alone.by_test.get(test, {}).get(0, {"outcome": "died or hung"})
            if record["outcome"] != "passed":
                lines.append(
                    f"  {verdicts.short(test)}: {record['outcome']}: {record.get('message', '')[:120]!r}"
                )
        lines += [f"  {file}: could not be imported" for file in self.alone.uncollected]
        path.with_suffix(".txt").write_text("\n".join(lines) + "\n")
        everything = {
            "keras": fetch.installed(), "themes": list(self.themes), "engine": self.engine, "seconds": self.seconds,
            "alone": {verdicts.short(t): r.get(0, {}).get("outcome") for t, r in self.alone.by_test.items()},
            "on_ranks": [asdict(v) for v in self.found],
            "exceptions": dict(self.known.reasons),
        }  # fmt: skip
        path.with_suffix(".json").write_text(json.dumps(everything, indent=1))
        return path


def outcomes(alone: Records) -> str:
    """``1 failed, 20 passed``."""
    counts = collections.Counter(
        alone.by_test.get(name, {}).get(0, {}).get("outcome", "died or hung") for name in alone.collected
    )
    told = [f"{count} {outcome}" for outcome, count in sorted(counts.items(), key=lambda c: c[0] != "passed")]
    return ", ".join(
        [*told, *([f"{len(alone.uncollected)} files not imported"] if alone.uncollected else [])]
    )
