"""What a user of the magics sees, in a real kernel with real ranks."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel import Cell, Kernel, gone

from obl_magic.events.event import Failed
from obl_magic.events.log import read

pytestmark = [pytest.mark.slow, pytest.mark.timing]

TWO = "--workers 2 --engine mpi"
ONE = "--workers 1 --engine mpi"
UNDER_LOAD = 3
"""How many times longer than promised something may take here, where tests share the cores with others."""

SEES_PROCESSES = """
import sys
started = []
sys.addaudithook(lambda event, args: started.append(args[1]) if event == "subprocess.Popen" else None)
"""


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """One kernel for the tests of this file, with the magics loaded."""
    folder = tmp_path_factory.mktemp("notebook")
    with Kernel(folder, {"OBLIVIOUS_HOME": str(folder)}) as kernel:
        assert kernel.run("%load_ext obl_magic").ename == ""
        kernel.run(SEES_PROCESSES)
        yield kernel


def magic(options: str, body: str) -> str:
    """A cell with the magic on its first line."""
    return f"%%oblivious {options}\n{body}"


def succeed(kernel: Kernel, code: str) -> Cell:
    """The cell, which raised nothing."""
    cell = kernel.run(code)
    assert cell.ename == "", cell.traceback
    assert "UsageError" not in cell.text
    return cell


def run_folders(kernel: Kernel) -> set[Path]:
    """The folders of all runs so far."""
    runs = kernel.cwd / "runs"
    return set(runs.iterdir()) if runs.is_dir() else set()


def refused(kernel: Kernel, code: str) -> str:
    """The one line that a cell is refused with, after which nothing was started and no run folder is there."""
    before, _ = run_folders(kernel), kernel.run("started.clear()")
    cell = kernel.run(code)
    assert cell.stream("stdout") == ""
    assert cell.displays == []
    assert cell.traceback == ""
    assert kernel.value("started") == "[]"
    assert run_folders(kernel) == before
    line = cell.stream("stderr")
    assert line.startswith("UsageError: ")
    assert line.count("\n") == 1
    return line.removeprefix("UsageError: ").rstrip("\n")


# What runs


def test_the_last_def_of_the_cell_runs_and_the_others_are_its_helpers(kernel: Kernel) -> None:
    """Classes and nested functions are no candidates."""
    body = "def helper():\n    return 7\n\ndef train():\n    def inner(): ...\n    return helper()\n\nclass Z: ...\n"
    succeed(kernel, magic(f"{TWO} --out run", body))
    assert kernel.value("run.value, run.record.function") == "(7, 'train')"


def test_function_names_another_function_of_the_cell(kernel: Kernel) -> None:
    """--function goes before the last def."""
    succeed(
        kernel,
        magic("--function first --out run", "def first():\n    return 1\n\ndef second():\n    return 2\n"),
    )
    assert kernel.value("run.value") == "1"


@pytest.mark.parametrize(
    "code", ["%%oblivious --function earlier --out run", "%oblivious --function earlier -o run"]
)
def test_function_alone_runs_one_of_an_earlier_cell(kernel: Kernel, code: str) -> None:
    """No body is needed, which IPython refuses of other cell magics."""
    kernel.run("def earlier():\n    return 'earlier'\nrun = None")
    succeed(kernel, code)
    assert kernel.value("run.value") == "'earlier'"


def test_the_cell_is_executed_first_as_any_cell_is(kernel: Kernel) -> None:
    """Its definitions land in the namespace, its prints in the output, and the function is a plain one afterwards."""
    cell = succeed(
        kernel,
        magic(
            TWO, "side = 7\nprint('of the cell')\ndef train(lr=0.5):\n    print('of a rank')\n    return lr\n"
        ),
    )
    assert cell.stream("stdout") == "of the cell\nof a rank\n"
    assert kernel.value("side, train(), train(lr=2)").splitlines()[-1] == "(7, 0.5, 2)"


def test_arguments_are_literals_or_what_ipython_expands(kernel: Kernel) -> None:
    """{expr} and $name are the notebook's."""
    kernel.run("rate, layers = 0.25, [1, 2]")
    options = f'{ONE} --arg lr=$rate -a "sizes={{layers}}" -a n={{1+1}} -a "name=\'a b\'" -a flag=None'
    succeed(
        kernel,
        magic(
            f"{options} --out run",
            "def train(lr, sizes, n=0, name='', flag=1):\n    return lr, sizes, n, name, flag",
        ),
    )
    assert kernel.value("run.value") == "(0.25, [1, 2], 2, 'a b', None)"


def test_the_run_is_the_cells_value_and_bound_to_out(kernel: Kernel) -> None:
    """`_` holds it."""
    succeed(kernel, magic(f"{ONE} --out run", "def train():\n    return 3"))
    assert kernel.value("_ is run, run.value, run.status") == "(True, 3, 'succeeded')"


@pytest.mark.parametrize("options", ["", ONE])
def test_out_is_bound_also_when_the_run_fails(kernel: Kernel, options: str) -> None:
    """What was reported before the failure is there."""
    kernel.run("bad = None")
    body = "from obl_magic import report\ndef train():\n    report(loss=1.5)\n    raise ValueError('ouch')"
    cell = kernel.run(magic(f"{options} --out bad", body))
    assert (cell.ename, cell.evalue) == ("ValueError", "ouch")
    assert (
        kernel.value("bad.status, type(bad.error), list(bad.metrics.value)")
        == "('failed', <class 'ValueError'>, [1.5])"
    )


