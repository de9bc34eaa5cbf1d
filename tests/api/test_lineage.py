"""What a run takes from an earlier one: parameters, weights, and the record of where they came from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import obl_magic
from obl_magic.api.lineage import arguments_of, inherited
from obl_magic.errors import NotOblivious, UsageProblem
from obl_magic.notebook import commands
from obl_magic.payload import weights_file
from obl_magic.rundir import RunDir
from obl_magic.rundir.record import RunRecord
from obl_magic.study.search_result import Study

pytestmark = pytest.mark.timing


def line(x: float = 0.0, y: float = 0.0, act: str = "relu") -> dict[str, Any]:
    """What it was called with."""
    return {"loss": x + y, "x": x, "y": y, "act": act}


def searched(**options: Any) -> Study:
    """A search over two parameters."""
    asked = {"trials": 4, "minimize": "loss", "quiet": True, "seed": 2, **options}
    return obl_magic.search(line, "x=float(0,1) act=choice('tanh','elu')", **asked)


def run(fn: Any, **options: Any) -> obl_magic.Run:
    """A run here."""
    return obl_magic.run(fn, quiet=True, **options)


@pytest.mark.parametrize("way", ["study", "best", "id", "out", "trial", "run", "run id", "variable", "dict"])
def test_parameters_come_from_wherever_they_are_named(home: Path, way: str) -> None:
    """All arguments of the trial, those that all trials shared included."""
    study = searched(args={"y": 5.0}, out="mine")
    ways: dict[str, Any] = {
        "study": study, "best": "best", "id": study.id, "out": "mine", "trial": study.best, "run": study.best.run,
        "run id": study.best.run.id, "variable": "held", "dict": {"y": 5.0, **study.best.params},
    }  # fmt: skip
    done = run(line, params=ways[way], namespace={"held": study, "line": line})
    expected = {"x": study.best.params["x"], "y": 5.0, "act": study.best.params["act"]}
    assert {name: done.value[name] for name in expected} == expected
    lineage = done.record.lineage["params"]
    wanted = (None,) * 3 if way == "dict" else (study.id, study.best.number, study.best.run.id)
    assert (lineage["study"], lineage["trial"], lineage["run"]) == wanted
    assert json.loads((done.dir / "run.json").read_text())["lineage"]["params"] == lineage


def test_another_trial_than_the_best_may_be_meant(home: Path) -> None:
    """By its run's id."""
    study = searched()
    worst = study.worst
    assert run(line, params=worst).value["x"] == worst.params["x"]
    assert run(line, params=worst.run.id).value["x"] == worst.params["x"]


def test_best_is_that_of_the_newest_search(home: Path) -> None:
    """Ablations are no searches; a variable called best goes before."""
    searched()
    newest = searched(seed=7)
    obl_magic.ablate(flag, "flags=on", maximize="value", quiet=True)
    assert run(line, params="best").value["x"] == newest.best.params["x"]
    assert run(line, params="best", namespace={"best": {"x": 3.0}, "line": line}).value["x"] == 3.0


def flag(on: bool = True) -> float:
    """A condition."""
    return float(on)


def test_arguments_that_are_said_go_before(home: Path) -> None:
    """Whoever names one means it; in a search, too."""
    study = searched()
    done = run(line, params=study, args={"x": 9.0})
    assert (done.value["x"], done.value["act"]) == (9.0, study.best.params["act"])
    further = obl_magic.search(
        line, "y=float(0,1)", params=study, args={"x": 8.0}, minimize="loss", trials=2, quiet=True
    )
    assert [one.value["x"] for one in further.runs] == [8.0, 8.0]
    assert {one.value["act"] for one in further.runs} == {study.best.params["act"]}
    assert {one.record.lineage["params"]["run"] for one in further.runs} == {study.best.run.id}


def test_parameters_that_the_function_does_not_take_are_refused(home: Path) -> None:
    """By name, in a run, in a search and in an ablation alike: nothing of what was found is dropped silently."""

    def less(x: float = 0.0, z: float = 0.0, on: bool = True) -> float:
        return x

    study = searched()
    for call in (
        lambda: obl_magic.run(less, params=study, quiet=True),
        lambda: obl_magic.search(less, "z=float(0,1)", params=study, minimize="value", trials=1, quiet=True),
        lambda: obl_magic.ablate(less, "flags=on", params=study, minimize="value", quiet=True),
    ):
        with pytest.raises(UsageProblem, match="got args 'act', which less does not take"):
            call()


def test_a_run_gives_its_arguments(home: Path) -> None:
    """As a search does."""
    first = run(line, args={"x": 4.0})
    done = run(line, params=first)
    assert done.value["x"] == 4.0
    assert done.record.lineage["params"] == {"study": None, "trial": None, "run": first.id}


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("best", "got --params best, where there was no search yet; expected a search before it; do: "
         "%%oblivious --search ..."),
        ("gone", "got --params gone; expected best, a variable with a search or a run, or the id of one; do: "
         "--params best"),
        (3, "got params: a int; expected a search, one of its trials, or a run; do: --params best"),
        ("number", "got params: a float; expected a search, one of its trials, or a run; do: --params best"),
    ],
)  # fmt: skip
def test_what_gives_no_parameters_is_refused(home: Path, source: Any, sentence: str) -> None:
    """Before a run is begun."""
    with pytest.raises(UsageProblem) as caught:
        inherited(source, None, {"number": 1.5})
    assert str(caught.value) == sentence
    assert not list(home.glob("runs/*"))


