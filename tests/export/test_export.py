"""Runs written as scripts: what they say, what they refuse, and that they give the run's numbers outside Jupyter."""

from __future__ import annotations

import ast
import os
import re
import stat
import subprocess
import sys
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import exporting
import numpy as np
import pytest

import obl_magic
from obl_magic.errors import UsageProblem
from obl_magic.export import export
from obl_magic.export.standalone import load
from obl_magic.hosts.cores import cores
from obl_magic.launchers import mpirun
from obl_magic.runs.jobs import JOBS
from obl_magic.world.process import is_root

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _functions_are_the_users() -> Iterator[None]:
    """They lie in the first folder that Python looks in, as beside a notebook."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(Path(exporting.__file__).parent), *sys.path])
        yield


def run(fn: Any, workers: int | None = 1, **options: Any) -> obl_magic.Run:
    """A run that shows nothing, on the engine that starts fastest."""
    return obl_magic.run(fn, workers=workers, **{"engine": "mpi", "quiet": True, **options})


def execute(script: Path, ranks: int | None = None) -> subprocess.CompletedProcess[str]:
    """The script, run as a user would in another folder: by Python, or by mpirun on so many ranks."""
    argv = [sys.executable, str(script)]
    if ranks is not None:
        argv = mpirun.command(mpirun.require(), ranks, argv, cores=cores(), root=is_root())
    cwd = script.parent / "elsewhere"
    cwd.mkdir(exist_ok=True)
    return subprocess.run(
        argv, cwd=cwd, capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL
    )


def returned(said: str) -> Any:
    """The value that a script printed."""
    (text,) = re.findall(r"^returned (.*)$", said, re.M)
    return ast.literal_eval(text)


# What it says


def test_a_script_is_the_notebooks_own_text(home: Path) -> None:
    """Imports, constants, helpers, the function and its call; what has no text comes from beside it."""
    done = run(exporting.train, args={"lr": 0.5}, seed=7)
    written = export(done.id, "train.py")
    assert written.text() == "wrote train.py and train.py.pkl beside it; to run it: python train.py"
    text = Path("train.py").read_text()
    source = Path(exporting.__file__).read_text()
    for name in ("helper", "model_fn", "rank", "train"):
        start = source.index(f"def {name}(")
        assert source[start : source.index("\n\n\n", start)] in text
    assert "\nimport math as maths\nimport os\nfrom obl_magic import report\n\nrate = 0.25\n\n" in text
    assert text[text.index("if __name__") :] == (
        'if __name__ == "__main__":\n    obl_magic.export.standalone.run(\n        train,\n        script=__file__,\n'
        "        args={'lr': 0.5},\n        provide={'model_fn': model_fn},\n"
        "        needs=('table', 'slowly'),  # global names that come from the payload\n"
        "        seed=7,\n        engine='mpi',  # under mpirun\n        batch='global',\n    )\n"
    )
    assert stat.S_IMODE(os.stat("train.py.pkl").st_mode) == 0o600
    here = execute(home / "train.py")
    assert here.stderr == ""
    assert here.stdout.startswith("printed by rank 0\n") or "epoch 1  loss 0.5\n" in here.stdout
    assert returned(here.stdout) == done.value
    both = execute(home / "train.py", ranks=2)
    assert both.stdout.count("printed by rank") == 1, "rank 0 speaks for all"
    assert (both.returncode, returned(both.stdout)) == (0, done.value)


def test_a_script_that_is_all_text_needs_nothing_beside_it(home: Path) -> None:
    """And can be changed by hand: it is what runs."""
    done = run(exporting.rank)
    export(done.id, "rank.py")
    assert sorted(path.name for path in home.glob("rank*")) == ["rank.py"]
    script = home / "rank.py"
    script.write_text(script.read_text().replace('"0"', '"5"'))
    assert returned(execute(script).stdout) == 5


def test_a_function_that_its_text_does_not_make_comes_from_the_payload(home: Path) -> None:
    """A closure: its source is there to be read."""
    done = run(exporting.adder(3), args={"lr": 1.5})
    export(done.id, "add.py")
    text = Path("add.py").read_text()
    assert "#     def add(lr=0.5):\n#         return lr + n\n" in text
    assert "        'add',\n" in text
    assert returned(execute(home / "add.py").stdout) == done.value == 4.5


def test_arguments_and_settings_are_those_of_the_run(home: Path) -> None:
    """Those that are not the usual ones are named."""
    options = {
        "batch": "per-worker",
        "lr_scale": "sqrt",
        "warmup_epochs": 2,
        "sync_batchnorm": False,
        "verify": "off",
    }
    done = run(exporting.rank, **options)
    export(done.id, "rank.py")
    call = Path("rank.py").read_text().partition("seed=")[2]
    expected = "0, engine='mpi', # under mpirun batch='per-worker', lr_scale='sqrt', warmup_epochs=2, "
    assert " ".join(call.split()) == expected + "sync_batchnorm=False, verify='off', )"


# What it refuses


def test_nothing_is_overwritten(home: Path) -> None:
    """Neither the script nor what would lie beside it; a run and a folder must be there."""
    done = run(exporting.rank, workers=1)
    Path("mine.py").write_text("mine")
    Path("other.py.pkl").write_text("mine")
    for file, taken in (("mine.py", "mine.py"), ("other.py", "other.py.pkl")):
        with pytest.raises(
            UsageProblem, match=rf"^got export to {taken}, which exists; expected a name that"
        ):
            export(done.id, file)
    with pytest.raises(UsageProblem, match=r"^got export to no/rank\.py; expected a file in a folder"):
        export(done.id, "no/rank.py")
    with pytest.raises(UsageProblem, match=r"^got run 'nothing'"):
        export("nothing", "rank.py")
    assert Path("mine.py").read_text() == Path("other.py.pkl").read_text() == "mine"
    assert not Path("rank.py").exists()


def test_a_run_in_the_kernel_is_exported_from_the_notebook_that_has_its_function(home: Path) -> None:
    """It was sent nowhere; a function that has changed since is refused."""
    done = run(exporting.train, workers=None, args={"lr": 0.5}, engine="auto")
    with pytest.raises(
        UsageProblem, match="ran in the kernel and was sent nowhere, and no function train is here"
    ):
        export(done.id, "train.py")
    with pytest.raises(
        UsageProblem, match="and train has changed since; expected the notebook with the same"
    ):
        export(done.id, "train.py", {"train": exporting.fits})
    export(done.id, "train.py", vars(exporting))
    assert returned(execute(home / "train.py").stdout) == done.value


def test_large_arrays_that_a_run_has_not_kept_are_taken_from_the_notebook(home: Path) -> None:
    """If they are what they were; they are mapped from beside the script."""
    done = run(exporting.sums)
    with pytest.raises(
        UsageProblem,
        match="whose function and data were removed from the disk when it ended, and no function sums",
    ):
        export(done.id, "sums.py")
    with pytest.raises(UsageProblem, match=r"and sums -> large is not what it was"):
        export(
            done.id, "sums.py", {**vars(exporting), "sums": with_globals(exporting.sums, large=np.ones(3))}
        )
    written = export(done.id, "sums.py", vars(exporting))
    assert written.text().endswith(
        "; the values beside it are the notebook's of now; to run it: python sums.py"
    )
    said = execute(home / "sums.py").stdout
    assert said.startswith("returned a tuple, saved in sums.py.value.pkl; to have it: ")
    total, first = load(str(home / "sums.py.value.pkl"))
    assert total == done.value[0]
    assert list(first) == [0, 1, 2]


def with_globals(function: Any, **names: Any) -> Any:
    """The same function among other values."""
    return type(function)(function.__code__, {**function.__globals__, **names}, function.__name__)


# What it gives


def test_a_rank_that_raises_ends_the_others(home: Path) -> None:
    """Its traceback is shown, and mpirun's exit code says that it failed."""
    done = run(exporting.rank)
    export(done.id, "rank.py")
    script = home / "rank.py"
    text = script.read_text().replace("def rank():", "def rank():\n    return one_raises()")
    source = Path(exporting.__file__).read_text()
    start = source.index("def one_raises")
    helper = source[start : source.index("\n\n\n", start)]
    script.write_text(text.replace("if __name__", f"{helper}\n\n\nif __name__"))
    said = execute(script, ranks=2)
    assert said.returncode != 0
    assert "rank 1 raised:\nTraceback (most recent call last):\n" in said.stderr
    assert "ValueError: of rank 1\n" in said.stderr