def test_the_digest_is_that_of_the_source_with_and_without_workers(kernel: Kernel) -> None:
    """sha256 of inspect.getsource, the same in every mode and on every rank."""
    body = "@staticmethod\n\ndef decoy(): ...\n\ndef train(lr=0.1):\n    # a comment\n    return lr\n"
    source = "def train(lr=0.1):\n    # a comment\n    return lr\n"
    expected = hashlib.sha256(source.encode()).hexdigest()
    cell = succeed(kernel, magic(f"{TWO} --out many", body))
    succeed(kernel, "%%oblivious --function train --out one")
    assert kernel.value("many.digest, one.digest") == str((expected, expected))
    assert kernel.value("{rank.digest for rank in many.ledger.state.ranks.values() if rank.pid}") == str(
        {expected}
    )
    assert f"sha256 {expected[:12]}" in cell.displays[0]["text/plain"]


def test_what_other_cells_define_travels(kernel: Kernel) -> None:
    """Helpers, classes and their parents, closures, lambdas, default values."""
    kernel.run(
        "class Base:\n    def greet(self):\n        return 'hello ' + self.name\nclass Child(Base):\n    name = 'child'"
    )
    kernel.run(
        "def adder(n):\n    def add(x):\n        return x + n\n    return add\nadd3 = adder(3)\ntwice = lambda x: 2 * x"
    )
    kernel.run(
        "import math as maths\ntable = {'a': [1, 2]}\n"
        "def helper(x, add=add3):\n    return twice(add(x)) + maths.floor(1.5)"
    )
    succeed(
        kernel,
        magic(
            f"{TWO} --out run",
            "def train(kind=Child, t=table):\n    return kind().greet(), helper(1), t['a'][1]",
        ),
    )
    assert kernel.value("run.values") == str([("hello child", 9, 2)] * 2)


@pytest.mark.parametrize("options", ["", TWO])
def test_parameters_without_default_are_filled_by_name(kernel: Kernel, options: str) -> None:
    """Functions and values of the notebook, the reporter, and the hyperparameters."""
    kernel.run("def model_fn(n):\n    return ['layer'] * n\nclasses = 10")
    body = (
        "def train(model_fn, classes, reporter, hparams, lr=0.1, n=2):\n"
        "    reporter(loss=0.5, step=3)\n    return model_fn(n), classes, hparams\n"
    )
    succeed(kernel, magic(f"{options} -a n=1 --out run", body))
    assert kernel.value("run.value") == str((["layer"], 10, {"lr": 0.1, "n": 1}))
    assert (
        kernel.value(
            "{(name, int(step), value) for name, step, value in run.metrics[['name', 'step', 'value']].values}"
        )
        == "{('loss', 3, 0.5)}"
    )


def test_report_speaks_inside_a_run_and_is_silent_outside(kernel: Kernel) -> None:
    """The same function runs anywhere."""
    body = (
        "from obl_magic import report\n"
        "def train():\n    report(loss=0.25, step=1, epoch=1)\n    return report(done=True)\n"
    )
    succeed(kernel, magic(f"{TWO} --out run", body))
    columns = "[['rank', 'epoch', 'step', 'name', 'value']]"
    rows = f"[tuple(row) for row in run.metrics.sort_values(['rank', 'name']){columns}.values]"
    plain = kernel.value(rows).replace("<NA>", "None")
    assert plain == str(
        [(r, *rest) for r in (0, 1) for rest in ((None, None, "done", 1.0), (1, 1, "loss", 0.25))]
    )
    cell = succeed(kernel, "train()")
    assert (cell.outputs, cell.displays) == ([], [])


@pytest.mark.parametrize("options", ["", ONE])
@pytest.mark.parametrize(
    ("returned", "shown"),
    [
        ("0.0", "0.0"),
        ("float('nan')", "nan"),
        ("{'loss': 0.5, 'n': [1]}", "{'loss': 0.5, 'n': [1]}"),
        ("None", "None"),
        ("np.float32(0.5)", "np.float32(0.5)"),
    ],
)
def test_any_value_comes_back_as_it_is(kernel: Kernel, options: str, returned: str, shown: str) -> None:
    """Zero, NaN and None are values like others; NumPy's scalars stay NumPy's."""
    succeed(
        kernel,
        magic(f"{options} --quiet --out run", f"import numpy as np\ndef train():\n    return {returned}"),
    )
    assert kernel.value("run.value") == shown
    assert kernel.value("run.status") == "'succeeded'"
    assert kernel.value("type(run).open(run.id).value") == shown


