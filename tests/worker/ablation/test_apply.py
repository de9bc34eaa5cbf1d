"""Standing between a training function and its dataset_fn and model_fn."""

from __future__ import annotations

import functools
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression

from obl_magic.errors import NotOblivious, OblError, UsageProblem
from obl_magic.values import Component
from obl_magic.worker.ablation import apply
from obl_magic.worker.ablation.apply import Proof, ablated, rehearse, resolve

pytestmark = pytest.mark.timing


@dataclass(frozen=True, slots=True)
class Wish:
    """What the grammar makes of one item."""

    kind: str
    text: str
    members: tuple[str, ...]


def wish(kind: str, *members: str) -> Wish:
    """One item."""
    return Wish(kind, "+".join(members), members)


def component(kind: str, *members: str) -> Component:
    """A component that is called after its members."""
    return Component("+".join(members), kind, members)


def people() -> pd.DataFrame:
    """Two features and a label."""
    rng = np.random.default_rng(0)
    age = rng.normal(size=40)
    return pd.DataFrame({"age": age, "sex": rng.normal(size=40), "label": age > 0})


def notebook(source: str, **names: Any) -> dict[str, Any]:
    """A namespace in which a cell was run."""
    namespace: dict[str, Any] = {"__name__": "__main__", **names}
    exec(compile(source, "cell", "exec"), namespace)
    return namespace


def run(
    one: Component | None,
    function: Callable[..., Any],
    models: dict[str, Any] | None = None,
    **arguments: Any,
) -> tuple[Any, list[Proof]]:
    """Calls a function as a rank does: its value, and what was seen."""
    proofs: list[Proof] = []
    with ablated(one, function, arguments, proofs.append, models or {}) as given:
        value = function(**given)
    return value, proofs


def train(dataset_fn: Callable[[], Any], depth: int = 1, scale: bool = True) -> Any:
    """A scikit-learn function: no Keras anywhere."""
    data = dataset_fn()
    x, y = data.drop(columns="label"), data["label"]
    return list(x.columns), LogisticRegression().fit(x, y).score(x, y), scale


# --- features


def test_a_feature_ablation_with_a_users_dataset_trains_without_it() -> None:
    """It is not silently nothing: the function does not see the column, the score drops, and the proof says so."""
    (columns, base, _), proofs = run(None, train, dataset_fn=people)
    assert columns == ["age", "sex"]
    assert proofs == [Proof(inputs=3)]
    (columns, less, _), proofs = run(component("feature", "age"), train, dataset_fn=people)
    assert columns == ["sex"]
    assert proofs == [Proof(inputs=2)]
    assert less < base - 0.2


CELL = """
def helper():
    return dataset_fn(rows=3)

def train():
    return [list(helper().columns), list(dataset_fn().columns)]
"""


def test_a_global_dataset_fn_is_replaced_also_for_helpers_and_put_back() -> None:
    """All arguments go through; afterwards the notebook has its own function again, also after an error."""

    def dataset_fn(rows: int = 5) -> pd.DataFrame:
        return people().head(rows)

    cell = notebook(CELL, dataset_fn=dataset_fn)
    value, _ = run(component("feature", "sex"), cell["train"])
    assert value == [["age", "label"], ["age", "label"]]
    assert cell["dataset_fn"] is dataset_fn
    with pytest.raises(UsageProblem, match="got features=pay; expected one of age, sex, label"):
        run(component("feature", "pay"), cell["train"])
    assert cell["dataset_fn"] is dataset_fn


