"""Processes, threads and signal handlers of the user's: they work on ranks, and every run ends."""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from kernel import Cell, Kernel, gone

pytestmark = [pytest.mark.slow, pytest.mark.timing]

WITHIN_S = 40.0
"""A run whose function takes a moment has ended by then, on a machine with more ranks than processors."""
LEFT_S = 30.0
"""A run that leaves something behind has ended by then: its ranks get some seconds."""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """One kernel for the tests of this file, with the magics loaded and helpers of an earlier cell."""
    folder = tmp_path_factory.mktemp("notebook")
    with Kernel(folder, {"OBLIVIOUS_HOME": str(folder)}) as kernel:
        assert kernel.run("%load_ext obl_magic").ename == ""
        kernel.run(
            "def square(x):\n    return x * x\nclass Point:\n    def __init__(self, x):\n        self.x = x"
        )
        yield kernel


def ran(
    kernel: Kernel, body: str, options: str = "--workers 2 --engine mpi", within_s: float = WITHIN_S
) -> Cell:
    """The cell, which succeeded in time."""
    text = f"%%oblivious {options} --out run\n{textwrap.dedent(body).lstrip()}"
    cell = kernel.run(text, deadline_s=within_s)
    assert cell.ename == "", cell.traceback
    assert kernel.value("run.status") == "'succeeded'"
    return cell


def value(kernel: Kernel) -> str:
    """What the last run gave."""
    return kernel.value("run.value")


# Processes that the function starts and waits for


@pytest.mark.parametrize("options", ["--workers 1 --engine mpi", "--workers 2 --engine mpi", "--workers 2"])
def test_a_pool_maps_a_function_of_the_notebook(kernel: Kernel, options: str) -> None:
    """Forked, as by default on Linux, and pickled as in the kernel, with an object of the notebook's own class."""
    ran(
        kernel,
        """
        def train():
            from multiprocessing import Pool
            with Pool(2) as pool:
                return pool.map(square, range(4)), [p.x for p in pool.map(Point, [5, 6])]
        """,
        options,
    )
    assert value(kernel) == "([0, 1, 4, 9], [5, 6])"


def test_a_kernel_that_is_stopped_for_longer_than_any_deadline_ends_no_run(tmp_path: Path) -> None:
    """As by a debugger, a frozen container, or a laptop that is closed: its ranks go on, and so does the run."""
    body = """
        %%oblivious --workers 2 --engine mpi --timeout 9 --stall-timeout 4 --out run
        def train():
            import time, obl_magic
            obl_magic.report(started=1)
            for step in range(12):
                time.sleep(1)
                obl_magic.report(loss=step)
            return step
        """
    with Kernel(tmp_path, {"OBLIVIOUS_HOME": str(tmp_path)}) as kernel:
        kernel.run("%load_ext obl_magic")
        sent = kernel.start(textwrap.dedent(body).lstrip())
        kernel.finish(sent, until=lambda cell: "started" in str(cell.outputs))
        kernel.process.suspend()
        time.sleep(8)  # the test is what passes meanwhile
        kernel.process.resume()
        cell = kernel.finish(sent, deadline_s=WITHIN_S)
        assert cell.ename == "", cell.traceback
        assert kernel.value("run.status, run.value") == "('succeeded', 11)"


def test_an_executor_of_processes_and_one_of_threads(kernel: Kernel) -> None:
    """As preprocessing is written."""
    ran(
        kernel,
        """
        def train():
            from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
            with ProcessPoolExecutor(max_workers=2) as processes, ThreadPoolExecutor(2) as threads:
                return list(processes.map(square, [1, 2, 3])) + list(threads.map(square, [4]))
        """,
    )
    assert value(kernel) == "[1, 4, 9, 16]"


def test_a_process_with_a_queue(kernel: Kernel) -> None:
    """A producer of the user's."""
    ran(
        kernel,
        """
        def produce(queue):
            for number in range(3):
                queue.put(number)
            queue.put(None)

        def train():
            import multiprocessing as mp
            queue = mp.Queue()
            producer = mp.Process(target=produce, args=(queue,))
            producer.start()
            got = list(iter(queue.get, None))
            producer.join()
            return got, producer.exitcode
        """,
    )
    assert value(kernel) == "([0, 1, 2], 0)"


