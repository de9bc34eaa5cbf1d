"""Layers and inputs taken out of real Keras models."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers

from obl_magic.errors import NotOblivious, UsageProblem
from obl_magic.worker.ablation import layers as surgery

pytestmark = pytest.mark.slow


def stack(**compiled: Any) -> Any:
    """Six inputs, two hidden layers, one output."""
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(4, activation="relu", name="a"),
            layers.Dropout(0.5, name="drop"),
            layers.Dense(8, name="b"),
            layers.Dense(1, name="out"),
        ],
        name="stack",
    )
    if compiled:
        model.compile(**compiled)
    return model


def images() -> Any:
    """A convolutional model with a residual block."""
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, padding="same", name="stem")(x)
    y = layers.Conv2D(4, 3, padding="same", name="block_conv")(x)
    y = layers.BatchNormalization(name="block_norm")(y)
    x = layers.Add(name="block_add")([x, y])
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(2, name="out")(x), name="images")


def shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """Kernels by layer name."""
    return {layer.name: tuple(layer.kernel.shape) for layer in model.layers if hasattr(layer, "kernel")}


def trains(model: Any, x: Any, y: Any) -> None:
    """One step must change the weights and give a finite loss."""
    model.compile("sgd", "mse")
    before = [w.copy() for w in model.get_weights()]
    history = model.fit(x, y, epochs=1, verbose=0)
    assert np.isfinite(history.history["loss"][0])
    assert any((a != b).any() for a, b in zip(before, model.get_weights(), strict=True))


def test_a_stack_loses_a_layer_and_the_next_one_gets_the_shape_it_needs() -> None:
    """The others keep their names, and their values where their shapes stayed; the user's model is untouched."""
    model = stack()
    less = surgery.without_layers(model, ["a"])
    assert surgery.layer_names(less) == ["drop", "b", "out"]
    assert (less.name, less.built, less.compiled) == ("stack", True, False)
    assert shapes(less) == {"b": (6, 8), "out": (8, 1)}
    assert shapes(model) == {"a": (6, 4), "b": (4, 8), "out": (8, 1)}
    assert np.array_equal(less.get_layer("out").kernel, model.get_layer("out").kernel)
    assert less.get_layer("out") is not model.get_layer("out")
    trains(less, np.ones((4, 6)), np.ones((4, 1)))


def test_names_that_go_together_are_taken_out_together() -> None:
    """Only the end must fit: without either of them alone, the last would still be there."""
    less = surgery.without_layers(stack(), ["a", "drop", "b"])
    assert shapes(less) == {"out": (6, 1)}


def test_a_residual_block_loses_its_layers_or_all_of_itself() -> None:
    """A join whose paths have become one tensor can be left out too."""
    model = images()
    assert surgery.layer_names(surgery.without_layers(model, ["block_norm"])) == [
        "stem",
        "block_conv",
        "block_add",
        "pool",
        "out",
    ]
    less = surgery.without_layers(model, ["block_conv", "block_norm", "block_add"])
    assert surgery.layer_names(less) == ["stem", "pool", "out"]
    trains(less, np.ones((2, 8, 8, 3)), np.ones((2, 2)))


def test_a_layer_that_joins_tensors_is_refused_by_name() -> None:
    """None of them can stand for all."""
    with pytest.raises(
        UsageProblem,
        match=r"got layers=block_add; .*; block_add \(a Add\) joins 2 tensors, and none of them can stand for all;",
    ):
        surgery.without_layers(images(), ["block_add"])


def test_a_layer_that_gives_several_tensors_is_refused_by_name() -> None:
    """One tensor cannot stand for three."""
    inputs = keras.Input((4, 2))
    x, state, _ = layers.LSTM(2, return_state=True, name="memory")(inputs)
    model = keras.Model(inputs, layers.Dense(1)(layers.concatenate([x, state])))
    with pytest.raises(UsageProblem, match=r"memory \(a LSTM\) gives 3 tensors for one"):
        surgery.without_layers(model, ["memory"])


