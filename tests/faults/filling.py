"""Training functions whose rank 1 may have only so much memory, and asks for more."""

import os
import time
from pathlib import Path

SPARE_BYTES = 1 << 27


def _rank():
    return int(os.environ.get("OMPI_COMM_WORLD_RANK", "0"))


def _may_have_no_more(folder):
    """From now on this process gets a little memory and then none."""
    import resource

    import psutil

    print("before it was full", flush=True)
    most = psutil.Process().memory_info().vms + SPARE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    Path(folder, "broke").write_text(repr(time.time()))


def _wait_for_the_other():
    from mpi4py import MPI

    MPI.COMM_WORLD.barrier()


def one_large_array(folder="."):
    """Two gigabytes at once."""
    import numpy as np

    if _rank() == 1:
        _may_have_no_more(folder)
        np.ones(1 << 28)
    _wait_for_the_other()


def _hoard(piece_bytes):
    pieces = []
    while True:
        pieces.append(bytes(piece_bytes))


def a_hoard_in_reach_of_the_traceback(folder="."):
    """Piece by piece, and all pieces are kept by the frame that failed."""
    if _rank() == 1:
        _may_have_no_more(folder)
        _hoard(10_000)
    _wait_for_the_other()


def to_the_last_byte(folder="."):
    """So small pieces that nothing is left between them."""
    if _rank() == 1:
        _may_have_no_more(folder)
        _hoard(64)
    _wait_for_the_other()


def one_large_tensor(folder="."):
    """In the middle of a fit. TensorFlow itself tries for ten seconds before it says so."""
    import keras
    import numpy as np
    import tensorflow as tf

    class Fills(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch != 3 or _rank() != 1:
                return
            _may_have_no_more(folder)
            try:
                tf.zeros([1 << 28])
            finally:
                Path(folder, "broke").write_text(repr(time.time()))

    x = np.ones((64, 4), "float32")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(x, x[:, :1], batch_size=8, verbose=0, callbacks=[Fills()])
