"""Weights kept at the best epoch, and taken by another run before its first step; with real fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from obl_magic.errors import NotOblivious, RunFailed, SetupProblem
from obl_magic.events.event import Note
from obl_magic.launch import one_run
from obl_magic.options import RunOptions
from obl_magic.payload import weights_file
from obl_magic.rundir import RunDir
from obl_magic.values import Settings
from obl_magic.worker.engines.single import Alone
from obl_magic.worker.frameworks.keras.adapter import oblivious
from obl_magic.worker.frameworks.keras.monitor import Fit
from obl_magic.worker.frameworks.keras.weights import BestWeights, InitialWeights, without_keras
from obl_magic.worker.report import Reporter

X = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
Y = X[:, :1] * 2 + 1


@pytest.fixture
def folder(tmp_path: Path) -> RunDir:
    """A run's folder."""
    (tmp_path / "run-a").mkdir()
    return RunDir.at(tmp_path / "run-a")


@contextmanager
def rank(folder: RunDir | None, settings: Settings, notes: dict[str, str] | None = None) -> Iterator[None]:
    """This process as the only rank of a run; the function ends with the block."""

    def emit(event: Any) -> None:
        if isinstance(event, Note) and notes is not None:
            notes[event.code] = event.text

    with oblivious(Alone(), Reporter(emit, 0), settings, folder) as adapter:
        yield
        adapter.finish()


def keeping(quantity: str = "loss", largest: bool = False, **others: Any) -> Settings:
    """Settings that keep the weights of the best epoch."""
    return Settings(keep_weights=True, keep_weights_of=quantity, keep_largest=largest, **others)


def dense(units: int = 3, optimizer: Any = None) -> Any:
    """A small compiled model."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(units), keras.layers.Dense(1)])
    model.compile(optimizer or keras.optimizers.SGD(0.01), "mse")
    return model


class Scripted(keras.callbacks.Callback):
    """Logs what it is told, epoch by epoch, and remembers the weights of each."""

    def __init__(self, name: str, values: list[float]) -> None:
        super().__init__()
        self.name, self.values = name, values
        self.weights: list[list[Any]] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        logs[self.name] = self.values[epoch]
        self.weights.append(self.model.get_weights())


def fitted(values: list[float], name: str = "score", model: Any = None, **others: Any) -> Scripted:
    """What a fit whose epochs have these scores remembers."""
    scripted = Scripted(name, values)
    (model or dense()).fit(X, Y, epochs=len(values), verbose=0, callbacks=[scripted], **others)
    return scripted


def same(kept: Any, weights: Any) -> bool:
    """Whether arrays are equal, one by one."""
    return len(kept) == len(weights) and all(np.array_equal(a, b) for a, b in zip(kept, weights, strict=True))


class Clock:
    """Shows the time it is given."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.mark.parametrize(("largest", "best"), [(True, 3), (False, 2)])
def test_the_weights_of_the_best_epoch_are_kept(folder: RunDir, largest: bool, best: int) -> None:
    """Neither the first nor the last ones; with the epoch, the value, the run and the variables' paths."""
    model = dense()
    with rank(folder, keeping("score", largest)):
        seen = fitted([0.5, 0.2, 0.9, 0.9, 0.3], model=model)
    kept = weights_file.load(folder.weights)
    assert same(kept.arrays, seen.weights[best - 1 if not largest else 2])
    assert not same(kept.arrays, seen.weights[-1])
    assert (kept.epoch, kept.value, kept.label) == ((3, 0.9, "run-a") if largest else (2, 0.2, "run-a"))
    assert kept.names == weights_file.names_of(model)


@pytest.mark.parametrize("quantity", ["loss", "val_loss"])
def test_the_metric_is_the_one_that_keras_logs(folder: RunDir, quantity: str) -> None:
    """Of training and of validation."""
    with rank(folder, keeping(quantity)):
        history = dense().fit(X, Y, epochs=3, validation_data=(X, Y), verbose=0).history
    assert weights_file.header(folder.weights).value == min(history[quantity])


def test_what_is_no_number_is_never_best(folder: RunDir) -> None:
    """A first NaN is not kept, and a later one replaces nothing."""
    with rank(folder, keeping("score", True)):
        seen = fitted([np.nan, 0.1, np.nan])
    assert same(weights_file.load(folder.weights).arrays, seen.weights[1])


