"""The stub that editors read: the package's names with every keyword written out. ``make options`` writes it."""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable
from typing import Any

from obl_magic.api import run, study


def stub() -> str:
    """``obl_magic/__init__.pyi``: the package's names with every keyword written out, for editors."""
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
from obl_magic.worker.report import checkpoint as checkpoint
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