# What is refused, in one line, before anything is started


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("--workrs 2", "got %%oblivious --workrs 2 (unrecognized arguments: --workrs); "
         "expected the options that %%oblivious? lists; do: %%oblivious --workers 2"),
        ("--workers", "got %%oblivious --workers (argument -w/--workers: expected one argument); "
         "expected the options that %%oblivious? lists; do: %%oblivious --workers 2"),
        ("--workers two", "got %%oblivious --workers two (argument -w/--workers: invalid int value: 'two'); "
         "expected the options that %%oblivious? lists; do: %%oblivious --workers 2"),
        ("--workers 0", "got --workers 0; expected a whole number of ranks, 1 or more; do: --workers 2"),
        ("--workers -1", "got --workers -1; expected a whole number of ranks, 1 or more; do: --workers 2"),
        ("--workers 2 --engine nccl", "got --engine nccl; expected auto, horovod or mpi; do: --engine auto"),
        ("2 workers", "got '2 workers' in %%oblivious; "
         "expected options that begin with --; do: %%oblivious --workers 2"),
        ("--out 1x", "got --out 1x; expected a Python name; do: --out run"),
        ("--out class", "got --out class; expected a Python name; do: --out run"),
        ("-a lr", "got --arg lr; expected name=value with a Python literal (text in quotes); "
         "do: --arg lr=0.1 --arg \"act='relu'\""),
        ("-a lr=open('x')", "got --arg lr=open('x'); expected name=value with a Python literal (text in quotes); "
         "do: --arg lr=0.1 --arg \"act='relu'\""),
        ("-a 'lr=1", "got %%oblivious -a 'lr=1 (No closing quotation); "
         "expected the options that %%oblivious? lists; do: %%oblivious --workers 2"),
        ("--function trian", "got --function trian; "
         "expected a function of this notebook; do: define it in a cell first"),
    ],
)  # fmt: skip
def test_a_bad_option_is_one_line(kernel: Kernel, options: str, line: str) -> None:
    """What was given, what was expected, an example."""
    assert refused(kernel, magic(options, "def train(lr=0.1):\n    return lr")) == line


@pytest.mark.parametrize(
    ("options", "got", "expected"),
    [
        ("--timeout 0", "timeout", "seconds, more than 0"),
        ("--timeout nan", "timeout", "seconds, more than 0"),
        ("--seed -1", "seed", "a whole number, 0 or more"),
        ("--show-ranks 5", "show_ranks", "all, or ranks between 0 and 1 with commas"),
        ("--show-ranks x", "show_ranks", "all, or ranks between 0 and 1 with commas"),
        ("-a epochs=3", "'epochs', which train does not take", "one of its parameters: lr"),
    ],
)
def test_a_value_out_of_range_is_one_line(kernel: Kernel, options: str, got: str, expected: str) -> None:
    """What was given, what was expected, an example."""
    line = refused(kernel, magic(f"{TWO} {options}", "def train(lr=0.1):\n    return lr"))
    assert line.startswith("got ")
    assert got in line
    assert f"; expected {expected}; do: " in line


def test_a_batch_of_another_kind_is_one_line(kernel: Kernel) -> None:
    """The two that there are are named."""
    line = refused(kernel, magic(f"{TWO} --batch half", "def train(lr=0.1):\n    return lr"))
    assert "'half'" in line
    assert "expected global or per-worker" in line


def test_background_needs_ranks(kernel: Kernel) -> None:
    """The kernel itself cannot run a function beside the notebook."""
    line = refused(kernel, magic("--background", "def train(lr=0.1):\n    return lr"))
    assert line == "got background without workers; expected a number of workers; do: workers=1"


@pytest.mark.parametrize("code", ["%%oblivious --workers 2\nx = 1", "%%oblivious --workers 2"])
def test_a_cell_without_a_def_is_one_line(kernel: Kernel, code: str) -> None:
    """It says both ways to name a function: what was typed, and the notebook's newest function."""
    succeed(kernel, "def lately(lr=0.1):\n    return lr")
    assert refused(kernel, code) == (
        "got a cell without a def; expected a training function in the cell, or --function NAME; "
        "do: %%oblivious --workers 2 --function lately"
    )
    succeed(kernel, "del lately")


def test_options_on_a_line_of_their_own_are_one_line_with_what_to_add(kernel: Kernel) -> None:
    """All that was typed is in what to do."""
    succeed(kernel, "def lately(lr=0.1):\n    return lr")
    asked = '%oblivious --search "lr=log(1e-4,1e-1)" --maximize value'
    assert refused(kernel, asked) == (
        f"got {asked}, on a line of its own; expected a training function in the cell, or --function NAME; "
        f"do: {asked} --function lately"
    )
    succeed(kernel, "del lately")


def test_a_parameter_that_nobody_fills_is_one_line(kernel: Kernel) -> None:
    """With the names that are nearly right."""
    kernel.run("def dataset_fn(): ...")
    assert refused(kernel, magic(TWO, "def train(dataset, lr=0.1):\n    return lr")) == (
        "got train(dataset, ...), where nothing is called 'dataset' (there is dataset_fn); expected a value for the "
        "parameter 'dataset', which has no default; do: define dataset in a cell before, or give it a default: "
        "def train(dataset=...), or pass it: provide={'dataset': ...}"
    )


def test_something_that_cannot_be_pickled_is_one_line_with_its_path(kernel: Kernel) -> None:
    """How the function reaches it, its type, and what to do."""
    kernel.run("import threading\nlock = threading.Lock()\ndef helper():\n    return lock")
    line = refused(kernel, magic(TWO, "def train():\n    with helper():\n        pass"))
    assert line == (
        "cannot send train -> helper -> lock (a _thread.lock) to the ranks: cannot pickle '_thread.lock' object; "
        "do: create it inside the function: every rank is a process of its own and shares no lock, thread or queue"
    )


