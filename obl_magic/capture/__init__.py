"""A training function and a namespace become a Captured, or an error that says why not. Starts nothing."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from inspect import Parameter
from pickle import PickleBuffer
from types import FunctionType, ModuleType
from typing import Any

from obl_magic import library_settings, payload
from obl_magic.capture.cannot_travel import culprit
from obl_magic.capture.captured_names import captured_names, type_name
from obl_magic.capture.function_source import digest_of, read_cell, source_of, sources_of
from obl_magic.capture.own_modules import own_modules
from obl_magic.errors import CannotTravel, UsageProblem
from obl_magic.library_settings import generators
from obl_magic.payload.reach import is_own_code, walk
from obl_magic.values import RESERVED, Captured, CellSource

_VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


def capture(
    fn: Callable[..., Any],
    *,
    namespace: Mapping[str, Any] | None = None,
    provide: Mapping[str, Any] | None = None,
    args: Mapping[str, Any] | None = None,
    cells: Callable[[str], CellSource | None] = read_cell,
    travels: bool = True,
    also: Mapping[str, Any] | None = None,
) -> Captured:
    """Turns a function into a value that can be sent to the ranks.

    Args:
        fn: a Python function: a ``def``, a lambda, a closure, decorated or not.
        namespace: the notebook's names, which fill parameters without default; the function's own globals
            unless given.
        provide: values for parameters by name, ahead of the namespace.
        args: the arguments of this call by name; these parameters are filled by nobody else.
        cells: gives the cell behind a code object's ``co_filename``, with the label a user knows it by.
        travels: whether it must be sent anywhere; a function that is called here may reach what cannot be.
        also: what travels with it by name, though it does not reach it.

    Returns:
        The captured function. Its payload is the pickle of ``(fn, provided)``, where ``provided`` is a dict, or of
        ``(fn, provided, also)``; the buffers of large arrays lie beside it.

    Raises:
        UsageProblem: the function is of no kind that can run, or an argument is unknown or missing.
        CannotTravel: something that the function reaches cannot be pickled.
    """
    function = _function(fn)
    given = dict(args or {})
    provided = _provided(
        function, function.__globals__ if namespace is None else namespace, provide or {}, given
    )
    modules = own_modules()
    own = frozenset(module.__name__ for module in modules)
    large: list[PickleBuffer] = []
    more = dict(also or {})
    data = _pickle(function, provided, given, modules, own, large, more) if travels else b""
    reached = list(walk(function, {**provided, **more}, own))
    source = source_of(function)
    return Captured(
        name=function.__name__,
        source=source,
        digest=digest_of(source),
        payload=data,
        names=captured_names(reached, own, lambda value: payload.dumps(value, modules)),
        sources=sources_of((here.value for here in reached if _travels(here.value, own)), cells),
        provided=tuple(provided),
        provided_values=provided,
        buffers=tuple(large),
        library_settings=library_settings.carried(modules),
        generators=generators.carried(),
    )


def parameters(fn: Callable[..., Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """A function's hyperparameters, and the parameters that somebody must fill.

    Args:
        fn: a Python function.

    Returns:
        The defaults by name, and the names of the parameters without one (``*args`` and ``**kwargs`` left
        out).
    """
    known = [each for each in inspect.signature(fn).parameters.values() if each.kind not in _VARIADIC]
    defaults = {each.name: each.default for each in known if each.default is not Parameter.empty}
    return defaults, tuple(each.name for each in known if each.default is Parameter.empty)


def _function(fn: Callable[..., Any]) -> FunctionType:
    example = "wrap it in a function: def train(lr=0.01): return ..."
    if not isinstance(fn, FunctionType):
        raise UsageProblem(f"a {type_name(fn)}", "a Python function, written with def or lambda", example)
    if inspect.iscoroutinefunction(fn) or inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
        kind = "generator" if inspect.isgeneratorfunction(fn) else "coroutine"
        raise UsageProblem(
            f"{fn.__name__}, a {kind} function",
            "a function that trains when it is called, and returns",
            example,
        )
    return fn


def _provided(
    fn: FunctionType, namespace: Mapping[str, Any], provide: Mapping[str, Any], args: Mapping[str, Any]
) -> dict[str, Any]:
    """Values for the parameters that ``args`` leaves open, by name."""
    known = inspect.signature(fn).parameters
    for given, origin in ((args, "args"), (provide, "provide")):
        _refuse_unknown(fn, known, given, origin)
    found = {}
    for name, parameter in known.items():
        if name in args or parameter.kind in _VARIADIC:
            continue
        if parameter.kind is Parameter.POSITIONAL_ONLY and (
            name in provide or parameter.default is Parameter.empty
        ):
            raise _positional_only(fn, name)
        if name in provide:
            found[name] = provide[name]
        elif parameter.default is Parameter.empty and name not in RESERVED:
            if name not in namespace:
                raise _nobody_provides(fn, name, namespace)
            found[name] = namespace[name]
    return found


def _refuse_unknown(
    fn: FunctionType, known: Mapping[str, Parameter], given: Mapping[str, Any], origin: str
) -> None:
    takes_any = any(parameter.kind is Parameter.VAR_KEYWORD for parameter in known.values())
    names = [name for name, parameter in known.items() if parameter.kind not in _VARIADIC]
    for name in given:
        if name in names and known[name].kind is Parameter.POSITIONAL_ONLY:
            raise _positional_only(fn, name)
        if name not in names and not takes_any:
            close = difflib.get_close_matches(name, names, n=1) or names[:1]
            raise UsageProblem(
                f"{origin} {name!r}, which {fn.__name__} does not take",
                f"one of its parameters: {', '.join(names)}"
                if names
                else f"none: {fn.__name__} has no parameters",
                f"{origin}={{{close[0]!r}: ...}}"
                if close
                else f"add {name} to it: def {fn.__name__}({name}=...)",
            )


def _positional_only(fn: FunctionType, name: str) -> UsageProblem:
    return UsageProblem(
        f"{fn.__name__} with the positional-only parameter {name!r}",
        "parameters that can be given by name",
        f"remove the / from def {fn.__name__}(...)",
    )


def _nobody_provides(fn: FunctionType, name: str, namespace: Mapping[str, Any]) -> UsageProblem:
    public = [known for known in namespace if isinstance(known, str) and not known.startswith("_")]
    close = difflib.get_close_matches(name, public, n=3)
    hint = f" (there is {', '.join(close)})" if close else ""
    return UsageProblem(
        f"{fn.__name__}({name}, ...), where nothing is called {name!r}{hint}",
        f"a value for the parameter {name!r}, which has no default",
        f"define {name} in a cell before, or give it a default: def {fn.__name__}({name}=...), "
        f"or pass it: provide={{{name!r}: ...}}",
    )


def _pickle(
    fn: FunctionType,
    provided: dict[str, Any],
    args: dict[str, Any],
    modules: tuple[ModuleType, ...],
    own: frozenset[str],
    large: list[PickleBuffer],
    also: dict[str, Any],
) -> bytes:
    def attempt(value: Any) -> Exception | None:
        try:
            payload.dumps(value, modules, [])
        except Exception as error:  # a __reduce__ may raise anything
            return error
        return None

    try:
        data = payload.dumps((fn, provided, also) if also else (fn, provided), modules, large)
        if args:
            payload.dumps(args, modules, [])  # sent apart, with the job; refused here, before anything starts
        return data
    except Exception as error:
        found = culprit(fn, {**provided, **also, **args}, own, attempt)
        raise found or _as_a_whole(fn, error) from error


def _as_a_whole(fn: FunctionType, error: Exception) -> CannotTravel:
    return CannotTravel(
        fn.__name__, type_name(fn), str(error), "reach fewer objects from it: build them inside"
    )


def _travels(value: Any, own: frozenset[str]) -> bool:
    return isinstance(value, FunctionType) and is_own_code(value, own)