@pytest.mark.parametrize("ranks", [None, 2])
def test_a_script_gives_the_runs_numbers(
    trained: obl_magic.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranks: int | None
) -> None:
    """In one process and under mpirun: the same loss curve, epoch by epoch."""
    monkeypatch.setenv("OBLIVIOUS_HOME", str(trained.dir.parents[1]))
    script = tmp_path / "fits.py"
    export(trained.id, str(script))
    said = execute(script, ranks)
    assert said.returncode == 0, said.stderr
    value = returned(said.stdout)
    assert set(value) == set(trained.value)
    for name, curve in trained.value.items():
        np.testing.assert_allclose(value[name], curve, rtol=1e-5)
    losses = re.findall(r"^epoch \d  .*loss (\S+)", said.stdout, re.M)
    np.testing.assert_allclose([float(loss) for loss in losses], trained.value["loss"], rtol=1e-5)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> obl_magic.Run:
    """One run on two ranks, whose data were captured."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OBLIVIOUS_HOME", str(tmp_path_factory.mktemp("home")))
        return run(exporting.fits, workers=2, args={"lr": 0.05}, seed=5)


def test_a_trial_and_the_run_that_began_from_its_weights_are_exported(home: Path) -> None:
    """With the trial's own parameters and seed; the weights lie beside the script, and the numbers come again."""
    study = obl_magic.search(
        exporting.fits_and_tells, "lr=choice(0.02,0.05)", trials=2, minimize="last", workers=1, quiet=True
    )
    final = run(exporting.fits_and_tells, params=study, init_from=study)
    for name, of in (("trial.py", study.best.run), ("final.py", final)):
        export(of.id, str(home / name))
        said = execute(home / name)
        assert said.returncode == 0, said.stderr
        assert returned(said.stdout)["last"] == pytest.approx(of.value["last"], rel=1e-5)
    assert final.value["last"] < study.best.value
    assert (home / "final.py.npz").is_file()
    assert not (home / "trial.py.npz").exists()


def test_a_run_that_leaves_something_out_has_no_script(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused by name, with the run that can be exported."""
    result = obl_magic.ablate(exporting.counts_flags, "flags=loud", maximize="value", workers=1, quiet=True)
    with pytest.raises(UsageProblem, match=rf"which left out loud; .* export {result.id}-000 train.py"):
        export(result.run_of("loud").id, str(home / "loud.py"))
    monkeypatch.setattr(JOBS, "_kept", OrderedDict())  # as another kernel that has the same notebook
    with pytest.raises(UsageProblem, match="which left out loud"):
        export(result.run_of("loud").id, str(home / "loud.py"), vars(exporting))
    export(result.base.id, str(home / "base.py"), vars(exporting))
    assert returned(execute(home / "base.py").stdout) == 1
