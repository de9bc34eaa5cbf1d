"""The grammar of search spaces: ``lr=log(1e-4,1e-1) units=int(16,128) act=choice('relu','tanh')``, or a mapping."""

from __future__ import annotations

import keyword
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

from obl_magic.errors import UsageProblem
from obl_magic.specs.scanning import KEYWORD, LITERAL, LONGEST_BITS, Argument, Scanner, literal, shown
from obl_magic.values import RESERVED

EXAMPLES = {
    "float": "float(0,0.5)",
    "log": "log(1e-4,1e-1)",
    "int": "int(16,128)",
    "choice": "choice('relu','tanh')",
}
"""One correct example for each form of a domain."""


LARGEST_WHOLE = 2**53
"""Optuna keeps whole numbers as floats; up to here they are exact."""


_ANY_SPACE = "lr=log(1e-4,1e-1) units=int(16,128)"


_FORMS = "float(low,high), log(low,high), int(low,high) or choice(a,b)"


@dataclass(frozen=True, slots=True)
class Range:
    """A parameter that takes numbers between two bounds, both included.

    Attributes:
        name: the parameter's.
        low: its bounds; int when ``whole``, otherwise float.
        high: its bounds; int when ``whole``, otherwise float.
        whole: whole numbers only.
        log: even on a logarithmic scale.
        step: distance between two values from ``low`` on, or None (1 when ``whole``).
    """

    name: str
    low: float
    high: float
    whole: bool = False
    log: bool = False
    step: float | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """A parameter that takes one of several literals.

    Attributes:
        name: the parameter's.
        options: what it may be, in the order given.
    """

    name: str
    options: tuple[Any, ...]


Domain = Range | Choice


def parse_space(spec: str | Mapping[str, Any]) -> tuple[Domain, ...]:
    """Returns what a search may vary, in the order given.

    Args:
        spec: a text; or a mapping from each parameter to the text of its form, a list or tuple of options, a
            :class:`Range`, a :class:`Choice` or one of Optuna's distributions.

    Raises:
        UsageProblem: it cannot be read; the piece, its place and a correct example are named.
    """
    if isinstance(spec, Mapping):
        domains = tuple(_given(name, value) for name, value in spec.items())
    elif isinstance(spec, str):
        domains = tuple(_domains(Scanner(spec)))
    else:
        raise UsageProblem(shown(spec), "a text or a mapping for the search space", f"write {_ANY_SPACE}")
    if not domains:
        raise UsageProblem(
            "an empty search space", f"name=form, the form being {_FORMS}", f"write {_ANY_SPACE}"
        )
    return domains


def _domains(scanner: Scanner) -> Iterable[Domain]:
    seen: set[str] = set()
    scanner.spaces()
    while not scanner.ended():
        at = scanner.at
        name = _name(scanner)
        if name in seen:
            raise scanner.problem(f"{name!r} a second time", at, "each parameter once", _ANY_SPACE)
        seen.add(name)
        yield _form(scanner, name)
        if not (scanner.spaces() or scanner.ended() or scanner.peek() == ","):
            raise scanner.problem(scanner.rest(), scanner.at, "a space before the next parameter", _ANY_SPACE)
        scanner.take(",")
        scanner.spaces()


def _name(scanner: Scanner) -> str:
    at, name = scanner.at, scanner.word()
    if not _is_parameter(name):
        got = repr(name) if name else scanner.rest()
        raise scanner.problem(got, at, "the name of a parameter", _ANY_SPACE)
    scanner.spaces()
    if not scanner.take("="):
        raise scanner.problem(
            f"{name!r} without '='",
            at,
            f"{name}=form, the form being {_FORMS}",
            f"{name}={EXAMPLES['float']}",
        )
    scanner.spaces()
    return name


def _form(scanner: Scanner, name: str) -> Domain:
    at, form = scanner.at, scanner.word()
    if form not in EXAMPLES:
        got = f"the form {form!r}" if form else scanner.rest()
        raise scanner.problem(got, at, _FORMS, f"{name}={EXAMPLES['float']}")
    example = f"{name}={EXAMPLES[form]}"
    scanner.spaces()
    bracket = scanner.at
    if not scanner.take("("):
        raise scanner.problem(f"{form!r} without '('", at, f"{form}(…)", example)
    arguments = _arguments(scanner, bracket, example)
    if form == "choice":
        return _choice(scanner, name, arguments, at)
    return _range(scanner, name, form, arguments, at)