def test_a_function_of_the_enclosing_function_is_replaced_and_put_back() -> None:
    """Also under a decorator, and in a partial."""
    dataset_fn = people

    def decorated(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapper(*args: Any) -> Any:
            return function(*args)

        return wrapper

    @decorated
    def nested() -> Any:
        return list(dataset_fn().columns)

    assert run(component("feature", "age"), nested)[0] == ["sex", "label"]
    assert run(component("feature", "age"), functools.partial(nested))[0] == ["sex", "label"]
    assert dataset_fn is people
    assert nested() == ["age", "sex", "label"]


def test_a_name_that_is_not_bound_yet_is_the_functions_own_error() -> None:
    """As without us."""

    def nested() -> Any:
        return dataset_fn()

    with pytest.raises(NameError, match="dataset_fn"):
        run(component("feature", "age"), nested)
    dataset_fn = people


def test_a_dataset_fn_that_calls_itself_loses_the_feature_once() -> None:
    """What it gets from itself is whole."""
    cell = notebook(
        """
def dataset_fn(deep=True):
    return dataset_fn(deep=False)[["age", "sex"]] if deep else people()

def train():
    return list(dataset_fn().columns)
""",
        people=people,
    )
    assert run(component("feature", "age"), cell["train"])[0] == ["sex"]


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("feature", "dataset_fn"),
        ("layer", "model_fn"),
        ("group", "dataset_fn or model_fn"),
        ("model", "model_fn"),
    ],
)
def test_a_function_that_never_met_the_component_is_an_error(kind: str, told: str) -> None:
    """Its result would be the base run's under another name."""

    def alone() -> int:
        return 1

    with pytest.raises(
        NotOblivious,
        match=f"alone never called {told}, so x was not taken away: this was the base run; do: get it by",
    ):
        run(component(kind, "x"), alone, {"x": people})
    assert run(None, alone) == (1, [])


def test_the_functions_own_error_is_not_hidden_by_that() -> None:
    """It comes first."""

    def fails() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(component("feature", "x"), fails)


def test_a_flag_is_given_the_other_way_round() -> None:
    """From the default, or from what was given; a dict of all hyperparameters tells the same."""
    assert run(component("flag", "scale"), train, dataset_fn=people)[0][2] is False
    assert run(component("flag", "scale"), train, dataset_fn=people, scale=False)[0][2] is True

    def hyper(hparams: dict[str, Any], augment: bool = False) -> Any:
        return augment, hparams

    mine = {"augment": False, "lr": 1}
    assert run(component("flag", "augment"), hyper, hparams=mine)[0] == (True, {"augment": True, "lr": 1})
    assert mine == {"augment": False, "lr": 1}
    with pytest.raises(UsageProblem, match="got flags=deep; expected one of augment; do: flags=augment"):
        run(component("flag", "deep"), hyper, hparams=mine)


# --- rehearsals


