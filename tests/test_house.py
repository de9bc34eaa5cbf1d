"""The floor plan: imports go one way, and any engine can be taken out."""

from __future__ import annotations

import ast
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import obl_magic
from obl_magic.engines import ENGINES

PACKAGE = Path(obl_magic.__file__).parent


def test_imports_go_one_way() -> None:
    """The contracts of setup.cfg, as import-linter sees them."""
    if importlib.util.find_spec("importlinter") is None:
        pytest.skip("import-linter is missing; do: python -m pip install 'obl_magic[test]'")
    program = (
        "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "--no-cache"],
        cwd=PACKAGE.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("engine", sorted(ENGINES))
def test_without_any_one_engine_everything_else_still_imports(tmp_path: Path, engine: str) -> None:
    """Its file and its line of the registry are all there is of it."""
    copy = tmp_path / "obl_magic"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    module = ENGINES[engine].module
    (tmp_path / Path(*module.split("."))).with_suffix(".py").unlink()
    entries = {
        "engines.py": rf'^    "{engine}": Engine\(.*?\),\n(?=    "|}})',
        "setup/doctor.py": rf'"{engine}": \w+(, )?',
    }
    for registry, entry in entries.items():
        text = (copy / registry).read_text()
        (copy / registry).write_text(re.sub(entry, "", text, count=1, flags=re.M | re.S))
    assert f'"{engine}": ' not in (copy / "engines.py").read_text()
    names = [
        ".".join(path.relative_to(tmp_path).with_suffix("").parts)
        for path in sorted(copy.rglob("*.py"))
        if path.name not in ("__init__.py", "__main__.py")
    ]
    # the engines' own libraries may be missing here; everything else must be importable
    others = [name for name in names if name not in {each.module for each in ENGINES.values()}]
    program = f"import importlib, sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    program += f"for name in {others!r}:\n    importlib.import_module(name)\n"
    program += "import obl_magic\nprint(obl_magic.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == str(copy / "__init__.py"), done.stderr[-3000:]


SECRETS = {
    "cloudpickle": ("payload",),
    "horovod": ("worker/engines/horovod.py",),
    "subprocess": ("world/", "server/", "setup/", "launchers/mpirun.py"),
    "IPython": ("notebook/magics.py", "display/notebook.py"),
}


@pytest.mark.parametrize("secret", SECRETS)
def test_each_secret_has_its_room(secret: str) -> None:
    """Only there is it imported."""
    users = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.partition(".")[0] == secret for name in names):
                users.add(path.relative_to(PACKAGE).as_posix())
    assert [user for user in sorted(users) if not user.startswith(SECRETS[secret])] == []


OF_OTHERS = {
    "_distributed_dataset", "_inputs", "_layers", "_losses", "_make", "_seed",
}  # fmt: skip
"""Underscore names of Keras, TensorFlow and ``namedtuple`` that a file of ours has, too."""


def test_no_module_reaches_into_anothers_underscore_names() -> None:
    """What another room needs is public there."""
    own: dict[Path, set[str]] = {}
    used: dict[Path, set[tuple[int, str]]] = {}
    for path in PACKAGE.rglob("*.py"):
        names, uses = own.setdefault(path, set()), used.setdefault(path, set())
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                names.add(node.name)
            elif isinstance(node, ast.Attribute):
                if isinstance(node.ctx, ast.Store):
                    names.add(node.attr)
                if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")):
                    uses.add((node.lineno, node.attr))
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                names.add(node.id)
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("obl_magic"):
                uses |= {(node.lineno, alias.name) for alias in node.names}
    reached = [
        f"{path.relative_to(PACKAGE)}:{line} {name}"
        for path, uses in used.items()
        for line, name in sorted(uses)
        if name.startswith("_") and not name.startswith("__") and name not in own[path] | OF_OTHERS
        and any(name in names for other, names in own.items() if other != path)
    ]  # fmt: skip
    assert reached == []


WHEN_FIRST_USED = {
    "IPython", "cloudpickle", "keras", "matplotlib", "ml_dtypes", "mlflow", "mpi4py", "numpy", "optuna", "pandas",
    "scipy", "sklearn", "tensorboard", "tensorflow",
}  # fmt: skip
"""Libraries that take long to import, or that may be missing."""


def test_what_is_imported_inside_a_function_says_why() -> None:
    """Beside it, unless it is a library that is imported when it is first used."""
    silent = []
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text()
        lines = text.splitlines()
        functions = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.FunctionDef)]
        inside = {node for each in functions for node in ast.walk(each)}
        for node in inside:
            if isinstance(node, (ast.Import, ast.ImportFrom)):
                name = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
                if (name or "").partition(".")[0] not in WHEN_FIRST_USED and "  # " not in lines[
                    node.lineno - 1
                ]:
                    silent.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {name}")
    assert silent == []
