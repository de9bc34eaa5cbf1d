"""A function is captured with all it needs, or refused in one sentence before anything starts."""

from __future__ import annotations

import functools
import hashlib
import io
import os
import queue
import socket
import sqlite3
import subprocess
import sys
import textwrap
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from obl_magic import payload
from obl_magic.capture import capture, parameters
from obl_magic.capture.credentials import looks_secret
from obl_magic.capture.own_modules import own_modules
from obl_magic.errors import CannotTravel, UsageProblem
from obl_magic.values import Captured, CapturedName, CellSource

ROOT = Path(__file__).resolve().parents[2]

CALL = """
import sys
from pathlib import Path
from obl_magic import payload
fn, provided = payload.loads(Path(sys.argv[1]).read_bytes())
sys.stdout.write(repr(fn(**provided)))
"""


def notebook(source: str, **names: Any) -> Any:
    """A module that no other process can import, as a notebook's namespace is."""
    module = types.ModuleType("a_notebook")
    vars(module).update(names)
    exec(textwrap.dedent(source), vars(module))
    return module


@pytest.fixture
def on_a_rank(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Captured], str]:
    """Calls a captured function in a plain process in another folder."""

    def call(captured: Captured) -> str:
        folder = tmp_path_factory.mktemp("rank")
        (folder / "payload.pkl").write_bytes(captured.payload)
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, "-c", CALL, "payload.pkl"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environ, timeout=200)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The user's working directory, whose modules are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def paths(captured: Captured) -> list[str]:
    """Where the captured values were found, largest first."""
    return [name.path for name in captured.names]


# The function and its parameters


def test_source_and_digest_are_the_text_as_written() -> None:
    """The source is byte for byte what stands in the file, its digest the sha256 of it."""

    def train(lr=0.01):  # "ünïcode" stays
        return lr

    captured = capture(train)
    assert captured.source == '    def train(lr=0.01):  # "ünïcode" stays\n        return lr\n'
    assert captured.digest == hashlib.sha256(captured.source.encode()).hexdigest()
    assert captured.name == "train"


def test_a_function_without_source_has_a_digest_of_its_code() -> None:
    """A placeholder stands for a source that is not known, and changes with the code."""
    first, again, other = (
        capture(notebook(f"def train():\n return {n}, {{'a', 'b'}}, (lambda: {n})").train) for n in (1, 1, 2)
    )
    assert first.source.startswith("# the source of train is not available; sha256 of its bytecode: ")
    assert first.digest == again.digest != other.digest


def test_parameters_tells_hyperparameters_from_what_must_be_filled() -> None:
    """Defaults are hyperparameters; what has none is required; star parameters are neither."""

    def train(model_fn, *rest, lr=0.1, units=3, reporter, **more):
        return None

    assert parameters(train) == ({"lr": 0.1, "units": 3}, ("model_fn", "reporter"))


def test_parameters_without_default_are_filled_by_name(on_a_rank: Callable[[Captured], str]) -> None:
    """``provide`` comes first, then the namespace; args and defaults are left alone."""
    train = notebook("def train(a, b, lr=3, *, c): return a, b, c, lr").train
    captured = capture(train, namespace={"a": 1, "b": 1, "c": 1, "lr": 1}, provide={"b": 2}, args={"c": 5})
    fn, provided = payload.loads(captured.payload)
    assert provided == {"a": 1, "b": 2}
    assert captured.provided == ("a", "b")
    assert fn(**provided, c=5) == (1, 2, 5, 3)


def test_without_a_namespace_the_functions_own_globals_fill_parameters() -> None:
    """From a script, ``model_fn`` is looked up where the training function was defined."""
    nb = notebook("def model_fn(): return 7\ndef train(model_fn): return model_fn()")
    fn, provided = payload.loads(capture(nb.train).payload)
    assert fn(**provided) == 7


def test_provide_may_replace_a_default() -> None:
    """A function given by ``provide`` wins over the parameter's default."""
    train = notebook("def train(n=1): return n").train
    assert payload.loads(capture(train, provide={"n": 2}).payload)[1] == {"n": 2}


def test_reserved_parameters_are_left_for_the_rank() -> None:
    """``reporter`` and ``hparams`` are not taken from the notebook."""
    train = notebook("def train(reporter, hparams): return 1").train
    assert capture(train, namespace={"reporter": 1, "hparams": 2}).provided == ()