def test_a_search_without_a_good_trial_gives_nothing(home: Path) -> None:
    """Its first error is named."""

    def fails(x: float = 0.0) -> float:
        raise ValueError("no luck")

    study = obl_magic.search(fails, "x=float(0,1)", minimize="value", trials=1, quiet=True)
    with pytest.raises(UsageProblem, match="none has succeeded; the first that failed: ValueError: no luck"):
        run(line, params=study)


def test_an_argument_that_is_no_literal_is_named(home: Path) -> None:
    """Only its text is known."""
    first = run(line, args={"x": np.float64(1.5)})
    with pytest.raises(UsageProblem) as caught:
        run(line, params=first)
    assert str(caught.value) == (
        f"got params of {first.id}, whose argument x is np.float64(1.5); expected arguments that are Python literals; "
        "do: --arg x=..."
    )
    record = RunRecord("r", "f", "", 1, "mpi", arguments={"x": "np.float64(1)", "y": "2"})
    assert arguments_of(record, but=["x"]) == {"y": 2}


def test_weights_of_what_has_none_are_refused(home: Path) -> None:
    """A plain function; a dict."""
    first = run(line)
    with pytest.raises(UsageProblem) as caught:
        inherited(None, first, None)
    assert str(caught.value) == (
        f"got init-from {first.id}, which kept no weights; expected a run that returned its model (a search keeps "
        "those of its best trials: --keep-weights); do: --init-from best"
    )
    with pytest.raises(UsageProblem, match="got init-from: a dict; expected a search"):
        inherited(None, {"x": 1}, None)
    with pytest.raises(UsageProblem, match="expected a trial whose weights were kept"):
        inherited(None, searched(), None)


def test_the_table_of_runs_says_where_parameters_came_from(home: Path) -> None:
    """In its last column."""
    study = searched()
    run(line, params=study)
    assert commands.runs_table()["from"].tolist() == [f"params: {study.best.run.id}", ""]


# Weights


def digits_fit(units: int = 8, epochs: int = 1, lr: float = 0.01) -> Any:
    """An ordinary fit; returns its model."""
    import keras
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x, y = (x[:256] / 16).astype("float32"), y[:256]
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(units, "relu"), keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(lr), loss)

    class Begins(keras.callbacks.Callback):
        def on_train_begin(self, logs: Any = None) -> None:
            model.began = [array.copy() for array in model.get_weights()]

    model.history_of = model.fit(x, y, batch_size=32, epochs=epochs, verbose=0, callbacks=[Begins()]).history
    return {"began": model.began, "first": model.history_of["loss"][0]}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A search that keeps weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OBLIVIOUS_HOME", str(tmp_path_factory.mktemp("home")))
        yield obl_magic.search(
            digits_fit,
            "units=choice(8,9)",
            sampler="grid",
            minimize="loss",
            trials=2,
            args={"epochs": 3},
            quiet=True,
        )


@pytest.mark.slow
def test_the_final_run_begins_from_the_best_trials_weights(study: Study, home: Path) -> None:
    """What its first step finds is what was kept; its first epoch is better for it."""
    kept = weights_file.load(RunDir.at(study.best.run.dir).weights)
    done = run(digits_fit, params=study, init_from=study, args={"epochs": 1})
    for began, array in zip(done.value["began"], kept.arrays, strict=True):
        np.testing.assert_array_equal(began, array)
    assert done.value["first"] < run(digits_fit, params=study, args={"epochs": 1}).value["first"]
    assert done.record.lineage == {
        what: {"study": study.id, "trial": study.best.number, "run": study.best.run.id}
        for what in ("params", "weights")
    }
    assert any("began from the weights of" in note for note in done.notes)
    assert f"params + weights: {study.best.run.id}" == commands.runs_table()["from"][1]


@pytest.mark.slow
def test_weights_that_do_not_fit_are_refused_layer_by_layer(study: Study, home: Path) -> None:
    """With the shapes, there and here."""
    units = study.best.params["units"]
    with pytest.raises(NotOblivious) as caught:
        run(digits_fit, init_from=study, args={"units": 30})
    said = str(caught.value)
    assert f"/kernel is (64, {units}) there and (64, 30) here" in said
    assert "do: build the model with the same hyperparameters (--params), or leave out --init-from" in said


@pytest.mark.slow
def test_a_run_that_returned_its_model_gives_its_weights(home: Path) -> None:
    """They are written down when they are wanted."""
    first = run(returns_model)
    done = run(returns_model, init_from=first)
    assert (first.dir / "weights.npz").is_file()
    assert done.record.lineage["weights"]["run"] == first.id
    assert any("began from the weights of" in note for note in done.notes)


def returns_model() -> Any:
    """A small fit."""
    import keras

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.ones((8, 2)), np.ones(8), verbose=0)
    return model
