"""Payloads are loaded in a plain Python process that has seen neither the notebook nor its modules."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from hypothesis import given
from hypothesis import strategies as st

from obl_magic import payload

ROOT = Path(__file__).resolve().parents[2]

CALL = """
import sys
from pathlib import Path
from obl_magic import payload
loaded = payload.loads(Path(sys.argv[1]).read_bytes())
sys.stdout.write(repr(loaded() if callable(loaded) else loaded))
"""

Elsewhere = Callable[..., str]


@pytest.fixture
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Elsewhere:
    """Pickles a value, loads it in a plain process in another folder, calls it, and gives what came out."""

    def call(value: object, by_value: tuple[types.ModuleType, ...] = (), program: str = CALL) -> str:
        folder = tmp_path_factory.mktemp("elsewhere")
        file = folder / "payload.pkl"
        file.write_bytes(payload.dumps(value, by_value))
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
        done = subprocess.run(
            [sys.executable, "-c", program, str(file)],
            capture_output=True,
            text=True,
            cwd=folder,
            env=environ,
            timeout=200,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return call


def notebook(source: str) -> Any:
    """A module that no other process can import, as a notebook's namespace is."""
    module = types.ModuleType("a_notebook")
    sys.modules[module.__name__] = module  # while it is made: dataclasses look it up
    exec(source, vars(module))
    del sys.modules[module.__name__]
    return module


def module_on_disk(folder: Path, name: str, source: str) -> Any:
    """Writes a module into a folder of ``sys.path`` and imports it."""
    path = folder.joinpath(*name.split("."))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".py").write_text(source)
    return __import__(name, fromlist=["_"])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A folder of the user's, on ``sys.path``; its modules are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_importing_payload_is_light() -> None:
    """A process that imports payload has not paid for cloudpickle, numpy or Keras."""
    program = (
        "import sys; import obl_magic.payload; "
        "assert not {'cloudpickle', 'numpy', 'keras', 'IPython'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, timeout=60)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
        max_leaves=20,
    )
)
def test_plain_values_come_back_equal(value: object) -> None:
    """What holds only plain values is the same after the round trip."""
    assert payload.loads(payload.dumps(value)) == value


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("k = 3\ndef f(x=2): return k * x", "6"),
        ("k = 3\nf = lambda x=k: x + k", "6"),
        ("def make(n):\n    def f(): return n + 1\n    return f\nf = make(4)", "5"),
        ("def f(n=5): return 1 if n == 0 else n * f(n - 1)", "120"),
        ("def g(n): return n == 0 or f(n - 1)\ndef f(n=7): return n != 0 and g(n - 1)", "True"),
        ("def f(*, x=1, **rest): return x, rest", "(1, {})"),
        ("class A:\n def v(self): return 1\nclass B(A):\n def v(self): return super().v() + 1\n"
         "def f(): return B().v()", "2"),
        ("import dataclasses\n@dataclasses.dataclass\nclass P:\n x: int = 7\ndef f(): return P()", "P(x=7)"),
        ("import enum\nclass C(enum.Enum):\n RED = 1\ndef f(): return C.RED is C(1)", "True"),
        ("import functools\ndef twice(g):\n @functools.wraps(g)\n def w(): return 2 * g()\n return w\n"
         "@twice\ndef f(): return 21", "42"),
        ("import os.path\ndef f(): return os.path.join('a', 'b')", "'a/b'"),
        ("count = 1\ndef bump():\n global count\n count += 1\ndef f():\n bump()\n return count", "2"),
    ],
    ids=["default", "lambda", "closure", "recursion", "mutual", "kwonly", "super", "dataclass", "enum",
         "decorator", "submodule", "global"],
)  # fmt: skip
def test_a_notebooks_functions_run_where_the_notebook_is_not(
    elsewhere: Elsewhere, source: str, expected: str
) -> None:
    """Functions of every make travel as code."""
    assert elsewhere(notebook(source).f) == expected


