"""Whatever a function returns or raises comes back, or its run says in a sentence what could not and keeps the rest."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from kernel import Cell, Kernel

pytestmark = [pytest.mark.slow, pytest.mark.timing]


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    """One kernel for the tests of this file, with the magics loaded."""
    folder = tmp_path_factory.mktemp("notebook")
    with Kernel(folder, {"OBLIVIOUS_HOME": str(folder)}) as kernel:
        assert kernel.run("%load_ext obl_magic").ename == ""
        kernel.run("import keras, numpy as np")
        yield kernel


def cell_of(kernel: Kernel, body: str, options: str = "--workers 2 --engine mpi") -> Cell:
    """The cell, executed on ranks."""
    kernel.run("run = None")
    return kernel.run(f"%%oblivious {options} --out run\n{textwrap.dedent(body).lstrip()}", deadline_s=90)


def ran(kernel: Kernel, body: str, options: str = "--workers 2 --engine mpi") -> Cell:
    """The cell, which succeeded."""
    cell = cell_of(kernel, body, options)
    assert cell.ename == "", cell.traceback
    assert kernel.value("run.status") == "'succeeded'"
    return cell


CLASSES = {
    "as tutorials write it": """
        class MyModel(keras.Model):
            def __init__(self):
                super().__init__()
                self.hidden = keras.layers.Dense(5, activation="relu")
                self.out = keras.layers.Dense(1)
            def call(self, x):
                return self.out(self.hidden(x))
        """,
    "with an argument and no configuration": """
        class MyModel(keras.Model):
            def __init__(self, units=5):
                super().__init__()
                self.stack = [keras.layers.Dense(units, activation="relu"), keras.layers.Dense(1)]
            def call(self, x, training=False):
                for layer in self.stack:
                    x = layer(x)
                return x
        """,
    "with a model and a metric inside": """
        class MyModel(keras.Model):
            def __init__(self):
                super().__init__()
                self.body = keras.Sequential([keras.layers.Dense(5), keras.layers.BatchNormalization()])
                self.head = keras.layers.Dense(1)
                self.seen = keras.metrics.Mean(name="seen")
            def call(self, x, training=False):
                return self.head(self.body(x, training=training))
        """,
}


@pytest.mark.parametrize("kind", CLASSES)
def test_a_model_of_the_notebooks_own_class_comes_back(kernel: Kernel, kind: str) -> None:
    """With its weights: it predicts as it did on rank 0; and a weights file stands in the run's folder."""
    body = (
        CLASSES[kind]
        + """
        def train():
            x = np.linspace(0, 1, 16, dtype="float32").reshape(8, 2)
            model = MyModel()
            model.compile("adam", "mse")
            model.fit(x, x[:, :1], epochs=2, batch_size=4, verbose=0)
            return {"model": model, "predicted": model.predict(x, verbose=0)}
        """
    )
    ran(kernel, body)
    kernel.run('x = np.linspace(0, 1, 16, dtype="float32").reshape(8, 2)')
    told = kernel.value(
        "np.allclose(run.value['model'].predict(x, verbose=0), run.value['predicted'], atol=1e-6)"
    )
    assert told == "True"
    assert kernel.value("type(run.value['model']).__name__") == "'MyModel'"


def test_a_model_alone_leaves_its_weights_in_the_runs_folder(kernel: Kernel) -> None:
    """Whatever becomes of the class."""
    body = (
        CLASSES["as tutorials write it"]
        + """
        def train():
            x = np.ones((8, 2), "float32")
            model = MyModel()
            model.compile("sgd", "mse")
            model.fit(x, x[:, :1], verbose=0)
            return model
        """
    )
    ran(kernel, body)
    assert kernel.value("[p.name for p in run.dir.glob('*weights*')] != []") == "True"
    assert kernel.value("len(run.value.get_weights())") == "4"


def test_a_registered_class_keeps_its_package_on_ranks(kernel: Kernel) -> None:
    """A ``.keras`` file that a rank has saved loads in a later cell."""
    kernel.run(
        textwrap.dedent(
            """
            @keras.saving.register_keras_serializable("shapes")
            class Twice(keras.layers.Layer):
                def call(self, x):
                    return 2 * x
            """
        )
    )
    ran(
        kernel,
        """
        def train():
            model = keras.Sequential([keras.Input((2,)), Twice(), keras.layers.Dense(1)])
            model.compile("sgd", "mse")
            model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)
            model.save("twice.keras")
            return keras.saving.get_registered_name(Twice)
        """,
    )
    assert kernel.value("run.value") == "'shapes>Twice'"
    assert kernel.value("type(keras.saving.load_model('twice.keras').layers[0]).__name__") == "'Twice'"


