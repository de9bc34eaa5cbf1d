"""Takes features out of whatever a ``dataset_fn`` returned. Changes nothing that is the user's; imports no framework.

A *table* is a part of the data that has features: a DataFrame or a dict (its columns), a NumPy structured array (its
fields), an array of two axes or more (its last axis), a ``tf.data.Dataset`` or ``PyDataset`` (those of its elements).
"""

from __future__ import annotations

import copy
import difflib
import functools
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from obl_magic.errors import UsageProblem

Name = str | int

_SHOWN = 20
_OF_SPLIT = r"([_\d](x|train|training|test|val|valid|validation|dev|data|set|images))?"
_LABEL = re.compile(r"(.*_)?(y|w|labels?|targets?|weights?|sample_?weights?|class(es)?)([_\d].*)?", re.I)
_INPUT = re.compile(rf"(x|inputs?|features?){_OF_SPLIT}", re.I)
_PART = re.compile(
    rf"(x|train|training|test|val|valid|validation|dev|data|inputs?|features?){_OF_SPLIT}", re.I
)
_NO_FEATURES = "data with named or numbered features"
_RETURN = "return a DataFrame, a dict of columns, (x, y) or a tf.data.Dataset from dataset_fn"


@dataclass(frozen=True, slots=True)
class _Table:
    """Some data with features.

    Attributes:
        value: the data itself.
        names: of its features, in order.
        kept: gives the data with the features at these positions only.
    """

    value: Any
    names: tuple[Name, ...]
    kept: Callable[[Sequence[int]], Any]


def names(data: Any) -> list[Name]:
    """The features there are in what a ``dataset_fn`` returned, in order.

    Names of columns, keys or fields; ``0`` to ``n-1`` for an array's last axis (of images: their channels). Labels and
    weights beside the features, as in ``(x, y)``, are left out; a label among the columns is a column.
    """
    return list(dict.fromkeys(name for table in _tables(data) for name in table.names))


def width(data: Any) -> int | None:
    """How many features the first part of the data has, or None where there is no such thing."""
    found = _tables(data)
    return len(found[0].names) if found else None


def shape(data: Any) -> tuple[int | None, ...] | None:
    """Shape of the first part's batches, e.g. ``(None, 30)``, or None where it is not an array."""
    found = _tables(data)
    size = _shape_of(found[0].value) if found else None
    return None if size is None or len(size) < 2 else (None, *size[1:])


def labelled_within(data: Any) -> bool:
    """Whether nothing lies beside the features, so that the label must be one of the columns."""
    if _is_dataset(data):
        data = data.element_spec
    if _is_py_dataset(data):
        return _look_at(data).alone
    if isinstance(data, (tuple, list)):
        return bool(data) and all(labelled_within(part) for part in data)
    if isinstance(data, dict) and _is_parts(data):
        return all(labelled_within(part) for part in data.values())
    table = _table(data)
    return table is not None and any(isinstance(name, str) for name in table.names)


def without(data: Any, features: Iterable[Name]) -> Any:
    """The same structure without some features, in all its parts (train and test alike).

    Args:
        data: what a ``dataset_fn`` returned; left as it is. In a tuple or list of plain arrays the features are
            the first array of two axes or more and those of its width; labels (the second of an ``(x, y)``
            pair, also a one-hot one) and weights are left alone. Both ``(x_train, y_train, x_test, y_test)``
            and scikit-learn's ``(x_train, x_test, y_train, y_test)`` are understood. Of images, a feature is a
            channel.
        features: names, or positions among the names there are (``"3"``; negative ones count from the end).

    Raises:
        UsageProblem: no such feature, no features at all, or none would be left.
    """
    wanted = list(features)
    gone = found(data, wanted)
    meant = {id(table.value) for table in _tables(data)}

    def cut(table: _Table) -> Any:
        keep = [i for i, name in enumerate(table.names) if name not in gone]
        if len(keep) == len(table.names) or id(table.value) not in meant:
            return table.value
        if not keep:
            raise UsageProblem(
                f"features={_listed(wanted)}", "some feature that is left", "take away fewer of them"
            )
        return table.kept(keep)

    return _each(data, cut)


def found(data: Any, features: Iterable[Name]) -> list[Name]:
    """The features meant by names or positions.

    Raises:
        UsageProblem: there is no such feature, or there are none at all.
    """
    there = names(data)
    if not there:
        raise UsageProblem(f"dataset_fn returned {_told(data)}", _NO_FEATURES, _RETURN)
    return [_meant(feature, there) for feature in features]


