"""Functions come back with the lines and the file names they were compiled with, whatever cloudpickle does."""

from __future__ import annotations

import sys
import traceback
import types
from collections.abc import Iterator
from types import CodeType
from typing import Any

import pytest

from obl_magic import payload
from obl_magic.payload import code_objects

CELL = "/tmp/ipykernel_1/123.py"
OTHER = "/tmp/ipykernel_1/456.py"

SOURCE = """
import functools
def plain(): return 1
a_lambda = lambda n=2: [n for _ in range(n)]
def outer(n=3):
    class Inner:
        half = property(lambda self: 1 / n)
        def go(self): return (lambda: (each / n for each in range(n)))()
    def inner(): return Inner().go()
    return inner
closure = outer()
class Layer:
    @staticmethod
    def made(): return Layer()
    @classmethod
    def of(cls, n): return [cls() for _ in range(n)]
    @property
    def size(self): return 1
    @functools.cached_property
    def once(self): return 2
    def __call__(self): return {each: each for each in (self.size, self.once)}
@functools.cache
def cached(): return 3
@functools.wraps(plain)
def wrapper(): return plain()
partial = functools.partial(a_lambda, n=4)
def generator(): yield from range(3)
async def awaited(): return [each async for each in generator()]
method = Layer().of
"""
NAMES = [
    "plain", "a_lambda", "outer", "closure", "Layer", "cached", "wrapper", "partial", "generator", "awaited", "method",
]  # fmt: skip


def cell(source: str, filename: str, **names: Any) -> dict[str, Any]:
    """What a cell leaves behind that was compiled under a file name of its own, as IPython does it."""
    namespace: dict[str, Any] = {"__name__": "__main__", **names}
    exec(compile(source, filename, "exec"), namespace)
    return namespace


def codes(value: Any) -> Iterator[CodeType]:
    """Every code object that a function, a class or what wraps one is made of."""
    if isinstance(value, CodeType):
        yield value
        for constant in value.co_consts:
            yield from codes(constant)
    elif isinstance(value, types.FunctionType):
        yield from codes(value.__code__)
        for kept in value.__closure__ or ():
            if not isinstance(kept.cell_contents, type) or kept.cell_contents.__name__ == "Inner":
                yield from codes(kept.cell_contents)
    elif isinstance(value, types.MethodType):
        yield from codes(value.__func__)
    elif isinstance(value, type):
        for part in vars(value).values():
            yield from codes(part)
    elif isinstance(value, property):
        yield from codes(value.fget)
    else:
        for name in ("__wrapped__", "__func__", "func"):
            if hasattr(value, name):
                yield from codes(getattr(value, name))


def places(value: Any) -> set[tuple[str, str, int, tuple[Any, ...]]]:
    """Where a traceback finds the code of a value: its name, its file, its first line and every position."""
    return {
        (code.co_qualname, code.co_filename, code.co_firstlineno, tuple(code.co_positions()))
        for code in codes(value)
    }


def there_and_back(value: Any) -> Any:
    """A value as the other side holds it."""
    return payload.loads(payload.dumps(value))


@pytest.mark.parametrize("name", NAMES)
def test_code_of_every_make_keeps_its_places(name: str) -> None:
    """Functions, lambdas, methods, properties and what is defined inside them stand where they stood."""
    value = cell(SOURCE, CELL)[name]
    before = places(value)
    assert before
    assert {file for _, file, _, _ in before} == {CELL}
    assert places(there_and_back(value)) == before


@pytest.mark.parametrize("name", NAMES)
def test_code_keeps_its_places_on_the_way_home(name: str) -> None:
    """What a rank returns was pickled twice, once on each side."""
    value = cell(SOURCE, CELL)[name]
    assert places(there_and_back(there_and_back(value))) == places(value)


def test_each_function_keeps_the_file_of_its_own_cell() -> None:
    """A helper of another cell is found in that cell, and not in the one that calls it."""
    helper = cell("\n\ndef helper(x):\n    return 1 / x\n", OTHER)["helper"]
    train = cell("def train():\n    return helper(0)\n", CELL, helper=helper)["train"]
    with pytest.raises(ZeroDivisionError) as caught:
        there_and_back(train)()
    found = [(frame.filename, frame.lineno, frame.name) for frame in traceback.extract_tb(caught.tb)[1:]]
    assert found == [(CELL, 2, "train"), (OTHER, 4, "helper")]


def test_a_bare_code_object_comes_back_equal() -> None:
    """Also one that nobody made a function of."""
    code = compile("x = [n for n in range(3)]\n", CELL, "exec")
    back = there_and_back(code)
    assert back == code
    assert places(back) == places(code)
    found: dict[str, Any] = {}
    exec(back, found)
    assert found["x"] == [0, 1, 2]


def test_the_same_code_gives_the_same_bytes() -> None:
    """Two processes' pickles of one function can be compared: what they share by chance does not show."""
    function = cell(SOURCE, CELL)["outer"]
    once = payload.dumps(function)
    assert payload.dumps(there_and_back(function)) == once


def test_every_field_of_this_pythons_code_objects_travels() -> None:
    """A Python whose code objects have one more part is noticed here, before its tracebacks are wrong."""
    told = {
        name for name in dir(CodeType) if name.startswith("co_") and not callable(getattr(CodeType, name))
    }
    derived = {"co_lnotab", "_co_code_adaptive"}  # of others
    assert told - derived == set(code_objects._FIELDS), sys.version