def test_a_rehearsal_stops_the_function_as_soon_as_it_has_what_is_needed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Nothing is trained, nothing is printed; even where the function catches every exception."""
    trained = []

    def guarded(dataset_fn: Callable[[], Any]) -> None:
        print("loading")
        try:
            dataset_fn()
            trained.append(1)
        except Exception:
            trained.append(2)

    seen = rehearse(guarded, {"dataset_fn": people}, {"dataset_fn"})
    assert list(seen["dataset_fn"].columns) == ["age", "sex", "label"]
    assert trained == []
    assert capsys.readouterr().out == ""


def test_a_rehearsal_of_what_needs_nothing_does_not_call_the_function() -> None:
    """A flag is known from the signature."""

    def never() -> None:
        raise AssertionError

    assert rehearse(never, {}, set()) == {}


def test_a_function_that_never_calls_what_is_needed_is_refused() -> None:
    """By name."""

    def train() -> None:
        return None

    with pytest.raises(
        UsageProblem,
        match=r"got train, which never called model_fn; expected a function that gets its model from model_fn",
    ):
        rehearse(train, {}, {"model_fn"})
    with pytest.raises(UsageProblem, match=r"gets its data from dataset_fn\(\)"):
        rehearse(train, {}, {"dataset_fn"})


def test_a_rehearsal_passes_the_functions_own_error_through() -> None:
    """And puts everything back."""
    cell = notebook("def train():\n    1 / 0\n", dataset_fn=people)
    with pytest.raises(ZeroDivisionError):
        rehearse(cell["train"], {}, {"dataset_fn"})
    assert cell["dataset_fn"] is people


# --- from wishes to components


def resolved(*wishes: Wish, **options: Any) -> list[tuple[str, str, tuple[str, ...]]]:
    """Components as (name, kind, members)."""
    seen = {"dataset_fn": people()}
    return [(c.name, c.kind, c.members) for c in resolve(wishes, seen, train, {}, **options)]


def test_features_are_resolved_to_names_and_patterns_to_one_component_each() -> None:
    """Positions too; what is asked twice is there once."""
    assert resolved(wish("feature", "age")) == [("age", "feature", ("age",))]
    assert resolved(wish("feature", "-2")) == [("-2", "feature", ("sex",))]
    assert resolved(wish("feature", "?e*"), wish("feature", "*e*")) == [
        ("sex", "feature", ("sex",)),
        ("age", "feature", ("age",)),
        ("label", "feature", ("label",)),
    ]


def test_a_group_of_features_is_one_component() -> None:
    """Its patterns become its members."""
    assert resolved(wish("group", "a*", "-2")) == [("a*+-2", "group", ("age", "sex"))]
    value, proofs = run(component("group", "age"), train, dataset_fn=people)
    assert (value[0], proofs) == (["sex"], [Proof(inputs=2)])


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (wish("feature", "agee"), "got features=agee; expected one of age, sex, label; do: features=age$"),
        (wish("feature", "x*"), r"got features=x\*; expected one of age, sex, label; do: "),
        (wish("feature", "7"), "got features=7; expected one of age, sex, label; do: "),
        (wish("group", "a*", "agee"), "got groups=agee; expected one of age, sex, label; do: groups=age$"),
        (wish("group", "*"), "got features=age, sex, label; expected some feature that is left"),
        (wish("flag", "depth"), "got flags=depth; expected one of scale; do: flags=scale"),
        (
            wish("layer", "a"),
            r"got train, which never called model_fn; expected a call of model_fn\(\); do: call",
        ),
        (wish("model", "other"), "never called model_fn"),
        (wish("colour", "red"), "got kind=colour; expected one of feature, layer, group, model, flag"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused_before_anything_runs(asked: Wish, told: str) -> None:
    """With what exists."""
    with pytest.raises(UsageProblem, match=told):
        resolved(asked)


def test_a_flag_is_a_parameter_with_a_truth_value_as_default() -> None:
    """Others are not."""
    assert resolved(wish("flag", "scale")) == [("scale", "flag", ("scale",))]


def test_another_model_is_a_function_the_notebook_has() -> None:
    """And not the base model itself, which would change nothing."""

    def model_fn() -> int:
        return 1

    seen, models = {"model_fn": 1}, {"model_fn": model_fn, "small": lambda: 2, "number": 3}
    assert resolve([wish("model", "small")], seen, train, models) == (
        Component("small", "model", ("small",)),
    )
    with pytest.raises(UsageProblem, match="got models=number; expected one of model_fn, small; do: models="):
        resolve([wish("model", "number")], seen, train, models)
    with pytest.raises(
        UsageProblem, match="got models=model_fn, which changes nothing; expected a component without"
    ):
        resolve([wish("model", "model_fn")], seen, train, models)


def test_a_model_fn_that_returns_no_keras_model_has_no_layers() -> None:
    """Another model can take its place; a layer cannot."""

    def fit(model_fn: Callable[[], Any]) -> Any:
        return model_fn()

    value, proofs = run(component("model", "small"), fit, {"small": lambda: "small"}, model_fn=lambda: "base")
    assert (value, proofs) == ("small", [])
    with pytest.raises(
        NotOblivious, match="model_fn returned a str, which has no Keras layers to take away; do: return"
    ):
        run(component("layer", "a"), fit, model_fn=lambda: "base")
    with pytest.raises(NotOblivious, match="model_fn returned a str, which has no Keras layers"):
        resolve([wish("layer", "a")], {"model_fn": "base"}, fit, {})


# --- Keras models


@pytest.fixture(scope="module")
def keras() -> types.ModuleType:
    """Keras."""
    return pytest.importorskip("keras")


def small(keras: Any) -> Any:
    """Two layers without names of their own, and a fixed input."""
    return keras.Sequential(
        [keras.Input((2,)), keras.layers.Dense(4), keras.layers.Dense(3), keras.layers.Dense(1)]
    )


KERAS_CELL = """
import keras

def dataset_fn():
    return people()

def model_fn():
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(4), keras.layers.Dense(3), keras.layers.Dense(1)])

def wide_fn():
    return keras.Sequential([keras.Input((2,)), keras.layers.Dense(50, name="wide"), keras.layers.Dense(1)])