def test_in_the_kernel_the_same_function_needs_no_pickling(kernel: Kernel) -> None:
    """Nothing is sent anywhere."""
    kernel.run("import threading\nlock = threading.Lock()")
    succeed(kernel, magic("--out run", "def train():\n    with lock:\n        return 1"))
    assert kernel.value("run.value") == "1"


def test_an_error_in_the_cells_body_is_an_ordinary_error(kernel: Kernel) -> None:
    """Shown once, at the line that the user sees, and nothing runs."""
    before = run_folders(kernel)
    cell = kernel.run(magic(TWO, "def train():\n    return 1\n\n1 / 0\n"))
    assert cell.ename == "ZeroDivisionError"
    assert [output["output_type"] for output in cell.outputs] == ["error"]
    assert f"Cell In[{cell.number}], line 5" in cell.traceback
    assert "----> 5 1 / 0" in cell.traceback
    assert run_folders(kernel) == before


def test_a_syntax_error_in_the_cells_body_is_shown_once_at_its_line(kernel: Kernel) -> None:
    """Counted from the magic's own line."""
    cell = kernel.run(magic(TWO, "def train():\n    return 1\n\nx y\n"))
    assert cell.ename == "SyntaxError"
    assert [output["output_type"] for output in cell.outputs] == ["error"]
    assert f"Cell In[{cell.number}], line 5\n    x y\n" in cell.traceback


# What fails on a rank


FAILS = """

def train():
    from mpi4py import MPI
    if MPI.COMM_WORLD.rank == 1:
        raise KeyError("no such column")
    MPI.COMM_WORLD.Barrier()
"""


@pytest.mark.parametrize("blank_lines", [0, 2])
def test_an_exception_on_a_rank_is_one_of_the_cell_with_its_line(kernel: Kernel, blank_lines: int) -> None:
    """Within a second: the type, the rank, the cell's line as the user counts it, the others folded; nobody is left."""
    code = magic(f"{TWO} --out run", "\n" * blank_lines + FAILS.lstrip())
    cell = kernel.run(code)
    line = code.splitlines().index('        raise KeyError("no such column")') + 1
    place = f"In [{cell.number}], line {line}"
    assert (cell.ename, cell.evalue) == ("KeyError", "'no such column'")
    assert cell.traceback == (
        f"rank 1 raised at {place}:\n\nTraceback (most recent call last):\n  {place}, in train\n"
        "    raise KeyError(\"no such column\")\nKeyError: 'no such column'\n\n(rank 0: stopped)"
    )
    (failed,) = [event for event in events(kernel) if isinstance(event, Failed)]
    assert failed.where == place
    assert cell.ended_s - failed.time_s < 1 * UNDER_LOAD
    assert kernel.children() == []


def test_a_traceback_goes_through_helpers_of_other_cells(kernel: Kernel) -> None:
    """Each frame is named after its own cell, with its source line, and none of ours is among them."""
    helper = kernel.run("# a helper\ndef divide(a, b):\n    return a / b")
    cell = kernel.run(magic(ONE, "def train():\n    return divide(1, 0)\n"))
    assert cell.ename == "ZeroDivisionError"
    assert f"In [{cell.number}], line 3, in train\n    return divide(1, 0)" in cell.traceback
    assert f"In [{helper.number}], line 3, in divide\n    return a / b" in cell.traceback
    assert "obl_magic" not in cell.traceback


def test_ranks_that_raise_the_same_are_folded_into_one_line(kernel: Kernel) -> None:
    """One traceback, not one per rank."""
    cell = kernel.run(magic(TWO, "def train():\n    raise ValueError('everywhere')"))
    assert cell.traceback.count("ValueError: everywhere") == 1
    assert cell.traceback.splitlines()[-1] in ("(rank 1: raised the same)", "(rank 0: raised the same)")


def dying(how: str) -> str:
    """A function whose rank 1 goes without a word, right after it printed the time."""
    return (
        "def train():\n    import ctypes, os, signal, time\n    from mpi4py import MPI\n"
        "    if MPI.COMM_WORLD.rank == 1:\n        print('last words')\n        print(time.time(), flush=True)\n"
        f"        {how}\n    MPI.COMM_WORLD.recv(source=1)\n"
    )


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "rank 1 died: signal 9 (Killed)"),
        ("ctypes.string_at(0)", "rank 1 died: signal 11 (Segmentation fault)"),
        ("os._exit(7)", "rank 1 died: exit code 7"),
        ("os._exit(0)", "rank 1 died: it left before the function had returned (exit code 0)"),
    ],
)
def test_a_rank_that_dies_is_named_with_its_last_words(kernel: Kernel, how: str, said: str) -> None:
    """Within two seconds: which rank, how, its last lines; nobody is left, and no frame of ours is shown."""
    cell = kernel.run(magic(f"{TWO} --out run", dying(how)))
    assert cell.ename == "RankDied"
    first, second, third, last = cell.evalue.splitlines()
    assert (first, second, third) == (said, "last lines of its output:", "  last words")
    assert cell.traceback == f"RankDied: {cell.evalue}"
    assert cell.ended_s - float(last) < 2 * UNDER_LOAD
    assert kernel.children() == []
    assert kernel.value("run.status") == "'failed'"


