"""Ablations from the call to the table, here and on real ranks."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ablated_functions
import numpy as np
import pandas as pd
import pytest

import obl_magic
from obl_magic.errors import OblError, UsageProblem
from obl_magic.study.ablation_result import AblationResult
from obl_magic.study.find import open_results

pytestmark = pytest.mark.timing

DATA = {"dataset_fn": ablated_functions.planted}
MODEL = {**DATA, "model_fn": ablated_functions.model_fn}


def ablate(fn: Any, study: Any, **options: Any) -> AblationResult:
    """An ablation that shows nothing."""
    if not {"maximize", "minimize"} & options.keys():
        options["maximize"] = "score"
    provide = DATA if "dataset_fn" in inspect.signature(fn).parameters else {}
    return obl_magic.ablate(fn, study, **{"quiet": True, "provide": provide, **options})


def rows(result: AblationResult) -> pd.DataFrame:
    """The table by component."""
    return result.table.set_index("component")


def flagged(good: bool = True, spare: bool = False, x: float = 1.0) -> float:
    """Good is worth one."""
    return x if good else x - 1


def test_the_table_has_the_base_run_first_and_the_most_harmful_next(home: Path) -> None:
    """With its columns and their types."""
    result = ablate(ablated_functions.scikit, "features=useless,vital,useful", repeats=3, seed=1)
    table = result.table
    assert table.columns.tolist() == [
        "component", "kind", "value", "delta", "std", "repeats", "status", "within_noise", "parameters", "inputs",
        "layers",
        "error",
    ]  # fmt: skip
    assert table.component.tolist() == ["base", "vital", "useful", "useless"]
    assert table.kind.tolist() == ["", "feature", "feature", "feature"]
    assert table.status.tolist() == ["succeeded"] * 4
    assert table.repeats.tolist() == [3] * 4
    assert {str(table[name].dtype) for name in ("value", "delta", "std")} == {"float64"}
    assert {str(table[name].dtype) for name in ("parameters", "inputs", "layers")} == {"Int64"}
    assert table.delta.tolist()[1:] == pytest.approx((table.value - table.value[0]).tolist()[1:])
    assert table.delta[1] < -0.2
    assert table.within_noise.tolist()[1] in (False, np.False_)
    assert table.inputs.tolist()[1:] == [table.inputs[0] - 1] * 3
    assert len(result.runs) == 12
    assert result.runs[0].value["width"] == 3
    assert {run.value["width"] for run in result.runs[3:]} == {2}


def test_repeats_draw_the_same_random_numbers_as_the_base_run(home: Path) -> None:
    """So that a component is compared with what it was taken from."""
    result = ablate(ablated_functions.scikit, "features=useless", repeats=2, seed=5)
    drawn = [run.value["drawn"] for run in result.runs]
    assert drawn[:2] == drawn[2:]
    assert drawn[0] != drawn[1]
    assert [run.seed for run in result.runs] == [5, 6, 5, 6]
    assert result.run_of("useless", 1).id == result.runs[3].id
    assert result.base.id == result.runs[0].id


def test_what_differs_by_less_than_the_spread_is_within_noise(home: Path) -> None:
    """A flag that does nothing but draw."""
    calls = iter([0.5, 0.7, 0.6, 0.61, 0.59, 0.6, 0.0, 0.1, 0.05])

    def noisy(quiet: bool = False, vital: bool = True) -> float:
        return next(calls)

    table = rows(ablate(noisy, "flags=quiet,vital", maximize="value", repeats=3))
    assert bool(table.within_noise["quiet"]) is True
    assert bool(table.within_noise["vital"]) is False
    assert table.within_noise["base"] is None
    assert table["std"]["base"] == pytest.approx(0.1)
    assert table.delta["vital"] == pytest.approx(-0.55)


def test_one_repeat_says_nothing_about_noise(home: Path) -> None:
    """There is no spread."""
    table = rows(ablate(flagged, "flags=good", maximize="value"))
    assert pd.isna(table["std"]["good"])
    assert pd.isna(table.within_noise["good"])
    assert table.delta["good"] == -1


@pytest.mark.parametrize(
    ("direction", "order"), [("maximize", ["good", "spare"]), ("minimize", ["spare", "good"])]
)
def test_harm_depends_on_the_direction(home: Path, direction: str, order: list[str]) -> None:
    """Where the number is to be small, a component whose loss makes it small does no harm."""
    table = ablate(flagged, "flags=good,spare", **{direction: "value"}).table
    assert table.component.tolist() == ["base", *order]


def test_a_component_whose_run_fails_is_a_failed_row_with_its_error(home: Path) -> None:
    """The others have their deltas."""

    def needs(a: bool = True, b: bool = True) -> float:
        if not a:
            raise ValueError("cannot do without a")
        return float(b)

    table = rows(ablate(needs, "flags=a,b", maximize="value", repeats=2))
    assert table.status.to_dict() == {"base": "succeeded", "b": "succeeded", "a": "failed"}
    assert table.error["a"] == "ValueError: cannot do without a"
    assert pd.isna(table.delta["a"])
    assert table.delta["b"] == -1
    assert table.index.tolist()[-1] == "a"


def test_an_ablation_whose_base_run_fails_ends_there(home: Path) -> None:
    """There would be nothing to compare with; what failed is said, and kept."""

    def fails(a: bool = True) -> float:
        if a:
            raise ValueError("no such luck")
        return 1.0

    said = r"got an ablation whose base run fails: ValueError: no such luck; expected a function that trains as it is"
    with pytest.raises(UsageProblem, match=said) as caught:
        ablate(fails, "flags=a", maximize="value", repeats=2)
    study = caught.value.study  # type: ignore[attr-defined]
    assert rows(study).error["base"] == "ValueError: no such luck"
    assert len(study.runs) == 2
    assert study.status == "failed"
    assert "base" in repr(study)


def never(dataset_fn: Any, flag: bool = True, lr: float = 1.0) -> float:
    """Looks at its data, and comes to nothing else."""
    dataset_fn()
    raise AssertionError("the function was run")


@pytest.fixture
def nothing_runs(home: Path) -> Iterator[Path]:
    """No study was begun."""
    yield home
    assert not list(home.glob("studies/*"))


@pytest.mark.parametrize(
    ("study", "options", "sentence"),
    [
        ("features=vitla", {}, "got features=vitla; expected"),
        ("flags=lr", {}, "got flags=lr; expected"),
        ("layers=conv1", {}, "got layer conv1, where never uses no model_fn; expected a training function that gets "
         "its model from model_fn(); do: def never(model_fn, ...): ... model_fn() ..."),
        ("models=gone", {}, "got models=gone, which is no function of this notebook; expected"),
        ("features=vital", {"repeats": 0}, "got repeats=0; expected a whole number, 1 or more; do: repeats=1"),
        ("features=vital", {"maximize": None}, "got neither maximize nor minimize; expected"),
        ("features=vital", {"background": True}, "got background without workers; expected a number of workers"),
    ],
)  # fmt: skip
def test_what_cannot_be_left_out_is_refused_before_anything_runs(
    nothing_runs: Path, study: str, options: dict[str, Any], sentence: str
) -> None:
    """An unknown name never silently repeats the base run."""
    with pytest.raises(UsageProblem) as caught:
        ablate(never, study, **{"maximize": "value", **options})
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


def test_a_feature_that_is_not_there_is_refused_with_those_that_are(nothing_runs: Path) -> None:
    """By name."""
    with pytest.raises(UsageProblem, match=r"vital.*useful.*useless") as caught:
        ablate(never, "features=age", maximize="value")
    assert "age" in caught.value.got


def test_an_ablation_in_this_process_leaves_the_notebooks_names_as_they_were(home: Path) -> None:
    """Also where a component fails; ``dataset_fn`` is a global name here."""
    source = (
        "def dataset_fn():\n    return {'a': [1.0], 'b': [2.0]}\n"
        "def train():\n    data = dataset_fn()\n    if 'a' not in data:\n        raise ValueError\n"
        "    return float(len(data))\n"
    )
    notebook: dict[str, Any] = {"__name__": "notebook"}
    path = home / "cell.py"
    path.write_text(source)
    exec(compile(source, str(path), "exec"), notebook)
    before = dict(notebook)
    table = rows(
        obl_magic.ablate(notebook["train"], "features=a,b", maximize="value", quiet=True, namespace=notebook)
    )
    assert notebook.keys() - before.keys() <= {"__builtins__"}
    assert all(notebook[name] is value for name, value in before.items())
    assert table.status.to_dict() == {"base": "succeeded", "b": "succeeded", "a": "failed"}
    assert table.value["b"] == 1


def test_a_group_of_features_needs_no_model_that_another_function_of_the_notebook_has(home: Path) -> None:
    """There is a global ``model_fn`` here, which this function does not use."""
    table = rows(ablate(ablated_functions.scikit, "groups=[useful,useless]", seed=1))
    assert table.status.tolist() == ["succeeded"] * 2
    assert table.inputs.diff().tolist()[1] == -2


def test_an_ablation_is_found_again(home: Path) -> None:
    """With the same table; it is no search to go on with."""
    result = ablate(flagged, "flags=good,spare", maximize="value", repeats=2, out="abl")
    again = open_results("abl")
    assert isinstance(again, AblationResult)
    pd.testing.assert_frame_equal(again.table, result.table)
    assert again.status == "succeeded"
    with pytest.raises(
        UsageProblem, match=r"expected one of base, (good, spare|spare, good); do: result\.table"
    ):
        again.run_of("gone")
    with pytest.raises(UsageProblem, match=r"got resume=abl \(an ablation\); expected a search"):
        obl_magic.search(flagged, "x=float(0,1)", minimize="value", resume="abl", quiet=True)


def test_an_ablation_may_begin_from_a_searchs_parameters(home: Path) -> None:
    """Base run and components alike."""
    study = obl_magic.search(flagged, "x=float(2,3)", maximize="value", trials=3, quiet=True)
    result = ablate(flagged, "flags=good", params=study, maximize="value")
    assert result.base.value == study.best.value
    assert result.base.record.lineage["params"]["study"] == study.id
    assert rows(result).delta["good"] == pytest.approx(-1)


# On real ranks


@pytest.mark.slow
def test_scikit_learn_is_ablated_on_ranks_without_tensorflow(home: Path) -> None:
    """Two worlds; nobody imports what the function does not use."""
    result = ablate(
        ablated_functions.scikit,
        "features=vital,useless groups=[useful,useless] flags=scale",
        workers=2,
        engine="mpi",
        seed=1,
    )
    table = rows(result)
    assert table.status.tolist() == ["succeeded"] * 5, table.error.tolist()
    assert [run.value["framework"] for run in result.runs] == [False] * 5
    assert result.run_of("vital").value["width"] == 2
    assert table.kind.to_dict()["scale"] == "flag"
    assert sorted(run.value["width"] for run in result.runs) == [1, 2, 2, 3, 3]
    here = rows(
        ablate(ablated_functions.scikit, "features=vital,useless groups=[useful,useless] flags=scale", seed=1)
    )
    assert here.value.to_dict() == table.value.to_dict()


@pytest.mark.slow
def test_layers_features_and_models_of_keras_are_ablated_on_ranks(home: Path) -> None:
    """Each row proves what was trained; a custom-model ablation does not silently train the base model."""
    result = ablate(
        ablated_functions.deep, "features=useless layers=first groups=block1_* models=small_model", minimize="final",
        workers=1, engine="mpi", provide=MODEL, namespace=vars(ablated_functions),
    )  # fmt: skip
    table = rows(result)
    assert table.status.tolist() == ["succeeded"] * 5, table.error.tolist()
    assert {name: result.run_of(name).value["params"] for name in table.index} == table.parameters.to_dict()
    small = next(name for name, kind in table.kind.items() if kind == "model")
    group = next(name for name, kind in table.kind.items() if kind == "group")
    assert table.parameters.to_dict()[small] == 4
    assert table.layers.to_dict()[group] == table.layers["base"] - 2
    assert table.inputs["useless"] == table.inputs["base"] - 1
    assert table.parameters["useless"] == table.parameters["base"] - 8
    assert table.layers["first"] == table.layers["base"] - 1


@pytest.mark.slow
def test_a_group_of_features_is_found_where_the_model_is_made_first(home: Path) -> None:
    """What a group stands for is known when both functions were called."""
    result = ablate(
        ablated_functions.model_first, "groups=[useful,useless] groups=block1_*", minimize="final",
        provide={"dataset_fn": ablated_functions.planted, "model_fn": ablated_functions.model_fn},
    )  # fmt: skip
    table = rows(result)
    assert table.status.tolist() == ["succeeded"] * 3, table.error.tolist()
    assert sorted(table.layers.tolist()) == [
        table.layers["base"] - 2,
        table.layers["base"],
        table.layers["base"],
    ]
    assert sorted(table.inputs.tolist())[0] == table.inputs["base"] - 2


@pytest.mark.slow
def test_an_unknown_layer_is_refused_with_those_there_are(nothing_runs: Path) -> None:
    """It never silently repeats the base run."""
    with pytest.raises(OblError, match="block1_a") as caught:
        ablate(ablated_functions.deep, "layers=conv2", minimize="final", provide=MODEL)
    assert "conv2" in str(caught.value)
