"""Reads a spec's text piece by piece, and says where it is not what was expected. Evaluates single literals only."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from obl_magic.errors import UsageProblem

LONGEST_BITS = 1024
"""Python refuses to print integers that are very much longer."""


LITERAL = "a literal (a number, a quoted text, True, False, None, or a tuple, list or dict of those)"


_WORD = re.compile(r"[^\W\d]\w*")


KEYWORD = re.compile(r"\s*([^\W\d]\w*)\s*=(?!=)")


BARE = re.compile(r"""[^\s,='"\[\]()](?:[^\s,='"\[\]()]|\[[^\s,\]'"]+\])*""")


BARE_IN_GROUP = re.compile(r"""[^\s,='"\[\]()+](?:[^\s,='"\[\]()+]|\[[^\s,\]'"]+\])*""")


_CLOSES = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a form: its keyword or "", its text, and where that begins."""

    key: str
    text: str
    at: int


class Scanner:
    """A text and how far it has been read.

    Args:
        text: what is read.
        owner: whose text it is within a mapping, or "".
    """

    def __init__(self, text: str, owner: str = "") -> None:
        self.text, self.owner, self.at = text, owner, 0

    def ended(self) -> bool:
        return self.at >= len(self.text)

    def peek(self) -> str:
        """Returns the next character, or "" at the end."""
        return self.text[self.at : self.at + 1]

    def rest(self) -> str:
        """Returns what comes next, as an error shows it."""
        return repr(self.text[self.at :].split()[0][:20]) if self.text[self.at :].split() else "nothing"

    def take(self, sign: str) -> bool:
        """Returns whether ``sign`` comes next, which is then behind us."""
        found = self.peek() == sign
        self.at += found
        return found

    def spaces(self) -> bool:
        """Returns whether there was space, which is then behind us."""
        before = self.at
        while self.peek().isspace():
            self.at += 1
        return self.at > before

    def word(self, pattern: re.Pattern[str] = _WORD) -> str:
        """Returns the word that comes next, or ""."""
        found = pattern.match(self.text, self.at)
        self.at = found.end() if found else self.at
        return found[0] if found else ""

    def quoted(self, example: str) -> str:
        """Returns the quoted text that comes next, with its quotes."""
        start, quote = self.at, self.peek()
        self.at += 1
        while not self.ended():
            sign = self.peek()
            self.at += 2 if sign == "\\" else 1
            if sign == quote:
                return self.text[start : self.at]
        raise self.problem("a quote that nothing closes", start, f"{quote} at its end", example)

    def argument(self, bracket: int, example: str) -> str:
        """Returns the text up to the comma or the bracket that ends an argument, which stays to be read."""
        start, inside = self.at, [bracket]
        while not self.ended():
            sign = self.peek()
            if len(inside) == 1 and sign in (",", ")"):
                return self.text[start : self.at].rstrip()
            if sign in ("'", '"'):
                self.quoted(example)
                continue
            if sign in _CLOSES:
                inside.append(self.at)
            elif sign in _CLOSES.values():
                opening = self.text[inside.pop()]
                if _CLOSES[opening] != sign:
                    raise self.problem(repr(sign), self.at, repr(_CLOSES[opening]), example)
            self.at += 1
        opening = self.text[inside[-1]]
        raise self.problem(f"{opening!r} that nothing closes", inside[-1], repr(_CLOSES[opening]), example)

    def telling(self, at: int, example: str) -> Callable[[str, str], UsageProblem]:
        """Returns what makes errors about the piece at ``at``."""
        return lambda got, expected: self.problem(got, at, expected, example)

    def problem(self, got: str, at: int, expected: str, example: str) -> UsageProblem:
        """Returns the error about what stands at ``at``."""
        of = f" of the text for {self.owner}" if self.owner else ""
        return UsageProblem(f"{got} at column {at + 1}{of}", expected, f"write {example}")


def literal(scanner: Scanner, argument: Argument, example: str) -> Any:
    """Returns the value of one literal; never calls, looks up or computes anything."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's remarks on odd escapes
            value = ast.literal_eval(argument.text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        got = _cut(repr(argument.text)) if argument.text else "nothing"
        raise scanner.problem(got, argument.at, LITERAL, example) from None
    return value


def shown(value: Any) -> str:
    """Returns a value on one line, cut."""
    try:
        return _cut(" ".join(repr(value).split()))
    except Exception:  # somebody else's repr, or a number too long to print
        return f"a {type(value).__name__}"


def _cut(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"
