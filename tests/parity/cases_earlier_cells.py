# ruff: noqa: D103
"""What was set before the run, in a cell of its own, as ``earlier_cell`` does: it holds in the run as it holds here."""

import decimal

import keras
import numpy as np
from keras import layers
from real_data import cancer, diabetes, iris


def earlier_cell():
    """Runs in the process that starts the run, before it; never on the ranks by itself."""
    keras.config.set_floatx("float64")
    keras.config.set_epsilon(1e-4)
    keras.utils.set_random_seed(77)
    np.set_printoptions(precision=3, suppress=True)
    decimal.getcontext().prec = 9


def seed_of_an_earlier_cell():  # the first one, since the others seed by themselves
    x, y = iris(100)
    model = keras.Sequential([keras.Input((4,)), layers.Dense(5, activation="relu"), layers.Dense(3)])
    model.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    h = model.fit(x, y, batch_size=33, epochs=2, verbose=0)
    return {"history": h.history, "drawn": np.random.rand(2), "weights": model.get_weights()}


def precision_of_an_earlier_cell():
    keras.utils.set_random_seed(1201)
    x, y = diabetes(101)
    model = keras.Sequential([keras.Input((10,)), layers.Dense(4, activation="tanh"), layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.02), "mse")
    h = model.fit(x, y, batch_size=26, epochs=2, verbose=0)
    weights = model.get_weights()
    return {"history": h.history, "kind": weights[0].dtype.name, "weights": weights}


def epsilon_of_an_earlier_cell():
    keras.utils.set_random_seed(1202)
    x, y = cancer(90)
    model = keras.Sequential([keras.Input((30,)), layers.Dense(2, activation="softmax")])
    model.compile(keras.optimizers.SGD(0.2), "kl_divergence")  # keeps away from zero by epsilon
    h = model.fit(3 * x, keras.utils.to_categorical(y), batch_size=30, epochs=2, shuffle=False, verbose=0)
    return {"history": h.history, "epsilon": keras.config.epsilon(), "weights": model.get_weights()}


def ways_to_print_of_an_earlier_cell():
    third = decimal.Decimal(1) / decimal.Decimal(3)
    return {"array": str(np.array([1 / 3, 1e-9])), "decimal": str(third)}
