"""Every place that is replaced stands in one table, is as the table says, and is called by the installed library."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from obl_magic.errors import SetupProblem
from obl_magic.launchers import mpirun
from obl_magic.worker.frameworks.keras import seams
from obl_magic.world.process import is_root

PROGRAM = Path(__file__).with_name("seams_program.py")
REFUSED = ("tensorflow.python.distribute", "horovod.", "keras.src.distribution", "keras.distribution")
"""What is replaced only to be refused is relied on by nothing."""


@functools.cache
def told() -> dict[str, Any]:
    """What two ranks replaced and what of it was called in a few steps of every kind; run once."""
    launcher = mpirun.require()
    argv = mpirun.command(launcher, 2, [sys.executable, str(PROGRAM), "mpi"], cores=1, root=is_root())
    env = mpirun.environment(launcher, os.environ, ranks=2, cores=1, engine="mpi")
    done = subprocess.run(
        argv, env=env, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=300, check=False
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    assert lines, done.stdout[-2000:] + done.stderr[-4000:]
    found: dict[str, Any] = json.loads(lines[-1])
    return found


def places() -> list[str]:
    """The table's places, as the program spells them."""
    return [f"{seam.owner} {seam.name}" for seam in seams.SEAMS]


@pytest.mark.slow
def test_nothing_is_replaced_that_is_not_in_the_table() -> None:
    """And nothing stands there that is not replaced."""
    replaced = {place for place in told()["replaced"] if not place.startswith(REFUSED)}
    assert replaced == set(places())


@pytest.mark.slow
@pytest.mark.parametrize("place", places())
def test_the_library_still_calls_it(place: str) -> None:
    """A few steps of every kind go through the place."""
    assert place in told()["called"]


@pytest.mark.parametrize("seam", seams.SEAMS, ids=lambda seam: f"{seam.owner}.{seam.name}")
def test_a_place_is_as_the_table_says(seam: seams.Seam) -> None:
    """Owner, name and parameters are those of the installed library; the files are ours."""
    assert seam.misfit() == ""
    folder = Path(seams.__file__).parent
    assert all((folder / name).exists() for name in seam.files.split())


def test_places_are_named_once() -> None:
    """One row a place."""
    assert len(places()) == len(set(places()))


@pytest.mark.parametrize(
    ("name", "parameters", "how"),
    [
        ("gone", "self", "it is not there"),
        (
            "apply",
            "self, grads, loss",
            "it has the parameters self, grads, trainable_variables, without loss",
        ),
        ("apply", "grads, self", "without self in their places"),
        ("apply", "", "it is of another kind"),
    ],
)
def test_a_place_that_has_changed_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, parameters: str, how: str
) -> None:
    """Before anything is replaced, with the place, what it is for, and the versions that were tried."""
    owner = "keras.src.optimizers.base_optimizer:BaseOptimizer"
    monkeypatch.setattr(
        seams, "SEAMS", [seams.Seam(owner, name, parameters, "gradients.py", "sums gradients")]
    )
    seams.check.cache_clear()
    with pytest.raises(SetupProblem, match="is not what the ranks were made for") as caught:
        seams.check()
    assert f"BaseOptimizer.{name} (sums gradients)" in str(caught.value)
    assert how in str(caught.value)
    assert 'pip install "keras>=' in str(caught.value)