def test_a_metric_that_was_never_a_number_keeps_nothing_and_says_so(folder: RunDir) -> None:
    """Weights of a fit that came to nothing are no weights to begin from."""
    notes: dict[str, str] = {}
    with rank(folder, keeping("score"), notes):
        fitted([np.nan, np.nan])
    assert not folder.weights.exists()
    assert notes == {"no-weights": "no weights were kept: score was never a number"}


@pytest.mark.parametrize("quantity", ["", "what_the_function_returns"])
def test_without_the_metric_in_the_logs_the_last_weights_are_kept(folder: RunDir, quantity: str) -> None:
    """Those after the user's callbacks have ended the fit, such as the best ones restored."""
    model = dense()
    stopping = keras.callbacks.EarlyStopping("loss", mode="max", restore_best_weights=True)
    with rank(folder, keeping(quantity)):
        model.fit(X, Y, epochs=4, verbose=0, callbacks=[stopping])
    kept = weights_file.load(folder.weights)
    assert same(kept.arrays, model.get_weights())
    assert (kept.epoch, kept.value) == (2, None)


def test_of_several_models_the_one_that_was_best_is_kept(folder: RunDir) -> None:
    """As in a cross-validation; a fit that does not log the metric takes nothing away."""
    first, second, third = dense(2), dense(3), dense(4)
    with rank(folder, keeping("score", True)):
        fitted([1.0], "other", first)
        seen = fitted([0.1, 0.8, 0.2], model=second)
        fitted([0.3, 0.7], model=third)
        fitted([1.0], "other", first)
    kept = weights_file.load(folder.weights)
    assert same(kept.arrays, seen.weights[1])
    assert (kept.epoch, kept.value) == (2, 0.8)


def test_the_metric_of_an_epoch_is_not_taken_for_another_ones(folder: RunDir) -> None:
    """A callback that logs every other epoch: what it said before does not count again."""

    class EveryOther(Scripted):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch % 2 == 0:
                super().on_epoch_end(epoch, logs)

    model, seen = dense(), EveryOther("score", [0.5, 0.0, 0.4])
    with rank(folder, keeping("score", True)):
        model.fit(X, Y, epochs=3, verbose=0, callbacks=[seen])
    assert same(weights_file.load(folder.weights).arrays, seen.weights[0])


def test_random_generators_metrics_and_optimizers_are_left_out(folder: RunDir) -> None:
    """Moving statistics are weights; a dropout's state, a metric's and the slots of Adam are none."""
    layers = keras.layers
    inputs = keras.Input((4,))
    shared = layers.Dense(4, name="shared")
    outputs = layers.Dropout(0.5, seed=1)(layers.BatchNormalization(name="bn")(shared(shared(inputs))))
    model = keras.Model(inputs, layers.Dense(1, name="out")(outputs))
    model.compile("adam", "mse", metrics=["mae"])
    with rank(folder, keeping()):
        model.fit(X, Y, verbose=0)
    kept = weights_file.load(folder.weights)
    ends = ["gamma", "beta", "moving_mean", "moving_variance"]
    assert kept.names == (
        "shared/kernel", "shared/bias", *(f"bn/{end}" for end in ends), "out/kernel", "out/bias",
    )  # fmt: skip
    assert same(kept.arrays, model.get_weights())
    assert kept.arrays[4].any()