def test_a_pydataset_that_reads_with_processes(kernel: Kernel) -> None:
    """Its batches come from forked children; the numbers are the single process's."""
    body = """
        import keras, numpy as np
        class Rows(keras.utils.PyDataset):
            def __len__(self):
                return 4
            def __getitem__(self, index):
                x = np.arange(8 * index, 8 * index + 8, dtype="float32").reshape(8, 1) / 32
                return x, 3 * x

        def train():
            keras.utils.set_random_seed(1)
            model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
            model.compile("sgd", "mse")
            data = Rows(workers=2, use_multiprocessing=True, max_queue_size=2)
            return model.fit(data, epochs=2, shuffle=False, verbose=0).history["loss"]
        """
    ran(kernel, body, "--workers 1 --engine mpi", 60)
    kernel.run("alone = run.value")
    ran(kernel, body, within_s=90)
    assert kernel.value("max(abs(a - b) for a, b in zip(alone, run.value)) < 1e-6") == "True"


def test_joblib_and_scikit_learn_with_two_jobs(kernel: Kernel) -> None:
    """Their workers stay for a while by design; the run does not wait for them."""
    ran(
        kernel,
        """
        def train():
            from joblib import Parallel, delayed
            from sklearn.datasets import load_iris
            from sklearn.linear_model import LogisticRegression
            from sklearn.model_selection import cross_val_score
            x, y = load_iris(return_X_y=True)
            scores = cross_val_score(LogisticRegression(max_iter=500), x, y, cv=3, n_jobs=2)
            return Parallel(n_jobs=2)(delayed(square)(i) for i in range(3)), len(scores)
        """,
        within_s=90,
    )
    assert value(kernel) == "([0, 1, 4], 3)"


def test_what_reads_its_input_gets_the_end_of_a_file(kernel: Kernel) -> None:
    """The ranks' orders come another way, and a child that reads standard input takes none of them."""
    ran(
        kernel,
        """
        def train():
            import subprocess, sys
            try:
                typed = input("name? ")
            except EOFError:
                typed = "the end"
            read = subprocess.run(["cat"], capture_output=True, text=True).stdout
            return typed, read, sys.stdin.read()
        """,
    )
    assert value(kernel) == "('the end', '', '')"


# What still runs when the function has returned


def test_threads_and_jobs_of_executors_end_before_their_rank(kernel: Kernel) -> None:
    """A saver that is still writing is waited for, as by an interpreter."""
    ran(
        kernel,
        """
        import threading, time
        from concurrent.futures import ThreadPoolExecutor
        def save(name):
            time.sleep(1.5)
            open(name, "w").write("whole")

        def train(folder="."):
            threading.Thread(target=save, args=("by-thread",)).start()
            ThreadPoolExecutor(1).submit(save, "by-executor")
            return 1
        """,
        "--workers 1 --engine mpi",
    )
    assert (kernel.cwd / "by-thread").read_text() == "whole"
    assert (kernel.cwd / "by-executor").read_text() == "whole"


LEAVES = {
    "an exit handler that hangs": """
        def train():
            import atexit, time
            atexit.register(time.sleep, 600)
            return 3
        """,
    "a thread that never ends": """
        def train():
            import threading
            threading.Thread(target=threading.Event().wait).start()
            return 3
        """,
    "processes of every kind": """
        def train():
            import multiprocessing, os, subprocess, time
            multiprocessing.Process(target=time.sleep, args=(600,), daemon=True).start()
            subprocess.Popen(["sleep", "600"])
            subprocess.Popen(["/bin/sleep", "600"], env={}, start_new_session=True)
            if os.fork() == 0:
                os.setsid()
                if os.fork():
                    os._exit(0)
                time.sleep(600)
                os._exit(0)
            if os.fork() == 0:
                time.sleep(600)
                os._exit(0)
            return 3
        """,
    "a process that is joined at exit": """
        def train():
            import multiprocessing, time
            multiprocessing.Process(target=time.sleep, args=(600,)).start()
            return 3
        """,
}


@pytest.mark.parametrize("what", LEAVES)
def test_a_run_all_of_whose_ranks_have_returned_has_succeeded(kernel: Kernel, what: str) -> None:
    """Whatever is left is ended after some seconds, and a note says what it was."""
    cell = ran(kernel, LEAVES[what], within_s=LEFT_S + WITHIN_S)
    assert value(kernel) == "3"
    assert cell.seconds < LEFT_S
    assert gone(kernel.children(), 3)
    assert kernel.value("bool(run.notes)") == "True"


