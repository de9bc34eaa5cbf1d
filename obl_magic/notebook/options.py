"""The table of options as it is typed: argparse, completion, which call was meant, and the page in the docs."""

from __future__ import annotations

from argparse import BooleanOptionalAction
from typing import Any

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


def completions(before: str) -> list[str]:
    """What may be typed next: flags, or the words that the last one takes.

    Args:
        before: the magic's line so far, up to the cursor.
    """
    *words, begun = before.split(" ")
    flags = {option.flag: option for option in OPTIONS}
    last = flags.get(words[-1]) if words else None
    if last is not None and last.choices:
        return [word for word in last.choices if word.startswith(begun)]
    if not begun.startswith("-"):
        return []
    offered = [
        *flags,
        *("--no" + flag[1:] for flag, option in flags.items() if option.action is BooleanOptionalAction),
    ]
    return sorted(flag for flag in offered if flag.startswith(begun))


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