def test_nothing_is_copied_or_written_where_nobody_asked(
    folder: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither without the setting, nor without a folder, nor on other ranks."""

    def never(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("weights were taken")

    class Second(Alone):
        rank = 1

    monkeypatch.setattr(weights_file, "of_model", never)
    for settings, where in ((Settings(), folder), (keeping(), None)):
        with rank(where, settings):
            dense().fit(X, Y, verbose=0)
    best = BestWeights(Second(), Reporter(never, 1), keeping(), folder)
    best.fit_ended(None, Fit(1, 1, 1))
    best.finish()
    assert list(folder.path.iterdir()) == []


def test_a_function_without_a_fit_is_told_that_nothing_was_kept(folder: RunDir) -> None:
    """Also where it never imports Keras."""
    said = {"no-weights": "no weights were kept: the function has no Keras fit"}
    notes: dict[str, str] = {}
    with rank(folder, keeping(), notes):
        dense().predict(X, verbose=0)
    assert notes == said
    told: list[Any] = []
    without_keras(keeping(), Reporter(told.append, 0))
    without_keras(keeping(), Reporter(told.append, 1))
    assert {note.code: note.text for note in told} == said
    assert len(told) == 1


def test_a_fit_that_fails_leaves_the_best_weights_it_had(folder: RunDir) -> None:
    """Its error passes through."""

    class Fails(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 3:
                raise KeyError("x")

    model, seen = dense(), Scripted("score", [0.1, 0.9, 0.2, 0.3])
    with pytest.raises(KeyError), rank(folder, keeping("score", True)):
        model.fit(X, Y, epochs=4, verbose=0, callbacks=[seen, Fails()])
    assert same(weights_file.load(folder.weights).arrays, seen.weights[1])


def test_a_full_disk_does_not_hide_why_a_fit_failed(folder: RunDir, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said in a note; the error that the user sees is the function's own."""

    def full(*args: Any) -> None:
        raise SetupProblem("no room", "make some")

    def fail(epoch: int, logs: Any = None) -> None:
        raise KeyError("x")

    notes: dict[str, str] = {}
    monkeypatch.setattr(weights_file, "save", full)
    monkeypatch.setattr(BestWeights, "_is_cheap", lambda self, held: False)
    after = [keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: epoch and fail(epoch))]
    with pytest.raises(KeyError), rank(folder, keeping(), notes):
        dense().fit(X, Y, epochs=2, verbose=0, callbacks=after)
    assert notes == {"no-weights": "the best weights are lost: no room; do: make some"}
    with pytest.raises(SetupProblem, match="no room"), rank(folder, keeping()):
        dense().fit(X, Y, verbose=0)


class Model:
    """Has weights, which weigh 200 kB, and is fitted by nobody."""

    name = "model"

    def __init__(self) -> None:
        self.weights = [keras.Variable(np.zeros(50_000, "float32"), name="w")]

    def epoch(self, number: int, loss: float) -> tuple[Any, Fit]:
        """What the end of an epoch looks like."""
        self.weights[0].assign(np.full(50_000, number, "float32"))
        callbacks = type("Callbacks", (), {"model": self, "_history": None, "callbacks": []})()
        return callbacks, Fit(9, 1, 1, epoch=number - 1, stepped=number, logs={"loss": loss})


def epoch_on_disk(folder: RunDir) -> int | None:
    """Of the weights that are written."""
    return weights_file.header(folder.weights).epoch if folder.weights.exists() else None