def unknown(kind: str, name: Name, there: Sequence[Name]) -> UsageProblem:
    """The error for a name that does not exist, with those that do and the nearest one."""
    texts = [str(one) for one in there]
    near = difflib.get_close_matches(str(name), texts, n=1)
    expected = f"one of {_listed(texts)}" if texts else f"{kind}, of which there are none"
    return UsageProblem(f"{kind}={name}", expected, f"{kind}={near[0] if near else (texts or ['…'])[0]}")


def _meant(feature: Name, there: list[Name]) -> Name:
    if feature in there:
        return feature
    try:
        number = int(feature)
    except ValueError:
        raise unknown("features", feature, there) from None
    if number in there:
        return number
    if -len(there) <= number < len(there):
        return there[number]
    raise unknown("features", feature, there)


def _listed(some: Sequence[Name]) -> str:
    more = f", … and {len(some) - _SHOWN} more" if len(some) > _SHOWN else ""
    return ", ".join(str(name) for name in some[:_SHOWN]) + more


def _told(data: Any) -> str:
    if isinstance(data, (tuple, list)):
        inner = ", ".join(type(part).__name__ for part in data[:6])
        return f"a {type(data).__name__} of {inner or 'nothing'}"
    return f"a {type(data).__name__}"


def _tables(data: Any) -> list[_Table]:
    seen: list[_Table] = []

    def see(table: _Table) -> Any:
        seen.append(table)
        return table.value

    _each(data, see)
    numbered = next((len(table.names) for table in seen if _is_numbered(table)), 0)
    return [table for table in seen if not _is_numbered(table) or len(table.names) == numbered]


def _is_numbered(table: _Table) -> bool:
    return table.names == tuple(range(len(table.names)))


# --- which parts of a structure hold features


def _each(data: Any, do: Callable[[_Table], Any], inputs: bool = False) -> Any:
    """The structure with each of its tables replaced by what ``do`` makes of it.

    Args:
        data: the structure.
        do: makes another table of one.
        inputs: it is known to be what a model gets, so a tuple in it is no ``(x, y)``.
    """
    if isinstance(data, dict) and _is_parts(data):
        return _with_items(data, {k: _each(v, do, _is_input(k)) for k, v in data.items() if not _is_label(k)})
    table = _table(data)
    if table is not None:
        changed = do(table)
        return _deeper(changed, do) if isinstance(data, dict) else changed
    if isinstance(data, (tuple, list)) and not _is_plain_list(data):
        chosen = _input_positions(data) if inputs else _feature_positions(data)
        alone = len(data) != 1 and len(chosen) == 1
        parts = [_each(part, do, inputs or alone) if i in chosen else part for i, part in enumerate(data)]
        return type(data)._make(parts) if hasattr(data, "_make") else type(data)(parts)
    return data


def _deeper(data: Any, do: Callable[[_Table], Any]) -> Any:
    """A dict of columns whose values may have columns themselves."""
    nested = {k: _each(v, do, inputs=True) for k, v in data.items() if isinstance(v, dict) or _is_frame(v)}
    return _with_items(data, nested) if nested else data


def _with_items(data: Any, items: dict[Any, Any]) -> Any:
    same = copy.copy(data)
    same.update(items)
    return same


def _is_parts(data: dict[Any, Any]) -> bool:
    """Whether keys name parts (``x``, ``y``, ``train``, …) rather than features."""
    if _is_bunch(data):
        return False
    return any(
        (_PART.fullmatch(str(key)) and _has_columns(value)) or _is_set(value) for key, value in data.items()
    )


def _is_label(key: Any) -> bool:
    return _LABEL.fullmatch(str(key)) is not None


def _is_input(key: Any) -> bool:
    return _INPUT.fullmatch(str(key)) is not None


def _is_set(part: Any) -> bool:
    """Whether a part is data with its labels rather than an array."""
    if isinstance(part, (tuple, list)):
        return bool(part) and not _is_plain_list(part)
    return _is_dataset(part) or _is_py_dataset(part) or (isinstance(part, dict) and _is_parts(part))


def _has_columns(part: Any) -> bool:
    return isinstance(part, dict) or _is_set(part) or _table(part) is not None


def _is_plain_list(part: Any) -> bool:
    """Whether a list or tuple holds numbers or texts (labels, say), so that it is no structure."""
    return all(isinstance(one, (int, float, complex, str, bytes, bool, type(None))) for one in part)


