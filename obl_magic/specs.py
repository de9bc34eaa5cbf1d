"""The grammar of search spaces and ablation specs: texts to values and back. Evaluates single literals, nothing else.

A space: ``lr=log(1e-4,1e-1) units=int(16,128,step=16) drop=float(0,0.5) act=choice('relu','tanh')``. An ablation:
``features=age,'mean radius' layers=conv2 groups=block1_*,[conv1,bn1],a+b models=small_model flags=use_dropout``.
Either may be a mapping instead, whose names are taken as they are.
"""

from __future__ import annotations

import ast
import keyword
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from numbers import Integral, Real
from typing import Any

from obl_magic.errors import UsageProblem
from obl_magic.values import RESERVED

KINDS = {"features": "feature", "layers": "layer", "groups": "group", "models": "model", "flags": "flag"}
"""How a spec spells each kind of component."""

EXAMPLES = {
    "float": "float(0,0.5)",
    "log": "log(1e-4,1e-1)",
    "int": "int(16,128)",
    "choice": "choice('relu','tanh')",
}
"""One correct example for each form of a domain."""

LARGEST_WHOLE = 2**53
"""Optuna keeps whole numbers as floats; up to here they are exact."""

LONGEST_BITS = 1024
"""Python refuses to print integers that are very much longer."""

_ABLATION_EXAMPLES = {
    "features": "features=age,'mean radius'",
    "layers": "layers=conv2,dropout",
    "groups": "groups=block1_*,[conv1,bn1]",
    "models": "models=small_model",
    "flags": "flags=use_dropout",
}
_ANY_SPACE = "lr=log(1e-4,1e-1) units=int(16,128)"
_ANY_ABLATION = "features=age layers=conv2"
_FORMS = "float(low,high), log(low,high), int(low,high) or choice(a,b)"
_LITERAL = "a literal (a number, a quoted text, True, False, None, or a tuple, list or dict of those)"
_WORD = re.compile(r"[^\W\d]\w*")
_KEYWORD = re.compile(r"\s*([^\W\d]\w*)\s*=(?!=)")
_BARE = re.compile(r"""[^\s,='"\[\]()](?:[^\s,='"\[\]()]|\[[^\s,\]'"]+\])*""")
_BARE_IN_GROUP = re.compile(r"""[^\s,='"\[\]()+](?:[^\s,='"\[\]()+]|\[[^\s,\]'"]+\])*""")
_GLOB = re.compile(r"[*?\[]")
_CLOSES = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True, slots=True)
class Range:
    """A parameter that takes numbers between two bounds, both included.

    Attributes:
        name: the parameter's. low, high: its bounds; int when ``whole``, otherwise float.
        whole: whole numbers only. log: even on a logarithmic scale.
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
        name: the parameter's. options: what it may be, in the order given.
    """

    name: str
    options: tuple[Any, ...]


Domain = Range | Choice


@dataclass(frozen=True, slots=True)
class Asked:
    """One component that an ablation shall take away, as asked for; nobody has looked yet whether it exists.

    Attributes:
        kind: ``feature``, ``layer``, ``group``, ``model`` or ``flag``.
        text: what a table calls it: its members, joined by ``+``.
        members: names, patterns, or numbers of columns, all as text. A pattern (``block1_*``; ``*?[`` mean what they
            mean to ``fnmatch``, ``[*]`` is a star) is left to whoever knows the names: of a feature or a layer it
            asks for one component for each name it fits, of a group for one with all of them.
    """

    kind: str
    text: str
    members: tuple[str, ...]


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
        domains = tuple(_domains(_Scanner(spec)))
    else:
        raise UsageProblem(_shown(spec), "a text or a mapping for the search space", f"write {_ANY_SPACE}")
    if not domains:
        raise UsageProblem(
            "an empty search space", f"name=form, the form being {_FORMS}", f"write {_ANY_SPACE}"
        )
    return domains


