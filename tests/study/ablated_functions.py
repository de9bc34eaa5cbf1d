"""Training functions of ablation studies. Importable, so that ranks find them."""

import sys

import numpy as np
import pandas as pd


def planted():
    """A vital column, a useful one, a useless one, and the label."""
    draw = np.random.default_rng(0)
    vital, useful, useless = draw.normal(size=(3, 300))
    label = (vital + 0.4 * useful > 0).astype(int)
    return pd.DataFrame({"vital": vital, "useful": useful, "useless": useless, "label": label})


def scikit(dataset_fn, scale=True, depth=3):
    """scikit-learn alone; says whether anybody has imported TensorFlow."""
    from sklearn.linear_model import LogisticRegression

    data = dataset_fn()
    x, y = data.drop(columns="label").to_numpy(), data["label"].to_numpy()
    order = np.random.permutation(len(y))
    x, y = x[order], y[order]
    x = x if scale else x * 0
    framework = "".join(["tensor", "flow"])  # a function that has the word in it gets it imported
    score = LogisticRegression().fit(x[:200], y[:200]).score(x[200:], y[200:])
    return {
        "score": float(score),
        "width": x.shape[1],
        "framework": framework in sys.modules,
        "drawn": int(order[0]),
    }


def model_fn():
    """Three hidden layers, one of them in a block."""
    import keras

    layers = keras.layers
    return keras.Sequential([
        keras.Input((3,)), layers.Dense(8, "relu", name="first"), layers.Dense(8, "relu", name="block1_a"),
        layers.Dense(8, "relu", name="block1_b"), layers.Dense(1, name="out"),
    ])  # fmt: skip


def small_model():
    """Another model."""
    import keras

    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1, name="out")])


def model_first(dataset_fn, model_fn):
    """Makes its model before it has its data."""
    model = model_fn()
    return deep(dataset_fn, lambda: model)


def deep(dataset_fn, model_fn):
    """Keras; what it has trained, in numbers of its own."""
    data = dataset_fn()
    y = data.pop("label").to_numpy().astype("float32")
    model = model_fn()
    model.compile("adam", "mse")
    history = model.fit(data.to_numpy().astype("float32"), y, batch_size=100, epochs=1, verbose=0)
    return {"final": history.history["loss"][-1], "params": model.count_params(), "layers": len(model.layers)}
