"""Training functions of searches, each with one thing that a test looks at. Importable, so that ranks find them."""

import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

from obl_magic import report

SEEN = []
"""State of this module that a trial could leave to the next."""


def rank():
    """This process's rank."""
    return int(os.environ.get("OMPI_COMM_WORLD_RANK", "0"))


def bowl(x=0.0, y=0.0):
    """A smooth function, and who computed it."""
    return {"loss": (x - 1) ** 2 + y**2, "pid": os.getpid(), "world": os.environ.get("OBLIVIOUS_BESIDE", "")}


def on_every_rank(x=0.0, folder="."):
    """Each rank writes down what it was called with."""
    Path(folder, f"{x!r}-{rank()}").write_text(repr(x))
    return x


def by_hand(x=0.0, steps=4):
    """Reports by hand, and meets the other ranks after each report."""
    comm = world()
    for step in range(steps):
        report(loss=x, step=step)
        comm.barrier()
    return {"loss": x, "pid": os.getpid()}


def world():
    """All ranks."""
    from mpi4py import MPI

    return MPI.COMM_WORLD


def falls(x=0, how="raises", folder="."):
    """Does one of the things that end a trial where ``x`` is 1."""
    if x == 1:
        if how == "raises":
            raise OSError("no such luck")
        if how == "exits":
            os._exit(3)
        if how == "is killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "stalls":
            threading.Event().wait()
    return {"loss": float(x), "pid": os.getpid()}


def one_of_two_raises(x=0):
    """Rank 1 raises where ``x`` is 1, while rank 0 waits for it."""
    comm = world()
    if x == 1 and comm.rank == 1:
        raise ValueError("on rank 1")
    comm.barrier()
    return {"loss": float(x)}


def one_is_slow(x=0, folder="."):
    """The first call returns at once, all others take long."""
    try:
        Path(folder, "first").touch(exist_ok=False)
    except FileExistsError:
        threading.Event().wait(60)
    return {"loss": float(x), "pid": os.getpid()}


def waits_for_ever(x=0, folder=".", at=3):
    """Is quick, but at the n-th call; there it writes a file and waits."""
    number = len(list(Path(folder).glob("call-*")))
    Path(folder, f"call-{number}").write_text(str(os.getpid()))
    if number == at:
        threading.Event().wait(120)
    return {"loss": float(x)}


def sleeps(x=0.0, seconds=3.0):
    """Idles."""
    time.sleep(seconds)
    return x


def leaves_traces(x=0):
    """Tells what it found of an earlier trial, and leaves something of every kind."""
    import keras
    import numpy as np

    found = {
        "module": len(SEEN), "global": globals().get("LEFT", 0), "policy": keras.config.dtype_policy().name,
        "layer": keras.layers.Dense(1).name, "python": random.random(), "numpy": float(np.random.rand()),
        "keras": float(keras.random.uniform(())), "pid": os.getpid(),
        "environment": os.environ.get("LEFT_BY_A_TRIAL", ""), "folder": os.getcwd(),
    }  # fmt: skip
    SEEN.append(x)
    globals()["LEFT"] = 1
    os.environ["LEFT_BY_A_TRIAL"] = "yes"
    os.chdir("/")
    keras.config.set_dtype_policy("mixed_bfloat16")
    random.seed(1)
    np.random.seed(1)
    keras.utils.set_random_seed(1)
    return {**found, "loss": float(x)}


def digits(samples=330):
    """A piece of the digits."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    return (x[:samples] / 16).astype("float32"), y[:samples]


def fits(lr=0.01, units=8, epochs=2, samples=128):
    """An ordinary fit, whose model depends on what is searched."""
    import keras

    x, y = digits(samples)
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(units, "relu"), keras.layers.Dense(10)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(lr), loss, metrics=["accuracy"])
    begin = float(abs(model.get_weights()[0]).sum())
    history = model.fit(x, y, batch_size=32, epochs=epochs, verbose=0).history
    return {"final": history["loss"][-1], "first": history["loss"][0], "begin": begin, "pid": os.getpid()}


def grows(x=0):
    """A small fit, and what the process holds afterwards, in MB."""
    import psutil

    fits(units=8 + x % 3, epochs=1, samples=64)
    return {"loss": float(x), "rss": psutil.Process().memory_info().rss / 2**20, "pid": os.getpid()}


def grows_in_a_loop(times=14):
    """What a process holds after each of some small fits, in MB, tidied up as well as Keras can."""
    import gc

    import keras

    held = []
    for x in range(times):
        held.append(grows(x)["rss"])
        keras.backend.clear_session(free_memory=False)
        gc.collect()
    return held


def in_a_kernel_to_be_killed(folder):
    """What a subprocess does that is killed in mid-search."""
    import obl_magic

    obl_magic.search(
        waits_for_ever, "x=int(0,100)", trials=6, minimize="loss", args={"folder": folder, "at": 3}, workers=1,
        engine="mpi", sampler="random", quiet=True, out="killed", seed=5,
    )  # fmt: skip


if __name__ == "__main__":
    import searched  # by its name, as the test that goes on with it knows the function

    searched.in_a_kernel_to_be_killed(sys.argv[1])
