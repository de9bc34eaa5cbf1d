"""What ``docs/transparency.md`` claims is shown by tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
LINKS = re.findall(r"\[([a-z0-9_]+)\]\((\.\./tests/[^)]+)\)", (DOCS / "transparency.md").read_text())


@pytest.mark.parametrize(("name", "path"), LINKS)
def test_every_line_names_a_test_that_is_there(name: str, path: str) -> None:
    """A link leads to a file in which a function of that name stands."""
    tree = ast.parse((DOCS / path).read_text())
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_line_of_what_is_exact_or_refused_is_shown() -> None:
    """No claim goes without a test."""
    lines = [line for line in (DOCS / "transparency.md").read_text().splitlines() if line.startswith("| ")]
    assert len(LINKS) > len(lines)
