"""What importing costs: a rank's program and the package itself are light."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

pytestmark = pytest.mark.timing

HEAVY = {
    "tensorflow",
    "keras",
    "pandas",
    "IPython",
    "ipykernel",
    "horovod",
    "sklearn",
    "matplotlib",
    "optuna",
}


def imported(statement: str) -> tuple[set[str], float]:
    """Top-level modules that a fresh Python has after a statement, and the seconds it took."""
    program = (
        f"import sys, time, json; t = time.perf_counter(); {statement}; t = time.perf_counter() - t; "
        "print(json.dumps([sorted({name.partition('.')[0] for name in sys.modules}), t]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    names, seconds = json.loads(done.stdout)
    return set(names), seconds


def test_a_ranks_program_imports_no_framework_and_no_notebook() -> None:
    """A rank pays for what its function uses, and never for IPython or pandas."""
    names, _ = imported("import obl_magic.worker.__main__")
    assert names & HEAVY == set()


def test_the_package_imports_neither_framework_nor_notebook_nor_mpi() -> None:
    """Importing it in a notebook or on a rank must not start anything."""
    names, _ = imported("import obl_magic; obl_magic.report(loss=1)")
    assert names & (HEAVY | {"mpi4py", "cloudpickle", "psutil", "numpy"}) == set()


def test_the_package_is_imported_in_a_tenth_of_a_second() -> None:
    """Best of five, since other processes may want the processor too."""
    assert min(imported("import obl_magic")[1] for _ in range(5)) < 0.1


@pytest.mark.parametrize("engine", ["horovod", "mpi", "alone"])
def test_the_registry_of_engines_imports_none_of_them(engine: str) -> None:
    """An engine's library is loaded by the ranks that use it, and by nobody else."""
    names, _ = imported(f"from obl_magic.worker.engines import collectives; collectives.ENGINES[{engine!r}]")
    assert names & (HEAVY | {"mpi4py"}) == set()