def test_a_name_that_nobody_provides_is_named_with_what_is_close() -> None:
    """The sentence tells the parameter, similar names, and three ways out."""
    train = notebook("def train(model_fn): return 1").train
    expected = (
        r"got train\(model_fn, \.\.\.\), where nothing is called 'model_fn' \(there is model_func\); "
        r"expected a value for the parameter 'model_fn', which has no default; "
        r"do: define model_fn in a cell before, "
        r"or give it a default: def train\(model_fn=\.\.\.\), or pass it: provide=\{'model_fn': \.\.\.\}"
    )
    with pytest.raises(UsageProblem, match=expected):
        capture(train, namespace={"model_func": 1, "_model_fn": 1, "x": 1})


def test_unknown_arguments_are_named_with_the_parameters_there_are() -> None:
    """A mistyped argument is refused, with the names that exist."""
    train = notebook("def train(rate=1, epochs=2): return 1").train
    expected = (
        r"got args 'rat', which train does not take; expected one of its parameters: rate, epochs; "
        r"do: args=\{'rate': \.\.\.\}"
    )
    with pytest.raises(UsageProblem, match=expected):
        capture(train, args={"rat": 1})
    with pytest.raises(UsageProblem, match=r"got provide 'model_fn', which train does not take"):
        capture(train, provide={"model_fn": 1})


def test_an_argument_for_a_function_without_parameters_is_refused() -> None:
    """There is nothing to choose from, so the way out is to add the parameter."""
    train = notebook("def train(): return 1").train
    with pytest.raises(
        UsageProblem, match=r"none: train has no parameters; do: add lr to it: def train\(lr=\.\.\.\)"
    ):
        capture(train, args={"lr": 1})


def test_a_function_with_star_star_takes_any_argument() -> None:
    """``**kwargs`` accepts every name."""
    assert capture(notebook("def train(**rest): return rest").train, args={"lr": 1}).provided == ()


@pytest.mark.parametrize("args", [{}, {"x": 1}])
def test_positional_only_parameters_are_refused(args: dict[str, int]) -> None:
    """Ranks give arguments by name."""
    train = notebook("def train(x, /): return 1", x=1).train
    expected = r"positional-only parameter 'x'; expected .* by name; do: remove the / from def train"
    with pytest.raises(UsageProblem, match=expected):
        capture(train, args=args)


class Trainer:
    """Something callable that is no function."""

    def __call__(self) -> int:
        """Trains."""
        return 1

    def train(self) -> int:
        """Trains."""
        return 1


@pytest.mark.parametrize(
    ("fn", "kind"),
    [
        (functools.partial(int, "1"), "functools.partial"),
        (Trainer(), "Trainer"),
        (Trainer().train, "method"),
        (Trainer, "type"),
        (print, "builtin_function_or_method"),
        (3, "int"),
    ],
)
def test_what_is_no_function_is_refused_by_type(fn: Any, kind: str) -> None:
    """Partials, methods and callable objects have no source of their own to run and to show."""
    expected = (
        rf"got a \S*{kind}; expected a Python function, .*; do: wrap it in a function: def train\(lr=0\.01\)"
    )
    with pytest.raises(UsageProblem, match=expected):
        capture(fn)


@pytest.mark.parametrize(("source", "kind"), [("yield 1", "generator"), ("return 1", "coroutine")])
def test_generators_and_coroutines_are_refused(source: str, kind: str) -> None:
    """Calling one does not train."""
    prefix = "async " if kind == "coroutine" else ""
    with pytest.raises(
        UsageProblem, match=f"got train, a {kind} function; expected a function that trains when"
    ):
        capture(notebook(f"{prefix}def train(): {source}").train)


# The table of captured names


def test_names_are_found_everywhere_a_function_looks() -> None:
    """Globals, closures, defaults, helpers, classes, nested functions and class bodies are walked."""
    nb = notebook(
        """
        import functools
        def deco(f):
            @functools.wraps(f)
            def wrapper(*args): return f(*args)
            return wrapper
        class Base:
            rate = 31
            def call(self): return in_base
        class Layer(Base):
            def call(self): return super().call() + in_method
            @staticmethod
            def s(): return in_static
            @property
            def p(self): return in_property
        @functools.cache
        def helper(n): return in_helper, helper, Layer
        def make(in_closure):
            @deco
            def train(lr=29, *, k=30):
                def nested(): return in_nested
                class Local:
                    size = in_body
                return helper(in_closure)
            return train
        train = make(b"32")
        """,
        **{f"in_{name}": bytes(n) for n, name in enumerate(
            ["base", "method", "static", "property", "helper", "nested", "body"], start=1)},
    )  # fmt: skip
    assert set(paths(capture(nb.train))) == {
        "train -> lr",
        "train -> k",
        "train -> in_closure",
        "train -> in_nested",
        "train -> in_body",
        "train -> helper -> in_helper",
        "train -> helper -> Layer -> call -> in_method",
        "train -> helper -> Layer -> s -> in_static",
        "train -> helper -> Layer -> p -> in_property",
        "train -> helper -> Layer -> Base -> rate",
        "train -> helper -> Layer -> Base -> call -> in_base",
    }


