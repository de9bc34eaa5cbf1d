"""Search and ablation specs: what they mean, what is refused and how that is said."""

from __future__ import annotations

import ast
import math
import re
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from obl_magic.errors import UsageProblem
from obl_magic.specs import KINDS, Asked, Choice, Domain, Range, parse_components, parse_space, text_of

SPACE = "lr=log(1e-4,1e-1) units=int(16,128) drop=float(0,0.5) act=choice('relu','tanh')"

WRONG_SPACES = [
    ("", "an empty search space", "name=form"),
    ("  ", "an empty search space", "name=form"),
    (
        "lr=uniform(0,1)",
        "the form 'uniform' at column 4",
        "float(low,high), log(low,high), int(low,high) or choice(a,b)",
    ),
    ("lr=0.1", "'0.1' at column 4", "float(low,high)"),
    ("lr=", "nothing at column 4", "float(low,high)"),
    ("lr=float(0,1) units=int(16)", "1 bound in int(…) at column 21", "two bounds, int(low,high)"),
    ("lr=float()", "0 bounds in float(…) at column 4", "two bounds, float(low,high)"),
    ("lr=log(1,2,3)", "3 bounds in log(…) at column 4", "two bounds"),
    ("lr=float(1,0)", "bounds 1 and 0 at column 10", "low < high"),
    ("n=int(3,3)", "bounds 3 and 3 at column 7", "low < high"),
    ("lr=log(0,1)", "a logarithmic range from 0 at column 8", "low > 0"),
    ("lr=float(-1,1,log=True)", "a logarithmic range from -1 at column 10", "low > 0"),
    ("lr=log(a,b)", "'a' at column 8", "a literal"),
    (
        "lr=log(1e-3, __import__('os').system('x'))",
        "\"__import__('os').system('x')\" at column 14",
        "a literal",
    ),
    ("lr=log(1e-3,2*3)", "'2*3' at column 13", "a literal"),
    ("lr=float(0,1) lr=float(0,2)", "'lr' a second time at column 15", "each parameter once"),
    ("lr float(0,1)", "'lr' without '=' at column 1", "lr=form"),
    ("0lr=float(0,1)", "'0lr=float(0,1)' at column 1", "the name of a parameter"),
    ("class=float(0,1)", "'class' at column 1", "the name of a parameter"),
    ("hparams=float(0,1)", "'hparams' at column 1", "the name of a parameter"),
    ("lr=float", "'float' without '(' at column 4", "float(…)"),
    ("lr=float(0,1", "'(' that nothing closes at column 9", "')'"),
    ("a=choice([1,2)", "')' at column 14", "']'"),
    ("act=choice('relu)", "a quote that nothing closes at column 12", "' at its end"),
    ("act=choice()", "a choice of nothing at column 5", "at least one option"),
    ("act=choice('a','b','a')", "the option 'a' a second time at column 20", "each option once"),
    ("act=choice('a',,'b')", "',' at column 16", "a literal"),
    ("act=choice('a',)", "nothing at column 16", "a literal"),
    ("act=choice(x='a')", "x= at column 14", "options without keywords"),
    ("act=choice({1,2})", "{1, 2} at column 12", "a literal"),
    ("act=choice(b'a')", "b'a' at column 12", "a literal"),
    ("act=choice(1e999)", "inf at column 12", "a literal"),
    ("lr=float(0,1e999)", "inf at column 12", "a finite number"),
    ("lr=float(-1e999,0)", "-inf at column 10", "a finite number"),
    ("n=int(0.5,3)", "0.5 at column 7", "a whole number"),
    ("n=int(0,1e17)", "1e+17 at column 9", "a whole number up to 2**53"),
    ("x=float(False,True)", "False at column 9", "a number"),
    ("x=float('0',1)", "'0' at column 9", "a number"),
    (
        "x=float(-1.7e308,1.7e308)",
        "a range from -1.7e+308 to 1.7e+308 at column 18",
        "whose width is a number",
    ),
    ("x=log(1,2,step=1)", "step= at column 16", "only log(low,high)"),
    ("x=int(1,9,base=2)", "base= at column 16", "only int(low,high,step=…,log=True)"),
    ("x=int(1,9,step=2,step=3)", "step= a second time at column 23", "only int("),
    ("x=int(1,9,step=0)", "step=0 at column 16", "a step above 0, of at most 8"),
    ("x=int(1,9,step=9)", "step=9 at column 16", "of at most 8"),
    ("x=int(1,9,step=1.5)", "1.5 at column 16", "a whole number"),
    ("x=int(1,9,step=)", "nothing at column 16", "a literal"),
    ("x=float(0,1,step=1e-300)", "step=1e-300 at column 18", "fewer than 2**53 values"),
    ("x=float(1,9,step=2,log=True)", "step= beside log at column 18", "either of them"),
    ("x=float(1,9,log='yes')", "log='yes' at column 17", "log=True or log=False"),
    ("x=float(0,1)y=float(0,1)", "'y=float(0,1)' at column 13", "a space before the next parameter"),
    (7, "7", "a text or a mapping for the search space"),
    ({}, "an empty search space", "name=form"),
    ({"lr": "log(0,1)"}, "a logarithmic range from 0 at column 5 of the text for lr", "low > 0"),
    ({"lr": "float(0,1) x"}, "'x' at column 12 of the text for lr", "one form"),
    ({"lr": 0.1}, "0.1 for lr", "or a list of options"),
    ({"lr": []}, "a choice of nothing for lr", "at least one option"),
    ({"act": [len, abs]}, "<built-in function len> for act", "a literal"),
    ({"lr": Range("", 2.0, 1.0)}, "bounds 2 and 1 for lr", "low < high"),
    ({"lr": Range("", math.nan, 1.0)}, "nan for lr", "a finite number"),
    ({"lr": Range("", 10**400, 1.0)}, "1000", "a finite number"),
    ({3: "float(0,1)"}, "3", "the name of a parameter"),
    ({"a b": "float(0,1)"}, "'a b'", "the name of a parameter"),
]

