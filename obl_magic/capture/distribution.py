"""Finds, before anything is started, that a function sets up distributed training by itself. Imports no framework."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any

from obl_magic.errors import NotOblivious
from obl_magic.worker.strategies import HOROVOD, TF_STRATEGIES, WAY_OUT


def refuse_own_distribution(fn: Callable[..., Any]) -> None:
    """Raises NotOblivious if the function, or a helper of its own, sets up distribution itself.

    Args:
        fn: the training function; functions it uses by global name are looked through too.
    """
    backend = getattr(sys.modules.get("keras"), "backend", None)
    if backend is not None and backend.backend() != "tensorflow":
        raise NotOblivious(
            f"Keras runs on {backend.backend()}; only its TensorFlow backend can be made oblivious",
            "set KERAS_BACKEND=tensorflow before Keras is imported, and restart the kernel",
        )
    for function in _own_functions(fn):
        names = {name for code in _codes(function.__code__) for name in code.co_names}
        what = _found(names, function.__globals__)
        if what:
            raise NotOblivious(f"{function.__name__} {what}", WAY_OUT)


def _found(names: set[str], namespace: dict[str, Any]) -> str:
    if strategies := names & set(TF_STRATEGIES):
        return f"makes a tf.distribute.{min(strategies)}"
    if names & set(HOROVOD):
        return f"uses horovod's {min(names & set(HOROVOD))}"
    roots = {name.split(".")[0] for name in names} | {
        value.__name__.split(".")[0] for name in names if isinstance(value := namespace.get(name), ModuleType)
    }
    if "horovod" in roots and "init" in names:
        return "calls horovod's init()"
    if "torch" in roots and "init_process_group" in names:
        return "calls torch.distributed.init_process_group()"
    if "jax" in roots and "distributed" in names and "initialize" in names:
        return "calls jax.distributed.initialize()"
    return ""


def _own_functions(fn: Callable[..., Any]) -> Iterator[FunctionType]:
    """A function and those of its module that it reaches by global names."""
    waiting: list[Any] = [fn]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        if not isinstance(one, FunctionType) or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        names = {name for code in _codes(one.__code__) for name in code.co_names}
        known = (one.__globals__.get(name) for name in names)
        waiting.extend(each for each in known if getattr(each, "__module__", None) == fn.__module__)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)