def test_names_carry_type_and_size_largest_first() -> None:
    """Arrays weigh their buffer, tables their texts too; each value comes once, by its shortest path."""
    nb = notebook(
        """
        def helper(): return table, array, again
        def train(): return helper(), frame, array, n
        """,
        array=np.zeros((1000, 100)), frame=pd.DataFrame({"a": ["x" * 100] * 3000}), n=3,
    )  # fmt: skip
    nb.again = nb.array
    nb.table = [nb.array]
    names = capture(nb.train).names
    assert names[0] == CapturedName("train -> helper -> table", "list", names[0].size_bytes)
    assert names[1] == CapturedName("train -> array", "numpy.ndarray", 800_000)
    assert names[2].path == "train -> frame"
    assert names[2].type_name.endswith("DataFrame")
    assert 300_000 < names[2].size_bytes < 600_000
    assert [name.path for name in names[3:]] == ["train -> n"]


def test_a_large_array_is_weighed_without_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weighing asks the array; only the payload itself pickles it."""
    array = np.broadcast_to(np.zeros(1), (10**9,))  # 8 GB that do not exist
    monkeypatch.setattr(payload, "dumps", lambda *_: b"")
    names = capture(notebook("def train(): return array, [array]", array=array).train).names
    assert names == (CapturedName("train -> array", "numpy.ndarray", 8 * 10**9),)


def test_installed_modules_and_functions_are_not_listed() -> None:
    """What a rank imports by itself is no burden."""
    nb = notebook(
        """
        import math, os.path, numpy as np
        from math import sqrt
        from textwrap import dedent
        from typing import Any, Sequence
        def train(): return np.add, add, math.pi, sqrt, dedent, os.path.join, Any, Sequence, len, lower, T
        """,
        add=np.add, lower=str.lower, T=list[int],
    )  # fmt: skip
    assert capture(nb.train).names == ()


def test_cycles_end() -> None:
    """Mutual recursion, self-containing lists and objects that know each other are walked once."""
    nb = notebook(
        """
        class Node:
            def __init__(self): self.other = self; self.way = train
        def helper(): return train, node, ring
        def train(): return helper(), ring
        node = Node()
        ring = [1]
        ring.append(ring)
        """
    )
    assert sorted(paths(capture(nb.train))) == ["train -> helper -> node", "train -> ring"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("password", "x"), ("DB_PASSWORD", "x"), ("passwd", b"x"), ("client_secret", "x"), ("apiKey", "x"),
        ("OPENAI_API_KEY", "x"), ("aws_access_key_id", "x"), ("private_key", "x"), ("credentials", "x"),
        ("token", "x"), ("HF_TOKEN", "x"), ("accessToken", "x"),
        ("x", "AKIAIOSFODNN7EXAMPLE"), ("x", "ghp_" + "a" * 36), ("x", "sk-" + "a" * 40),
        ("x", "-----BEGIN PRIVATE KEY-----\n"), ("x", b"-----BEGIN RSA PRIVATE KEY-----\n"),
        ("x", "postgres://me:pass@host/db"),
    ],
)  # fmt: skip
def test_credentials_are_recognised(name: str, value: object) -> None:
    """By the words of a name, or by the form of a key."""
    assert looks_secret(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("tokenizer", "x"), ("token_ids", "x"), ("num_tokens", "x"), ("pad_token", "[PAD]"),
        ("eos_token", "</s>"), ("secretary", "x"), ("keyboard", "x"), ("key", "x"), ("passwords_seen", 3),
        ("password", None),
        ("password", ""), ("token", ["x"]), ("monkey", "x"), ("x", "task-" + "a" * 40), ("x", "http://host:80/a"),
    ],
)  # fmt: skip
def test_ordinary_names_are_no_credentials(name: str, value: object) -> None:
    """Words of machine learning do not raise an alarm."""
    assert not looks_secret(name, value)


def test_secrets_are_flagged_also_in_a_dict_and_never_kept() -> None:
    """The table names them by path and keeps no value."""
    nb = notebook("def train(token='hunter2'): return conf", conf={"db": {"password": "hunter3", "port": 1}})
    captured = capture(nb.train)
    assert [name.path for name in captured.names if name.secret] == [
        "train -> conf['db']['password']",
        "train -> token",
    ]
    assert "hunter" not in repr(captured)


# The user's own modules


def test_the_kernels_version_of_a_module_travels(project: Path, on_a_rank: Callable[[Captured], str]) -> None:
    """A local module is sent as it was imported, whatever the file says by then."""
    (project / "my_steps.py").write_text("import my_rates\ndef step(): return my_rates.rate() + k\nk = 1\n")
    (project / "my_rates.py").write_text("table = [1, 2]\ndef rate(): return sum(table)\n")
    nb = notebook("import my_steps\nfrom my_steps import step\ndef train(): return step(), my_steps.step()")
    for file in ("my_steps.py", "my_rates.py"):
        (project / file).write_text("raise ImportError('edited')\n")
    nb.my_steps.k = 10
    captured = capture(nb.train)
    assert on_a_rank(captured) == "(13, 13)"
    assert "train -> step -> my_rates -> table" in paths(captured)


def test_own_modules_are_those_of_the_users_folders() -> None:
    """Installed packages, the standard library, this package and C extensions go by name."""

    def module(name: str, file: str | None) -> types.ModuleType:
        made = types.ModuleType(name)
        made.__file__ = file
        return made

    library = os.path.dirname(os.__file__)
    files = {
        "mine": "/home/me/mine.py",
        "pkg": "/home/me/pkg/__init__.py",
        "pkg.deep": "/home/me/pkg/deep.py",
        "fast": "/home/me/fast.so",
        "venv": "/home/me/.venv/lib/python3.11/site-packages/venv.py",
        "debian": "/home/me/dist-packages/debian.py",
        "you": "/home/you/you.py",
        "melon": "/home/melon/melon.py",
        "std": f"{library}/std.py",
        "namespace": None,
        "__main__": "/home/me/main.py",
        "obl_magic.capture": "/home/me/obl_magic/capture.py",
    }
    modules = {name: module(name, file) for name, file in files.items()}
    found = own_modules(modules, ["/home/me", library])
    assert [each.__name__ for each in found] == ["mine", "pkg", "pkg.deep"]
    assert all(each.__name__ != "numpy" for each in own_modules())


# Cell sources


def test_sources_come_once_for_each_file_of_code_that_travels(project: Path) -> None:
    """Helpers and methods bring the file they are in, labelled by its name."""
    (project / "my_layers.py").write_text("class Layer:\n    def call(self): return 1\n")
    (project / "my_fit.py").write_text(
        "import textwrap\nfrom my_layers import Layer\n"
        "def fit(): return Layer, textwrap\ndef train(): return fit()\n"
    )
    train = __import__("my_fit").train
    sources = capture(train).sources
    assert [source.label for source in sources] == ["my_fit.py", "my_layers.py"]
    assert sources[1].text == "class Layer:\n    def call(self): return 1\n"
    assert sources[1].filename == str(project / "my_layers.py")


def test_the_notebook_labels_its_cells() -> None:
    """The hook turns a code object's file name into the cell a user knows."""
    nb = types.ModuleType("a_notebook")
    exec(compile("def helper(): return 1", "<cell 1>", "exec"), vars(nb))
    exec(compile("def train(): return helper()", "<cell 2>", "exec"), vars(nb))
    cells = {"<cell 1>": CellSource("<cell 1>", "In [7]", "def helper(): return 1")}
    assert capture(nb.train, cells=cells.get).sources == (cells["<cell 1>"],)