WRONG_ABLATIONS = [
    ("", "an empty ablation spec", "features, layers, groups, models, flags"),
    ("columns=a", "the kind 'columns' at column 1", "one of features, layers, groups, models, flags"),
    ("features=a rows=b", "the kind 'rows' at column 12", "one of features, layers, groups, models, flags"),
    ("=a", "'=a' at column 1", "one of features"),
    ("layers", "'layers' without '=' at column 1", "layers=names"),
    ("layers=", "nothing at column 8", "a name"),
    ("layers=a,,b", "',b' at column 10", "a name"),
    ("layers=a, flags=b", "'=b' at column 16", "a comma or a space"),
    ("layers=a layers=b,a", "the layer 'a' a second time at column 19", "each component once"),
    ("groups=[a,b],b+a", "the group 'b+a' a second time at column 14", "each component once"),
    ("groups=[a,b", "'[' that nothing closes at column 8", "up to ']'"),
    ("groups=[a b]", "'b]' at column 11", "up to ']'"),
    ("groups=[]", "']' at column 9", "a name"),
    ("groups=[a,a]", "a name twice in 'a+a' at column 8", "each name once"),
    ("groups=a", "a group of 'a' alone at column 8", "a pattern, names in brackets, or names joined by +"),
    ("layers=[a,b]", "a list at column 8", "single names (layers take no list)"),
    ("features='mean radius", "a quote that nothing closes at column 10", "' at its end"),
    ("features='a'b", "'b' at column 13", "a comma or a space after a name"),
    ("features=''", "an empty name at column 10", "a name"),
    ("flags=use-dropout", "'use-dropout' at column 7", "the name of a parameter"),
    ("models=small*", "'small*' at column 8", "the name of a function"),
    (None, "None", "a text or a mapping for the ablation"),
    ({}, "an empty ablation spec", "features, layers, groups, models, flags"),
    ({"columns": ["a"]}, "the kind 'columns'", "one of features, layers, groups, models, flags"),
    ({"features": 3}, "3 in features", "a list of names"),
    ({"features": [True]}, "True in features", "a name or a column's number"),
    ({"layers": [3]}, "3 in layers", "a name"),
    ({"layers": ["a", "a"]}, "the layer 'a' a second time in layers", "each component once"),
    ({"layers": "a b"}, "'b' at column 3 of the text for layers", "names with commas"),
    ({"groups": [[]]}, "an empty group in groups", "a name"),
    ({"groups": ["conv1"]}, "a group of 'conv1' alone in groups", "a pattern"),
    ({"flags": ["a-b"]}, "'a-b' in flags", "the name of a parameter"),
    ({"models": [None]}, "None in models", "a name"),
]