def parse_components(spec: str | Mapping[str, Any]) -> tuple[Asked, ...]:
    """Returns what an ablation shall take away, in the order given.

    Args:
        spec: a text; or a mapping from each kind (``features``, …) to a list of names, or to the text of its items.
            In a list a column's number may be an int, and a group a list of names.

    Raises:
        UsageProblem: it cannot be read; the piece, its place and a correct example are named.
    """
    if isinstance(spec, Mapping):
        asked = tuple(_listed(spec))
    elif isinstance(spec, str):
        asked = tuple(_components(_Scanner(spec)))
    else:
        raise UsageProblem(_shown(spec), "a text or a mapping for the ablation", f"write {_ANY_ABLATION}")
    if not asked:
        kinds = ", ".join(KINDS)
        raise UsageProblem(
            "an empty ablation spec", f"kind=names, the kind being one of {kinds}", f"write {_ANY_ABLATION}"
        )
    return asked


def text_of(item: Domain | Asked) -> str:
    """Returns the text that is read as ``item`` again, e.g. ``lr=log(0.0001,0.1)``."""
    if isinstance(item, Asked):
        return _asked_text(item)
    if isinstance(item, Choice):
        return f"{item.name}=choice({','.join(repr(option) for option in item.options)})"
    bounds = f"{_short(item.low)},{_short(item.high)}"
    if item.log and not item.whole:
        return f"{item.name}=log({bounds})"
    step = "" if item.step is None else f",step={_short(item.step)}"
    log = ",log=True" if item.log else ""
    return f"{item.name}={'int' if item.whole else 'float'}({bounds}{step}{log})"


@dataclass(frozen=True, slots=True)
class _Argument:
    """One argument of a form: its keyword or "", its text, and where that begins."""

    key: str
    text: str
    at: int


def _domains(scanner: _Scanner) -> Iterable[Domain]:
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


def _name(scanner: _Scanner) -> str:
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


def _form(scanner: _Scanner, name: str) -> Domain:
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


def _arguments(scanner: _Scanner, bracket: int, example: str) -> list[_Argument]:
    """Returns the arguments up to the closing bracket, which is taken."""
    found: list[_Argument] = []
    scanner.spaces()
    if scanner.take(")"):
        return found
    while True:
        scanner.spaces()
        at, text = scanner.at, scanner.argument(bracket, example)
        if not text:
            raise scanner.problem("nothing" if scanner.peek() == ")" else "','", at, _LITERAL, example)
        keyword_ = _KEYWORD.match(text)
        skipped = keyword_.end() if keyword_ else 0
        found.append(_Argument(keyword_[1] if keyword_ else "", text[skipped:].strip(), at + skipped))
        if not scanner.take(","):
            scanner.take(")")
            return found


def _choice(scanner: _Scanner, name: str, arguments: list[_Argument], at: int) -> Choice:
    example = f"{name}={EXAMPLES['choice']}"
    for argument in arguments:
        if argument.key:
            raise scanner.problem(f"{argument.key}=", argument.at, "options without keywords", example)
    options = tuple(_literal(scanner, argument, example) for argument in arguments)
    fault = _choice_fault(options)
    if fault is not None:
        index, got, expected = fault
        raise scanner.problem(got, arguments[index].at if arguments else at, expected, example)
    return Choice(name, options)


def _range(scanner: _Scanner, name: str, form: str, arguments: list[_Argument], at: int) -> Range:
    example = f"{name}={EXAMPLES[form]}"
    bounds = [argument for argument in arguments if not argument.key]
    if len(bounds) != 2:
        few = f"{len(bounds)} bound{'' if len(bounds) == 1 else 's'} in {form}(…)"
        raise scanner.problem(few, at, f"two bounds, {form}(low,high)", example)
    extra = _extra(scanner, form, [argument for argument in arguments if argument.key], example)
    low, high = (_literal(scanner, bound, example) for bound in bounds)
    step = _literal(scanner, extra["step"], example) if "step" in extra else None
    log = _literal(scanner, extra["log"], example) if "log" in extra else form == "log"
    places = {"low": bounds[0].at, "high": bounds[1].at} | {
        key: argument.at for key, argument in extra.items()
    }

    def problem(part: str, got: str, expected: str) -> UsageProblem:
        return scanner.problem(got, places.get(part, at), expected, example)

    return _sound(Range(name, low, high, form == "int", log, step), problem)