@pytest.mark.parametrize("workers", ["", "--workers 2 --engine mpi"])
def test_numbers_of_any_size_and_odd_keys_come_back(kernel: Kernel, workers: str) -> None:
    """Python prints no integer of so many digits, and the key has no text."""
    kernel.run(
        "class Key:\n    def __str__(self):\n        raise ValueError('no text')\n    __repr__ = __str__\n"
        "    def __hash__(self):\n        return 1\n    def __eq__(self, other):\n        return type(other) is Key"
    )
    ran(kernel, "def train():\n    return {'large': 2**20000, Key(): 1, 'larger': 10**400}", workers)
    assert kernel.value("run.value['large'] == 2**20000, run.value['larger'] == 10**400, len(run.value)") == (
        "(True, True, 3)"
    )


@pytest.mark.parametrize("workers", ["", "--workers 1 --engine mpi"])
def test_a_search_goes_on_after_numbers_too_large_and_exits(kernel: Kernel, workers: str) -> None:
    """One trial fails with a plain sentence; the others count."""
    options = f'{workers} --search "x=int(0,3)" --sampler grid --minimize value'
    body = """
        def train(x):
            if x == 1:
                return 10**400
            if x == 2:
                raise SystemExit(3)
            return float(x)
        """
    cell = cell_of(kernel, body, options)
    assert cell.ename == "", cell.traceback
    assert (
        kernel.value("sorted(run.trials.status.tolist())") == "['failed', 'failed', 'succeeded', 'succeeded']"
    )


@pytest.mark.parametrize(
    "method",
    [
        "__str__(self):\n        raise SystemExit(1)",
        "__reduce__(self):\n        raise SystemExit(1)",
        "__str__(self):\n        import time; time.sleep(600)",
        "__reduce__(self):\n        import time; time.sleep(600)",
    ],
)
def test_an_exception_that_cannot_be_told_is_told_by_its_name(kernel: Kernel, method: str) -> None:
    """On ranks, and in time."""
    body = f"class Odd(Exception):\n    def {method}\n\ndef train():\n    raise Odd('why')"
    cell = cell_of(kernel, body, "--workers 1 --engine mpi")
    assert cell.seconds < 45
    assert "Odd" in cell.ename + cell.evalue + cell.text + str(cell.displays)
    assert kernel.value("1 + 1") == "2"


def test_pictures_and_html_of_rank_0_appear_in_the_cell(kernel: Kernel) -> None:
    """``plt.show()`` and ``display``: in the cell, and in the run's record."""
    cell = ran(
        kernel,
        """
        def train():
            import matplotlib.pyplot as plt
            from IPython.display import HTML, display
            plt.plot([1, 2, 3])
            plt.show()
            display(HTML("<b>half way</b>"))
            return 1
        """,
    )
    assert any("image/png" in each for each in cell.displays)
    assert any("half way" in each.get("text/html", "") for each in cell.displays)


def test_what_is_shown_again_and_again_is_one_output(kernel: Kernel) -> None:
    """A bar of a notebook is updated in place; what the other ranks display is not seen."""
    cell = ran(
        kernel,
        """
        def train():
            from IPython.display import Markdown, display
            import pandas as pd
            bar = display(Markdown("0 of 2"), display_id=True)
            bar.update(Markdown("2 of 2"))
            display(pd.DataFrame({"a": [1]}), "text")
        """,
    )
    assert [each["text/markdown"] for each in cell.displays if "text/markdown" in each] == ["2 of 2"]
    assert (
        sum("<table" in each.get("text/html", "") for each in cell.displays if "dataframe" in str(each)) == 1
    )
    assert [each for each in cell.displays if each.get("text/plain") == "'text'"]


def test_figures_that_are_not_shown_appear_at_the_end_as_in_a_cell(kernel: Kernel) -> None:
    """Without ``plt.show()``; and in the run's record."""
    cell = ran(kernel, "import matplotlib.pyplot as plt\ndef train():\n    plt.plot([1, 2])\n    return 1")
    assert sum("image/png" in each for each in cell.displays) == 1
    assert kernel.value("'image/png' in (run.dir / 'events.jsonl').read_text()") == "True"


