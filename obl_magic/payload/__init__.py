"""The only file that says cloudpickle: objects to bytes and back. Starts nothing, opens nothing.

The trust boundary: a pickle is a program, and loading it runs it. ``loads`` may only see bytes that the
user's own notebook wrote or that a rank started by it wrote, kept in run folders private to the user (0700)
or carried by the launcher's own authenticated connection. Never load what came from elsewhere: a download, a
shared folder, a port.

Some things are mended on the way. Code keeps the name of its file (``code_objects``). Modules that travel
by value come back as modules whose functions share their globals (and may import each other in a circle).
Names that only a class body inside a function uses are sent along. A function under ``functools.cache``
travels as its code, with an empty cache, a ``functools.cached_property`` without its lock, one under
``functools.singledispatch`` with what it dispatches to, and a function under ``tf.function`` without its
graphs (``tf_functions``). Keras objects made of the user's own classes bring these classes
(``keras_objects``). Functions of ``__main__`` share its globals on a rank (``main_module``).

Large arrays need not be copied into the pickle: their buffers are handed out beside it (PEP 574), and
``files`` writes them down from where they lie.
"""

from __future__ import annotations

import contextlib
import functools
import io
import pickle
import sys
import types
from collections.abc import Callable, Iterable, Iterator
from types import ModuleType
from typing import Any

from obl_magic.payload import arrays, code_objects, keras_names, keras_objects, main_module, tf_functions
from obl_magic.payload.code_names import global_names
from obl_magic.payload.reach import is_own_code

_CACHED = type(functools.cache(len))
_NOT_SENT = ("__builtins__", "__loader__", "__spec__", "__cached__")
"""A module's entries that belong to the process that imported it; some loaders cannot be pickled."""


LARGE_BYTES = 1 << 20
"""From here on a buffer lies beside the pickle, where the caller has a place for it."""


def dumps(
    obj: object, by_value: Iterable[ModuleType] = (), large: list[pickle.PickleBuffer] | None = None
) -> bytes:
    """Pickles an object so that a plain Python process can load it.

    Args:
        obj: anything picklable, including functions and classes of a notebook.
        by_value: imported modules whose functions and classes travel as code instead of as an import.
        large: takes the large buffers of arrays, in order, instead of the pickle; they are the arrays' own
            memory.

    Returns:
        The pickle, for :func:`loads`.

    Raises:
        Exception: whatever the pickler or a ``__reduce__`` raises.
    """
    with _registered(by_value), io.BytesIO() as file:
        _pickler()(file, large).dump(obj)
        return file.getvalue()


def loads(data: bytes, large: Iterable[Any] = ()) -> Any:
    """Restores what :func:`dumps` wrote. Runs the pickle: see the trust boundary above.

    Args:
        data: the pickle.
        large: the buffers that lie beside it, in order; its arrays are made of them, uncopied.
    """
    return pickle.loads(data, buffers=large)


@contextlib.contextmanager
def _registered(modules: Iterable[ModuleType]) -> Iterator[None]:
    import cloudpickle

    already = cloudpickle.list_registry_pickle_by_value()
    ours = [module for module in modules if module.__name__ not in already]
    done: list[ModuleType] = []
    try:
        for module in ours:
            cloudpickle.register_pickle_by_value(module)
            done.append(module)
        yield
    finally:
        for module in done:
            cloudpickle.unregister_pickle_by_value(module)


