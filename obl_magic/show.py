"""Chooses the display: the notebook's panel in a kernel, lines of text elsewhere."""

from __future__ import annotations

from obl_magic.display.base import Display


def showing() -> Display:
    """A new display for one run."""
    from obl_magic.display.notebook import NotebookDisplay, in_notebook

    if in_notebook():
        return NotebookDisplay()
    from obl_magic.display.text import TextDisplay

    return TextDisplay()