def test_a_run_past_its_timeout_is_stopped(kernel: Kernel) -> None:
    """It says so, and keeps what was reported."""
    body = "import time\nfrom obl_magic import report\ndef train():\n    report(loss=1)\n    time.sleep(60)"
    cell = kernel.run(magic(f"{TWO} --timeout 1.5 --out run", body))
    assert cell.traceback == "RunTimedOut: the run passed its timeout of 1.5 s"
    assert kernel.children() == []
    assert kernel.value("run.status") == "'timed out'"


def events(kernel: Kernel) -> list[object]:
    """The events of the run bound to ``run`` in the kernel."""
    return list(read(Path(json.loads(kernel.value("str(run.dir)").replace("'", '"'))) / "events.jsonl"))


# What an interrupt does

WAITS = """from obl_magic import report
def train():
    import ctypes, time
    report(loss=0.5)
    print('waiting', flush=True)
    {}
"""


def is_waiting(cell: Cell) -> bool:
    """Whether the function of :data:`WAITS` has come to its last line."""
    return "waiting" in cell.text


@pytest.mark.parametrize(
    "waiting",
    [
        "time.sleep(60)",
        "__import__('mpi4py.MPI').MPI.COMM_WORLD.recv(source=0, tag=9)",
        "ctypes.PyDLL(None).sleep(60)",
    ],
)
def test_an_interrupt_ends_a_launched_run_wherever_the_ranks_are(kernel: Kernel, waiting: str) -> None:
    """In Python, in a collective, in C code that holds Python's lock: gone within 5 s, partial metrics kept."""
    cell = kernel.run(magic(f"{TWO} --out run", WAITS.format(waiting)), interrupt_after=is_waiting)
    assert cell.traceback == "KeyboardInterrupt"
    assert cell.after_interrupt_s is not None
    assert cell.after_interrupt_s < 5
    assert kernel.children() == []
    assert kernel.value("run.status, list(run.metrics.value)[0]") == "('interrupted', 0.5)"


def test_an_interrupt_ends_a_run_in_the_kernel(kernel: Kernel) -> None:
    """With an ordinary traceback to the cell's line, and partial metrics."""
    cell = kernel.run(magic("--out run", WAITS.format("time.sleep(60)")), interrupt_after=is_waiting)
    assert cell.ename == "KeyboardInterrupt"
    assert f"Cell In[{cell.number}], line " in cell.traceback
    assert ", in train()\n" in cell.traceback
    assert kernel.value("run.status, list(run.metrics.value)") == "('interrupted', [0.5])"


@pytest.mark.parametrize("delay_s", [0.0, 0.01, 0.05, 0.2])
def test_an_interrupt_while_ranks_are_being_launched_ends_the_run(kernel: Kernel, delay_s: float) -> None:
    """Half a world is nobody's: the run is over, as interrupted, and no process is left."""
    kernel.run("run = None")
    shown: list[float] = []

    def is_launching(cell: Cell) -> bool:
        shown.extend([time.monotonic()] if cell.drawn and not shown else [])
        return bool(shown) and time.monotonic() - shown[0] >= delay_s

    cell = kernel.run(
        magic(f"{TWO} --out run", "import time\ndef train():\n    time.sleep(60)"),
        interrupt_after=is_launching,
    )
    assert cell.ename == "KeyboardInterrupt"
    assert kernel.children() == []
    assert kernel.value("run.status") == "'interrupted'"


@pytest.mark.parametrize("waiting", ["time.sleep(600)", "ctypes.PyDLL(None).sleep(600)"])
def test_no_worker_survives_its_kernel(tmp_path: Path, waiting: str) -> None:
    """Killed without a word, it is followed by its ranks and their launcher within 5 s.

    What Open MPI does not tidy up when it is ended so goes to a folder that the test tidies up.
    """
    scratch = {"TMPDIR": str(tmp_path), "OMPI_MCA_btl_sm_backing_directory": str(tmp_path)}
    with Kernel(tmp_path, {"OBLIVIOUS_HOME": str(tmp_path), **scratch}) as kernel:
        kernel.run("%load_ext obl_magic")
        kernel.finish(kernel.start(magic(TWO, WAITS.format(waiting))), until=is_waiting)
        workers = kernel.children()
        assert len(workers) >= 3
        kernel.kill()
        assert gone(workers, within_s=5)


@pytest.mark.parametrize("options", [TWO, f"{TWO} --background"], ids=["cell under way", "background"])
def test_a_restarted_kernel_leaves_no_worker_and_works_again(tmp_path: Path, options: str) -> None:
    """As Kernel ▸ Restart does it: gone within 5 s, and the next cell has a world of its own."""
    scratch = {"TMPDIR": str(tmp_path), "OMPI_MCA_btl_sm_backing_directory": str(tmp_path)}
    with Kernel(tmp_path, {"OBLIVIOUS_HOME": str(tmp_path), **scratch}) as kernel:
        kernel.run("%load_ext obl_magic")
        code = magic(f"{options} --out run", WAITS.format("time.sleep(600)"))
        kernel.finish(kernel.start(code), until=is_waiting)
        if "--background" in options:
            kernel.run("while 'waiting' not in run.logs(1):\n    run.wait(0.01)")
        workers = kernel.children()
        assert len(workers) >= 3
        kernel._manager.restart_kernel()
        assert gone(workers, within_s=5)
        kernel._client.wait_for_ready(timeout=60)
        kernel.run("%load_ext obl_magic")
        succeed(kernel, magic(f"{TWO} --out run", "def train():\n    return 'again'"))
        assert kernel.value("run.values") == "['again', 'again']"


