"""The table of options as it is typed: argparse, completion, which call was meant, and the page in the docs."""

from __future__ import annotations

import difflib
from argparse import BooleanOptionalAction
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from obl_magic.errors import UsageProblem
from obl_magic.options import OPTIONS, Option, keywords


def typed(option: Option, default: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    """What argparse is told of an option: (names, keywords).

    Args:
        option: of the table.
        default: its value where it is not given.
    """
    names = (*([f"-{option.short}"] if option.short else []), option.flag)
    said: dict[str, Any] = {"default": default, "help": option.help.replace("%", "%%")}
    if option.action is not None:
        return names, {**said, "action": option.action}
    told = {"type": option.read, "nargs": option.nargs, "const": option.const}
    return names, {**said, **{name: value for name, value in told.items() if value is not None}}


def given(call: str, parsed: Any) -> dict[str, Any]:
    """The options of a call, by name, from what was parsed.

    Args:
        call: ``run``, ``search`` or ``ablate``.
        parsed: has an attribute for each option.
    """
    return {option.name: getattr(parsed, option.name) for option in keywords(call)}


def misplaced(call: str, parsed: Any) -> Option | None:
    """The first option that was given and that a call does not take, or None."""
    for option in OPTIONS:
        if call not in option.calls and getattr(parsed, option.name) != option.default:
            return option
    return None


@dataclass(frozen=True, slots=True)
class Offers:
    """What there is that may be named.

    Attributes:
        words: what ``%oblivious`` can do.
        functions: of the notebook.
        runs: names and ids of runs and studies.
        values: names of the notebook's dicts.
    """

    words: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    values: tuple[str, ...] = ()


OF_RUNS = ("attach", "logs", "stop", "scale", "export")


def completions(before: str, there: Offers = Offers()) -> list[str]:
    """What may be typed next: flags, the words that the last one takes, or names of what there is.

    Args:
        before: the magic's line so far, up to the cursor.
        there: what may be named.
    """
    *words, begun = before.split(" ")
    flags = {option.flag: option for option in OPTIONS} | {
        f"-{each.short}": each for each in OPTIONS if each.short
    }
    last = flags.get(words[-1]) if words else None
    taken = _taken(last, there) if last else ()
    if not taken and before.startswith("%oblivious") and len(words) in (1, 2) and not begun.startswith("-"):
        taken = there.words if len(words) == 1 else there.runs if words[1] in OF_RUNS else ()
    if taken:
        return [word for word in taken if word.startswith(begun)]
    if not begun.startswith("-"):
        return []
    offered = [
        *(flag for flag in flags if flag.startswith("--")),
        *("--no" + flag[1:] for flag, option in flags.items() if option.action is BooleanOptionalAction),
    ]
    return sorted(flag for flag in offered if flag.startswith(begun))


def _taken(option: Option, there: Offers) -> tuple[str, ...]:
    """The words that an option takes."""
    if option.name == "function":
        return there.functions
    if option.name in ("params", "init_from", "resume"):
        return ("best", *there.runs) if option.name != "resume" else there.runs
    return there.values if option.name in ("space", "study") else option.choices


def meant(error: str) -> str:
    """What may have been meant by an option that there is not, with its example; "" where nothing is like it.

    Args:
        error: argparse's sentence.
    """
    _, _, unknown = error.partition("unrecognized arguments: ")
    flags = {option.flag: option for option in OPTIONS}
    close = difflib.get_close_matches(unknown.partition(" ")[0].partition("=")[0], flags, n=1)
    return flags[close[0]].help.rpartition(": ")[2] if close else ""


def as_text(of: Iterable[Option] = OPTIONS) -> str:
    """Options in groups, each with what it is for and an example."""
    of = list(of)
    lines = []
    for group in dict.fromkeys(option.group for option in of):
        lines += ["", f"{group}:"]
        for option in (each for each in of if each.group == group):
            what, _, example = option.help.rpartition(": ")
            short = f"-{option.short}, " if option.short else ""
            other = f", --no-{option.flag[2:]}" if option.action is BooleanOptionalAction else ""
            lines += [f"  {short}{option.flag}{other}", f"      {what}; e.g. {example}"]
    return "\n".join(lines).lstrip("\n")


def help_on(names: Sequence[str]) -> str:
    """What some options are for, with all that the docs say; without a name, of all options in short.

    Args:
        names: with dashes or without.

    Raises:
        UsageProblem: there is no such option.
    """
    if not names:
        return as_text()
    known = {option.name: option for option in OPTIONS}
    said = []
    for name in names:
        option = known.get(name.lstrip("-").replace("-", "_"))
        if option is None:
            close = difflib.get_close_matches(name.lstrip("-").replace("-", "_"), known, n=1) or ["workers"]
            raise UsageProblem(
                f"%oblivious help {name}",
                "an option of %%oblivious",
                f"%oblivious help {known[close[0]].flag}",
            )
        default = "" if option.default in (None, ()) else f"\n      without it: {option.default}"
        said.append(f"{as_text([option])}{default}" + (f"\n      {option.more}" if option.more else ""))
    return "\n\n".join(said)


def as_markdown() -> str:
    """The page of all options, for ``docs/options.md``."""
    lines = [
        "# Options",
        "",
        "Of `%%oblivious`, and by the same names in Python (`obl_magic.run(train, workers=4)`). `make options` writes",
        "this page from [obl_magic/options.py](../obl_magic/options.py).",
    ]
    in_python = {option.name for call in ("run", "search", "ablate") for option in keywords(call)}
    for group in dict.fromkeys(option.group for option in OPTIONS):
        lines += [
            "",
            f"## {group}",
            "",
            "| option | in Python | default | taken by | |",
            "|---|---|---|---|---|",
        ]
        for option in (each for each in OPTIONS if each.group == group):
            short = f"`-{option.short}`, " if option.short else ""
            keyword = option.keyword or (option.name if option.name in in_python else "")
            python = f"`{keyword}`" if keyword else ""
            default = "" if option.default in (None, ()) else f"`{option.default}`"
            what, _, example = option.help.rpartition(": ")
            more = f". {option.more}" if option.more else ""
            lines.append(
                f"| {short}`{option.flag}` | {python} | {default} | {', '.join(option.calls)} "
                f"| {what}: `{example}`{more} |"
            )
    return "\n".join(lines) + "\n"