def test_more_than_a_notebook_can_hold_is_not_shown(kernel: Kernel) -> None:
    """And a note says so."""
    cell = ran(
        kernel,
        """
        def train():
            from IPython.display import HTML, display
            for number in range(150):
                display(HTML(f"<i>{number}</i>"))
        """,
    )
    assert sum("<i>" in each.get("text/html", "")[:3] for each in cell.displays) == 100
    assert kernel.value("any('not all that the function displayed' in note for note in run.notes)") == "True"


# Forms of functions and cells


DISPATCHERS = """
import functools

@functools.singledispatch
def kind(x):
    return "any"

@kind.register
def _(x: int):
    return "int of " + kind(None)

class Printer:
    @functools.singledispatchmethod
    def name(self, x):
        return "any"

    @name.register
    def _(self, x: int):
        return "int"

    @functools.cached_property
    def width(self):
        return 80
"""


def test_what_functools_makes_of_functions_travels(kernel: Kernel) -> None:
    """Dispatch by type, also where one implementation calls the whole; cached properties."""
    body = (
        DISPATCHERS
        + """
def train():
    return kind(1), kind("a"), kind.__name__, Printer().name(1), Printer().name("a"), Printer().width
"""
    )
    ran(kernel, body)
    assert kernel.value("run.value") == "('int of any', 'any', 'kind', 'int', 'any', 80)"


def test_a_cell_magic_below_ours_executes_the_cell(kernel: Kernel) -> None:
    """``%%time`` times the definitions."""
    cell = ran(kernel, "%%time\ndef train():\n    return 8", "--workers 1 --engine mpi")
    assert kernel.value("run.value") == "8"
    assert "Wall time" in cell.text


@pytest.mark.parametrize(
    ("before", "cell", "said"),
    [
        ("", "async def train():\n    return 1", "def started(): return asyncio.run(train())"),
        (
            "",
            "import asyncio\nawait asyncio.sleep(0)\ndef train():\n    return 1",
            "await it in a cell of its own",
        ),
        (
            "import h5py; file = h5py.File('x.h5', 'w'); numbers = file.create_dataset('d', data=[1])",
            "def train():\n    return numbers[0]",
            "cannot send train -> numbers",
        ),
        ("import os; os.environ['OBL_CORES'] = 'two'", "def train():\n    return 1", "got OBL_CORES=two"),
    ],
    ids=["async", "await", "h5", "cores"],
)
def test_a_form_that_cannot_run_is_refused_in_a_line(
    kernel: Kernel, before: str, cell: str, said: str
) -> None:
    """With advice that fits."""
    kernel.run(before)
    told = cell_of(kernel, cell)
    kernel.run("import os; os.environ.pop('OBL_CORES', None)")
    line = told.stream("stderr")
    assert line.startswith("UsageError: ")
    assert said in line
    assert kernel.value("run") == "None"


def test_a_loop_by_hand_that_reports_nothing_says_how_to(kernel: Kernel) -> None:
    """And says nothing once it does."""
    body = """
        import tensorflow as tf
        def train():
            v = tf.Variable(1.0)
            for _ in range(3):
                with tf.GradientTape() as tape:
                    loss = v * v
                v.assign_sub(0.1 * tape.gradient(loss, v))
        """
    ran(kernel, body)
    assert kernel.value("any('obl_magic.report(' in note for note in run.notes)") == "True"
    reports = body.replace("loss = v * v", "loss = v * v\n                obl_magic.report(loss=float(loss))")
    ran(kernel, reports.replace("import tensorflow as tf", "import obl_magic, tensorflow as tf"))
    assert kernel.value("any('obl_magic.report(' in note for note in run.notes)") == "False"


def test_files_named_like_pythons_own_modules_change_nothing(tmp_path: Path) -> None:
    """As in the kernel, which has its own imported already; other modules beside the notebook are found first."""
    with Kernel(tmp_path, {"OBLIVIOUS_HOME": str(tmp_path / "home")}) as kernel:
        kernel.run("%load_ext obl_magic\nimport random, queue")
        for name in ("random", "queue", "token", "types", "select", "socket", "json", "logging"):
            (tmp_path / f"{name}.py").write_text("raise RuntimeError('not this one')\n")
        (tmp_path / "helping.py").write_text("answer = 42\n")
        (tmp_path / "test.py").write_text("mine = True\n")
        body = """
            def train():
                import helping, json, queue, random, select, socket, test
                return helping.answer, test.mine, json.dumps([random.Random(0).randint(1, 1)])
            """
        ran(kernel, body)
        assert kernel.value("run.value") == "(42, True, '[1]')"
        assert "not what the ranks" not in kernel.run("%oblivious doctor").text