NUMBERS = st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300).map(
    lambda x: x + 0.0
)  # no -0.0
NAMES = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True).filter(
    lambda name: name not in {"if", "in", "is", "or", "as", "do"}
)
LITERALS = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBERS | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)
PARTS = st.sampled_from(
    [
        *"=()[]{},'\"+*\\-. \n",
        "lr",
        "log(",
        "int(",
        "choice(",
        "step=",
        "1e-4",
        "features=",
        "groups=",
        "flags=",
        "True",
        "\x00",
    ]
)
TEXTS = st.text() | st.lists(PARTS | st.text(max_size=3), max_size=25).map("".join)


@st.composite
def ranges(draw: st.DrawFn) -> Range:
    """Ranges of every form, as the parser leaves them."""
    name, whole, log = draw(NAMES), draw(st.booleans()), draw(st.booleans())
    if whole:
        low, width = draw(st.integers(1 if log else -1000, 1000)), draw(st.integers(2, 2000))
        step = draw(st.none() | st.integers(2, width)) if not log else None
        return Range(name, low, low + (width if step is None else width // step * step), True, log, step)
    bound = NUMBERS.filter(lambda number: number > 0) if log else NUMBERS
    low_, high = sorted(draw(st.lists(bound, min_size=2, max_size=2, unique=True)))
    return Range(name, low_, high, False, log)


def choices() -> st.SearchStrategy[Choice]:
    """Choices of any literals."""
    options = st.lists(LITERALS, min_size=1, max_size=4, unique_by=repr).map(tuple)
    return st.builds(Choice, NAMES, options)


def asked() -> st.SearchStrategy[Asked]:
    """Components of every kind, with names that need quotes among them."""
    any_name = (
        st.text(min_size=1, max_size=8)
        | NAMES
        | st.sampled_from(["mean radius", "a+b", "block1_*", "conv[12]", "-1", "it's"])
    )
    single = st.sampled_from(["feature", "layer"]).flatmap(
        lambda kind: st.builds(lambda name: Asked(kind, name, (name,)), any_name)
    )
    named = st.sampled_from(["model", "flag"]).flatmap(
        lambda kind: st.builds(lambda name: Asked(kind, name, (name,)), NAMES)
    )
    group = st.lists(any_name, min_size=1, max_size=3, unique=True).map(
        lambda names: Asked("group", "+".join(names), tuple(names))
    )
    return single | named | group


def test_a_space_is_read_form_by_form() -> None:
    """Each form gives its domain, in the order of the line."""
    assert parse_space(SPACE) == (
        Range("lr", 1e-4, 1e-1, log=True),
        Range("units", 16, 128, whole=True),
        Range("drop", 0.0, 0.5),
        Choice("act", ("relu", "tanh")),
    )


def test_bounds_are_numbers_of_their_kind() -> None:
    """Whole bounds are ints, others floats, however they were written."""
    units, drop = parse_space("units=int(1e1,16.0) drop=float(0,1)")
    assert isinstance(units, Range)
    assert isinstance(drop, Range)
    assert [type(bound) for bound in (units.low, units.high, drop.low, drop.high)] == [int, int, float, float]


@pytest.mark.parametrize(
    ("text", "domain"),
    [
        ("n=int(1,1024,log=True)", Range("n", 1, 1024, whole=True, log=True)),
        ("n=int(0,100,step=10)", Range("n", 0, 100, whole=True, step=10)),
        ("n=int(0,9,step=1)", Range("n", 0, 9, whole=True)),
        ("n=int(16,128,step=10)", Range("n", 16, 126, whole=True, step=10)),
        ("x=float(0,1,step=0.3)", Range("x", 0.0, 0.9, step=0.3)),
        ("x=float(0,0.3,step=0.1)", Range("x", 0.0, 0.3, step=0.1)),
        ("x=float(1,2,log=True)", Range("x", 1.0, 2.0, log=True)),
        ("x=float(1,2,log=False)", Range("x", 1.0, 2.0)),
        (" x = float ( -1 , 1 ) ", Range("x", -1.0, 1.0)),
        (
            "x=choice((32, 64), [1, 2], {'a': None}, 'a,b', \"it's\", -1.5)",
            Choice("x", ((32, 64), [1, 2], {"a": None}, "a,b", "it's", -1.5)),
        ),
        ("x=choice('(', 'a=b', '\\\\', '\\'')", Choice("x", ("(", "a=b", "\\", "'"))),
        ("x=choice(True,1,1.0)", Choice("x", (True, 1, 1.0))),
    ],
)
def test_a_form_is_read(text: str, domain: Domain) -> None:
    """Steps, logarithms, spaces and options of any shape."""
    assert parse_space(text) == (domain,)
    assert repr(parse_space(text)) == repr((domain,))


def test_commas_and_lines_may_stand_between_parameters() -> None:
    """A comma or a line break separates as a space does."""
    assert parse_space("a=int(1,2), b=int(1,2),c=int(1,2)\nd=int(1,2)") == parse_space(
        " ".join(f"{n}=int(1,2)" for n in "abcd")
    )


def test_a_mapping_says_the_same_as_a_text() -> None:
    """Texts, lists, ranges and choices may stand in a mapping."""
    given_ = {
        "lr": "log(1e-4,1e-1)",
        "units": Range("other", 16, 128, whole=True),
        "drop": " float(0,0.5) ",
        "act": ["relu", "tanh"],
    }
    assert parse_space(given_) == parse_space(SPACE)
    assert parse_space({"act": Choice("", ("relu", "tanh"))}) == parse_space("act=choice('relu','tanh')")


def test_numbers_of_numpy_become_pythons() -> None:
    """An option from an array is kept as the literal it stands for."""
    numpy = pytest.importorskip("numpy")
    (domain,) = parse_space({"x": [*numpy.arange(2), numpy.float64(0.1), numpy.str_("a")]})
    assert repr(domain) == "Choice(name='x', options=(0, 1, 0.1, 'a'))"


def test_optunas_distributions_are_taken() -> None:
    """They mean what they mean to Optuna."""
    optuna = pytest.importorskip("optuna")
    given_ = {
        "lr": optuna.distributions.FloatDistribution(1e-4, 1e-1, log=True),
        "units": optuna.distributions.IntDistribution(16, 128),
        "steps": optuna.distributions.IntDistribution(0, 10, step=5),
        "act": optuna.distributions.CategoricalDistribution(["relu", "tanh"]),
    }
    expected = "lr=log(1e-4,1e-1) units=int(16,128) steps=int(0,10,step=5) act=choice('relu','tanh')"
    assert parse_space(given_) == parse_space(expected)


@pytest.mark.parametrize(("spec", "got", "expected"), WRONG_SPACES)
def test_a_wrong_space_is_refused_in_one_line(spec: Any, got: str, expected: str) -> None:
    """The piece, its place, what was expected, and an example that works."""
    with pytest.raises(UsageProblem) as caught:
        parse_space(spec)
    assert got in caught.value.got
    assert expected in caught.value.expected
    assert "\n" not in str(caught.value)
    parse_space(advised(caught.value))


@pytest.mark.parametrize(("spec", "got", "expected"), WRONG_ABLATIONS)
def test_a_wrong_ablation_is_refused_in_one_line(spec: Any, got: str, expected: str) -> None:
    """The piece, its place, what was expected, and an example that works."""
    with pytest.raises(UsageProblem) as caught:
        parse_components(spec)
    assert got in caught.value.got
    assert expected in caught.value.expected
    assert "\n" not in str(caught.value)
    parse_components(advised(caught.value))


def advised(problem: UsageProblem) -> Any:
    """What the error tells the user to write."""
    text = problem.do.removeprefix("write ")
    return ast.literal_eval(text) if text.startswith("{") else text


def test_a_huge_bound_is_refused_however_it_is_written() -> None:
    """Integers that Python does not even print are no crash."""
    huge = "0x" + "f" * 5000
    for spec in (
        f"n=int(0,{huge})",
        f"x=choice({huge})",
        f"x=choice({'9' * 5000})",
        f"x=float({'(' * 5000}1,2)",
    ):
        with pytest.raises(UsageProblem, match="at column"):
            parse_space(spec)


def test_every_kind_of_component_is_read() -> None:
    """Each item is one component; a group has several names or a pattern."""
    spec = (
        "features=age,'mean radius',\"worst, area\",-1 layers=conv2,dropout "
        "groups=block1_*,[conv1, bn1],a+b models=small_model flags=use_dropout"
    )
    assert [(asked_.kind, asked_.members) for asked_ in parse_components(spec)] == [
        ("feature", ("age",)),
        ("feature", ("mean radius",)),
        ("feature", ("worst, area",)),
        ("feature", ("-1",)),
        ("layer", ("conv2",)),
        ("layer", ("dropout",)),
        ("group", ("block1_*",)),
        ("group", ("conv1", "bn1")),
        ("group", ("a", "b")),
        ("model", ("small_model",)),
        ("flag", ("use_dropout",)),
    ]


@pytest.mark.parametrize(
    ("text", "members"),
    [
        ("features=*", [("*",)]),
        ("layers=conv[12]*,a/b-c.d:0", [("conv[12]*",), ("a/b-c.d:0",)]),
        ("features=a+b", [("a+b",)]),
        ("groups=conv[12]", [("conv[12]",)]),
        ("groups='mean *'", [("mean *",)]),
        ("groups=[block1_*,conv9]", [("block1_*", "conv9")]),
        ("groups=[conv1]", [("conv1",)]),
        ("groups='a b' + c , d+e", [("a b", "c"), ("d", "e")]),
        ("layers = a , b", [("a",), ("b",)]),
        ("layers=a layers=b", [("a",), ("b",)]),
    ],
)
def test_names_and_patterns_are_kept_as_they_are(text: str, members: list[tuple[str, ...]]) -> None:
    """Nobody has looked yet whether they exist: patterns stay patterns."""
    assert [asked_.members for asked_ in parse_components(text)] == members


def test_a_component_is_called_by_its_members() -> None:
    """The table's name is without quotes and brackets."""
    texts = [asked_.text for asked_ in parse_components("features='mean radius' groups=[conv1,bn1],block1_*")]
    assert texts == ["mean radius", "conv1+bn1", "block1_*"]


def test_an_ablation_may_be_a_mapping() -> None:
    """Lists hold names as they are, numbers of columns, and lists of names for groups."""
    given_ = {
        "features": ["age", "mean radius", 3, 0, 1],
        "groups": [["a", "b c"], "block1_*", "mean *", "x+y", [0, 1]],
        "layers": "conv2, 'a b'",
        "flags": ("use_dropout",),
    }
    expected = (
        "features=age,'mean radius',3,0,1 groups=[a,'b c'],block1_*,'mean *',x+y,[0,1] "
        "layers=conv2,'a b' flags=use_dropout"
    )
    assert parse_components(given_) == parse_components(expected)


@given(st.lists(ranges() | choices(), min_size=1, max_size=4, unique_by=lambda domain: domain.name))
def test_a_space_survives_its_text(domains: list[Domain]) -> None:
    """What is displayed can be typed in again."""
    assert repr(parse_space(" ".join(map(text_of, domains)))) == repr(tuple(domains))


@given(st.lists(asked(), min_size=1, max_size=4, unique_by=lambda item: (item.kind, frozenset(item.members))))
def test_components_survive_their_text(items: list[Asked]) -> None:
    """What is displayed can be typed in again."""
    assert parse_components(" ".join(map(text_of, items))) == tuple(items)


def test_a_domain_is_displayed_shortly() -> None:
    """Numbers are as short as they can be."""
    assert " ".join(map(text_of, parse_space(SPACE))) == SPACE.replace("1e-4,1e-1", "0.0001,0.1")


@given(TEXTS)
def test_whatever_is_typed_is_read_or_refused(text: str) -> None:
    """No text raises anything but the one line for users, and nothing is run."""
    for parse in (
        parse_space,
        parse_components,
        lambda spec: parse_space({"lr": spec}),
        lambda spec: parse_components({"groups": spec}),
    ):
        try:
            parse(text)
        except UsageProblem as problem:
            assert "\n" not in str(problem)  # noqa: PT017


@given(
    st.dictionaries(
        st.sampled_from([*KINDS, "lr"]) | st.text(max_size=2),
        LITERALS | st.sets(st.integers()) | st.binary(),
        max_size=3,
    )
)
def test_whatever_a_mapping_holds_is_read_or_refused(mapping: dict[str, Any]) -> None:
    """No value raises anything but the one line for users."""
    for parse in (parse_space, parse_components):
        try:
            parse(mapping)
        except UsageProblem as problem:
            assert "\n" not in str(problem)  # noqa: PT017


def test_reading_a_spec_needs_no_optional_package() -> None:
    """Neither Optuna nor NumPy nor a framework is imported."""
    script = "import sys, obl_magic.specs; print(*sorted(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout.split()
    assert "obl_magic.specs" in loaded
    assert not {"optuna", "numpy", "tensorflow", "keras"} & set(loaded)


def test_the_columns_of_errors_count_from_one() -> None:
    """A place is where an editor would show it."""
    with pytest.raises(UsageProblem) as caught:
        parse_space(SPACE + " x=log(a,1)")
    column = int(re.findall(r"at column (\d+)", caught.value.got)[0])
    assert (SPACE + " x=log(a,1)")[column - 1] == "a"