def _extra(scanner: _Scanner, form: str, arguments: list[_Argument], example: str) -> dict[str, _Argument]:
    """Returns the keyword arguments of a range by name."""
    allowed = () if form == "log" else ("step", "log")
    extra: dict[str, _Argument] = {}
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
            return part, _shown(value), fault
    if domain.log not in (True, False):
        return "log", f"log={_shown(domain.log)}", "log=True or log=False"
    if low >= high:
        return "low", f"bounds {_short(low)} and {_short(high)}", "low < high"
    if domain.log and low <= 0:
        return "low", f"a logarithmic range from {_short(low)}", "low > 0"
    if high - low > sys.float_info.max:
        return "high", f"a range from {_short(low)} to {_short(high)}", "one whose width is a number"
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
        return "step", f"step={_short(step)}", f"a step above 0, of at most {_short(width)}"
    if step * LARGEST_WHOLE < width:
        return "step", f"step={_short(step)}", "a step that leaves fewer than 2**53 values"
    return None


def _choice_fault(options: tuple[Any, ...]) -> tuple[int, str, str] | None:
    """Returns which option is wrong, what it is and what was expected; None when all are good."""
    if not options:
        return 0, "a choice of nothing", "at least one option"
    seen: set[str] = set()
    for index, option in enumerate(options):
        if not _is_literal(option):
            return index, _shown(option), _LITERAL
        if repr(option) in seen:
            return index, f"the option {_shown(option)} a second time", "each option once"
        seen.add(repr(option))
    return None


def _given(name: Any, value: Any) -> Domain:
    """Returns one parameter of a mapping."""
    if not isinstance(name, str) or not _is_parameter(name):
        raise UsageProblem(_shown(name), "the name of a parameter", 'write {"lr": "log(1e-4,1e-1)"}')
    if isinstance(value, str):
        return _whole_form(_Scanner(value, name), name)
    domain = _from_optuna(name, value) if not isinstance(value, list | tuple) else Choice(name, tuple(value))
    if isinstance(domain, Range):
        return _sound(domain, lambda _, got, expected: _in_mapping(name, got, expected))
    domain = Choice(name, tuple(_plain(option) for option in domain.options))
    fault = _choice_fault(domain.options)
    if fault is not None:
        raise _in_mapping(name, fault[1], fault[2], "choice")
    return domain


def _whole_form(scanner: _Scanner, name: str) -> Domain:
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
    raise _in_mapping(name, _shown(value), f"a text with {_FORMS}, or a list of options")


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


def _short(number: float) -> str:
    """Returns the shortest of two texts that are read as this very number."""
    if isinstance(number, int):
        return str(number)
    return f"{number:g}" if float(f"{number:g}") == number else repr(number)


def _components(scanner: _Scanner) -> Iterable[Asked]:
    seen: set[tuple[str, frozenset[str]]] = set()
    scanner.spaces()
    while not scanner.ended():
        at, plural = scanner.at, scanner.word()
        if plural not in KINDS:
            got = f"the kind {plural!r}" if plural else scanner.rest()
            raise scanner.problem(got, at, f"one of {', '.join(KINDS)}", _ANY_ABLATION)
        scanner.spaces()
        if not scanner.take("="):
            raise scanner.problem(
                f"{plural!r} without '='", at, f"{plural}=names", _ABLATION_EXAMPLES[plural]
            )
        yield from _items(scanner, plural, seen)


def _items(scanner: _Scanner, plural: str, seen: set[tuple[str, frozenset[str]]]) -> Iterable[Asked]:
    """Yields the components that follow a kind; ends behind the space after them."""
    example = _ABLATION_EXAMPLES[plural]
    while True:
        scanner.spaces()
        at = scanner.at
        members, listed = (
            _group(scanner) if plural == "groups" else ((_member(scanner, plural, _BARE),), False)
        )
        yield _once(plural, members, listed, seen, scanner.telling(at, example))
        spaced = scanner.spaces()
        if scanner.take(","):
            continue
        if not spaced and not scanner.ended():
            raise scanner.problem(scanner.rest(), scanner.at, "a comma or a space after a name", example)
        return


def _group(scanner: _Scanner) -> tuple[tuple[str, ...], bool]:
    """Returns a group's members, and whether they stand in brackets."""
    bracket = scanner.at
    listed = scanner.take("[")
    members = []
    while True:
        scanner.spaces()
        members.append(_member(scanner, "groups", _BARE_IN_GROUP))
        ahead = scanner.at
        scanner.spaces()
        if scanner.take("," if listed else "+"):
            continue
        if not listed:
            scanner.at = ahead
        elif not scanner.take("]"):
            got = "'[' that nothing closes" if scanner.ended() else scanner.rest()
            at = bracket if scanner.ended() else scanner.at
            raise scanner.problem(got, at, "names with commas up to ']'", _ABLATION_EXAMPLES["groups"])
        return tuple(members), listed