def lazy_fn():
    return keras.Sequential([keras.layers.Dense(4, name="a"), keras.layers.Dense(1, name="b")])

def train(late=False):
    if late:
        model = model_fn()
    data = dataset_fn()
    if not late:
        model = model_fn()
    y = data.pop("label").to_numpy().astype("float32")
    model.compile("sgd", "mse")
    model.fit(data.to_numpy(), y, verbose=0)
    return model

def folds():
    keras.layers.Dense(2)
    return [model_fn() for _ in range(3)]
"""


@pytest.fixture
def cell(keras: types.ModuleType) -> dict[str, Any]:
    """A notebook with a Keras function."""
    return notebook(KERAS_CELL, people=people)


def names(model: Any) -> list[str]:
    """Of its layers."""
    return [layer.name for layer in model.layers]


@pytest.mark.slow
def test_a_layer_ablation_trains_without_the_layer(cell: dict[str, Any]) -> None:
    """And says how many weights and which layers were trained."""
    with apply.fresh_names():
        _, base = run(None, cell["train"])
        model, proofs = run(component("layer", "dense_1"), cell["train"])
    assert base[-1] == Proof(12 + 15 + 4, ("dense", "dense_1", "dense_2"), 3)
    assert proofs[-1] == Proof(12 + 5, ("dense", "dense_2"), 3)
    assert model.count_params() == 17
    assert [len(proof.layers) for proof in proofs] == [0, 2]


@pytest.mark.slow
def test_a_custom_model_ablation_does_not_silently_train_the_base_model(cell: dict[str, Any]) -> None:
    """The other function's model is what is trained, and the proof shows it."""
    model, proofs = run(component("model", "wide_fn"), cell["train"], cell)
    assert names(model)[0] == "wide"
    assert proofs[-1].parameters == model.count_params() == 2 * 50 + 50 + 51
    assert run(component("model", "wide_fn"), cell["train"])[1][-1].parameters == model.count_params()
    with pytest.raises(UsageProblem, match="got models=thin_fn; expected one of wide_fn; do: models=wide_fn"):
        run(component("model", "thin_fn"), cell["train"], {"wide_fn": cell["wide_fn"]})


@pytest.mark.slow
def test_another_model_that_begins_with_the_base_model_gets_it(cell: dict[str, Any]) -> None:
    """Inside it, model_fn is the user's own."""
    exec(
        "def deeper():\n    m = model_fn()\n    m.add(keras.layers.Dense(1, name='more'))\n    return m", cell
    )
    model, _ = run(component("model", "deeper"), cell["train"], cell)
    assert names(model)[-1] == "more"
    assert len(names(model)) == 4


@pytest.mark.slow
def test_an_unknown_layer_name_does_not_silently_repeat_the_base_run(cell: dict[str, Any]) -> None:
    """Neither before anything runs nor on a rank."""
    seen = rehearse(cell["train"], {}, {"dataset_fn", "model_fn"})
    told = "got layers=conv2; expected one of dense, dense_1, dense_2; do: layers="
    with pytest.raises(UsageProblem, match=told):
        resolve([wish("layer", "conv2")], seen, cell["train"], cell)
    with pytest.raises(UsageProblem, match="got layers=conv2; expected one of dense"):
        run(component("layer", "conv2"), cell["train"])


@pytest.mark.slow
@pytest.mark.parametrize("late", [False, True])
def test_a_model_with_a_fixed_input_follows_the_features(cell: dict[str, Any], late: bool) -> None:
    """Whether it is made after the data or before; the label among the columns is none of its inputs."""
    model, proofs = run(component("feature", "age"), cell["train"], late=late)
    assert model.input_shape == (None, 1)
    assert proofs[-1].inputs == 2
    assert proofs[-1].parameters == (4 + 4) + 15 + 4


@pytest.mark.slow
def test_a_model_that_follows_the_data_by_itself_is_left_alone(keras: Any) -> None:
    """It is narrower already."""

    def fit(dataset_fn: Callable[[], Any]) -> Any:
        x, _ = dataset_fn()
        return model_fn(x.shape[1])

    def model_fn(width: int) -> Any:
        return keras.Sequential([keras.Input((width,)), keras.layers.Dense(1)])

    model, _ = run(component("feature", "0"), fit, dataset_fn=lambda: (np.zeros((4, 5)), np.zeros(4)))
    assert model.input_shape == (None, 4)