def test_names_that_only_a_class_body_uses_travel(elsewhere: Elsewhere) -> None:
    """A class defined inside a function may use globals in its body."""
    nb = notebook(
        "units = 5\ndef tag(g): return g\n"
        "def f():\n class Layer:\n  size = units\n  @tag\n  def call(self): return self.size\n"
        " return Layer().call()"
    )
    assert elsewhere(nb.f) == "5"


@pytest.mark.parametrize("decorator", ["cache", "lru_cache(maxsize=3)", "lru_cache"])
def test_cached_functions_travel(elsewhere: Elsewhere, decorator: str) -> None:
    """A notebook's function under functools.cache, recursive too, goes by value and keeps its settings."""
    nb = notebook(
        f"import functools\n@functools.{decorator}\n"
        "def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)\n"
        "def f(): return fib(20), fib.cache_info().misses, fib.cache_info().maxsize"
    )
    nb.fib(3)
    size = {"cache": None, "lru_cache(maxsize=3)": 3, "lru_cache": 128}[decorator]
    assert elsewhere(nb.f) == repr((6765, 21, size))


def test_cached_properties_travel(elsewhere: Elsewhere) -> None:
    """A class with a functools.cached_property goes by value, and its instances cache on the other side."""
    nb = notebook(
        "import functools\nclass Rows:\n asked = 0\n @functools.cached_property\n def size(self):\n"
        "  self.asked += 1\n  return 7\ndef f(rows=Rows()): return rows.size, rows.size, rows.asked"
    )
    assert elsewhere(nb.f) == "(7, 7, 1)"


def test_cached_functions_of_installed_packages_go_by_name() -> None:
    """A cached function that the other side can import is not copied."""
    import fnmatch

    assert payload.loads(payload.dumps(fnmatch._compile_pattern)) is fnmatch._compile_pattern  # type: ignore[attr-defined]


def test_a_module_by_value_need_not_exist_on_the_other_side(folder: Path, elsewhere: Elsewhere) -> None:
    """A function of a registered module travels with what it uses."""
    module = module_on_disk(folder, "my_rates", "base = 2\ndef rate(): return base + 1\n")
    assert elsewhere(module.rate, (module,)) == "3"


def test_a_module_used_as_a_module_travels_whole(folder: Path, elsewhere: Elsewhere) -> None:
    """``my_rates.rate()`` works, and a value set on the module is what its functions see."""
    nb = notebook("def f():\n m.base = 10\n return m.rate(), m.__name__, type(m).__name__")
    nb.m = module_on_disk(folder, "my_rates_too", "base = 2\ndef rate(): return base + 1\n")
    assert elsewhere(nb.f, (nb.m,)) == "(11, 'my_rates_too', 'module')"


def test_modules_that_import_each_other_travel(folder: Path, elsewhere: Elsewhere) -> None:
    """A circle of imports does not send the pickler round for ever."""
    (folder / "ring_b.py").write_text("import ring_a\ndef g(): return ring_a.k + 1\n")
    a = module_on_disk(folder, "ring_a", "import ring_b\nk = 1\ndef f(): return ring_b.g()\n")
    nb = notebook("def f(): return a.f(), a.ring_b.ring_a is a")
    nb.a = a
    assert elsewhere(nb.f, (a, sys.modules["ring_b"])) == "(2, True)"


def test_modules_are_by_value_only_while_pickling(folder: Path) -> None:
    """Nothing stays registered, also after a failure; what was registered before stays."""
    module = module_on_disk(folder, "my_lock", "import threading\nlock = threading.Lock()\n")
    before = cloudpickle.list_registry_pickle_by_value()
    with pytest.raises(TypeError, match=r"cannot pickle '_thread\.lock' object"):
        payload.dumps(module.lock, (module,))
    assert cloudpickle.list_registry_pickle_by_value() == before
    cloudpickle.register_pickle_by_value(module)
    payload.dumps(1, (module,))
    assert "my_lock" in cloudpickle.list_registry_pickle_by_value()
    cloudpickle.unregister_pickle_by_value(module)