@functools.cache
def _pickler() -> type[Any]:
    """The pickler of cloudpickle with these mendings; made on first use, to keep this file light."""
    import cloudpickle

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def __init__(self, file: io.BytesIO, large: list[pickle.PickleBuffer] | None) -> None:
            super().__init__(file, protocol=5, buffer_callback=None if large is None else _beside(large))
            self._shells: dict[str, _Shell] = {}
            self._by_value = {name: sys.modules[name] for name in cloudpickle.list_registry_pickle_by_value()}

        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, ModuleType):
                return self._module(obj)
            if (registry := self._dispatches_to(obj)) is not None:
                return _dispatcher, (), registry, None, None, _fill_dispatcher
            if isinstance(obj, types.FunctionType):
                self._share_globals(obj)
                reduced = _with_class_body_names(obj, super().reducer_override(obj))
                return keras_names.with_registration(obj, reduced)
            if isinstance(obj, type):
                return keras_names.with_registration(obj, super().reducer_override(obj))
            if isinstance(obj, _CACHED) and is_own_code(obj, self._by_value):
                return _cached, (obj.__wrapped__, obj.cache_parameters())
            if type(obj) is functools.cached_property:  # holds a lock before Python 3.12
                return _cached_property, (obj.func, obj.attrname)
            for mended in (
                code_objects.reduce(obj),
                arrays.reduce(obj, LARGE_BYTES),
                keras_objects.reduce(obj, self.proto),
                tf_functions.reduce(obj, self._by_value),
            ):
                if mended is not None:
                    return mended
            return super().reducer_override(obj)

        def _dispatches_to(self, obj: Any) -> dict[type, Any] | None:
            """What a function of the user's under ``functools.singledispatch`` calls, by type; else None."""
            registry = getattr(obj, "registry", None) if isinstance(obj, types.FunctionType) else None
            own = isinstance(registry, types.MappingProxyType) and is_own_code(obj, self._by_value)
            return dict(registry) if own and registry is not None else None

        def _module(self, module: ModuleType) -> Any:
            if module.__name__ not in self._by_value:
                return NotImplemented
            state = {name: value for name, value in vars(module).items() if name not in _NOT_SENT}
            return _same, (self._shell(module),), state, None, None, _fill_module

        def _share_globals(self, function: types.FunctionType) -> None:
            module = self._by_value.get(function.__module__)
            if module is not None and function.__globals__ is vars(module):
                self.globals_ref.setdefault(id(function.__globals__), _Globals(self._shell(module)))
            elif main_module.is_of_main(function):
                namespace = function.__globals__
                self.globals_ref.setdefault(id(namespace), main_module.Globals(namespace))

        def _shell(self, module: ModuleType) -> _Shell:
            return self._shells.setdefault(module.__name__, _Shell(module))

    return Pickler


def _beside(large: list[pickle.PickleBuffer]) -> Callable[[pickle.PickleBuffer], bool]:
    """Keeps large buffers; whether a buffer is to go into the pickle instead."""

    def into_the_pickle(buffer: pickle.PickleBuffer) -> bool:
        view = memoryview(buffer)
        if view.nbytes < LARGE_BYTES or not view.contiguous:
            return True
        large.append(buffer)
        return False

    return into_the_pickle


class _Shell:
    """Comes back as a new module of that name, still without its contents."""

    def __init__(self, module: ModuleType) -> None:
        self.name = module.__name__
        self.entries = {
            name: vars(module)[name]
            for name in ("__package__", "__path__", "__file__")
            if name in vars(module)
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return _new_module, (self.name, {**self.entries})


class _Globals(dict[str, Any]):
    """Comes back as the globals of a shell's module, so that its functions see what the module sees."""

    def __init__(self, shell: _Shell) -> None:
        super().__init__(__name__=shell.name)  # not empty: cloudpickle fills an empty one itself
        self.shell = shell

    def __reduce__(self) -> tuple[Any, ...]:
        return vars, (self.shell,)


def _new_module(name: str, entries: dict[str, Any]) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(entries)
    return module


def _same(module: ModuleType) -> ModuleType:
    return module


def _fill_module(module: ModuleType, state: dict[str, Any]) -> None:
    vars(module).update(state)


def _cached(function: types.FunctionType, parameters: dict[str, Any]) -> Any:
    return functools.lru_cache(**parameters)(function)


def _dispatcher() -> Any:
    return functools.singledispatch(_nothing)


def _nothing(argument: Any) -> None:
    """What a dispatcher has until it is filled."""


def _fill_dispatcher(dispatcher: Any, implementations: dict[type, Callable[..., Any]]) -> None:
    for kind, implementation in implementations.items():
        dispatcher.register(kind, implementation)
    functools.update_wrapper(dispatcher, implementations[object])


def _cached_property(function: Callable[[Any], Any], name: str | None) -> functools.cached_property[Any]:
    made = functools.cached_property(function)
    made.attrname = name  # the class that it comes back into is made before it, so nobody tells it
    return made


def _with_class_body_names(function: types.FunctionType, reduced: Any) -> Any:
    """Adds the globals that a class body inside the function reads: cloudpickle overlooks LOAD_NAME."""
    if reduced is NotImplemented:
        return reduced
    sent: dict[str, Any] = reduced[2][1]["__globals__"]
    known = function.__globals__
    sent.update({name: known[name] for name in global_names(function.__code__) if name in known})
    return reduced
