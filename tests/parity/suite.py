"""Runs the cases, all in one training function, in one world; or alone, without the package.

``python suite.py FOLDER [--workers N --engine E] [--cases a,b] [--mutation NAME]`` (a case with a fault of its own is
written ``case@fault``) leaves one file per case and
rank in the folder, so that what was finished survives a world that hangs or dies.
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import inspect
import os
import pickle
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import compare
import mutations
from worlds import EARLIER_CELL

THEMES = (
    "inputs",
    "losses",
    "steps",
    "metrics",
    "callbacks",
    "state",
    "tutorials",
    "own_steps",
    "hand_loops",
    "chance",
    "mixing_rows",
    "reported",
    "examples",
    "earlier_cells",
)
LIMIT_S = 240.0
"""No case takes as long, even on ranks that share a core; then its world is ended."""
OTHERS_S = 5.0
"""How long a rank whose case failed waits for the others to come to its end too."""


def cases() -> dict[str, Callable[[], dict]]:
    """Every training function by its name."""
    found = {}
    for theme in THEMES:
        module = importlib.import_module(f"cases_{theme}")
        for name, value in vars(module).items():
            own = inspect.isfunction(value) and value.__module__ == module.__name__
            if own and name[0] != "_" and name != EARLIER_CELL:
                found[name] = value
    return found


def suite(names=(), functions=None, workers=1, limit_s=LIMIT_S, mutation=None):
    """Calls one training function after the other; a file per case and rank, and all outcomes as its value."""
    import keras

    rank = int(os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("PMI_RANK", "0")))
    folder = Path("outcomes")
    folder.mkdir(exist_ok=True)
    done = {}
    for number, name in enumerate(names):
        case, _, fault = name.partition("@")
        kept = Path(folder, f"{name}.{rank}.stacks")  # on standard error they would be lost with the rank
        with mutations.applied(mutations.SLUGS.get(fault, mutation), rank), kept.open("w") as stacks:
            keras.utils.clear_session(free_memory=number % 10 == 9)  # that takes half a second
            faulthandler.dump_traceback_later(limit_s, exit=True, file=stacks)
            Path(folder, f"{name}.{rank}.began").touch()
            began = time.perf_counter()
            try:
                outcome = {"value": compare.flat(functions[case]())}
            except Exception as error:
                outcome = {
                    "error": f"{type(error).__name__}: {error}"[:2000],
                    "traceback": traceback.format_exc(),
                }
            outcome["seconds"] = time.perf_counter() - began
            faulthandler.cancel_dump_traceback_later()
            unfinished = folder / f"{name}.{rank}.unfinished"
            unfinished.write_bytes(pickle.dumps(outcome))
            unfinished.rename(folder / f"{name}.{rank}.done")
            done[name] = outcome
            if "error" in outcome and not _others_came_too(folder, name, workers):
                raise RuntimeError(f"{name} failed on rank {rank} only: {outcome['error']}")
    return done


def _others_came_too(folder: Path, name: str, workers: int) -> bool:
    until = time.monotonic() + OTHERS_S
    while time.monotonic() < until:
        if len(list(folder.glob(f"{name}.*.done"))) == workers:
            return True
        time.sleep(0.05)
    return False


def main() -> None:
    """Runs them here or on ranks."""
    asked = argparse.ArgumentParser()
    asked.add_argument("folder")
    asked.add_argument("--workers", type=int)
    asked.add_argument("--engine", default="mpi")
    asked.add_argument("--cases", default="")
    asked.add_argument("--mutation")
    asked.add_argument("--timeout", type=float, default=1800)
    given = asked.parse_args()
    functions = cases()
    names = given.cases.split(",") if given.cases else list(functions)
    os.chdir(given.folder)
    for now, before in _rounds(names, functions):
        before()
        arguments = {
            "names": now,
            "functions": {name.partition("@")[0]: functions[name.partition("@")[0]] for name in now},
            "workers": given.workers or 1,
            "mutation": given.mutation,
        }
        if given.workers is None:
            suite(**arguments)
            assert not any(name.split(".")[0] == "obl_magic" for name in sys.modules)
            continue
        import obl_magic

        obl_magic.run(
            suite,
            workers=given.workers,
            engine=given.engine,
            args=arguments,
            quiet=True,
            timeout=given.timeout,
        )


def _rounds(names, functions):
    """The cases in the order given; after them, in runs of their own, those of modules with an earlier cell."""
    cells = {}
    for name in names:
        module = sys.modules[functions[name.partition("@")[0]].__module__]
        cells.setdefault(getattr(module, EARLIER_CELL, _no_earlier_cell), []).append(name)
    return sorted(((now, cell) for cell, now in cells.items()), key=lambda r: r[1] is not _no_earlier_cell)


def _no_earlier_cell() -> None:
    pass


if __name__ == "__main__":
    main()
