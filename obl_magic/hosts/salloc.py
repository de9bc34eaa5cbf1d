"""The options of ``salloc`` that a user types, as far as they tell how many ranks there are to be. Starts nothing."""

from __future__ import annotations

import argparse
import shlex


def words(options: str) -> list[str]:
    """They, apart from each other; none where a quotation does not end."""
    try:
        return shlex.split(options)
    except ValueError:
        return []


def tasks(options: str) -> int:
    """How many tasks an allocation with these options has, at least 1.

    Source: salloc's manual page; ``-N`` may be a range, of which the smaller number is certain.
    """
    known = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    known.add_argument("-n", "--ntasks", type=_number)
    known.add_argument("-N", "--nodes", type=_number, default=1)
    known.add_argument("--ntasks-per-node", type=_number, default=1)
    told, _ = known.parse_known_args(words(options))
    return max(1, int(told.ntasks or told.nodes * told.ntasks_per_node))


def _number(text: str) -> int:
    first = text.partition("-")[0]
    return int(first) if first.isdigit() else 1