# What cannot travel


class Holder:
    """An object that keeps things."""

    def __init__(self, held: object) -> None:
        self.held = held


def open_null(mode: str) -> Any:
    """An open file, for the test to close."""
    return Path(os.devnull).open(mode)


class Refusing:
    """An object that says why it cannot be pickled."""

    def __reduce__(self) -> Any:
        raise ValueError("not\nme " + "x" * 300)


@pytest.mark.parametrize(
    ("make", "type_name", "do"),
    [
        (threading.Lock, "_thread.lock", "create it inside the function: every rank is a process of its own"),
        (threading.RLock, "_thread.RLock", "shares no lock, thread or queue"),
        (threading.Thread, "threading.Thread", "shares no lock, thread or queue"),
        (queue.Queue, "queue.Queue", "shares no lock, thread or queue"),
        (
            lambda: open_null("rb"),
            "_io.BufferedReader",
            "open the file inside the function, from its path",
        ),
        (
            lambda: open_null("w"),
            "_io.TextIOWrapper",
            "open the file inside the function, from its path",
        ),
        (socket.socket, "socket.socket", "open the connection inside the function"),
        (
            lambda: sqlite3.connect(":memory:"),
            "sqlite3.Connection",
            "connect to the database inside the function",
        ),
        (
            lambda: (i for i in "ab"),
            "generator",
            "write a function that makes the generator, and call it inside",
        ),
        (lambda: sys._getframe(), "frame", "keep the object itself, not a reference into this process"),
        (Refusing, "test_capture.Refusing", "create it inside the function, from values that can be pickled"),
    ],
)
def test_what_cannot_travel_is_named_with_its_way_out(
    make: Callable[[], Any], type_name: str, do: str
) -> None:
    """Path, type, the pickler's reason in one line, and what to write instead."""
    value = make()
    nb = notebook("def helper(): return thing\ndef train(): return helper()", thing=value)
    try:
        with pytest.raises(
            CannotTravel, match=r"cannot send train -> helper -> thing \(a .*\) to the ranks: .*"
        ) as it:
            capture(nb.train)
    finally:
        if isinstance(value, (io.IOBase, socket.socket, sqlite3.Connection)):
            value.close()
    assert it.value.type_name.endswith(type_name)
    assert do in it.value.do
    assert "\n" not in it.value.reason
    assert len(it.value.reason) <= 200
    assert it.value.__cause__ is not None


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ("def train(): return box", "train -> box.held['a'][1]"),
        ("def train(x=lock): return x", "train -> x"),
        ("def train():\n class A:\n  held = lock", "train -> lock"),
        ("class A:\n def call(self): return lock\ndef train(): return A()", "train -> A -> call -> lock"),
        ("class A:\n held = lock\ndef train(): return A()", "train -> A -> held"),
        ("def make(inner):\n def train(): return inner\n return train\ntrain = make(lock)", "train -> inner"),
        (
            "def a(): return train, b\ndef b(): return a, lock\ndef train(): return a()",
            "train -> a -> b -> lock",
        ),
        (
            "import functools\npart = functools.partial(max, key=lock)\ndef train(): return part",
            "train -> part -> key",
        ),
    ],
)
def test_the_path_leads_to_the_culprit(source: str, path: str) -> None:
    """Through objects, containers, defaults, closures, classes and circles of calls."""
    lock = threading.Lock()
    nb = notebook(source, lock=lock, box=Holder({"b": 1, "a": (2, lock)}))
    with pytest.raises(CannotTravel) as it:
        capture(nb.train)
    assert (it.value.path, it.value.type_name) == (path, "_thread.lock")