def test_weights_are_written_before_the_fit_ends_but_seldom(
    folder: RunDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed trial has some; writing costs less than a fiftieth of the time. The end of a fit always writes."""
    clock, model, save = Clock(), Model(), weights_file.save

    def slow(*args: Any) -> None:
        clock.now_s += 1
        save(*args)

    monkeypatch.setattr(weights_file, "save", slow)
    best = BestWeights(Alone(), Reporter(print, 0), keeping(), folder, clock)
    clock.now_s = 0.09  # 200 kB are expected to take 2 ms, the fiftieth part of 0.1 s
    best.epoch_ended(*model.epoch(1, 0.9))
    assert epoch_on_disk(folder) is None
    clock.now_s = 0.11
    best.epoch_ended(*model.epoch(2, 1.0))
    assert epoch_on_disk(folder) == 1
    clock.now_s += 49
    best.epoch_ended(*model.epoch(3, 0.8))
    assert epoch_on_disk(folder) == 1
    clock.now_s += 1.5
    best.epoch_ended(*model.epoch(4, 0.9))
    assert epoch_on_disk(folder) == 3
    best.epoch_ended(*model.epoch(5, 0.7))
    ended = model.epoch(6, 0.9)
    best.fit_ended(*ended)
    kept = weights_file.load(folder.weights)
    assert (kept.epoch, set(kept.arrays[0])) == (5, {5.0})
    written_s = clock.now_s
    best.fit_ended(*ended)
    assert clock.now_s == written_s


@given(values=st.lists(st.floats(width=16), min_size=1, max_size=12), largest=st.booleans())
def test_the_best_is_the_first_of_the_best(
    tmp_path_factory: pytest.TempPathFactory, values: list[float], largest: bool
) -> None:
    """Whatever the numbers are, infinite ones among them, and whenever they are written."""
    folder = RunDir.at(tmp_path_factory.mktemp("r"))
    clock, model = Clock(), Model()
    best = BestWeights(Alone(), Reporter(lambda event: None, 0), keeping("loss", largest), folder, clock)
    for number, value in enumerate(values, 1):
        clock.now_s += 0.06
        best.epoch_ended(*model.epoch(number, value))
    best.leave()
    numbers = [value for value in values if not np.isnan(value)]
    wanted = (max if largest else min)(numbers) if numbers else None
    assert epoch_on_disk(folder) == (None if wanted is None else values.index(wanted) + 1)


def test_a_run_that_is_restarted_loses_no_best_epoch(folder: RunDir) -> None:
    """It writes each improvement at once, and goes on comparing with what the world before it has kept."""
    settings = keeping(keep_each_epoch=True)
    best = BestWeights(Alone(), Reporter(print, 0), settings, folder, Clock())
    best.epoch_ended(*Model().epoch(3, 0.5))
    assert epoch_on_disk(folder) == 3
    again = keeping(keep_each_epoch=True, goes_on=True)
    later = BestWeights(Alone(), Reporter(print, 0), again, folder, Clock())
    later.epoch_ended(*Model().epoch(4, 0.6))
    later.fit_ended(*Model().epoch(5, 0.7))
    later.finish()
    assert epoch_on_disk(folder) == 3
    later.epoch_ended(*Model().epoch(6, 0.4))
    assert epoch_on_disk(folder) == 6


def test_averaged_weights_are_kept_where_they_were_validated(folder: RunDir) -> None:
    """A callback swaps them in for the validation only; the training's own metrics are of the others."""
    averaged: list[Any] = []

    class Watch(keras.callbacks.Callback):
        def on_test_begin(self, logs: Any = None) -> None:
            averaged.append(self.model.get_weights())

    kept = {}
    for quantity in ("val_loss", "loss"):
        averaged.clear()
        model = dense(optimizer=keras.optimizers.SGD(0.05, use_ema=True, ema_momentum=0.9))
        watch, plain = Watch(), Scripted("other", [0.0] * 3)
        swap = keras.callbacks.SwapEMAWeights()
        with rank(folder, keeping(quantity)):
            model.fit(X, Y, epochs=3, validation_data=(X, Y), verbose=0, callbacks=[swap, watch, plain])
        kept[quantity] = weights_file.load(folder.weights)
        one = plain.weights if quantity == "loss" else averaged
        other = averaged if quantity == "loss" else plain.weights
        best = (kept[quantity].epoch or 0) - 1
        assert all(
            np.allclose(a, b, atol=1e-6) for a, b in zip(kept[quantity].arrays, one[best], strict=True)
        )
        assert not np.allclose(kept[quantity].arrays[0], other[best][0], atol=1e-4)


# Taking.


def file_of(model: Any, folder: RunDir, epoch: int | None = 7, label: str = "trial 3") -> str:
    """A file of a model's weights, which are first made numbers that no initialiser draws."""
    for number, variable in enumerate(model.weights):
        variable.assign(np.full(variable.shape, number + 0.5))
    weights_file.save(weights_file.of_model(model, epoch, 0.1, label), folder, folder.weights)
    return str(folder.weights)


class First(keras.callbacks.Callback):
    """Remembers the weights that the first step begins with."""

    weights: Any = None

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if self.weights is None:
            self.weights = self.model.get_weights()


class Subclassed(keras.Model):
    """Has no variables until it is called."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.drop, self.out = (
            keras.layers.Dense(3),
            keras.layers.Dropout(0.1),
            keras.layers.Dense(1),
        )

    def call(self, inputs: Any, training: bool = False) -> Any:
        return self.out(self.drop(self.hidden(inputs), training=training))


def lazy() -> Any:
    """A sequential model without an input."""
    return keras.Sequential([keras.layers.Dense(3), keras.layers.Dense(1)])


FROM_KERAS_3_13 = pytest.mark.skipif(
    not hasattr(keras.optimizers, "ScheduleFreeAdamW"), reason="Keras 3.12 has no ScheduleFreeAdamW"
)


@pytest.mark.parametrize("make", [dense, lazy, Subclassed])
@pytest.mark.parametrize(
    "optimizer", ["sgd", "adam", pytest.param("ScheduleFreeAdamW", marks=FROM_KERAS_3_13)]
)
def test_the_first_step_begins_with_the_given_weights(
    folder: RunDir, make: Callable[[], Any], optimizer: str
) -> None:
    """Of models that are built, or not yet; it ends where a model with those weights set by hand ends."""
    path, notes, ends = file_of(dense(), folder), {}, []
    by_hand = make()
    by_hand(X[:1])
    by_hand.set_weights(weights_file.load(path).arrays)
    first = First()
    for model, settings in ((by_hand, Settings()), (make(), Settings(init_from=path))):
        model.compile(keras.optimizers.get(optimizer), "mse")
        if model is by_hand:  # else Keras builds it while tracing, and a schedule-free one begins at zero
            model.optimizer.build(model.trainable_variables)
        keras.utils.set_random_seed(1)
        with rank(None, settings, notes):
            model.fit(
                X,
                Y,
                batch_size=32,
                epochs=3,
                verbose=0,
                shuffle=False,
                callbacks=[first] if settings.init_from else [],
            )
        ends.append(model.get_weights())
    assert notes == {"init-from": "began from the weights of trial 3, epoch 7"}
    if make is dense:
        assert same(first.weights, weights_file.load(path).arrays)
    if make is not Subclassed:  # whose dropout draws otherwise
        for a, b in zip(*ends, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@FROM_KERAS_3_13
def test_an_optimizer_that_was_built_before_does_not_go_back(folder: RunDir) -> None:
    """A schedule-free one remembers the weights it was built with, also inside one that scales losses."""
    path, ends = file_of(dense(), folder), []
    for scaled in (False, True):
        free: Any = keras.optimizers.ScheduleFreeAdamW(1e-4)
        optimizer = keras.optimizers.LossScaleOptimizer(free, initial_scale=1.0) if scaled else free
        model = dense(optimizer=optimizer)
        optimizer.build(model.trainable_variables)
        with rank(None, Settings(init_from=path)):
            model.fit(X, Y, batch_size=32, verbose=0)
        ends.append(model.get_weights())
    for end in ends:
        given_weights = weights_file.load(path).arrays
        assert all(np.allclose(a, b, atol=1e-3) for a, b in zip(end, given_weights, strict=True))


def test_callbacks_begin_with_the_given_weights(folder: RunDir) -> None:
    """As if the model had been built with them; what they set themselves stays."""
    path, seen = file_of(dense(), folder), []

    def begin(logs: Any) -> None:
        seen.append(model.get_weights())
        model.set_weights([weights * 0 for weights in seen[0]])

    model, first = dense(), First()
    with rank(None, Settings(init_from=path)):
        model.fit(X, Y, verbose=0, callbacks=[keras.callbacks.LambdaCallback(on_train_begin=begin), first])
    assert same(seen[0], weights_file.load(path).arrays)
    assert not any(weights.any() for weights in first.weights)


def test_only_the_first_fit_takes_them(folder: RunDir) -> None:
    """A second one goes on with what the first has learnt, and another model has its own."""
    path, firsts = file_of(dense(), folder), [First(), First(), First()]
    model, other = dense(), dense(5)
    own = other.get_weights()
    with rank(None, Settings(init_from=path)):
        model.fit(X, Y, verbose=0, callbacks=[firsts[0]])
        learnt = model.get_weights()
        model.fit(X, Y, verbose=0, callbacks=[firsts[1]])
        other.fit(X, Y, verbose=0, callbacks=[firsts[2]])
    assert same(firsts[1].weights, learnt)
    assert same(firsts[2].weights, own)


@pytest.mark.parametrize(
    ("policy", "stored"),
    [
        ("float32", "float32"),
        ("mixed_float16", "float32"),
        ("mixed_bfloat16", "float32"),
        ("bfloat16", "bfloat16"),
    ],
)
def test_every_precision_keeps_and_takes(folder: RunDir, policy: str, stored: str) -> None:
    """Weights as the model holds them, from any precision to any other."""

    def model_of(name: str) -> Any:
        layers = [keras.layers.Dense(3, dtype=name), keras.layers.BatchNormalization(dtype=name)]
        model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(1, dtype=name)])
        model.compile("adam", "mse")
        return model

    model = model_of(policy)
    with rank(folder, keeping()):
        model.fit(X, Y, verbose=0)
    kept = weights_file.load(folder.weights)
    assert weights_file.header(folder.weights).dtypes == (stored,) * len(kept.names)
    for other in (policy, "float32", "bfloat16"):
        first = First()
        with rank(None, Settings(init_from=str(folder.weights))):
            model_of(other).fit(X, Y, verbose=0, callbacks=[first])
        for array, begun in zip(kept.arrays, first.weights, strict=True):
            assert begun.astype("float32") == pytest.approx(array.astype("float32"), rel=1e-2)


def test_the_names_of_layers_do_not_matter(folder: RunDir) -> None:
    """Automatic ones count on in a process that builds several models; order and shapes decide."""
    path = file_of(dense(), folder, None, "")
    model, notes, first = dense(), {}, First()
    assert weights_file.names_of(model) != weights_file.header(path).names
    with rank(None, Settings(init_from=path), notes):
        model.fit(X, Y, verbose=0, callbacks=[first])
    assert same(first.weights, weights_file.load(path).arrays)
    assert notes == {"init-from": "began from the weights of weights.npz"}


def named(*sizes: int) -> Any:
    """A model of dense layers with names."""
    layers = [keras.layers.Dense(size, name=f"d{number}") for number, size in enumerate(sizes)]
    model = keras.Sequential([keras.Input((4,)), *layers, keras.layers.Dense(1, name="out")])
    model.compile("sgd", "mse")
    return model


@pytest.mark.parametrize(
    ("there", "here", "said"),
    [
        (
            (3,), (5,),
            "d0/kernel is (4, 3) there and (4, 5) here; d0/bias is (3,) there and (5,) here; "
            "out/kernel is (3, 1) there and (5, 1) here",
        ),
        ((3,), (3, 1), "out/kernel (1, 1) is only here; out/bias (1,) is only here"),
        ((3, 1), (3,), "out/kernel (1, 1) is only there; out/bias (1,) is only there"),
        (
            (2, 2, 2, 2), (3, 3, 3, 3),
            "d0/kernel is (4, 2) there and (4, 3) here; d0/bias is (2,) there and (3,) here; "
            "d1/kernel is (2, 2) there and (3, 3) here; d1/bias is (2,) there and (3,) here; "
            "d2/kernel is (2, 2) there and (3, 3) here; and 4 more",
        ),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_refused_before_any_is_assigned(
    folder: RunDir, there: tuple[int, ...], here: tuple[int, ...], said: str
) -> None:
    """Variable by variable, with the way out."""
    path, model = file_of(named(*there), folder), named(*here)
    before = model.get_weights()
    with pytest.raises(NotOblivious) as caught, rank(None, Settings(init_from=path)):
        model.fit(X, Y, verbose=0)
    assert str(caught.value) == (
        f"the weights of trial 3 do not fit the model: {said}; "
        "do: build the model with the same hyperparameters (--params), or leave out --init-from"
    )
    assert same(model.get_weights(), before)


def test_a_model_that_only_its_own_step_can_build_is_refused_by_name(folder: RunDir) -> None:
    """It has nothing yet that could take weights."""

    class Own(Subclassed):
        def call(self, inputs: Any, training: bool = False) -> Any:
            if not training:
                raise RuntimeError("only for a training step")
            return super().call(inputs, training)

    path = file_of(dense(), folder)
    model = Own()
    model.compile("sgd", "mse")
    with pytest.raises(NotOblivious) as caught, rank(None, Settings(init_from=path)):
        model.fit(X, Y, verbose=0)
    names = ", ".join(layer.name for layer in (model.hidden, model.out))
    assert str(caught.value) == (
        f"the weights of trial 3 cannot be given to the model: it has no variables yet when its fit begins ({names}); "
        "do: give it a keras.Input, or call it on a batch before it is fitted"
    )


def test_a_function_that_cannot_take_weights_is_refused(folder: RunDir) -> None:
    """At its end, if it had no fit; also where it never imports Keras, and on every rank."""
    said = (
        "initial weights were given, but the function has no Keras fit that could take them; "
        "do: call model.fit, or leave out --init-from"
    )
    with pytest.raises(NotOblivious) as caught, rank(None, Settings(init_from="w.npz")):
        dense().predict(X, verbose=0)
    assert str(caught.value) == said
    for number in (0, 1):
        with pytest.raises(NotOblivious) as caught:
            without_keras(Settings(init_from="w.npz"), Reporter(print, number))
        assert str(caught.value) == said


def test_other_ranks_read_nothing() -> None:
    """They may not see the file; what rank 0 has reaches them with the model's other variables."""

    class Second(Alone):
        rank = 1

    initial = InitialWeights(Second(), Reporter(print, 1), "no such file")
    initial.give(None)
    initial.finish()
    with pytest.raises(SetupProblem, match="cannot read the weights in no such file"):
        InitialWeights(Alone(), Reporter(print, 0), "no such file").give(None)


@pytest.mark.parametrize("make", [dense, lazy])
def test_a_fit_that_goes_on_is_not_given_other_weights(
    folder: RunDir, tmp_path: Path, make: Callable[[], Any]
) -> None:
    """A world that replaces a failed one begins where that one was, whether its model is built yet or not."""
    (tmp_path / "other").mkdir()
    path = file_of(dense(), RunDir.at(tmp_path / "other"))
    keras.backend.clear_session()  # names count anew, as in another process
    model = make()
    model.compile("adam", "mse")
    with rank(folder, Settings(init_from=path, keep_each_epoch=True)):
        model.fit(X, Y, epochs=2, verbose=0)
    notes: dict[str, str] = {}
    keras.backend.clear_session()
    again, first = make(), First()
    again.compile("adam", "mse")
    with rank(folder, Settings(init_from=path, keep_each_epoch=True, goes_on=True), notes):
        again.fit(X, Y, epochs=2, verbose=0, callbacks=[first])
    assert same(again.get_weights(), model.get_weights())
    assert notes == {}
    assert first.weights is None


def test_what_one_run_keeps_another_begins_from(folder: RunDir) -> None:
    """The whole way, with normalisation's statistics."""

    def model_of() -> Any:
        layers = [keras.layers.Dense(3), keras.layers.BatchNormalization(), keras.layers.Dense(1)]
        model = keras.Sequential([keras.Input((4,)), *layers])
        model.compile("adam", "mse")
        return model

    source = model_of()
    with rank(folder, keeping("score", True)):
        seen = fitted([0.1, 0.9, 0.3], model=source)
    first, notes = First(), {}
    with rank(None, Settings(init_from=str(folder.weights)), notes):
        model_of().fit(X, Y, verbose=0, callbacks=[first])
    assert same(first.weights, seen.weights[1])
    assert notes == {"init-from": "began from the weights of run-a, epoch 2"}


def trains(units: int = 4, epochs: int = 3, lazily: bool = False) -> Any:
    """A training function for real ranks: the weights at the first step, and those of every epoch's end."""
    import keras
    import numpy as np

    seen: list[Any] = []

    class Seen(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            if not seen:
                seen.append(self.model.get_weights())

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            seen.append(self.model.get_weights())
            logs["score"] = [0.1, 0.9, 0.3][epoch % 3]

    x = np.random.default_rng(0).normal(size=(30, 4)).astype("float32")
    front = [] if lazily else [keras.Input((4,))]
    layers = [keras.layers.Dense(units), keras.layers.BatchNormalization(), keras.layers.Dense(1)]
    model = keras.Sequential([*front, *layers])
    model.compile("adam", "mse")
    model.fit(x, x[:, :1], batch_size=10, epochs=epochs, verbose=0, callbacks=[Seen()])
    return seen


def launched(settings: Settings, **args: Any) -> Any:
    """The function on two ranks."""
    options = RunOptions(workers=2, quiet=True)
    return one_run.launch(one_run.Call(trains, args), options, settings=settings)


@pytest.mark.slow
def test_two_ranks_keep_and_take_as_one(home: Path) -> None:
    """Rank 0 keeps the best epoch; of a next run, both ranks begin there, built or not."""
    kept_by = launched(keeping("score", True))
    path = RunDir.at(kept_by.dir).weights
    kept = weights_file.load(path)
    assert same(kept.arrays, kept_by.values[0][2])
    assert same(kept.arrays, kept_by.values[1][2])
    assert (kept.epoch, kept.value, kept.label) == (2, 0.9, kept_by.id)
    taken = launched(Settings(init_from=str(path)), lazily=True)
    for seen in taken.values:
        assert same(seen[0], kept.arrays)
    with pytest.raises(
        (NotOblivious, RunFailed), match=r"do not fit the model: dense/kernel is \(4, 4\) there"
    ):
        launched(Settings(init_from=str(path)), units=5)