def _arguments(scanner: Scanner, bracket: int, example: str) -> list[Argument]:
    """Returns the arguments up to the closing bracket, which is taken."""
    found: list[Argument] = []
    scanner.spaces()
    if scanner.take(")"):
        return found
    while True:
        scanner.spaces()
        at, text = scanner.at, scanner.argument(bracket, example)
        if not text:
            raise scanner.problem("nothing" if scanner.peek() == ")" else "','", at, LITERAL, example)
        keyword_ = KEYWORD.match(text)
        skipped = keyword_.end() if keyword_ else 0
        found.append(Argument(keyword_[1] if keyword_ else "", text[skipped:].strip(), at + skipped))
        if not scanner.take(","):
            scanner.take(")")
            return found


def _choice(scanner: Scanner, name: str, arguments: list[Argument], at: int) -> Choice:
    example = f"{name}={EXAMPLES['choice']}"
    for argument in arguments:
        if argument.key:
            raise scanner.problem(f"{argument.key}=", argument.at, "options without keywords", example)
    options = tuple(literal(scanner, argument, example) for argument in arguments)
    fault = _choice_fault(options)
    if fault is not None:
        index, got, expected = fault
        raise scanner.problem(got, arguments[index].at if arguments else at, expected, example)
    return Choice(name, options)


def _range(scanner: Scanner, name: str, form: str, arguments: list[Argument], at: int) -> Range:
    example = f"{name}={EXAMPLES[form]}"
    bounds = [argument for argument in arguments if not argument.key]
    if len(bounds) != 2:
        few = f"{len(bounds)} bound{'' if len(bounds) == 1 else 's'} in {form}(…)"
        raise scanner.problem(few, at, f"two bounds, {form}(low,high)", example)
    extra = _extra(scanner, form, [argument for argument in arguments if argument.key], example)
    low, high = (literal(scanner, bound, example) for bound in bounds)
    step = literal(scanner, extra["step"], example) if "step" in extra else None
    log = literal(scanner, extra["log"], example) if "log" in extra else form == "log"
    places = {"low": bounds[0].at, "high": bounds[1].at} | {
        key: argument.at for key, argument in extra.items()
    }

    def problem(part: str, got: str, expected: str) -> UsageProblem:
        return scanner.problem(got, places.get(part, at), expected, example)

    return _sound(Range(name, low, high, form == "int", log, step), problem)


def _extra(scanner: Scanner, form: str, arguments: list[Argument], example: str) -> dict[str, Argument]:
    """Returns the keyword arguments of a range by name."""
    allowed = () if form == "log" else ("step", "log")
    extra: dict[str, Argument] = {}
    for argument in arguments:
        if argument.key not in allowed or argument.key in extra:
            again = " a second time" if argument.key in extra else ""
            expected = f"only {form}(low,high{',step=…,log=True' if allowed else ''})"
            raise scanner.problem(f"{argument.key}={again}", argument.at, expected, example)
        extra[argument.key] = argument
    return extra


def _sound(domain: Range, problem: Callable[[str, str, str], UsageProblem]) -> Range:
    """Returns ``domain`` with numbers of its kind, and the last value that its steps reach as its upper bound."""
    fault = _range_fault(domain)
    if fault is not None:
        raise problem(*fault)
    kind: type[int] | type[float] = int if domain.whole else float
    step = None if domain.step is None or (domain.whole and domain.step == 1) else kind(domain.step)
    low, high = kind(domain.low), kind(domain.high)
    if step is not None:
        low_, step_ = Decimal(str(low)), Decimal(str(step))
        steps, left = divmod(Decimal(str(high)) - low_, step_)
        high = high if not left else kind(low_ + steps * step_)
    return Range(domain.name, low, high, domain.whole, bool(domain.log), step)


def _range_fault(domain: Range) -> tuple[str, str, str] | None:
    """Returns which part of a range is wrong, what it is and what was expected; None for a good one."""
    low, high, step = domain.low, domain.high, domain.step
    for part, value in (("low", low), ("high", high)) + ((("step", step),) if step is not None else ()):
        fault = _number_fault(value, domain.whole)
        if fault:
            return part, shown(value), fault
    if domain.log not in (True, False):
        return "log", f"log={shown(domain.log)}", "log=True or log=False"
    if low >= high:
        return "low", f"bounds {short(low)} and {short(high)}", "low < high"
    if domain.log and low <= 0:
        return "low", f"a logarithmic range from {short(low)}", "low > 0"
    if high - low > sys.float_info.max:
        return "high", f"a range from {short(low)} to {short(high)}", "one whose width is a number"
    return None if step is None else _step_fault(domain, step)