def test_values_for_parameters_are_searched_too() -> None:
    """What comes by name or as an argument is refused before anything starts."""
    train = notebook("def train(model_fn): return 1").train
    lock = threading.Lock()
    with pytest.raises(CannotTravel, match=r"cannot send train -> model_fn -> lock \(a _thread\.lock\)"):
        capture(train, namespace={"model_fn": notebook("def model_fn(): return lock", lock=lock).model_fn})
    with pytest.raises(CannotTravel, match=r"cannot send train -> model_fn\[0\] \(a _thread\.lock\)"):
        capture(train, args={"model_fn": [lock]})


def test_a_lock_of_an_own_module_is_found(project: Path) -> None:
    """A module that is sent whole must hold nothing that cannot travel."""
    (project / "my_state.py").write_text("import threading\nguard = threading.Lock()\nk = 1\n")
    nb = notebook("import my_state\ndef train(): return my_state.k")
    with pytest.raises(CannotTravel, match=r"cannot send train -> my_state -> guard \(a _thread\.lock\)"):
        capture(nb.train)


def test_what_is_nested_too_deeply_is_said_to_be() -> None:
    """The pickler's recursion limit is explained, at the outermost value."""
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    nb = notebook("def train(): return deep", deep=deep)
    with pytest.raises(CannotTravel, match=r"cannot send train -> deep \(a list\).*do: flatten it") as it:
        capture(nb.train)
    assert it.value.path == "train -> deep"
    while deep:
        deep = deep.pop()  # freed one by one: the collector recurses too


