"""What a process's libraries are set to, as values that travel. Imports no library that is not imported already.

One literal table says for which libraries this is known, one file per library how its settings are read and written.
The kernel reads them when it captures a function; a rank writes them as soon as the library is imported there, and
whoever runs a job puts back what was before (docs/decisions/0012-settings-of-earlier-cells.md).
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from obl_magic import payload
from obl_magic.library_settings import (
    of_decimal,
    of_keras,
    of_logging,
    of_matplotlib,
    of_numpy,
    of_pandas,
    of_sklearn,
    of_tensorflow,
    of_warnings,
)
from obl_magic.values import CarriedSettings

LONGEST = 120
"""Characters of a setting's value in the record of a run."""


@dataclass(frozen=True, slots=True)
class Library:
    """How one library's settings are known.

    Attributes:
        module: once it is imported, they can be read.
        read: every setting by name, as values that can be compared and pickled.
        write: sets those given; what is not among them stays.
        defaults: as the library comes, by name; what is not among them has no known default.
        whole: all of them travel; else only those that differ from the default.
        kept: a way of its own to remember them, where names and values are not enough.
        told: one value in words, for the record of a run.
    """

    module: str
    read: Callable[[], dict[str, Any]]
    write: Callable[[Mapping[str, Any]], None]
    defaults: Callable[[], Mapping[str, Any]]
    whole: bool = True
    kept: Callable[[], Callable[[], None]] | None = None
    told: Callable[[Any], str] = repr

    def keep(self) -> Callable[[], None]:
        """Remembers the settings as they stand now; returns what puts them back."""
        if self.kept is not None:
            return self.kept()
        before = self.read()

        def put_back() -> None:
            now = self.read()
            self.write({key: value for key, value in before.items() if not same(now.get(key), value)})

        return put_back


LIBRARIES = {
    "decimal": Library("decimal", of_decimal.read, of_decimal.write, lambda: of_decimal.DEFAULTS),
    "numpy": Library("numpy", of_numpy.read, of_numpy.write, of_numpy.defaults),
    "pandas": Library("pandas", of_pandas.read, of_pandas.write, of_pandas.defaults, whole=False),
    "sklearn": Library("sklearn", of_sklearn.read, of_sklearn.write, lambda: of_sklearn.DEFAULTS),
    "matplotlib": Library(
        "matplotlib", of_matplotlib.read, of_matplotlib.write, of_matplotlib.defaults, whole=False
    ),
    "tensorflow": Library(
        "tensorflow", of_tensorflow.read, of_tensorflow.write, lambda: of_tensorflow.DEFAULTS
    ),
    "keras": Library("keras", of_keras.read, of_keras.write, of_keras.defaults),
    # last: libraries add to these two while they are imported
    "logging": Library(
        "logging",
        of_logging.read,
        of_logging.write,
        of_logging.defaults,
        kept=of_logging.kept,
        told=of_logging.told,
    ),
    "warnings": Library(
        "warnings",
        of_warnings.read,
        of_warnings.write,
        of_warnings.defaults,
        kept=of_warnings.kept,
        told=of_warnings.told,
    ),
}
"""In the order in which they are written."""

ADDED_TO = ("logging", "warnings")
"""Those whose settings other libraries change when they are imported."""


def imported(library: Library) -> bool:
    """Whether a library is there, its import being over."""
    module = sys.modules.get(library.module)
    spec = getattr(module, "__spec__", None)
    return module is not None and not getattr(spec, "_initializing", False)


def read(library: Library) -> dict[str, Any]:
    """All settings of a library that is imported; none where this version of it has other insides."""
    with contextlib.suppress(Exception):
        return library.read()
    return {}


def carried(own: Iterable[ModuleType] = ()) -> tuple[CarriedSettings, ...]:
    """What this process's libraries are set to, for the ranks.

    Args:
        own: modules that travel by value: a setting may hold a function or a class of the user's.
    """
    modules = tuple(own)
    found = (_carried(name, library, modules) for name, library in LIBRARIES.items() if imported(library))
    return tuple(each for each in found if each is not None)


def _carried(name: str, library: Library, own: tuple[ModuleType, ...]) -> CarriedSettings | None:
    values = read(library)
    defaults: Mapping[str, Any] = {}
    with contextlib.suppress(Exception):
        defaults = library.defaults()
    differing = {key: value for key, value in values.items() if not _is_default(key, value, defaults)}
    sent, left = _picklable(values if library.whole else differing, own)
    if not sent:
        return None
    told = {key: _short(library.told(value)) for key, value in differing.items() if key in sent}
    told |= {key: f"not carried: {why}" for key, why in left.items()}
    return CarriedSettings(name, payload.dumps(sent, own), told)


def _picklable(
    values: Mapping[str, Any], own: tuple[ModuleType, ...]
) -> tuple[dict[str, Any], dict[str, str]]:
    """(the values that can travel, why the others cannot)."""
    try:
        payload.dumps(values, own)
        return dict(values), {}
    except Exception:  # a __reduce__ may raise anything
        sent, left = {}, {}
    for key, value in values.items():
        try:
            payload.dumps(value, own)
            sent[key] = value
        except Exception as error:
            left[key] = _short(" ".join(str(error).split()))
    return sent, left


def same(one: Any, other: Any) -> bool:
    """Whether two values of a setting are equal, whatever their ``==`` does."""
    with contextlib.suppress(Exception):
        return type(one) is type(other) and bool(one == other)
    return False


def _is_default(key: str, value: Any, defaults: Mapping[str, Any]) -> bool:
    return key in defaults and same(defaults[key], value)


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"