@pytest.mark.parametrize("make", [stack, images])
def test_an_unknown_layer_name_does_not_silently_repeat_the_base_run(make: Callable[[], Any]) -> None:
    """It is refused with the names that exist and the nearest."""
    there = ", ".join(surgery.layer_names(make()))
    with pytest.raises(UsageProblem, match=f"got layers=outt; expected one of {there}; do: layers=out$"):
        surgery.without_layers(make(), ["outt"])


def test_an_input_is_refused_by_name() -> None:
    """Inputs go with their features."""
    with pytest.raises(
        UsageProblem,
        match=r"got layers=image, which is an input; expected one of stem, .*; do: take away features",
    ):
        surgery.without_layers(images(), ["image"])


def test_taking_every_layer_is_refused() -> None:
    """Nothing would be left to train."""
    with pytest.raises(UsageProblem, match="expected some layer that is left; do: take away fewer of them"):
        surgery.without_layers(stack(), ["a", "drop", "b", "out"])


@pytest.mark.parametrize("make", [stack, images])
def test_the_layer_that_makes_the_output_is_refused_by_name(make: Callable[[], Any]) -> None:
    """If the output would have another shape."""
    with pytest.raises(
        UsageProblem,
        match=r"out \(a Dense\) made the output of shape \(None, \d\), which would be \(None, \d\)",
    ):
        surgery.without_layers(make(), ["out"])


def test_a_last_layer_that_leaves_the_shape_can_go() -> None:
    """A softmax, say."""
    inputs = keras.Input((3,))
    x = layers.Dense(2, name="out")(inputs)
    model = keras.Model(inputs, layers.Softmax(name="soft")(x))
    assert surgery.layer_names(surgery.without_layers(model, ["soft"])) == ["out"]


def flat() -> Any:
    """A model whose Dense layer needs a flat input to give a flat output."""
    return keras.Sequential(
        [
            keras.Input((4, 4, 2)),
            layers.Flatten(name="flat"),
            layers.Reshape((32,), name="checks"),
            layers.Dense(1, name="out"),
        ]
    )


def functional_pool() -> Any:
    """A convolution that only fits after another one."""
    x = inputs = keras.Input((4,))
    x = layers.Reshape((2, 2, 1), name="shape")(x)
    x = layers.Conv2D(1, 2, name="conv")(x)
    return keras.Model(inputs, layers.Flatten(name="flat")(x))


def test_shapes_that_do_not_fit_downstream_are_refused_with_the_layer_and_keras_reason() -> None:
    """In one line, in both kinds of model."""
    with pytest.raises(UsageProblem) as refused:
        surgery.without_layers(functional_pool(), ["shape"])
    text = str(refused.value)
    assert text.startswith(
        "got layers=shape; expected something without which the model still fits together; conv (a "
    )
    assert "does not fit: Input 0 with name" in text
    assert "do: take away what belongs together (groups=[a,b]), or leave the part out" in text
    assert "\n" not in text
    stacked = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Reshape((2, 2, 1), name="shape"),
            layers.Conv2D(1, 2, name="conv"),
            layers.Flatten(name="flat"),
        ]
    )
    with pytest.raises(UsageProblem, match=r"; conv \(a Conv2D\) does not fit: Input 0 "):
        surgery.without_layers(stacked, ["shape"])
    assert surgery.layer_names(surgery.without_layers(flat(), ["flat"])) == ["checks", "out"]


def test_a_model_without_input_yet_is_rebuilt_unbuilt() -> None:
    """It is built by its fit, as it would have been."""
    model = keras.Sequential([layers.Dense(3, name="a"), layers.Dense(1, name="out")])
    less = surgery.without_layers(model, ["a"], sample=(None, 5))
    assert not less.built
    assert not model.built
    assert surgery.layer_names(less) == ["out"]
    less.compile("sgd", "mse")
    less.fit(np.ones((4, 5)), np.ones((4, 1)), verbose=0)
    assert less.get_layer("out").kernel.shape == (5, 1)