def _member(scanner: _Scanner, plural: str, bare: re.Pattern[str]) -> str:
    at, example = scanner.at, _ABLATION_EXAMPLES[plural]
    if scanner.peek() in ("'", '"'):
        text = scanner.quoted(example)
        return str(_literal(scanner, _Argument("", text, at), example))
    if scanner.peek() == "[" and plural != "groups":
        raise scanner.problem(
            "a list", at, f"single names ({plural} take no list)", _ABLATION_EXAMPLES["groups"]
        )
    name = scanner.word(bare)
    if not name:
        got = "nothing" if scanner.ended() else scanner.rest()
        raise scanner.problem(got, at, "a name (in quotes when it holds spaces or signs)", example)
    return name


def _listed(spec: Mapping[Any, Any]) -> Iterable[Asked]:
    """Yields the components of a mapping."""
    seen: set[tuple[str, frozenset[str]]] = set()
    for plural, items in spec.items():
        if plural not in KINDS:
            raise UsageProblem(
                f"the kind {_shown(plural)}", f"one of {', '.join(KINDS)}", 'write {"layers": ["conv2"]}'
            )
        if isinstance(items, str):
            yield from _text_items(_Scanner(items, plural), plural, seen)
        elif isinstance(items, list | tuple):
            yield from (_listed_item(plural, item, seen) for item in items)
        else:
            raise _in_list(plural, items, "a list of names")


def _text_items(scanner: _Scanner, plural: str, seen: set[tuple[str, frozenset[str]]]) -> Iterable[Asked]:
    yield from _items(scanner, plural, seen)
    if not scanner.ended():
        raise scanner.problem(scanner.rest(), scanner.at, "names with commas", _ABLATION_EXAMPLES[plural])


def _listed_item(plural: str, item: Any, seen: set[tuple[str, frozenset[str]]]) -> Asked:
    listed = plural == "groups" and isinstance(item, list | tuple)
    names = item if listed else [item]
    if plural == "groups" and isinstance(item, str) and not _GLOB.search(item):
        names = [part.strip() for part in item.split("+")]
    members = tuple(_listed_member(plural, name) for name in names)
    return _once(plural, members, listed, seen, lambda got, expected: _in_list(plural, got, expected))


def _listed_member(plural: str, name: Any) -> str:
    numbered = plural in ("features", "groups")
    if isinstance(name, str):
        return str(name)
    if numbered and type(name) is not bool and isinstance(name, Integral):
        return str(int(name))
    raise _in_list(
        plural,
        _shown(name),
        "a name" if plural not in ("features", "groups") else "a name or a column's number",
    )


def _in_list(plural: str, got: Any, expected: str) -> UsageProblem:
    text = got if isinstance(got, str) else _shown(got)
    examples = {"features": '["age", 3]', "groups": '[["conv1", "bn1"], "block1_*"]'}
    names = _ABLATION_EXAMPLES[plural].partition("=")[2].split(",")
    example = examples.get(plural, "[" + ", ".join(f'"{name}"' for name in names) + "]")
    return UsageProblem(f"{text} in {plural}", expected, f'write {{"{plural}": {example}}}')


def _once(
    plural: str,
    members: tuple[str, ...],
    listed: bool,
    seen: set[tuple[str, frozenset[str]]],
    problem: Callable[[str, str], UsageProblem],
) -> Asked:
    """Returns the component when it makes sense and was not asked for before."""
    asked = Asked(KINDS[plural], "+".join(members), members)
    if not members or not all(members):
        raise problem("an empty name" if members else "an empty group", "a name")
    if len(set(members)) < len(members):
        raise problem(f"a name twice in {_shown(asked.text)}", "each name once")
    if plural == "groups" and not listed and len(members) == 1 and not _GLOB.search(members[0]):
        raise problem(
            f"a group of {_shown(members[0])} alone", "a pattern, names in brackets, or names joined by +"
        )
    if plural in ("models", "flags") and not members[0].isidentifier():
        thing = "function" if plural == "models" else "parameter"
        raise problem(_shown(members[0]), f"the name of a {thing}")
    key = plural, frozenset(members)
    if key in seen:
        raise problem(f"the {asked.kind} {_shown(asked.text)} a second time", "each component once")
    seen.add(key)
    return asked