@pytest.mark.slow
def test_layers_are_called_in_every_call_as_in_a_fresh_process(cell: dict[str, Any]) -> None:
    """Also the third model of a function that makes layers of its own before, in a kernel that has made many."""
    small(cell["keras"])
    models, proofs = run(component("layer", "dense_1"), cell["folds"])
    assert [len(names(model)) for model in models] == [2, 2, 2]
    assert {proof.layers for proof in proofs} == {("dense", "dense_2")}
    assert len({name for model in models for name in names(model)}) == 6


@pytest.mark.slow
def test_names_that_the_user_gave_are_never_taken_for_numbered_ones(keras: Any) -> None:
    """A kernel that has made a Dense layer before does not shift dense_1 to dense."""

    def fit() -> Any:
        return model_fn()

    def model_fn() -> Any:
        make = [
            keras.layers.Dense(3, name="dense_1"),
            keras.layers.Dense(4, name="dense_2"),
            keras.layers.Dense(1, name="o"),
        ]
        return keras.Sequential([keras.Input((2,)), *make])

    with apply.fresh_names():
        keras.layers.Dense(1)
        model, proofs = run(component("layer", "dense_1"), fit)
    assert names(model) == ["dense_2", "o"]
    assert proofs[-1].layers == ("dense_2", "o")


@pytest.mark.slow
def test_fresh_names_leave_no_trace(keras: Any) -> None:
    """Keras goes on numbering where it was, after an error and after a cleared session too."""
    keras.backend.clear_session()
    assert keras.layers.Dense(1).name == "dense"

    def made_then_failed() -> None:
        with apply.fresh_names():
            assert [keras.layers.Dense(1).name for _ in range(3)] == ["dense", "dense_1", "dense_2"]
            keras.backend.clear_session()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        made_then_failed()
    assert keras.layers.Dense(1).name == "dense_1"


@pytest.mark.slow
def test_a_run_counts_names_the_same_with_and_without_a_component(cell: dict[str, Any]) -> None:
    """Surgery makes layers, but what the function makes afterwards is called the same."""
    after = []
    for one in (None, component("layer", "dense_1"), component("feature", "age")):
        with apply.fresh_names():
            run(one, cell["train"])
            layers = cell["keras"].layers
            inside = cell["keras"].Sequential([cell["keras"].Input((2,)), layers.Dense(1)])
            after.append((inside.layers[0].name, inside._functional.name))
    assert after == [("dense_3", "functional_1")] * 3


@pytest.mark.slow
def test_a_model_that_its_fit_builds_is_counted_when_the_function_has_returned(cell: dict[str, Any]) -> None:
    """Before, nobody knows."""
    cell["model_fn"] = cell["lazy_fn"]
    _, proofs = run(None, cell["train"])
    assert [proof.parameters for proof in proofs] == [None, None, 12 + 5]
    assert proofs[-1].layers == ("a", "b")


@pytest.mark.slow
def test_layers_are_resolved_to_fresh_names_in_an_old_kernel(cell: dict[str, Any]) -> None:
    """Patterns to one component each; groups to one."""
    small(cell["keras"])
    seen = rehearse(cell["train"], {}, {"dataset_fn", "model_fn"})
    found = resolve(
        [wish("layer", "dense_1"), wish("group", "dense", "*_1"), wish("feature", "0")],
        seen,
        cell["train"],
        cell,
    )
    assert [(c.name, c.kind, c.members) for c in found] == [
        ("dense_1", "layer", ("dense_1",)),
        ("dense+*_1", "group", ("dense", "dense_1")),
        ("0", "feature", ("age",)),
    ]
    model, proofs = run(found[1], cell["train"])
    assert proofs[-1] == Proof(3, ("dense_2",), 3)
    assert model.count_params() == 3


