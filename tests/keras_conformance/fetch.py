"""Where Keras' own tests come from: the source distribution of the installed version, kept outside git. Runs none.

Only the test files are unpacked, under a name of their own (``keras_tests``): they then test the Keras that is
installed, and their classes and functions are a user's, not Keras' own.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import tarfile
from pathlib import Path, PurePosixPath

PACKAGE = "keras_tests"
"""The folder that the tests are unpacked into; ``keras/src/losses/loss_test.py`` is its ``losses/loss_test.py``."""
_SOURCES = "keras/src/"
_COMPLETE = "complete"


def installed() -> str:
    """The installed version of Keras."""
    return importlib.metadata.version("keras")


def fetch(cache: Path) -> Path:
    """The folder that holds ``keras_tests`` and Keras' own pytest settings; downloads them if they are not there.

    Args:
        cache: where folders of all versions are kept.

    Raises:
        SystemExit: pip could not get the source distribution; with what it said.
    """
    version = installed()
    folder = cache / version
    if not (folder / _COMPLETE).is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _unpack(_download(version, folder), folder)
        (folder / _COMPLETE).touch()
    return folder


def _download(version: str, folder: Path) -> Path:
    name = f"keras-{version}.tar.gz"
    asked = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
             "--no-binary", "keras", "--dest", str(folder), f"keras=={version}"]  # fmt: skip
    said = ""
    # The second needs no build tool from an index, only a setuptools that is already here.
    for more in ([], ["--no-build-isolation"]):
        ended = subprocess.run([*asked, *more], capture_output=True, text=True, check=False)
        if ended.returncode == 0 and (folder / name).is_file():
            return folder / name
        said = ended.stderr.strip() or said
    raise SystemExit(
        f"keras-tests: expected the source distribution {name} in {folder}, but pip said:\n{said}\n"
        "do: connect to an index that has it, or put the file there yourself"
    )


def _unpack(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as inside:
        for member in inside:
            _, _, path = member.name.partition("/")
            if path == "pyproject.toml":
                target = folder / path
            elif path.startswith(_SOURCES) and path.endswith("_test.py"):
                target = folder / PACKAGE / PurePosixPath(path).relative_to(_SOURCES)
            else:
                continue
            content = inside.extractfile(member)
            assert content is not None
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.read())


def files(folder: Path, themes: list[str]) -> list[str]:
    """The test files of some themes (``losses``, ``layers/core``), as paths in ``folder``.

    Raises:
        SystemExit: there is no such theme.
    """
    found: list[str] = []
    for theme in themes:
        place = folder / PACKAGE / theme
        paths = sorted(place.rglob("*_test.py")) if place.is_dir() else [place] if place.is_file() else []
        if not paths:
            there = sorted(path.name for path in (folder / PACKAGE).iterdir() if path.is_dir())
            raise SystemExit(f"keras-tests: got the theme {theme!r}, expected one of {', '.join(there)}")
        found += [str(path.relative_to(folder)) for path in paths if _of_this_backend(path)]
    return list(dict.fromkeys(found))


def _of_this_backend(path: Path) -> bool:
    return not {"jax", "torch", "openvino", "numpy"} & {
        parent.name for parent in path.parents if parent.parent.name == "backend"
    }