def _asked_text(asked: Asked) -> str:
    plural = next(plural for plural, kind in KINDS.items() if kind == asked.kind)
    bare = _BARE_IN_GROUP if plural == "groups" else _BARE
    texts = [member if bare.fullmatch(member) else repr(member) for member in asked.members]
    alone = len(texts) == 1 and (plural != "groups" or _GLOB.search(asked.members[0]) is not None)
    return f"{plural}={texts[0]}" if alone else f"{plural}=[{','.join(texts)}]"


class _Scanner:
    """A text and how far it has been read.

    Args:
        text: what is read. owner: whose text it is within a mapping, or "".
    """

    def __init__(self, text: str, owner: str = "") -> None:
        self.text, self.owner, self.at = text, owner, 0

    def ended(self) -> bool:
        return self.at >= len(self.text)

    def peek(self) -> str:
        """Returns the next character, or "" at the end."""
        return self.text[self.at : self.at + 1]

    def rest(self) -> str:
        """Returns what comes next, as an error shows it."""
        return repr(self.text[self.at :].split()[0][:20]) if self.text[self.at :].split() else "nothing"

    def take(self, sign: str) -> bool:
        """Returns whether ``sign`` comes next, which is then behind us."""
        found = self.peek() == sign
        self.at += found
        return found

    def spaces(self) -> bool:
        """Returns whether there was space, which is then behind us."""
        before = self.at
        while self.peek().isspace():
            self.at += 1
        return self.at > before

    def word(self, pattern: re.Pattern[str] = _WORD) -> str:
        """Returns the word that comes next, or ""."""
        found = pattern.match(self.text, self.at)
        self.at = found.end() if found else self.at
        return found[0] if found else ""

    def quoted(self, example: str) -> str:
        """Returns the quoted text that comes next, with its quotes."""
        start, quote = self.at, self.peek()
        self.at += 1
        while not self.ended():
            sign = self.peek()
            self.at += 2 if sign == "\\" else 1
            if sign == quote:
                return self.text[start : self.at]
        raise self.problem("a quote that nothing closes", start, f"{quote} at its end", example)

    def argument(self, bracket: int, example: str) -> str:
        """Returns the text up to the comma or the bracket that ends an argument, which stays to be read."""
        start, inside = self.at, [bracket]
        while not self.ended():
            sign = self.peek()
            if len(inside) == 1 and sign in (",", ")"):
                return self.text[start : self.at].rstrip()
            if sign in ("'", '"'):
                self.quoted(example)
                continue
            if sign in _CLOSES:
                inside.append(self.at)
            elif sign in _CLOSES.values():
                opening = self.text[inside.pop()]
                if _CLOSES[opening] != sign:
                    raise self.problem(repr(sign), self.at, repr(_CLOSES[opening]), example)
            self.at += 1
        opening = self.text[inside[-1]]
        raise self.problem(f"{opening!r} that nothing closes", inside[-1], repr(_CLOSES[opening]), example)

    def telling(self, at: int, example: str) -> Callable[[str, str], UsageProblem]:
        """Returns what makes errors about the piece at ``at``."""
        return lambda got, expected: self.problem(got, at, expected, example)

    def problem(self, got: str, at: int, expected: str, example: str) -> UsageProblem:
        """Returns the error about what stands at ``at``."""
        of = f" of the text for {self.owner}" if self.owner else ""
        return UsageProblem(f"{got} at column {at + 1}{of}", expected, f"write {example}")


def _literal(scanner: _Scanner, argument: _Argument, example: str) -> Any:
    """Returns the value of one literal; never calls, looks up or computes anything."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python's remarks on odd escapes
            value = ast.literal_eval(argument.text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        got = _cut(repr(argument.text)) if argument.text else "nothing"
        raise scanner.problem(got, argument.at, _LITERAL, example) from None
    return value


def _shown(value: Any) -> str:
    """Returns a value on one line, cut."""
    try:
        return _cut(" ".join(repr(value).split()))
    except Exception:  # somebody else's repr, or a number too long to print
        return f"a {type(value).__name__}"


def _cut(text: str) -> str:
    return text if len(text) <= 60 else text[:59] + "…"