def test_a_model_without_input_yet_is_tried_with_a_sample_of_the_data() -> None:
    """So that a layer which makes the output is refused before anything runs; without a sample, the last one is."""
    model = keras.Sequential(
        [layers.Reshape((5, 1), name="r"), layers.Conv1D(2, 2, name="c"), layers.Dense(1, name="o")]
    )
    with pytest.raises(
        UsageProblem, match=r"o \(a Dense\) made the output of shape \(None, 4, 1\), which would be"
    ):
        surgery.without_layers(model, ["o"], sample=(None, 5))
    with pytest.raises(UsageProblem, match=r"c \(a Conv1D\) does not fit: Input 0 "):
        surgery.without_layers(model, ["r"], sample=(None, 5))
    with pytest.raises(
        UsageProblem, match=r"o \(a Dense\) makes the output, whose shape is not known before"
    ):
        surgery.without_layers(model, ["o"])
    assert surgery.layer_names(surgery.without_layers(model, ["c"])) == ["r", "o"]


def test_a_model_built_by_its_first_call_is_rebuilt_built() -> None:
    """Keras gives it an input then."""
    model = keras.Sequential([layers.Dense(3, name="a"), layers.Dense(1, name="out")])
    model(np.ones((2, 5)))
    less = surgery.without_layers(model, ["a"])
    assert less.built
    assert shapes(less) == {"out": (5, 1)}


def test_a_shared_layer_stays_shared() -> None:
    """And keeps its name, with one set of weights."""
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    wide, shared = layers.Dense(6, name="wide"), layers.Dense(3, name="shared")
    both = layers.concatenate([shared(wide(left)), shared(wide(right))])
    model = keras.Model({"left": left, "right": right}, layers.Dense(1, name="out")(both))
    less = surgery.without_layers(model, ["wide"])
    assert shapes(less) == {"shared": (4, 3), "out": (6, 1)}
    assert less.count_params() == 4 * 3 + 3 + 6 + 1
    assert set(less.input) == {"left", "right"}
    trains(less, {"left": np.ones((2, 4)), "right": np.ones((2, 4))}, np.ones((2, 1)))


def test_several_outputs_keep_their_structure_and_operations_their_place() -> None:
    """Also operations without a layer."""
    inputs = keras.Input((4,))
    x = layers.Dense(4, name="a")(inputs)
    scaled = keras.ops.tanh(x) * 2.0 + inputs
    model = keras.Model(inputs, {"sum": scaled, "head": layers.Dense(1, name="head")(x)})
    less = surgery.without_layers(model, ["a"])
    x = np.linspace(-1, 1, 8).reshape(2, 4).astype("float32")
    found = less(x)
    assert set(found) == {"sum", "head"}
    assert np.allclose(found["sum"], np.tanh(x) * 2 + x, atol=1e-6)


def test_call_arguments_survive() -> None:
    """Query and value, training=, a mask."""
    ids = keras.Input((5,), dtype="int32")
    x = layers.Embedding(10, 8, mask_zero=True, name="words")(ids)
    x = layers.Dropout(0.9, name="always")(x, training=True)
    x = layers.Dense(8, name="gone")(x)
    y = layers.MultiHeadAttention(2, 4, name="looks")(query=x, value=x, use_causal_mask=True)
    x = layers.LSTM(4, name="reads")(y)
    model = keras.Model(ids, layers.Dense(1, name="out")(x))
    less = surgery.without_layers(model, ["gone"])
    node = less.get_layer("looks")._inbound_nodes[-1]
    assert node.arguments.kwargs["use_causal_mask"] is True
    assert less.get_layer("always")._inbound_nodes[-1].arguments.kwargs == {"training": True}
    numbers = np.array([[1, 2, 3, 0, 0]])
    assert less.get_layer("words").mask_zero
    assert less(numbers).shape == model(numbers).shape == (1, 1)
    assert surgery.layer_names(surgery.without_layers(model, ["looks"])) == [
        "words",
        "always",
        "gone",
        "reads",
        "out",
    ]