def test_the_picklers_errors_come_through() -> None:
    """No error is wrapped here: capture explains them."""
    with pytest.raises(TypeError, match=r"cannot pickle '_thread\.lock' object"):
        payload.dumps(threading.Lock())
    with pytest.raises(pickle.UnpicklingError):
        payload.loads(b"nonsense")


KERAS = """
import keras, numpy as np
x = np.ones((4, 3), "float32")
class Scale(keras.layers.Layer):
    def build(self, shape): self.w = self.add_weight(shape=(shape[-1],), initializer="ones")
    def call(self, x): return x * self.w
@keras.saving.register_keras_serializable("mine")
class Shift(keras.layers.Layer):
    def call(self, x): return x + 1
def swell(x): return keras.ops.relu(x) + 1
def loss(a, b): return keras.ops.mean((a - b) ** 2, axis=-1)
class Net(keras.Model):
    def __init__(self, **given):
        super().__init__(**given)
        self.scale, self.out = Scale(), keras.layers.Dense(1, activation=swell)
    def call(self, x): return self.out(self.scale(x))
def sequential():
    return keras.Sequential([keras.Input((3,)), Scale(), Shift(), keras.layers.Dense(1, activation=swell)])
def fitted(model, loss):
    model.compile("adam", loss)
    model.fit(x, np.ones((4, 1)), verbose=0)
    return model
"""


@pytest.mark.slow
def test_keras_objects_of_the_users_own_classes_travel(elsewhere: Elsewhere) -> None:
    """Fitted models with custom layers, activations and losses give the same numbers elsewhere."""
    nb = notebook(KERAS)
    models = [
        nb.fitted(nb.sequential(), nb.loss),
        nb.fitted(nb.Net(), "mse"),
    ]
    before = [float(model.predict(nb.x, verbose=0)[0, 0]) for model in models]
    program = CALL.replace("repr(loaded() if callable(loaded) else loaded)", "show(*loaded)").replace(
        "sys.stdout",
        "show = lambda models, x, *rest: repr(([float(m.predict(x, verbose=0)[0, 0]) for m in models], "
        "[type(each).__name__ for each in rest]))\nsys.stdout",
    )
    keras = nb.keras
    rest = [
        nb.Scale(),
        keras.layers.Dense(3),
        keras.optimizers.Adam(),
        keras.losses.Hinge(),
        keras.metrics.AUC(),
    ]
    after, kinds = eval(elsewhere((models, nb.x, *rest), program=program))
    assert after == pytest.approx(before, abs=1e-6)
    assert kinds == ["Scale", "Dense", "Adam", "Hinge", "AUC"]


@pytest.mark.slow
def test_a_layer_class_of_the_notebook_builds_a_model_elsewhere(elsewhere: Elsewhere) -> None:
    """A function that builds a model from the notebook's layer classes runs on the other side."""
    nb = notebook(KERAS + "\ndef f(): return fitted(sequential(), loss).count_params()")
    assert elsewhere(nb.f) == "7"


@pytest.mark.slow
def test_library_classes_travel_by_name() -> None:
    """``keras.layers.Dense`` drags no code of Keras along."""
    nb = notebook("import keras\nfrom keras.layers import Dense\ndef f(): return keras.layers.Dense, Dense")
    assert len(payload.dumps(nb.f)) < 2000


@pytest.mark.slow
def test_tf_functions_of_the_notebook_travel(elsewhere: Elsewhere) -> None:
    """A helper under tf.function goes as code and is traced anew."""
    nb = notebook(
        "import tensorflow as tf\n@tf.function\ndef g(x): return x * 2\n"
        "def f(): return int(g(tf.constant(4)))"
    )
    nb.f()
    assert elsewhere(nb.f) == "8"