def test_a_fit_in_a_thread_of_its_own_is_an_ordinary_one(kernel: Kernel) -> None:
    """As where a window stays alive while it trains."""
    ran(
        kernel,
        """
        import keras, numpy as np
        def train():
            import threading
            def fit():
                keras.utils.set_random_seed(1)
                model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
                model.compile("sgd", "mse")
                got.append(model.fit(np.ones((8, 2)), np.ones((8, 1)), verbose=0).history["loss"])
            got = []
            for _ in range(2):
                thread = threading.Thread(target=fit)
                thread.start()
                thread.join()
            return got
        """,
    )
    assert kernel.value("len(run.value), run.value[0] == run.value[1]") == "(2, True)"


def test_two_fits_in_threads_are_refused_by_name(kernel: Kernel) -> None:
    """Never a hang: exchanges of two threads would meet each other."""
    cell = kernel.run(
        "%%oblivious --workers 2 --engine mpi --out run\n"
        + textwrap.dedent(
            """
            import keras, numpy as np
            def fit(_):
                model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
                model.compile("sgd", "mse")
                model.fit(np.ones((8, 2)), np.ones((8, 1)), verbose=0)

            def train():
                from concurrent.futures import ThreadPoolExecutor
                with ThreadPoolExecutor(2) as pool:
                    return list(pool.map(fit, range(2)))
            """
        ),
        deadline_s=WITHIN_S,
    )
    assert cell.ename == "NotOblivious"
    assert "two threads of the function use models at the same time" in cell.evalue
    assert gone(kernel.children(), 3)


# What fails outside the function


def test_an_argument_that_cannot_be_made_on_one_rank_ends_the_run(kernel: Kernel) -> None:
    """The other is in a collective by then; it does not wait until ``--timeout``."""
    kernel.run(
        textwrap.dedent(
            """
            import os
            def made():
                if os.environ.get("OMPI_COMM_WORLD_RANK") == "1":
                    raise RuntimeError("not on this rank")
                return 1
            class Odd:
                def __reduce__(self):
                    return made, ()
            odd = Odd()
            """
        )
    )
    cell = kernel.run(
        "%%oblivious --workers 2 --engine mpi\ndef train(odd=odd):\n"
        "    from mpi4py import MPI\n    return MPI.COMM_WORLD.allreduce(1)",
        deadline_s=WITHIN_S,
    )
    assert "not on this rank" in cell.evalue + cell.traceback
    assert gone(kernel.children(), 3)


def test_a_signal_handler_that_prints_interrupts_a_print(kernel: Kernel) -> None:
    """As a clock of the user's that reports does."""
    ran(
        kernel,
        """
        def train():
            import signal, time
            def tick(*_):
                print("tick", flush=True)
            signal.signal(signal.SIGALRM, tick)
            signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
            until = time.monotonic() + 3
            while time.monotonic() < until:
                print("busy", flush=True)
            signal.setitimer(signal.ITIMER_REAL, 0)
            return 1
        """,
        "--workers 1 --engine mpi --quiet",
    )
    assert value(kernel) == "1"


def test_an_mpi_that_cannot_start_is_said(kernel: Kernel) -> None:
    """Nothing hangs, and nothing is left."""
    kernel.run("import os; os.environ['OMPI_MCA_pml'] = 'nonsense'")
    try:
        cell = kernel.run("%%oblivious --workers 2 --engine mpi\ndef train():\n    return 1", deadline_s=120)
    finally:
        kernel.run("del os.environ['OMPI_MCA_pml']")
    assert cell.ename != "" or "UsageError" in cell.text
    assert gone(kernel.children(), 5)


@pytest.mark.parametrize("environment", ["None", "{}"], ids=["ours", "empty"])
def test_children_of_ranks_end_with_a_killed_kernel(tmp_path: Path, environment: str) -> None:
    """Whatever environment and session they have."""
    body = f"""
        %%oblivious --workers 2 --engine mpi
        def train():
            import subprocess, os
            child = subprocess.Popen(["/bin/sleep", "600"], env={environment}, start_new_session=True)
            name = "child-" + os.environ["OMPI_COMM_WORLD_RANK"]
            open(name + ".tmp", "w").write(str(child.pid))
            os.rename(name + ".tmp", name)
            child.wait()
        """
    with Kernel(tmp_path, {"OBLIVIOUS_HOME": str(tmp_path)}) as kernel:
        kernel.run("%load_ext obl_magic")
        kernel.start(textwrap.dedent(body).lstrip())
        until = time.monotonic() + WITHIN_S
        files = [tmp_path / "child-0", tmp_path / "child-1"]
        while not all(file.exists() for file in files) and time.monotonic() < until:
            time.sleep(0.05)
        children = [psutil.Process(int(file.read_text())) for file in files]
        left = [*kernel.children(), *children]
        os.kill(kernel.process.pid, 9)
        assert gone(left, 10)
