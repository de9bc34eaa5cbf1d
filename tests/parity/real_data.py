"""Small, real data: what scikit-learn ships, scaled, in a fixed mixed order."""

import numpy as np
from sklearn import datasets


def _mixed(x, y, samples):
    order = np.random.RandomState(7).permutation(len(x))[:samples]
    return x[order], y[order]


def _scaled(x):
    return ((x - x.mean(0)) / (x.std(0) + 1e-9)).astype("float32")


def digits(samples=1797):
    """64 pixels between 0 and 1, ten classes."""
    x, y = datasets.load_digits(return_X_y=True)
    return _mixed((x / 16).astype("float32"), y.astype("int32"), samples)


def digit_images(samples=1797):
    """8×8 pictures with one channel, ten classes."""
    x, y = digits(samples)
    return x.reshape(-1, 8, 8, 1), y


def digit_tokens(samples=1797):
    """Two rows of pixels as 16 tokens between 0 and 16, where 0 stands for nothing; ten classes."""
    pictures, y = datasets.load_digits(return_X_y=True)
    rows = pictures.reshape(-1, 8, 8)[:, 3:5].reshape(-1, 16).astype("int32")
    packed = np.zeros_like(rows)
    for row, out in zip(rows, packed, strict=True):
        out[: np.count_nonzero(row)] = row[row > 0]
    return _mixed(packed, y.astype("int32"), samples)


def cancer(samples=569):
    """30 measurements, two classes."""
    x, y = datasets.load_breast_cancer(return_X_y=True)
    return _mixed(_scaled(x), y.astype("float32"), samples)


def cancer_table(samples=569):
    """The same as a pandas table and column, with their names."""
    x, y = datasets.load_breast_cancer(return_X_y=True, as_frame=True)
    order = np.random.RandomState(3).permutation(len(x))[:samples]
    scaled = ((x - x.mean()) / x.std()).astype("float32")
    return scaled.iloc[order], y.iloc[order]


def wine(samples=178):
    """13 measurements, three classes."""
    x, y = datasets.load_wine(return_X_y=True)
    return _mixed(_scaled(x), y.astype("int32"), samples)


def iris(samples=150):
    """Four measurements, three classes."""
    x, y = datasets.load_iris(return_X_y=True)
    return _mixed(_scaled(x), y.astype("int32"), samples)


def diabetes(samples=442):
    """Ten measurements, one number to predict."""
    x, y = datasets.load_diabetes(return_X_y=True)
    return _mixed(_scaled(x), ((y - y.mean()) / y.std()).astype("float32"), samples)