def test_attention_to_itself_can_be_taken_away() -> None:
    """Query and value are one tensor, which can stand for what attention made of it."""
    inputs = keras.Input((5, 8))
    x = layers.MultiHeadAttention(2, 4, name="looks")(inputs, inputs)
    model = keras.Model(inputs, layers.Dense(1, name="out")(x))
    assert surgery.layer_names(surgery.without_layers(model, ["looks"])) == ["out"]


def test_masks_follow_what_is_left() -> None:
    """Padding that an Embedding marked still does not count."""
    ids = keras.Input((4,), dtype="int32")
    x = layers.Embedding(10, 3, mask_zero=True, name="words")(ids)
    x = layers.Dense(3, name="gone")(x)
    model = keras.Model(ids, layers.GlobalAveragePooling1D(name="mean")(x))
    less = surgery.without_layers(model, ["gone"])
    padded, short = np.array([[3, 5, 0, 0]]), np.array([[3, 5]])
    table = np.asarray(less.get_layer("words").embeddings)
    assert np.allclose(less(padded)[0], table[short[0]].mean(0), atol=1e-6)


def test_a_model_inside_a_model_is_one_layer() -> None:
    """It can be taken out, and stays whole if another one is."""
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="inner_a")], name="inner")
    x = inputs = keras.Input((4,))
    x = layers.Dense(4, name="first")(x)
    model = keras.Model(inputs, layers.Dense(1, name="out")(inner(x)))
    assert surgery.layer_names(model) == ["first", "inner", "out"]
    assert surgery.layer_names(surgery.without_layers(model, ["inner"])) == ["first", "out"]
    less = surgery.without_layers(model, ["first"])
    assert np.array_equal(less.get_layer("inner").layers[0].kernel, inner.layers[0].kernel)
    assert less.get_layer("inner") is not inner
    with pytest.raises(UsageProblem, match=r"inner \(a Sequential\) does not fit: "):
        surgery.without_layers(
            keras.Sequential([keras.Input((6,)), layers.Dense(4, name="first"), inner]), ["first"]
        )


def test_functions_of_the_user_survive_with_what_they_refer_to() -> None:
    """A Lambda's globals and closure, an activation, a subclass without a name in its constructor."""
    factor = 3.0

    @keras.saving.register_keras_serializable("of_the_user")
    class Scaled(layers.Layer):
        def __init__(self, by: float) -> None:
            super().__init__()
            self.by = by

        def call(self, x: Any) -> Any:
            return x * self.by

        def get_config(self) -> dict[str, Any]:
            return {"by": self.by}

    inputs = keras.Input((2,))
    x = layers.Dense(2, name="gone")(inputs)
    x = layers.Lambda(lambda v: keras.ops.abs(v) * factor, name="lam")(x)
    x = layers.Activation(lambda v: v + factor, name="act")(x)
    x = layers.Dense(2, kernel_initializer="ones", activation=lambda v: v * factor, name="dense")(x)
    model = keras.Model(inputs, Scaled(2.0)(x))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        less = surgery.without_layers(model, ["gone"])
    assert surgery.layer_names(less)[:3] == ["lam", "act", "dense"]
    assert surgery.layer_names(less) == surgery.layer_names(model)[1:]
    assert np.allclose(less(np.array([[-1.0, 1.0]])), (3 + 3 + 3 + 3) * 3 * 2)


