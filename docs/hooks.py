"""What the site does with links that leave it: files of the checkout are named, not linked."""

from __future__ import annotations

import re
from typing import Any

_OUTSIDE = re.compile(r"\[([^\]]+)\]\((?:\.\./)+(?!guides|decisions)([\w./-]+)\)")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links to sources and tests become their paths."""
    if page.file.src_uri.startswith(("guides/", "decisions/")):
        return markdown
    return _OUTSIDE.sub(r"\1 (`\2`)", markdown)
