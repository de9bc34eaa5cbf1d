"""Python's warning filters, in their order. A library's category is known by its name: nothing is imported for it."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from collections.abc import Callable, Mapping
from typing import Any

_Filter = tuple[str, Any, Any, Any, int]

_ADDED_BY = re.compile(
    r"scipy|numpy|urllib3|requests|sklearn|pandas|matplotlib|IPython|ipykernel|traitlets|jupyter|zmq|tornado|joblib|"
    r"the matrix subclass|Trio's signal|size changed, may indicate"
)
_OWN_CATEGORIES = re.compile(r"urllib3|requests|IPython|ipykernel|traitlets|jupyter|zmq|tornado")
"""Libraries that set filters for warnings of their own; scikit-learn's, say, are filtered by users."""
_PYTHONS = (
    ("default", None, "builtins:DeprecationWarning", "__main__", 0),
    ("ignore", None, "builtins:DeprecationWarning", None, 0),
    ("ignore", None, "builtins:PendingDeprecationWarning", None, 0),
    ("ignore", None, "builtins:ImportWarning", None, 0),
    ("ignore", None, "builtins:ResourceWarning", None, 0),
)


def read() -> dict[str, Any]:
    """The filters, first come first, as plain values; a class of the user's as itself."""
    return {
        "filters": tuple(_plain(each) for each in warnings.filters),
        "logging.captureWarnings": getattr(logging, "_warnings_showwarning", None) is not None,
    }


def defaults() -> dict[str, Any]:
    """The filters that Python and the libraries around it have set themselves."""
    filters = tuple(each for each in map(_plain, warnings.filters) if each in _PYTHONS or _of_a_library(each))
    return {"filters": filters, "logging.captureWarnings": False}


def write(values: Mapping[str, Any]) -> None:
    """Sets the filters; those whose category is not imported here are left out, nothing can be of them yet."""
    if "filters" in values and tuple(map(_plain, warnings.filters)) != values["filters"]:
        found = [each for each in map(_filter, values["filters"]) if each is not None]
        _set(found)
    captured = getattr(logging, "_warnings_showwarning", None) is not None
    if "logging.captureWarnings" in values and values["logging.captureWarnings"] != captured:
        logging.captureWarnings(values["logging.captureWarnings"])


def told(value: Any) -> str:
    """Filters as ``-W`` takes them, those of libraries and Python apart."""
    if not isinstance(value, tuple):
        return repr(value)
    own = (each for each in value if each not in _PYTHONS and not _of_a_library(each))
    return ", ".join(map(_in_words, own)) or "another order"


def _in_words(each: _Filter) -> str:
    action, message, category, module, line = each
    kind = category.partition(":")[2] if isinstance(category, str) else category.__qualname__
    texts = [text[0] if isinstance(text, tuple) else text or "" for text in (message, module)]
    return ":".join((action, texts[0], kind, texts[1], str(line or ""))).rstrip(":")


def kept() -> Callable[[], None]:
    """Remembers the filters; returns what puts them back, but for those that libraries have added meanwhile."""
    filters, captured = list(warnings.filters), read()["logging.captureWarnings"]

    def put_back() -> None:
        added = [each for each in warnings.filters if each not in filters and _of_a_library(_plain(each))]
        _set(added + filters)
        write({"logging.captureWarnings": captured})

    return put_back


def _set(filters: list[Any]) -> None:
    """Sets them; what was shown once may then be shown again."""
    warnings.resetwarnings()
    warnings.filters.extend(filters)  # type: ignore[attr-defined]


def _plain(each: Any) -> _Filter:
    action, message, category, module, line = each
    return action, _pattern(message), _named(category), _pattern(module), line


def _pattern(pattern: Any) -> Any:
    """Compiled patterns know their text and flags; Python's own filters hold a bare text, compared as a whole."""
    return (pattern.pattern, pattern.flags) if isinstance(pattern, re.Pattern) else pattern


def _named(category: type) -> Any:
    module = category.__module__
    found: Any = sys.modules.get(module)
    for step in category.__qualname__.split("."):
        found = getattr(found, step, None)
    return f"{module}:{category.__qualname__}" if found is category and module != "__main__" else category


def _filter(each: _Filter) -> Any:
    action, message, category, module, line = each
    if isinstance(category, str):
        name, _, qualified = category.partition(":")
        found: Any = sys.modules.get(name)
        for step in qualified.split("."):
            found = getattr(found, step, None)
        if not isinstance(found, type):
            return None
        category = found
    return action, _compiled(message), category, _compiled(module), line


def _compiled(pattern: Any) -> Any:
    return re.compile(*pattern) if isinstance(pattern, tuple) else pattern


def _of_a_library(each: _Filter) -> bool:
    _, message, category, module, _ = each
    texts = [text[0] if isinstance(text, tuple) else text or "" for text in (message, module)]
    of_its_own = isinstance(category, str) and _OWN_CATEGORIES.match(category)
    return bool(of_its_own) or any(map(_ADDED_BY.search, texts))