def test_a_users_layer_and_initializer_of_a_cell_are_found_without_registering() -> None:
    """Also inside a wrapper, on a process where no module has them."""

    class Ones(keras.initializers.Initializer):
        def __call__(self, shape: Any, dtype: Any = None) -> Any:
            return keras.ops.ones(shape, dtype)

    class Times(layers.Dense):
        pass

    for made in (Ones, Times):
        made.__module__ = "__main__"
    inputs = keras.Input((5, 2))
    x = layers.Dense(2, name="gone")(inputs)
    x = layers.TimeDistributed(Times(3, kernel_initializer=Ones()), name="wrapped")(x)
    model = keras.Model(inputs, layers.Dense(1, kernel_initializer=Ones(), name="out")(x))
    less = surgery.without_layers(model, ["gone"])
    assert type(less.get_layer("wrapped").layer) is Times
    assert np.allclose(less(np.ones((1, 5, 2))), 6)


def test_a_layer_that_cannot_be_made_anew_is_refused_by_name() -> None:
    """With the reason, and what its class should do."""

    class Stubborn(layers.Layer):
        def __init__(self, thing: object, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.thing = thing

        def call(self, x: Any) -> Any:
            return x

    inputs = keras.Input((2,))
    x = layers.Dense(2, name="gone")(inputs)
    model = keras.Model(inputs, Stubborn(object(), name="mule")(x))
    with pytest.raises(
        NotOblivious,
        match=r"layer mule \(a Stubborn\) cannot be made anew: Object Stubborn .*; do: give its class a get",
    ):
        surgery.without_layers(model, ["gone"])
    with pytest.raises(NotOblivious, match=r"layer mule \(a Stubborn\)"):
        surgery.without_layers(
            keras.Sequential([layers.Dense(2, name="gone"), Stubborn(object(), name="mule")]),
            ["gone"],
            (None, 2),
        )


def test_a_subclassed_model_is_refused_by_name() -> None:
    """Its own code joins its layers."""

    class Own(keras.Model):
        def __init__(self, units: int = 2) -> None:
            super().__init__()
            self.dense = layers.Dense(units)

        def call(self, x: Any) -> Any:
            return self.dense(x)

    class Built(keras.Model):
        def __init__(self, units: int) -> None:
            inputs = keras.Input((2,))
            super().__init__(inputs, layers.Dense(units, name="a")(inputs))

    with pytest.raises(
        NotOblivious, match=r"Own is a subclassed model, .*; do: leave the part out .*models=NAME.*flags="
    ):
        surgery.without_layers(Own(), ["dense"])
    with pytest.raises(NotOblivious, match="Built is a subclassed model with a constructor of its own"):
        surgery.without_layers(Built(2), ["a"])


def test_a_functional_model_with_a_train_step_of_its_own_keeps_it() -> None:
    """Its class takes inputs and outputs, so it can be made anew."""

    class Counting(keras.Model):
        steps = 0

        def train_step(self, data: Any) -> Any:
            Counting.steps += 1
            return super().train_step(data)

    inputs = keras.Input((4,))
    model = Counting(inputs, layers.Dense(1, name="out")(layers.Dense(3, name="a")(inputs)))
    less = surgery.without_layers(model, ["a"])
    assert type(less) is Counting
    trains(less, np.ones((2, 4)), np.ones((2, 1)))
    assert Counting.steps > 0


# --- compiled models


def test_a_compiled_model_stays_compiled_as_it_was() -> None:
    """With an optimizer and metrics of its own, and the very loss."""

    def mine(y: Any, p: Any) -> Any:
        return keras.ops.mean((y - p) ** 2)

    class Halving(keras.optimizers.schedules.LearningRateSchedule):
        def __call__(self, step: Any) -> Any:
            return 0.5 / (1 + keras.ops.cast(step, "float32"))

        def get_config(self) -> dict[str, Any]:
            return {}

    metric = keras.metrics.MeanAbsoluteError(name="off")
    optimizer = keras.optimizers.Adam(Halving(), clipnorm=1.5)
    model = stack(
        optimizer=optimizer, loss=mine, metrics=[metric, "mse"], run_eagerly=True, steps_per_execution=2
    )
    model.fit(np.ones((4, 6)), np.ones((4, 1)), verbose=0)
    less = surgery.without_layers(model, ["a"])
    assert less.compiled
    assert less.loss is mine
    assert less.optimizer is not optimizer
    assert less.optimizer.clipnorm == 1.5
    assert type(less.optimizer._learning_rate) is Halving
    assert (less.run_eagerly, less.steps_per_execution) == (True, 2)
    logs = less.evaluate(np.ones((4, 6)), np.ones((4, 1)), verbose=0, return_dict=True)
    assert set(logs) == {"loss", "off", "mse"}
    less.fit(np.ones((4, 6)), np.ones((4, 1)), verbose=0)
    named = surgery.without_layers(stack(optimizer="adam", loss="mse"), ["b"])
    assert type(named.optimizer) is keras.optimizers.Adam
    judging = surgery.without_layers(stack(optimizer=None, loss="mse"), ["b"])
    assert judging.optimizer is None
    assert judging.compiled


def test_an_optimizer_or_metric_that_does_not_tell_its_settings_is_used_itself() -> None:
    """As long as it has learnt nothing; afterwards it is refused by name."""

    class Odd(keras.optimizers.SGD):
        def get_config(self) -> dict[str, Any]:
            return {"nonsense": 1}

    class Metric(keras.metrics.Mean):
        def __init__(self, needed: int) -> None:
            super().__init__(name="counted")

        def get_config(self) -> dict[str, Any]:
            return {}

        def update_state(self, y: Any, p: Any, sample_weight: Any = None) -> None:
            super().update_state(p)

    optimizer, metric = Odd(0.1, name="odd"), Metric(1)
    model = stack(optimizer=optimizer, loss="mse", metrics=[metric])
    less = surgery.without_layers(model, ["a"])
    assert less.optimizer is optimizer
    assert less._compile_config.config["metrics"] == [metric]
    model.fit(np.ones((4, 6)), np.ones((4, 1)), verbose=0)
    with pytest.raises(
        NotOblivious, match=r"optimizer odd \(a Odd\) cannot be made anew: .*; do: compile the model in"
    ):
        surgery.without_layers(model, ["a"])


def test_a_model_with_a_compile_of_its_own_is_refused_by_name() -> None:
    """Nobody knows what it was given."""

    class Gan(keras.Model):
        def compile(self, other: float) -> None:
            super().compile("sgd", "mse")

    inputs = keras.Input((4,))
    model = Gan(inputs, layers.Dense(1, name="out")(layers.Dense(3, name="a")(inputs)))
    assert surgery.layer_names(surgery.without_layers(model, ["a"])) == ["out"]
    model.compile(1.0)
    with pytest.raises(
        NotOblivious, match=r"Gan has a compile of its own, .*; do: compile the model in the training"
    ):
        surgery.without_layers(model, ["a"])


# --- what layers know


def test_frozen_and_pretrained_layers_stay_so() -> None:
    """Their values are copied, their flag too."""
    model = stack()
    model.get_layer("b").trainable = False
    model.get_layer("b").set_weights([np.full((4, 8), 7.0), np.ones(8)])
    less = surgery.without_layers(model, ["drop"])
    assert less.get_layer("b").trainable is False
    assert (np.asarray(less.get_layer("b").kernel) == 7).all()
    model.trainable = False
    frozen = surgery.without_layers(model, ["drop"])
    assert frozen.trainable_variables == []
    assert frozen.trainable is False


def test_a_layer_whose_shape_changed_is_drawn_anew() -> None:
    """All of it: a bias does not stay with another kernel."""
    model = stack()
    model.get_layer("b").set_weights([np.full((4, 8), 7.0), np.ones(8)])
    changed = surgery.without_layers(model, ["a"]).get_layer("b")
    assert not (np.asarray(changed.kernel) == 7).any()
    assert (np.asarray(changed.bias) == 0).all()


def test_what_preprocessing_layers_have_learnt_stays() -> None:
    """A vocabulary, a mean, edges of bins."""
    normal, edges = layers.Normalization(name="norm"), layers.Discretization(num_bins=3, name="bins")
    normal.adapt(np.array([[1.0, 10.0], [3.0, 30.0]]))
    edges.adapt(np.linspace(0, 1, 50))
    inputs = keras.Input((2,))
    x = layers.Dense(2, name="gone")(normal(inputs))
    model = keras.Model(inputs, x)
    less = surgery.without_layers(model, ["gone"])
    assert np.allclose(less(np.array([[2.0, 20.0]])), 0)
    numbers = keras.Input((1,))
    binned = layers.Dropout(0.1, name="gone")(edges(numbers))
    less = surgery.without_layers(keras.Model(numbers, binned), ["gone"])
    assert np.asarray(less(np.array([[0.0], [0.5], [1.0]])))[:, 0].tolist() == [0, 1, 2]
    words = layers.TextVectorization(name="words", output_sequence_length=2)
    words.adapt(["red green", "red"])
    text = keras.Input((1,), dtype="string")
    model = keras.Model(text, layers.Dropout(0.1, name="gone")(words(text)))
    less = surgery.without_layers(model, ["gone"])
    assert less.get_layer("words").get_vocabulary() == words.get_vocabulary()


def test_a_normalization_adapted_to_columns_that_are_gone_is_refused() -> None:
    """It would silently normalise no more."""
    normal = layers.Normalization(name="norm")
    normal.adapt(np.arange(6.0).reshape(2, 3))
    model = keras.Sequential([keras.Input((3,)), normal, layers.Dense(1)])
    with pytest.raises(
        UsageProblem, match=r"norm \(a Normalization\) was adapted to 3 columns; adapt it in model_fn"
    ):
        surgery.fitted_to(model, 3, 2, ["0"])


# --- fitted to fewer features


@pytest.mark.parametrize(("before", "after"), [(6, 4), (None, None)])
def test_a_fixed_input_becomes_as_narrow_as_the_data(before: int | None, after: int | None) -> None:
    """By the data's width, or by the number of features that went."""
    less = surgery.fitted_to(stack(), before, after, ["1", "2"])
    assert less.input_shape == (None, 4)
    assert shapes(less)["a"] == (4, 4)
    trains(less, np.ones((2, 4)), np.ones((2, 1)))
    assert surgery.input_width(less) == 4


def test_a_model_that_needs_no_change_is_itself() -> None:
    """Right already, without an input yet, or of another width."""
    for model in (stack(), keras.Sequential([layers.Dense(1)]), functional_pool()):
        assert surgery.fitted_to(model, 7, 6, ["age"]) is model
    subclassed = type("Own", (keras.Model,), {})()
    assert surgery.fitted_to(subclassed, 7, 6, ["age"]) is subclassed
    assert surgery.input_width(subclassed) is None


def test_images_with_a_channel_less() -> None:
    """The last axis, through a convolution."""
    less = surgery.fitted_to(images(), 3, 2, ["0"])
    assert less.input_shape == (None, 8, 8, 2)
    assert shapes(less)["stem"] == (3, 3, 2, 4)


def columns(join: str) -> Any:
    """One input for each column, each with a layer of its own, joined."""
    inputs = {name: keras.Input((1,), name=name) for name in ("age", "sex", "pay")}
    hidden = [layers.Dense(2, name=f"of_{name}")(one) for name, one in inputs.items()]
    joined = {
        "concatenate": lambda: layers.Concatenate(name="join")(hidden),
        "add": lambda: layers.Add(name="join")(hidden),
        "ops": lambda: keras.ops.concatenate(hidden, axis=-1),
        "plus": lambda: hidden[0] + hidden[1] + hidden[2],
    }[join]()
    return keras.Model(inputs, layers.Dense(1, name="out")(joined))


@pytest.mark.parametrize(
    ("join", "gone", "wide"),
    [
        ("concatenate", ["age"], 4),
        ("concatenate", ["age", "sex"], 2),
        ("add", ["age"], 2),
        ("add", ["age", "pay"], 2),
        ("ops", ["sex"], 4),
        ("plus", ["age"], 2),
        ("plus", ["sex", "pay"], 2),
    ],
)
def test_an_input_of_its_own_goes_with_its_feature(join: str, gone: list[str], wide: int) -> None:
    """With what depended on it alone; a join gets fewer tensors, and one is passed through."""
    less = surgery.fitted_to(columns(join), 3, 3 - len(gone), gone)
    left = [name for name in ("age", "sex", "pay") if name not in gone]
    assert sorted(less.input) == sorted(left)
    assert {name for name in surgery.layer_names(less) if name.startswith("of_")} == {f"of_{n}" for n in left}
    assert shapes(less)["out"] == (wide, 1)
    trains(less, {name: np.ones((2, 1)) for name in left}, np.ones((2, 1)))


def test_inputs_in_a_list_are_known_by_their_names() -> None:
    """The others keep their order."""
    inputs = [keras.Input((1,), name=name) for name in ("age", "sex", "pay")]
    model = keras.Model(inputs, layers.Dense(1)(layers.concatenate(inputs)))
    less = surgery.fitted_to(model, 3, 2, ["sex"])
    assert [one.name for one in less.inputs] == ["age", "pay"]


def test_an_input_that_something_else_needs_is_refused_by_name() -> None:
    """A dot product of one is none; and an output must not go with it."""
    left, right = keras.Input((2,), name="left"), keras.Input((2,), name="right")
    attended = layers.Attention(name="looks")(
        [layers.Reshape((2, 1), name="l")(left), layers.Reshape((2, 1), name="r")(right)]
    )
    with pytest.raises(UsageProblem, match=r"got features=right; .*looks \(a Attention\) does not fit"):
        surgery.fitted_to(keras.Model([left, right], attended), 2, 1, ["right"])
    chosen = keras.ops.where(left > 0, left, right)
    with pytest.raises(
        UsageProblem, match=r"where \(a Where\) needs what was taken away, beside other tensors"
    ):
        surgery.fitted_to(keras.Model([left, right], chosen), 2, 1, ["right"])
    two = keras.Model([left, right], [layers.Dense(1, name="a")(left), layers.Dense(1, name="b")(right)])
    with pytest.raises(UsageProblem, match=r"b \(a Dense\) makes an output from what was taken away alone"):
        surgery.fitted_to(two, 2, 1, ["right"])
    with pytest.raises(UsageProblem, match="no input would be left"):
        surgery.fitted_to(two, 2, 0, ["left", "right"])


@settings(max_examples=15)
@given(st.lists(st.integers(1, 5), min_size=2, max_size=5), st.data())
def test_any_stack_without_any_hidden_layers_is_the_stack_of_the_others(
    units: list[int], data: st.DataObject
) -> None:
    """Names and shapes, in both kinds of model."""
    gone = data.draw(st.sets(st.sampled_from(range(len(units))), min_size=1))
    made = [layers.Dense(n, name=f"d{i}") for i, n in enumerate([*units, 2])]
    inputs = x = keras.Input((3,))
    for layer in made:
        x = layer(x)
    model = keras.Model(inputs, x)
    if data.draw(st.booleans()):
        model = keras.Sequential(
            [keras.Input((3,)), *(layers.Dense(n, name=f"d{i}") for i, n in enumerate([*units, 2]))]
        )
    less = surgery.without_layers(model, [f"d{i}" for i in gone])
    width, expected = 3, {}
    for i, n in enumerate([*units, 2]):
        if i not in gone:
            expected[f"d{i}"] = (width, n)
            width = n
    assert shapes(less) == expected
