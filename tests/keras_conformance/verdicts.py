"""What a test's records mean: as alone, or which kind of different. Reads records and exceptions; starts nothing."""

from __future__ import annotations

import collections
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fetch import PACKAGE
from processes import Records

EXCEPTIONS = Path(__file__).with_name("exceptions.toml")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one test that passes alone.

    Attributes:
        test: its short name. workers: of the world.
        kind: ``passed``; ``other result`` (an assertion of the test's), ``error`` (an exception), ``refused`` (one of
            ours), ``ranks differ``, ``hung``, ``died``, ``skipped``, ``not run``.
        error: type and first line. ours: the last places of our package on the way to it. place: where it was raised.
        text: all that is known.
    """

    test: str
    workers: int
    kind: str
    error: str = ""
    ours: tuple[str, ...] = ()
    place: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Exceptions:
    """The listed exceptions: test → its reason, for the sizes of world it holds for (none named: all)."""

    reasons: Mapping[str, str] = field(default_factory=dict)
    worlds: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def reason(self, test: str, workers: int) -> str | None:
        """Why a test may differ there; None: it may not."""
        sizes = self.worlds.get(test, ())
        return self.reasons.get(test) if not sizes or workers in sizes else None


def exceptions(path: Path = EXCEPTIONS) -> Exceptions:
    """Reads the list.

    Raises:
        SystemExit: an entry without a test or a reason, or a test that is listed twice.
    """
    listed = tomllib.loads(path.read_text()).get("exception", [])
    reasons: dict[str, str] = {}
    worlds: dict[str, tuple[int, ...]] = {}
    for entry in listed:
        test, reason = entry.get("test", ""), " ".join(entry.get("reason", "").split())
        if not test or not reason or test in reasons:
            raise SystemExit(
                f"{path.name}: got {entry!r}, expected one entry a test, with `test` and `reason`"
            )
        reasons[test], worlds[test] = reason, tuple(entry.get("worlds", ()))
    return Exceptions(reasons, worlds)


def short(name: str) -> str:
    """A test's name without the folder that all have in common."""
    return name.removeprefix(f"{PACKAGE}/")


def passed_alone(records: Records) -> list[str]:
    """The tests that everything is measured by."""
    return [name for name in records.collected if _outcome(records.by_test.get(name, {}).get(0)) == "passed"]


def judge(name: str, records: Records, workers: int) -> Verdict:
    """What became of a test on so many ranks."""
    found, test = records.by_test.get(name), short(name)
    if found is None:
        return Verdict(test, workers, "not run")
    failed = {rank: record for rank, record in found.items() if record["outcome"] == "failed"}
    text = "\n".join(f"--- rank {rank}\n{record.get('text', '')}" for rank, record in failed.items())
    if failed:
        worst = min(failed.values(), key=_is_assertion)
        parted = len(failed) < workers or len({record.get("type") for record in failed.values()}) > 1
        passed = len(found) - len(failed)
        where = f" [rank {', '.join(map(str, failed))} of {workers}; {passed} passed]" if parted else ""
        return Verdict(
            test, workers, "ranks differ" if parted else _kind(worst), _one_line(worst) + where,
            tuple(worst.get("ours", ())), worst.get("place", ""), text,
        )  # fmt: skip
    if len(found) < workers:
        stacks = records.stacks.get(name, {})
        text = "\n".join([*(f"--- rank {r}\n{s}" for r, s in stacks.items()), records.said.get(name, "")])
        ours = tuple(line for stack in stacks.values() for line in _innermost(stack))
        said = records.said.get(name, "").strip().splitlines()
        return Verdict(
            test, workers, "hung" if stacks else "died", said[-1][:300] if said else "", ours, "", text
        )
    outcomes = sorted({record["outcome"] for record in found.values()})
    if len(outcomes) > 1:
        return Verdict(test, workers, "ranks differ", " and ".join(outcomes))
    return Verdict(test, workers, outcomes[0], str(found[0].get("message", "")))


def after_others(verdict: Verdict) -> Verdict:
    """The verdict on a test that differs only where others ran before it: something of theirs is left."""
    return replace(verdict, kind=f"after others: {verdict.kind}")


def _outcome(record: Mapping[str, Any] | None) -> str:
    return record["outcome"] if record else ""


def _is_assertion(record: Mapping[str, Any]) -> bool:
    return str(record.get("type", "")).endswith("AssertionError")


def _kind(record: Mapping[str, Any]) -> str:
    if str(record.get("type", "")).startswith("obl_magic."):
        return "refused"
    return "other result" if _is_assertion(record) else "error"


def _one_line(record: Mapping[str, Any]) -> str:
    lines = [line.strip() for line in str(record.get("message", "")).splitlines() if line.strip()]
    return f"{str(record.get('type', '')).removeprefix('builtins.')}: {' | '.join(lines)}"[:400]


def _innermost(stack: str) -> list[str]:
    """Of each thread that was in our package, the innermost place in it."""
    found = []
    for thread in re.split(r"\n\s*\n", stack):
        match = re.search(r'File "[^"]*/(obl_magic/[^"]*)", line (\d+) in (\S+)', thread)
        if match:
            found.append(f"{match[1]}:{match[2]} {match[3]}")
    return found


def by_kind(verdicts: Iterable[Verdict]) -> list[tuple[tuple[str, str, str], list[Verdict]]]:
    """Verdicts that have kind, error and place in common, the most frequent first."""
    groups: dict[tuple[str, str, str], list[Verdict]] = collections.defaultdict(list)
    for verdict in verdicts:
        place = verdict.ours[-1] if verdict.ours else verdict.place
        error = re.sub(r"0x[0-9a-f]+|\d+(\.\d+)?(e-?\d+)?", "#", verdict.error)[:100]
        groups[verdict.kind, error, place].append(verdict)
    return sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