def _number_fault(value: Any, whole: bool) -> str:
    """Returns what was expected in place of ``value``, or "" for a number that will do."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "a number"
    if not -sys.float_info.max <= value <= sys.float_info.max:
        return "a finite number"
    if whole and value != int(value):
        return "a whole number"
    if whole and abs(value) > LARGEST_WHOLE:
        return "a whole number up to 2**53"
    return ""


def _step_fault(domain: Range, step: float) -> tuple[str, str, str] | None:
    if domain.log and not (domain.whole and step == 1):
        return "step", "step= beside log", "either of them"
    width = domain.high - domain.low
    if step <= 0 or step > width:
        return "step", f"step={short(step)}", f"a step above 0, of at most {short(width)}"
    if step * LARGEST_WHOLE < width:
        return "step", f"step={short(step)}", "a step that leaves fewer than 2**53 values"
    return None


def _choice_fault(options: tuple[Any, ...]) -> tuple[int, str, str] | None:
    """Returns which option is wrong, what it is and what was expected; None when all are good."""
    if not options:
        return 0, "a choice of nothing", "at least one option"
    seen: set[str] = set()
    for index, option in enumerate(options):
        if not _is_literal(option):
            return index, shown(option), LITERAL
        if repr(option) in seen:
            return index, f"the option {shown(option)} a second time", "each option once"
        seen.add(repr(option))
    return None


def _given(name: Any, value: Any) -> Domain:
    """Returns one parameter of a mapping."""
    if not isinstance(name, str) or not _is_parameter(name):
        raise UsageProblem(shown(name), "the name of a parameter", 'write {"lr": "log(1e-4,1e-1)"}')
    if isinstance(value, str):
        return _whole_form(Scanner(value, name), name)
    domain = _from_optuna(name, value) if not isinstance(value, list | tuple) else Choice(name, tuple(value))
    if isinstance(domain, Range):
        return _sound(domain, lambda _, got, expected: _in_mapping(name, got, expected))
    domain = Choice(name, tuple(_plain(option) for option in domain.options))
    fault = _choice_fault(domain.options)
    if fault is not None:
        raise _in_mapping(name, fault[1], fault[2], "choice")
    return domain


def _whole_form(scanner: Scanner, name: str) -> Domain:
    """Returns the domain that a mapping gives as text; nothing may follow it."""
    scanner.spaces()
    domain = _form(scanner, name)
    scanner.spaces()
    if not scanner.ended():
        raise scanner.problem(scanner.rest(), scanner.at, "one form", f"{name}={EXAMPLES['float']}")
    return domain


def _from_optuna(name: str, value: Any) -> Domain:
    """Returns the domain that a Range, a Choice or a distribution of Optuna stands for (its deprecated ones derive)."""
    if isinstance(value, Range | Choice):
        return replace(value, name=name)
    classes = {cls.__name__ for cls in type(value).__mro__}
    if "CategoricalDistribution" in classes:
        return Choice(name, tuple(value.choices))
    if "FloatDistribution" in classes or "IntDistribution" in classes:
        return Range(name, value.low, value.high, "IntDistribution" in classes, value.log, value.step)
    raise _in_mapping(name, shown(value), f"a text with {_FORMS}, or a list of options")


def _in_mapping(name: str, got: str, expected: str, form: str = "float") -> UsageProblem:
    return UsageProblem(f"{got} for {name}", expected, f'write {{"{name}": "{EXAMPLES[form]}"}}')


def _plain(option: Any) -> Any:
    """Returns Python's own number or text for NumPy's, which would not survive as literals."""
    if isinstance(option, bool):
        return option
    if isinstance(option, Integral):
        return int(option)
    if isinstance(option, Real):
        return float(option)
    return str(option) if isinstance(option, str) else option


def _is_literal(value: Any) -> bool:
    if type(value) is dict:
        return all(_is_literal(key) and _is_literal(item) for key, item in value.items())
    if type(value) in (list, tuple):
        return all(_is_literal(item) for item in value)
    if type(value) is float:
        return -sys.float_info.max <= value <= sys.float_info.max
    if type(value) is int:
        return value.bit_length() <= LONGEST_BITS
    return value is None or type(value) in (bool, str)


def _is_parameter(name: str) -> bool:
    return name.isidentifier() and not keyword.iskeyword(name) and name not in RESERVED


def short(number: float) -> str:
    """Returns the shortest of two texts that are read as this very number."""
    if isinstance(number, int):
        return str(number)
    return f"{number:g}" if float(f"{number:g}") == number else repr(number)
