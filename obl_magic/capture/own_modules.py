"""Which imported modules are the user's own files, so that they travel as code. Imports none."""

from __future__ import annotations

import contextlib
import os
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from types import ModuleType

_INSTALLED = tuple(f"{os.sep}{name}{os.sep}" for name in ("site-packages", "dist-packages"))


def own_modules(
    modules: Mapping[str, ModuleType] | None = None, roots: Iterable[str] | None = None
) -> tuple[ModuleType, ...]:
    """Imported modules whose file lies under the user's folders and belongs to no installed package.

    Args:
        modules: imported modules by name; ``sys.modules`` unless given.
        roots: the user's folders; the working directory and ``sys.path[0]`` unless given.

    Returns:
        The modules, without ``__main__`` (which travels by value in any case).
    """
    modules = dict(sys.modules) if modules is None else modules
    folders = _spellings(_default_roots() if roots is None else roots)
    library = _spellings(sysconfig.get_path(key) for key in ("stdlib", "platstdlib"))
    return tuple(module for name, module in modules.items() if _is_own(name, module, folders, library))


def namesakes() -> tuple[str, ...]:
    """Modules of the standard library that are imported here although a file on ``sys.path`` has the same name.

    In a kernel such a file (``queue.py`` beside the notebook) changes nothing: Python's own is imported already.
    """
    library = _spellings(sysconfig.get_path(key) for key in ("stdlib", "platstdlib"))
    folders = [
        folder for folder in map(os.path.abspath, sys.path) if not (folder + os.sep).startswith(library)
    ]
    found: set[str] = set()
    for folder in folders:
        with contextlib.suppress(OSError):
            found.update(name.partition(".")[0] for name in os.listdir(folder))
    named = sorted(found & sys.stdlib_module_names & sys.modules.keys())
    return tuple(
        name for name in named if not _is_own(name, sys.modules[name], tuple(_spellings(folders)), library)
    )


def _default_roots() -> tuple[str, ...]:
    return (os.getcwd(), *sys.path[:1])


def _spellings(folders: Iterable[str]) -> tuple[str, ...]:
    """Each folder as written and with its links resolved, ending in a separator."""
    found: dict[str, None] = {}
    for folder in folders:
        for path in (os.path.abspath(folder), os.path.realpath(folder)):
            found[path.rstrip(os.sep) + os.sep] = None
    return tuple(found)


def _is_own(name: str, module: object, folders: tuple[str, ...], library: tuple[str, ...]) -> bool:
    # lazy module proxies run code on attribute access, so look at the dict of real modules only
    if (
        not isinstance(module, ModuleType)
        or module.__name__ != name
        or name.split(".")[0] in ("__main__", "obl_magic")
    ):
        return False
    file = vars(module).get("__file__")
    if not isinstance(file, str) or not file.endswith(".py"):
        return False
    if file.startswith(library) or any(mark in file for mark in _INSTALLED):  # nearly all, and soon decided
        return False
    path = os.path.abspath(file)
    if any(mark in path for mark in _INSTALLED):
        return False
    return path.startswith(folders) and not path.startswith(library)
