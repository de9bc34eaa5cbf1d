"""The calls' options as editors and ``help()`` see them: signatures, docstrings and a stub, all from the one table."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from typing import Any, TypeVar

from obl_magic.options import Option, keywords

_F = TypeVar("_F", bound=Callable[..., Any])

WIDTH = 110
HERE = "        **options: "


def takes_options(call: str) -> Callable[[_F], _F]:
    """Tells the options that ``**options`` stands for, in the signature and in the docstring of a call.

    Args:
        call: ``run``, ``search`` or ``ablate``.
    """

    def told(fn: _F) -> _F:
        signature = inspect.signature(fn)
        *others, _ = signature.parameters.values()
        options = [
            inspect.Parameter(
                each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=each.type
            )
            for each in keywords(call)
        ]
        fn.__signature__ = signature.replace(parameters=[*others, *options])  # type: ignore[attr-defined]
        lines = (fn.__doc__ or "").split("\n")
        at = next((number for number, line in enumerate(lines) if line.startswith(HERE)), None)
        if at is not None:  # not there under `python -OO`
            lines[at : at + 1] = [line for each in keywords(call) for line in _documented(each)]
            fn.__doc__ = "\n".join(lines)
        return fn

    return told


def _documented(option: Option) -> list[str]:
    """An argument of a docstring in Google's style."""
    said = option.help.rpartition(": ")[0]
    return textwrap.wrap(
        f"{option.name}: {said}.{f' {option.more}' if option.more else ''}",
        WIDTH, initial_indent=" " * 8, subsequent_indent=" " * 12,
    )  # fmt: skip


def stub() -> str:
    """``obl_magic/__init__.pyi``: the package's names with every keyword written out, for editors."""
    from obl_magic.api import run, study  # they are described here, and take their signatures from here

    calls: tuple[Callable[..., Any], ...] = (run.run, study.search, study.ablate, run.verify)
    return HEAD + "\n".join(map(_stub_of, calls))


HEAD = """# `make options` writes this file from obl_magic/options.py.
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from obl_magic.api.parity import ParityReport
from obl_magic.display.run.view import Display
from obl_magic.display.study.view import StudyDisplay
from obl_magic.options import Source
from obl_magic.runs.run import Run as Run
from obl_magic.study.ablation_result import AblationResult as AblationResult
from obl_magic.study.search_result import Study as Study
from obl_magic.values import CellSource
from obl_magic.worker.report import report as report

__version__: str
__all__: list[str]

def load_ipython_extension(ipython: Any) -> None: ...
def unload_ipython_extension(ipython: Any) -> None: ...

"""


def _stub_of(fn: Callable[..., Any]) -> str:
    """One function of the stub."""
    signature, lines, starred = inspect.signature(fn), [], False
    for each in signature.parameters.values():
        if each.kind is each.KEYWORD_ONLY and not starred:
            lines.append("    *,")
            starred = True
        default = "" if each.default is each.empty else " = ..."
        lines.append(f"    {each.name}: {each.annotation}{default},")
    body = "\n".join(lines)
    doc = textwrap.indent(inspect.getdoc(fn) or "", "    ").strip()
    return f'def {fn.__name__}(\n{body}\n) -> {signature.return_annotation}:\n    """{doc}\n    """\n'
