"""What looks like a credential, by its name or by its shape, and what stands in its place. Keeps and shows no value."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TypeVar

from obl_magic.values import HIDDEN

T = TypeVar("T")

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_SECRET_WORDS = frozenset(
    {
        "password",
        "passwd",
        "passphrase",
        "secret",
        "credential",
        "credentials",
        "apikey",
        "accesskey",
        "privatekey",
    }
)
_KEYS = frozenset({"api", "access", "private"})
_NOT_LOGIN_TOKENS = frozenset(
    {"num", "n", "max", "min", "pad", "mask", "eos", "bos", "sos", "unk", "oov", "sep", "cls", "start", "end"}
    | {
        "stop",
        "begin",
        "special",
        "next",
        "last",
        "first",
        "prev",
        "word",
        "text",
        "image",
        "input",
        "output",
    }
)
"""Words that make a ``token`` a piece of text."""

_SHAPES = re.compile(
    r"\b(AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_\w{20,}|\bgithub_pat_\w{20,}|\bsk-[\w-]{20,}"
    r"|\bxox[abprs]-[\w-]{10,}|\bhf_[A-Za-z0-9]{30,}|\bglpat-[\w-]{20,}|\bAIza[\w-]{35}"
    r"|-----BEGIN ([A-Z]+ )*PRIVATE KEY|\b[a-z][a-z0-9+]*://[^/\s:@]+:[^/\s:@]+@"
)
"""Keys of AWS, GitHub, OpenAI, Slack, Hugging Face, GitLab, Google; addresses with a password."""

_LOOK_AT = 10_000
"""Characters of a text that are searched for a key: a corpus is not a key."""


def hidden(name: str, value: T) -> T | str:
    """A value that may be written down under its name: itself, or ``***`` where it looks like a credential."""
    return HIDDEN if looks_secret(name, value) else value


def as_text(name: str, value: object) -> str:
    """The ``repr`` of a value, or ``***``; as :func:`hidden`."""
    return HIDDEN if looks_secret(name, value) else repr(value)


def looks_secret(name: str, value: object) -> bool:
    """Whether a text is named like a credential, or has the form of a well-known kind of key.

    Args:
        name: the variable's name, or the key in a dict.
        value: anything; only a non-empty ``str`` or ``bytes`` can be a secret.
    """
    if not isinstance(value, (str, bytes)) or not value:
        return False
    start = value[:_LOOK_AT]
    text = start if isinstance(start, str) else start.decode("latin-1")
    return _named_secret(name) or _SHAPES.search(text) is not None


def _named_secret(name: str) -> bool:
    words = [word.lower() for word in _WORDS.findall(name)]
    if _SECRET_WORDS.intersection(words):
        return True
    if any(word in _KEYS and after == "key" for word, after in pairwise(words)):
        return True
    return words[-1:] == ["token"] and not _NOT_LOGIN_TOKENS.intersection(words)