# What is shown


def test_in_the_kernel_the_function_prints_reports_and_returns_as_on_a_rank(kernel: Kernel) -> None:
    """The same Run: prints, logs, metrics, value, status."""
    body = (
        "import sys\ndef train(reporter):\n    print('out')\n    print('err', file=sys.stderr)\n"
        "    reporter(loss=0.5)\n    return {'loss': 0.5}\n"
    )
    cell = succeed(kernel, magic("--out run", body))
    assert (cell.stream("stdout"), cell.stream("stderr")) == ("out\n", "err\n")
    assert kernel.value("run.logs(0), run.value, run.values") == str(
        ("out\nerr\n", {"loss": 0.5}, [{"loss": 0.5}])
    )
    assert kernel.value("run.status, run.workers, run.engine") == "('succeeded', None, 'inline')"
    assert kernel.value("list(run.metrics.name), list(run.metrics.value)") == "(['loss'], [0.5])"


def test_a_run_in_the_kernel_leaves_the_random_generators_as_they_were(kernel: Kernel) -> None:
    """The run's seed is the run's."""
    kernel.run(
        "import random, numpy as np\nrandom.seed(5); np.random.seed(5); a = random.random(), np.random.rand()"
    )
    kernel.run("random.seed(5); np.random.seed(5)")
    succeed(kernel, magic("", "def train():\n    return random.random(), np.random.rand()"))
    assert kernel.value("a == (random.random(), np.random.rand())") == "True"


PRINTS = "def train():\n    from mpi4py import MPI\n    print('I am', MPI.COMM_WORLD.rank)"


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ("", ["I am 0"]),
        ("--show-ranks 1", ["I am 1"]),
        ("--show-ranks all", ["[rank 0] I am 0", "[rank 1] I am 1"]),
        ("--show-ranks 0,1", ["[rank 0] I am 0", "[rank 1] I am 1"]),
        ("--quiet", []),
    ],
)
def test_whose_prints_appear_live(kernel: Kernel, options: str, lines: list[str]) -> None:
    """Rank 0's unless told otherwise; all are kept on disk."""
    cell = succeed(kernel, magic(f"{TWO} {options} --out run", PRINTS))
    assert sorted(cell.text.splitlines()) == lines
    assert kernel.value("run.logs(0), run.logs(1)") == str(("I am 0\n", "I am 1\n"))


def test_the_panel_is_one_output_updated_in_place_four_times_a_second(kernel: Kernel) -> None:
    """And when the run is over it is the only still, in the cell's outputs too."""
    body = (
        "import time\nfrom obl_magic import report\ndef train():\n    end = time.time() + 1.5\n"
        "    while time.time() < end:\n        report(loss=end - time.time())\n        time.sleep(0.01)\n"
    )
    cell = succeed(kernel, magic(TWO, body))
    (drawn,) = cell.drawn.values()
    assert 4 <= len(drawn) <= 4 * cell.seconds + 2
    (still,) = cell.displays
    assert still["text/plain"].startswith("✓ train succeeded in ")
    assert "<svg" in still["text/html"]


@pytest.mark.parametrize(
    "code", [magic("", "def train():\n    return 1"), magic(f"{ONE} --quiet", "def train():\n    return 1"),
             "import obl_magic\ndef train():\n    return 1\nobl_magic.run(train)"]
)  # fmt: skip
def test_there_is_one_still_of_a_run_per_cell(kernel: Kernel, code: str) -> None:
    """In the kernel, quiet, and from Python."""
    cell = succeed(kernel, code)
    assert [still["text/plain"].split(" in ")[0] for still in cell.displays] == ["✓ train succeeded"]


def test_a_run_shows_itself_in_a_later_cell_each_time(kernel: Kernel) -> None:
    """Also one that was assigned, or that failed, whose panel is in another cell."""
    kernel.run(magic(f"{ONE} --out run", "def train():\n    1 / 0"))
    kernel.run("import obl_magic\nother = obl_magic.run(lambda: 1)")
    for name, start in (
        ("run", "✗ train failed"),
        ("run", "✗ train failed"),
        ("other", "✓ <lambda> succeeded"),
    ):
        (still,) = succeed(kernel, name).displays
        assert still["text/plain"].startswith(start)


def test_the_help_names_every_option_with_an_example(kernel: Kernel) -> None:
    """%%oblivious? is the reference."""
    pages = kernel.run("%%oblivious?").pages
    options = kernel.value(
        "[a.option_strings[-1] for a in get_ipython().find_cell_magic('oblivious').parser._actions if a.option_strings]"
    )
    named = json.loads(options.replace("'", '"'))
    assert {
        "--workers",
        "--engine",
        "--function",
        "--arg",
        "--out",
        "--show-ranks",
        "--quiet",
        "--timeout",
    } <= set(named)
    for option in named:
        assert pages.count(option) >= (1 if option == "--help" else 2), f"{option} has no example"


# Beside the notebook


