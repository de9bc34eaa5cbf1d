"""The grammar of search spaces and ablation specs: texts to values and back. Evaluates single literals, nothing else.

A space: ``lr=log(1e-4,1e-1) units=int(16,128,step=16) drop=float(0,0.5) act=choice('relu','tanh')``. An ablation:
``features=age,'mean radius' layers=conv2 groups=block1_*,[conv1,bn1],a+b models=small_model flags=use_dropout``.
Either may be a mapping instead, whose names are taken as they are.
"""

from __future__ import annotations

from obl_magic.specs.components import KINDS, Asked, asked_text, parse_components
from obl_magic.specs.space import EXAMPLES, Choice, Domain, Range, parse_space, short

__all__ = [
    "EXAMPLES",
    "KINDS",
    "Asked",
    "Choice",
    "Domain",
    "Range",
    "parse_components",
    "parse_space",
    "text_of",
]


def text_of(item: Domain | Asked) -> str:
    """Returns the text that is read as ``item`` again, e.g. ``lr=log(0.0001,0.1)``."""
    if isinstance(item, Asked):
        return asked_text(item)
    if isinstance(item, Choice):
        return f"{item.name}=choice({','.join(repr(option) for option in item.options)})"
    bounds = f"{short(item.low)},{short(item.high)}"
    if item.log and not item.whole:
        return f"{item.name}=log({bounds})"
    step = "" if item.step is None else f",step={short(item.step)}"
    log = ",log=True" if item.log else ""
    return f"{item.name}={'int' if item.whole else 'float'}({bounds}{step}{log})"