def _input_positions(parts: Sequence[Any]) -> set[int]:
    """Which inputs of a model have the features: all named ones; of arrays, those as wide as the first."""
    trails = [_trail(part) for part in parts]
    first = next((trail for trail in trails if trail is not None), None)
    return {
        i
        for i, (part, trail) in enumerate(zip(parts, trails, strict=True))
        if isinstance(part, dict)
        or _is_frame(part)
        or (trail is not None and trail[-1:] == (first or ())[-1:])
    }


def _feature_positions(parts: Sequence[Any]) -> set[int]:
    """Which parts of a tuple are features rather than labels, weights or remarks."""
    sets = {i for i, part in enumerate(parts) if _is_set(part)}
    if {0, 1} <= sets:
        return sets
    trails, rows = [_trail(part) for part in parts], [_rows(part) for part in parts]
    alike = {i for i, trail in enumerate(trails) if trail is not None and trail == trails[0]}
    named = all(isinstance(parts[i], dict) or _is_frame(parts[i]) for i in alike)
    if len(parts) % 2 == 0 and len(parts) > 2 and not (named and len(alike) == len(parts)):
        return _feature_halves(trails, rows, alike)
    if len(alike) > 1 and (named or len(set(rows)) > 1):
        return alike
    first = next((i for i, part in enumerate(parts) if _has_columns(part)), 0)
    return {first}