@pytest.mark.slow
def test_what_a_pattern_matches_and_cannot_be_taken_away_is_refused_or_skipped_aloud(
    cell: dict[str, Any],
) -> None:
    """As the caller wants; a name that was written out is refused in any case."""
    seen = rehearse(cell["train"], {}, {"model_fn"})
    told = r"dense_2 \(a Dense\) made the output of shape \(None, 1\), which would be \(None, 3\)"
    with pytest.raises(UsageProblem, match=told):
        resolve([wish("layer", "*")], seen, cell["train"], cell)
    skipped: list[tuple[str, OblError]] = []
    found = resolve(
        [wish("layer", "*")],
        seen,
        cell["train"],
        cell,
        skip=lambda name, error: skipped.append((name, error)),
    )
    assert [one.name for one in found] == ["dense", "dense_1"]
    assert [name for name, _ in skipped] == ["dense_2"]
    assert "made the output" in str(skipped[0][1])
    with pytest.raises(UsageProblem, match=told):
        resolve([wish("layer", "dense_2")], seen, cell["train"], cell, skip=lambda *_: None)


@pytest.mark.slow
def test_a_component_that_changes_nothing_is_refused(
    cell: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should taking it away ever have left everything as it was."""
    from obl_magic.worker.ablation import layers

    seen = rehearse(cell["train"], {}, {"dataset_fn", "model_fn"})
    monkeypatch.setattr(layers, "without_layers", lambda model, *_: model)
    with pytest.raises(
        UsageProblem, match="got layers=dense_1, which changes nothing; expected a component without"
    ):
        resolve([wish("layer", "dense_1")], seen, cell["train"], cell)
    monkeypatch.setattr(apply.features, "without", lambda data, _: data)
    with pytest.raises(UsageProblem, match="got features=age, which changes nothing"):
        resolve([wish("feature", "age")], seen, cell["train"], cell)


@pytest.mark.slow
def test_a_group_of_layers_and_features_is_refused(cell: dict[str, Any]) -> None:
    """It is one or the other."""
    seen = rehearse(cell["train"], {}, {"dataset_fn", "model_fn"})
    with pytest.raises(
        UsageProblem, match=r"got groups=age\+dense, some of which are layers and some features; .* two"
    ):
        resolve([wish("group", "age", "dense")], seen, cell["train"], cell)
    seen["dataset_fn"] = pd.DataFrame({"dense": [1], "b": [1]})
    with pytest.raises(
        UsageProblem, match=r"got groups=dense, which are layers and features at once; .* names of their"
    ):
        resolve([wish("group", "dense")], seen, cell["train"], cell)


@pytest.mark.slow
def test_a_group_of_features_narrows_a_model_that_is_made_before_the_data(cell: dict[str, Any]) -> None:
    """Its members are no layers of it, so they will be features."""
    model, proofs = run(component("group", "age"), cell["train"], late=True)
    assert model.input_shape == (None, 1)
    assert proofs[-1].inputs == 2


@pytest.mark.slow
def test_an_unbuilt_model_is_tried_with_the_data(keras: Any) -> None:
    """So that an output of another shape is refused before anything runs."""
    layers = keras.layers
    model = keras.Sequential([layers.Dense(4, name="a"), layers.Dense(1, name="b")])
    seen = {"model_fn": model, "dataset_fn": (np.zeros((4, 5)), np.zeros(4)), "layers": {"a": "a", "b": "b"}}
    assert [one.name for one in resolve([wish("layer", "a")], seen, train, {})] == ["a"]
    with pytest.raises(
        UsageProblem, match=r"b \(a Dense\) made the output of shape \(None, 1\), which would be"
    ):
        resolve([wish("layer", "b")], seen, train, {})


def test_a_plain_function_is_ablated_without_keras() -> None:
    """Nothing of Keras' counters is looked at where it was never imported."""
    program = (
        "import sys; from obl_magic.worker.ablation.apply import ablated, rehearse\n"
        "from obl_magic.values import Component\n"
        "def train(dataset_fn): return list(dataset_fn())\n"
        "make = lambda: {'age': [1], 'sex': [2]}\n"
        "rehearse(train, {'dataset_fn': make}, {'dataset_fn'})\n"
        "with ablated(Component('age', 'feature', ('age',)), train, {'dataset_fn': make}, print) as given:\n"
        "    assert train(**given) == ['sex']\n"
        "assert not {'tensorflow', 'keras', 'pandas', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, capture_output=True)