def test_a_background_run_returns_at_once_and_can_be_waited_for(kernel: Kernel) -> None:
    """Its value is there when it has ended."""
    kernel.run(
        "import os, tempfile\ngate = tempfile.mkdtemp(dir='.') + '/open'\ngate = os.path.abspath(gate)"
    )
    body = (
        "import os, time\ndef train():\n"
        "    while not os.path.exists(gate):\n        time.sleep(0.01)\n    return 'through'"
    )
    succeed(kernel, magic(f"{TWO} --background --out run", body))
    assert kernel.value("run.status, run.wait(0.01) is run, run.status") == "('running', True, 'running')"
    kernel.run("open(gate, 'w').close()")
    assert kernel.value("run.wait().value, run.status, run.wait(1).values") == str(
        ("through", "succeeded", ["through", "through"])
    )
    assert kernel.children() == []


@pytest.mark.parametrize("stopping", ["run.stop()", "%oblivious stop", "%oblivious stop {run.id}"])
def test_a_background_run_can_be_stopped(kernel: Kernel, stopping: str) -> None:
    """By the Run and by the line magic; nothing of it is left when the cell has ended."""
    succeed(kernel, magic(f"{TWO} --background --out run", WAITS.format("time.sleep(60)")))
    cell = succeed(kernel, stopping)
    assert cell.seconds < 5
    assert kernel.children() == []
    assert (
        kernel.value("run.status, run.value, type(run.error)")
        == "('interrupted', None, <class 'KeyboardInterrupt'>)"
    )


def test_stop_without_a_running_run_is_one_line(kernel: Kernel) -> None:
    """It names what is running."""
    assert refused(kernel, "%oblivious stop") == (
        "got %oblivious stop; expected one running run of this kernel; running: none; do: %oblivious stop RUN"
    )


@pytest.mark.parametrize(
    ("line", "got"), [("%oblivious", "%oblivious alone"), ("%oblivious fly", "%oblivious fly")]
)
def test_a_line_that_means_nothing_is_one_line(kernel: Kernel, line: str, got: str) -> None:
    """It lists the words that mean something."""
    said = refused(kernel, line)
    assert said.startswith(f"got {got}; expected one of runs, ")
    assert said.endswith("; do: %oblivious runs")


def test_runs_lists_every_run_newest_first(kernel: Kernel) -> None:
    """With what ran, how it went and where."""
    succeed(kernel, magic(f"{TWO} --out run", "def newest():\n    return 1"))
    kernel.run("table = get_ipython().run_line_magic('oblivious', 'runs')")
    assert (
        kernel.value("list(table.iloc[0][['function', 'status', 'workers', 'engine']])")
        == "['newest', 'succeeded', 2, 'mpi']"
    )
    assert kernel.value("table.run[0] == run.id, table.digest[0] == run.digest[:12]") == "(True, True)"
    assert int(kernel.value("len(table)")) == len(run_folders(kernel))


def test_logs_shows_what_a_rank_printed(kernel: Kernel) -> None:
    """Rank 0's unless told otherwise; a rank that there was not is one line."""
    succeed(kernel, magic(f"{TWO} --out run", PRINTS))
    assert succeed(kernel, "%oblivious logs {run.id}").result == "I am 0"
    assert succeed(kernel, "%oblivious logs {run.id} --rank 1").result == "I am 1"
    assert refused(kernel, "%oblivious logs {run.id} --rank 2") == (
        "got --rank 2; expected a rank between 0 and 1; do: --rank 0"
    )
    assert refused(kernel, "%oblivious logs nothing").startswith(
        "got run 'nothing' (no run of that id); expected "
    )


def test_a_run_is_named_by_its_variable_or_is_the_newest(kernel: Kernel) -> None:
    """Ids are long; what --out has bound is not."""
    succeed(kernel, magic(f"{TWO} --out older", "def train():\n    print('older')"))
    succeed(kernel, magic(f"{TWO} --out run", PRINTS))
    assert succeed(kernel, "%oblivious logs older").result == "older"
    assert succeed(kernel, "%oblivious logs").result == "I am 0"
    assert succeed(kernel, "%oblivious logs --rank 1").result == "I am 1"
    assert kernel.run("%oblivious attach older").ename == ""
    assert refused(kernel, "%oblivious atach older").endswith("; do: %oblivious attach")
    assert "--verify" in succeed(kernel, "%oblivious help verify").result


@pytest.mark.parametrize("options", ["", ONE])
def test_export_writes_a_script_that_gives_the_same(kernel: Kernel, options: str) -> None:
    """With the cells' own text, run outside the notebook by plain Python."""
    kernel.run("import math as maths\nrate = 0.5")
    kernel.run("def helper(x):\n    return maths.sqrt(x) * rate")
    succeed(
        kernel,
        magic(f"{options} -a n=16 --out run", "def train(n=4):\n    # of the cell\n    return helper(n)"),
    )
    name = f"a script {len(options)}.py"
    said = succeed(kernel, f'%oblivious export {{run.id}} "{name}"').result
    assert said == f"wrote {name}; to run it: python {shlex.quote(name)}"
    text = (kernel.cwd / name).read_text()
    assert "import math as maths\n\nrate = 0.5\n\n\ndef helper(x):\n" in text
    assert "def train(n=4):\n    # of the cell\n    return helper(n)\n" in text
    done = subprocess.run(
        [sys.executable, name], cwd=kernel.cwd, capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "returned 2.0\n"
    assert refused(kernel, f'%oblivious export {{run.id}} "{name}"').startswith(
        f"got export to {name}, which "
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("export", "got %oblivious export; expected a run and a file; do: %oblivious export RUN train.py"),
        ("attach a b", "got %oblivious attach a b; expected one run; do: %oblivious attach RUN"),
        (
            "server of",
            "got %oblivious server of; expected status, restart or off; do: %oblivious server status",
        ),
    ],
)
def test_words_of_a_line_are_counted(kernel: Kernel, line: str, said: str) -> None:
    """One line says what is missing or too much."""
    assert refused(kernel, f"%oblivious {line}") == said