def _feature_halves(trails: Sequence[Any], rows: Sequence[Any], alike: set[int]) -> set[int]:
    """Of ``x, y, x, y`` or ``x, x, y, y`` (or three of each), the positions of the ``x``."""
    n = len(trails)
    pairs, halves = set(range(0, n, 2)), set(range(n // 2))
    in_pairs = pairs <= alike and all(rows[i] == rows[i + 1] for i in pairs)
    in_halves = halves <= alike and all(rows[i] == rows[i + n // 2] for i in halves)
    if in_pairs and in_halves:  # parts as long and as wide as each other: Keras' order
        return pairs
    if in_pairs or in_halves:
        return pairs if in_pairs else halves
    return alike or {0}


def _rows(part: Any) -> int | None:
    if isinstance(part, dict):
        return next((_rows(value) for value in part.values()), None)
    if _is_set(part) and isinstance(part, (tuple, list)):
        return _rows(part[0])
    size = _shape_of(part)
    if size:
        return size[0]
    return len(part) if isinstance(part, (tuple, list)) else None


def _trail(part: Any) -> tuple[Any, ...] | None:
    """What two arrays of the same features have in common: all axes but the first; or the columns' names."""
    if isinstance(part, dict) or _is_frame(part):
        table = _table(part)
        return None if table is None else table.names
    size = _shape_of(part)
    return size[1:] if size is not None and len(size) > 1 else None


# --- tables of each kind


def _table(data: Any) -> _Table | None:
    if isinstance(data, dict):
        return _bunch(data) if _is_bunch(data) else _columns(data)
    if _is_frame(data):
        return _frame(data)
    if _is_dataset(data):
        return _of_dataset(data)
    if _is_py_dataset(data):
        return _of_py_dataset(data)
    if getattr(getattr(data, "dtype", None), "names", None):
        return _fields(data)
    size = _shape_of(data)
    if size is None or len(size) < 2 or size[-1] is None:
        return None
    return _Table(data, tuple(range(size[-1])), lambda keep: _last_axis(data, keep))


def _shape_of(data: Any) -> tuple[int | None, ...] | None:
    size = getattr(data, "shape", None)
    try:
        return None if size is None else tuple(None if n is None else int(n) for n in size)
    except (TypeError, ValueError):  # a tensor of unknown rank
        return None


def _last_axis(array: Any, keep: Sequence[int]) -> Any:
    tf = sys.modules.get("tensorflow")
    if tf is not None and tf.is_tensor(array):
        return tf.gather(array, list(keep), axis=-1)
    if hasattr(array, "tocsr"):  # not every sparse format can be indexed
        return array.tocsr()[:, list(keep)].asformat(array.format)
    return array[..., list(keep)]


def _is_frame(data: Any) -> bool:
    return hasattr(data, "columns") and hasattr(data, "iloc")


def _frame(data: Any) -> _Table:
    columns = list(data.columns)
    return _Table(
        data,
        tuple(columns),
        lambda keep: data.drop(columns=[name for i, name in enumerate(columns) if i not in set(keep)]),
    )


def _columns(data: dict[Any, Any]) -> _Table | None:
    if not any(hasattr(v, "__len__") or hasattr(v, "shape") for v in data.values()):
        return None
    keys = list(data)

    def kept(keep: Sequence[int]) -> Any:
        same = copy.copy(data)
        for i in set(range(len(keys))) - set(keep):
            del same[keys[i]]
        return same

    return _Table(data, tuple(keys), kept)


def _fields(data: Any) -> _Table:
    fields = tuple(data.dtype.names)

    def kept(keep: Sequence[int]) -> Any:
        from numpy.lib import recfunctions

        return recfunctions.repack_fields(data[[fields[i] for i in keep]])

    return _Table(data, fields, kept)


def _is_bunch(data: dict[Any, Any]) -> bool:
    """Whether it is what scikit-learn's loaders return."""
    return "data" in data and "target" in data and ("feature_names" in data or type(data).__name__ == "Bunch")


def _bunch(data: dict[Any, Any]) -> _Table | None:
    inner = _table(data["data"])
    if inner is None:
        return None
    known = data.get("feature_names")
    told = known is not None and len(known) == len(inner.names)
    if told and not _is_frame(data["data"]):
        inner_names: tuple[Name, ...] = tuple(str(name) for name in known)  # type: ignore[union-attr]
    else:
        inner_names = inner.names

    def kept(keep: Sequence[int]) -> Any:
        items = {"data": inner.kept(keep)}
        if told:
            left = [known[i] for i in keep]  # type: ignore[index]
            items["feature_names"] = left if isinstance(known, list) else known[list(keep)]  # type: ignore[index]
        if _is_frame(data.get("frame")):
            gone = [name for i, name in enumerate(inner_names) if i not in set(keep)]
            items["frame"] = data["frame"].drop(columns=gone)
        return _with_items(data, items)

    return _Table(data, inner_names, kept)


# --- batches: features are those of an element's first part


def _is_dataset(data: Any) -> bool:
    tf = sys.modules.get("tensorflow")
    return tf is not None and hasattr(data, "element_spec") and isinstance(data, tf.data.Dataset)


def _is_py_dataset(data: Any) -> bool:
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(data, keras.utils.PyDataset)


@dataclass(frozen=True, slots=True)
class _Look:
    """What a ``PyDataset``'s first batch told. names: of its features. alone: they are all there is in it."""

    names: tuple[Name, ...]
    alone: bool


_LOOKS: WeakKeyDictionary[Any, _Look] = WeakKeyDictionary()
"""A batch may be dear to make, or draw random numbers: the first one is made once."""


def _look_at(data: Any) -> _Look:
    if data not in _LOOKS:
        batch = data[0]
        _LOOKS[data] = _Look(_names_of_element(batch, axes=2), isinstance(batch, dict))
    return _LOOKS[data]


def _first_of(element: Any) -> Any:
    return element[0] if isinstance(element, (tuple, list)) and element else element


def _with_first(element: Any, change: Callable[[Any], Any]) -> Any:
    if isinstance(element, (tuple, list)):
        return type(element)([change(element[0]), *element[1:]])
    return change(element)


def _names_of_element(element: Any, axes: int = 1) -> tuple[Name, ...]:
    """Features of an element; none where the first part has fewer axes than this, at least one."""
    first = _first_of(element)
    if isinstance(first, dict):
        return tuple(first)
    size = _shape_of(first) or ()
    # (batch,) is a batch of single numbers; (30,) is one sample
    return tuple(range(size[-1])) if len(size) >= axes and size[-1] is not None else ()


def _kept_of_first(first: Any, names_: Sequence[Name], keep: Sequence[int]) -> Any:
    if isinstance(first, dict):
        return {names_[i]: first[names_[i]] for i in keep}
    return _last_axis(first, keep)


def _of_dataset(data: Any) -> _Table | None:
    there = _names_of_element(data.element_spec)
    if not there:
        return None

    def kept(keep: Sequence[int]) -> Any:
        def narrow(*element: Any) -> Any:
            whole = element if type(data.element_spec) is tuple else element[0]
            return _with_first(whole, lambda first: _kept_of_first(first, there, keep))

        return data.map(narrow)

    return _Table(data, there, kept)


def _of_py_dataset(data: Any) -> _Table | None:
    there = _look_at(data).names
    if not there:
        return None

    def kept(keep: Sequence[int]) -> Any:
        from obl_magic.worker.ablation.narrowed import Narrowed  # it imports Keras

        return Narrowed(data, functools.partial(narrowed_batch, there=tuple(there), keep=tuple(keep)))

    return _Table(data, there, kept)


def narrowed_batch(batch: Any, there: Sequence[Name], keep: Sequence[int]) -> Any:
    """One batch, ``x`` or ``(x, y)`` or ``(x, y, weights)``, with the features at these positions only."""
    return _with_first(batch, lambda first: _kept_of_first(first, there, keep))
