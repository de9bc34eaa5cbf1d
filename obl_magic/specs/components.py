"""The grammar of ablations: ``features=age layers=conv2 groups=block1_*,[a,b] flags=use_dropout``, or a mapping."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from obl_magic.errors import UsageProblem
from obl_magic.specs.scanning import BARE, BARE_IN_GROUP, Argument, Scanner, literal, shown

KINDS = {"features": "feature", "layers": "layer", "groups": "group", "models": "model", "flags": "flag"}
"""How a spec spells each kind of component."""


_ABLATION_EXAMPLES = {
    "features": "features=age,'mean radius'",
    "layers": "layers=conv2,dropout",
    "groups": "groups=block1_*,[conv1,bn1]",
    "models": "models=small_model",
    "flags": "flags=use_dropout",
}


_ANY_ABLATION = "features=age layers=conv2"


_GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class Asked:
    """One component that an ablation shall take away, as asked for; nobody has looked yet whether it exists.

    Attributes:
        kind: ``feature``, ``layer``, ``group``, ``model`` or ``flag``.
        text: what a table calls it: its members, joined by ``+``.
        members: names, patterns, or numbers of columns, all as text. A pattern (``block1_*``; ``*?[`` mean what
            they mean to ``fnmatch``, ``[*]`` is a star) is left to whoever knows the names: of a feature or a
            layer it asks for one component for each name it fits, of a group for one with all of them.
    """

    kind: str
    text: str
    members: tuple[str, ...]


def parse_components(spec: str | Mapping[str, Any]) -> tuple[Asked, ...]:
    """Returns what an ablation shall take away, in the order given.

    Args:
        spec: a text; or a mapping from each kind (``features``, …) to a list of names, or to the text of its
            items. In a list a column's number may be an int, and a group a list of names.

    Raises:
        UsageProblem: it cannot be read; the piece, its place and a correct example are named.
    """
    if isinstance(spec, Mapping):
        asked = tuple(_listed(spec))
    elif isinstance(spec, str):
        asked = tuple(_components(Scanner(spec)))
    else:
        raise UsageProblem(shown(spec), "a text or a mapping for the ablation", f"write {_ANY_ABLATION}")
    if not asked:
        kinds = ", ".join(KINDS)
        raise UsageProblem(
            "an empty ablation spec", f"kind=names, the kind being one of {kinds}", f"write {_ANY_ABLATION}"
        )
    return asked


def _components(scanner: Scanner) -> Iterable[Asked]:
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


def _items(scanner: Scanner, plural: str, seen: set[tuple[str, frozenset[str]]]) -> Iterable[Asked]:
    """Yields the components that follow a kind; ends behind the space after them."""
    example = _ABLATION_EXAMPLES[plural]
    while True:
        scanner.spaces()
        at = scanner.at
        members, listed = (
            _group(scanner) if plural == "groups" else ((_member(scanner, plural, BARE),), False)
        )
        yield _once(plural, members, listed, seen, scanner.telling(at, example))
        spaced = scanner.spaces()
        if scanner.take(","):
            continue
        if not spaced and not scanner.ended():
            raise scanner.problem(scanner.rest(), scanner.at, "a comma or a space after a name", example)
        return


def _group(scanner: Scanner) -> tuple[tuple[str, ...], bool]:
    """Returns a group's members, and whether they stand in brackets."""
    bracket = scanner.at
    listed = scanner.take("[")
    members = []
    while True:
        scanner.spaces()
        members.append(_member(scanner, "groups", BARE_IN_GROUP))
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


def _member(scanner: Scanner, plural: str, bare: re.Pattern[str]) -> str:
    at, example = scanner.at, _ABLATION_EXAMPLES[plural]
    if scanner.peek() in ("'", '"'):
        text = scanner.quoted(example)
        return str(literal(scanner, Argument("", text, at), example))
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
                f"the kind {shown(plural)}", f"one of {', '.join(KINDS)}", 'write {"layers": ["conv2"]}'
            )
        if isinstance(items, str):
            yield from _text_items(Scanner(items, plural), plural, seen)
        elif isinstance(items, list | tuple):
            yield from (_listed_item(plural, item, seen) for item in items)
        else:
            raise _in_list(plural, items, "a list of names")


def _text_items(scanner: Scanner, plural: str, seen: set[tuple[str, frozenset[str]]]) -> Iterable[Asked]:
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
        shown(name),
        "a name" if plural not in ("features", "groups") else "a name or a column's number",
    )


def _in_list(plural: str, got: Any, expected: str) -> UsageProblem:
    text = got if isinstance(got, str) else shown(got)
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
        raise problem(f"a name twice in {shown(asked.text)}", "each name once")
    if plural == "groups" and not listed and len(members) == 1 and not _GLOB.search(members[0]):
        raise problem(
            f"a group of {shown(members[0])} alone", "a pattern, names in brackets, or names joined by +"
        )
    if plural in ("models", "flags") and not members[0].isidentifier():
        thing = "function" if plural == "models" else "parameter"
        raise problem(shown(members[0]), f"the name of a {thing}")
    key = plural, frozenset(members)
    if key in seen:
        raise problem(f"the {asked.kind} {shown(asked.text)} a second time", "each component once")
    seen.add(key)
    return asked


def asked_text(asked: Asked) -> str:
    """The text that is read as this again."""
    plural = next(plural for plural, kind in KINDS.items() if kind == asked.kind)
    bare = BARE_IN_GROUP if plural == "groups" else BARE
    texts = [member if bare.fullmatch(member) else repr(member) for member in asked.members]
    alone = len(texts) == 1 and (plural != "groups" or _GLOB.search(asked.members[0]) is not None)
    return f"{plural}={texts[0]}" if alone else f"{plural}=[{','.join(texts)}]"