_leaf = st.none() | st.integers() | st.text(max_size=5)
_nested = st.recursive(
    _leaf,
    lambda inner: (
        st.lists(inner, max_size=40)
        | st.dictionaries(st.text("abc", min_size=1, max_size=3), inner, max_size=5)
    ),
    max_leaves=30,
)


@given(st.lists(st.tuples(st.sampled_from(["list", "tuple", "dict", "object"]), _nested), max_size=6))
def test_one_lock_hidden_anywhere_is_found(layers: list[tuple[str, Any]]) -> None:
    """Whatever wraps it and lies beside it, the path leads to the lock."""
    thing: Any = threading.Lock()
    path = ""
    for kind, beside in layers:
        if kind == "object":
            thing, path = Holder(thing), ".held" + path
        elif kind == "dict":
            thing, path = {"beside": beside, "it": thing}, "['it']" + path
        else:
            thing, path = [beside, thing], "[1]" + path
            thing = thing if kind == "list" else tuple(thing)
    nb = notebook("def train(): return thing", thing=thing)
    with pytest.raises(CannotTravel) as it:
        capture(nb.train)
    assert (it.value.path, it.value.type_name) == ("train -> thing" + path, "_thread.lock")


def test_a_lock_among_many_is_found_quickly() -> None:
    """Long lists are tried in halves."""
    many: list[Any] = [(n,) for n in range(50_000)]
    many[31_415] = threading.Lock()
    with pytest.raises(CannotTravel, match=r"cannot send train -> many\[31415\] \(a _thread\.lock\)"):
        capture(notebook("def train(): return many", many=many).train)


@pytest.mark.slow
def test_a_captured_dataset_is_refused_with_dataset_fn() -> None:
    """tf.data graphs stay in the process that built them."""
    import tensorflow as tf

    nb = notebook("def train(): return data", data=tf.data.Dataset.range(3))
    expected = (
        r"cannot send train -> data \(a tensorflow\..*\).*do: build the dataset inside .* from dataset_fn"
    )
    with pytest.raises(CannotTravel, match=expected):
        capture(nb.train)


@pytest.mark.slow
def test_a_captured_strategy_is_refused() -> None:
    """The function names no rank and no strategy."""
    import tensorflow as tf

    nb = notebook("def train(): return strategy", strategy=tf.distribute.OneDeviceStrategy("/cpu:0"))
    with pytest.raises(CannotTravel, match=r"cannot send train -> strategy .*do: remove the strategy"):
        capture(nb.train)


@pytest.mark.slow
def test_a_captured_keras_model_travels_and_is_weighed(on_a_rank: Callable[[Captured], str]) -> None:
    """A built model gives the same numbers on a rank; its size is that of its variables."""
    nb = notebook(
        """
        import keras, tensorflow as tf
        model = keras.Sequential([keras.Input((100,)), keras.layers.Dense(500, kernel_initializer="ones")])
        model.compile("sgd", "mse")
        optimizer = keras.optimizers.Adam(0.5)
        tensor = tf.zeros((10, 10))
        variable = tf.Variable(tf.zeros((5, 10)))
        def train():
            rate = float(optimizer.learning_rate)
            x = tensor @ tf.zeros((10, 100)) + 1
            return model.predict(x, verbose=0)[0, 0].item(), rate, variable.shape[0]
        """
    )
    captured = capture(nb.train)
    assert on_a_rank(captured) == "(100.0, 0.5, 5)"
    sizes = {name.path: name.size_bytes for name in captured.names}
    assert sizes["train -> model"] == pytest.approx(4 * 101 * 500, rel=0.01)
    assert sizes["train -> tensor"] == 400
    assert sizes["train -> variable"] == 200


def test_what_a_script_defines_travels_by_value(tmp_path: Path, on_a_rank: Callable[[Captured], str]) -> None:
    """Functions and classes of ``__main__`` run where that script is not ``__main__``."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys
            from pathlib import Path
            from obl_magic.capture import capture
            table = [1, 2, 3]
            class Net:
                def total(self): return sum(table)
            def model_fn(): return Net()
            def train(model_fn, lr=2): return model_fn().total() * lr
            captured = capture(train)
            Path("payload.pkl").write_bytes(captured.payload)
            label = captured.sources[0].label
            print(*(name.path for name in captured.names), captured.provided, label, sep="; ")
            """
        )
    )
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, env=environ, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert (
        done.stdout == "train -> model_fn -> Net -> total -> table; train -> lr; ('model_fn',); script.py\n"
    )
    data = (tmp_path / "payload.pkl").read_bytes()
    assert on_a_rank(Captured("train", "", "", data)) == "12"