def test_the_fork_server_comes_up_with_the_extension(home: Path) -> None:
    """It says what it is at, is replaced when told or when a cell has set something, can be off, and goes with it."""
    ready = re.compile(
        r"the fork server is ready \(process (\d+)\): any world starts from it, with .*keras.* imported"
    )

    def server() -> int:
        deadline = time.monotonic() + 60
        while not (said := ready.fullmatch(succeed(kernel, "%oblivious server").result)):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return int(said[1])

    with Kernel(home) as kernel:
        kernel.run("%load_ext obl_magic")
        first = server()
        succeed(
            kernel,
            magic(
                f"{TWO} --out run",
                "def train():\n    import psutil\n    return [p.pid for p in psutil.Process().parents()]",
            ),
        )
        assert first in json.loads(kernel.value("run.value"))
        succeed(kernel, "import keras")  # which sets variables of TensorFlow's, and imports h5py
        assert server() == first
        succeed(kernel, "import os; os.environ['TF_SOMETHING'] = 'set'")
        second = server()
        assert second != first
        assert re.match(
            "the fork server is (coming up|ready)", succeed(kernel, "%oblivious server restart").result
        )
        assert (third := server()) != second
        assert succeed(kernel, "%oblivious server off").result.startswith(
            "no fork server from now on: worlds are"
        )
        assert succeed(kernel, "%oblivious server status").result.startswith("no fork server: it is off")
        succeed(kernel, magic(TWO, "def train():\n    return 1"))
        assert kernel.children() == []
        assert succeed(kernel, "%oblivious standby -w 2").result.startswith("the fork server is coming up")
        assert server() != third
        left = kernel.servers()
        assert left
        kernel.kill()
        assert gone(left, 1)


def test_the_extension_taken_out_takes_its_server_with_it(home: Path) -> None:
    """Nothing runs on."""
    with Kernel(home) as kernel:
        kernel.run("%load_ext obl_magic")
        (left,) = kernel.servers()
        kernel.run("%unload_ext obl_magic")
        assert gone([left], 5)


def test_runs_of_two_kernels_at_once_both_succeed(tmp_path: Path) -> None:
    """Beside one notebook, in one home: each rank waits until the other kernel's ranks are there too."""
    body = (
        "import glob, os, time\nimport numpy as np\nimport keras\ndef train():\n"
        "    from mpi4py import MPI\n"
        "    open(f'here-{mine}-{MPI.COMM_WORLD.rank}', 'w').close()\n"
        "    while len(glob.glob('here-*')) < 4:\n        time.sleep(0.01)\n"
        "    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])\n"
        "    model.compile('sgd', 'mse')\n"
        "    x = np.full((8, 2), mine, 'float32')\n"
        "    model.fit(x, x[:, :1], batch_size=4, verbose=0)\n"
        "    return mine\n"
    )
    home = {"OBLIVIOUS_HOME": str(tmp_path)}
    with Kernel(tmp_path, home) as one, Kernel(tmp_path, home) as two:
        for mine, kernel in enumerate((one, two)):
            kernel.run(f"%load_ext obl_magic\nmine = {mine}")
        sent = [kernel.start(magic("--workers 2 --out run", body)) for kernel in (one, two)]
        cells = [kernel.finish(each) for kernel, each in zip((one, two), sent, strict=True)]
        assert [cell.traceback for cell in cells] == ["", ""]
        for mine, kernel in enumerate((one, two)):
            assert kernel.value("run.values, run.status") == str(([mine, mine], "succeeded"))
            assert kernel.children() == []
    assert len(list((tmp_path / "runs").iterdir())) == 2


def test_doctor_says_what_works_here(kernel: Kernel) -> None:
    """The same table as the command line's."""
    cell = succeed(kernel, "%oblivious doctor")
    assert "mpi" in cell.result.lower()
    assert "<table" in cell.displays[0]["text/html"]


def test_every_option_of_the_magic_reaches_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a user types is not dropped on the way."""
    from IPython.core.interactiveshell import InteractiveShell

    from obl_magic.notebook import magics

    got: dict[str, object] = {}
    monkeypatch.setattr(magics, "run", lambda function, **options: got.update(options))
    shell = InteractiveShell()
    magics.load(shell)
    options = (
        "--workers 3 --engine mpi --arg lr=0.5 --batch per-worker --lr-scale sqrt --warmup-epochs 4 --sync-batchnorm "
        "--verify 7 --show-ranks all --quiet --timeout 60 --background --seed 9"
    )
    shell.run_cell(f"%%oblivious {options}\ndef train(lr=1):\n    pass\n")
    expected = {
        "workers": 3, "engine": "mpi", "args": {"lr": 0.5}, "batch": "per-worker", "lr_scale": "sqrt",
        "warmup_epochs": 4, "sync_batchnorm": True, "verify": 7, "show_ranks": "all", "quiet": True,
        "timeout": 60.0, "background": True, "seed": 9,
    }  # fmt: skip
    assert {name: got[name] for name in expected} == expected
