"""Stands between a training function and its ``dataset_fn`` and ``model_fn``: takes components away, and proves it.

The two are found as arguments of the function, as names of its module (on a rank all functions of one notebook share
one such namespace) and as names of the function it is nested in. Not found, and so refused rather than missed, is what
reaches them by another way: an import inside the function, an attribute, a default value, another module's helper.
"""

from __future__ import annotations

import functools
import inspect
import io
import re
import sys
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, Protocol

from obl_magic.errors import NotOblivious, OblError, UsageProblem
from obl_magic.values import Component
from obl_magic.worker.ablation import features

DATASET_FN, MODEL_FN = "dataset_fn", "model_fn"
LAYERS = "layers"
"""Where :func:`rehearse` keeps the layers' names as a fresh process numbers them -> as they are."""

Models = Mapping[str, Callable[..., Any]]
_NONE: Models = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Proof:
    """What a run really trained, as far as is known.

    Attributes:
        parameters: number of weights of the model, or None while it is not built or is no Keras model.
        layers: its layers' names, numbered as in a fresh process.
        inputs: number of features of the data, or None.
    """

    parameters: int | None = None
    layers: tuple[str, ...] = ()
    inputs: int | None = None


class Asked(Protocol):
    """One item of what a user asked to be taken away."""

    @property
    def kind(self) -> str:
        """``feature``, ``layer``, ``group``, ``model`` or ``flag``."""

    @property
    def text(self) -> str:
        """As it was written."""

    @property
    def members(self) -> tuple[str, ...]:
        """Names or patterns."""


class _Enough(BaseException):
    """Ends a rehearsal from inside the function; not an error, so that no ``except Exception`` keeps it."""


# --- names that Keras numbers


def _counters() -> dict[str, int] | None:
    """Keras' own count of names by prefix, or None where Keras was not imported."""
    state = sys.modules.get("keras.src.backend.common.global_state")
    return None if state is None else (state.get_global_attribute("object_name_uids") or {})


def _set_counters(counters: dict[str, int] | None) -> None:
    state = sys.modules.get("keras.src.backend.common.global_state")
    if state is not None:
        state.set_global_attribute("object_name_uids", defaultdict(int, counters or {}))


@contextmanager
def fresh_names() -> Iterator[None]:
    """Within it, Keras numbers layers as in a fresh process; afterwards it goes on as before."""
    before = _counters()
    kept = None if before is None else dict(before)
    _set_counters(None)
    try:
        yield
    finally:
        _set_counters(kept)


def _numbered_afresh(model: Any, before: Mapping[str, int]) -> dict[str, str]:
    """A model's layers' names as a fresh process would number them -> as they are.

    Args:
        model: it.
        before: Keras' counts when the model's making began; only what was counted since then is numbered by
            Keras.
    """
    from obl_magic.worker.ablation import layers  # it imports Keras

    after = _counters() or {}
    names = {}
    for name in layers.layer_names(model):
        prefix, number = _prefix_and_number(name)
        first = before.get(prefix, 0)
        if first and first <= number < after.get(prefix, 0):
            names[f"{prefix}_{number - first}" if number > first else prefix] = name
        else:
            names[name] = name
    return names


def _prefix_and_number(name: str) -> tuple[str, int]:
    parts = re.fullmatch(r"(.*)_(\d+)", name)
    return (parts[1], int(parts[2])) if parts else (name, 0)


# --- standing between


Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]


@contextmanager
def _replaced(
    function: Callable[..., Any], arguments: Mapping[str, Any], wraps: Mapping[str, Wrap]
) -> Iterator[dict[str, Any]]:
    """Puts wrappers in the place of functions wherever the training function may find them; then puts all back.

    Yields:
        The arguments to call with.
    """
    given = dict(arguments)
    with ExitStack() as back:
        for name, wrap in wraps.items():
            if callable(given.get(name)):
                given[name] = wrap(given[name])
            for names in _namespaces(function):
                if callable(names.get(name)):
                    back.callback(names.__setitem__, name, names[name])
                    names[name] = wrap(names[name])
            for cell in _cells(function, name):
                back.callback(setattr, cell, "cell_contents", cell.cell_contents)
                cell.cell_contents = wrap(cell.cell_contents)
        yield given


def _functions(function: Any) -> list[Any]:
    """The plain functions behind a callable: under decorators, partials and methods."""
    seen: list[Any] = []
    while function is not None and not any(function is one for one in seen):
        seen.append(function)
        inner = (
            getattr(function, name, None) for name in ("__wrapped__", "func", "__func__", "python_function")
        )
        function = next((one for one in inner if callable(one)), None)
    return [one for one in seen if hasattr(one, "__code__")]


def _namespaces(function: Callable[..., Any]) -> list[dict[str, Any]]:
    return list({id(one.__globals__): one.__globals__ for one in _functions(function)}.values())


def _cells(function: Callable[..., Any], name: str) -> Iterator[Any]:
    for one in _functions(function):
        for free, cell in zip(one.__code__.co_freevars, one.__closure__ or (), strict=True):
            if free == name and callable(_content(cell)):
                yield cell


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that is bound later
        return None


def _is_keras_model(value: Any) -> bool:
    keras = sys.modules.get("keras")
    return keras is not None and isinstance(value, keras.Model)


class _Between:
    """Stands between one call of a training function and its two functions.

    The invariant: what was taken away is known, so that a component which was never met is an error.

    Args:
        component: what to take away, or None.
        saw: is told what is trained.
        replacement: of a ``model`` component.
    """

    def __init__(
        self,
        component: Component | None,
        saw: Callable[[Proof], None],
        replacement: Callable[..., Any] | None,
    ) -> None:
        self._component, self._saw, self._replacement = component, saw, replacement
        self._inside: set[str] = set()
        self._before: int | None = None
        self._labelled = False
        self._met = component is None or component.kind == "flag"
        self._of_data = component is not None and component.kind == "feature"
        self._model: Any = None
        self._proof = Proof()

    @property
    def met(self) -> bool:
        """Whether the component was taken away at least once."""
        return self._met

    def wrap(self, name: str, act: Callable[[Callable[[], Any]], Any]) -> Wrap:
        """Makes wrappers that let ``act`` make a function's result; not for calls from within such a call."""

        def wrapped(original: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(original)
            def between(*args: Any, **kwargs: Any) -> Any:
                if name in self._inside:
                    return original(*args, **kwargs)
                self._inside.add(name)
                try:
                    chosen = self._replacement if name == MODEL_FN and self._replacement else original
                    return act(lambda: chosen(*args, **kwargs))
                finally:
                    self._inside.discard(name)

            return between

        return wrapped

    def data(self, make: Callable[[], Any]) -> Any:
        """What ``dataset_fn`` returns, without the features that are taken away."""
        data = make()
        component = self._component
        if component is not None and self._takes_features(component, data):
            self._before, self._labelled = features.width(data), features.labelled_within(data)
            data = features.without(data, component.members)
            self._met = self._of_data = True
        self._tell(Proof(self._proof.parameters, self._proof.layers, features.width(data)))
        return data

    def _takes_features(self, component: Component, data: Any) -> bool:
        if component.kind == "group":
            there = {str(name) for name in features.names(data)}
            return set(component.members) <= there
        return component.kind == "feature"

    def model(self, make: Callable[[], Any]) -> Any:
        """What ``model_fn`` returns, without the layers that are taken away, fitted to the features there are."""
        before = dict(_counters() or {})
        model = make()
        if self._replacement is not None:
            self._met = True
        if not _is_keras_model(model):
            if self._takes_layers():
                raise NotOblivious(
                    f"model_fn returned a {type(model).__name__}, which has no Keras layers to take away",
                    "return the Keras model itself from model_fn, or use models=NAME or flags=NAME",
                )
            return model
        names = _numbered_afresh(model, before)
        counters = dict(_counters() or {})
        try:
            model = self._operated(model, names)
        finally:
            _set_counters(counters)
        self._model, there = model, {as_is: fresh for fresh, as_is in names.items()}
        self._tell(
            Proof(_parameters(model), tuple(there[name] for name in _layers(model)), self._proof.inputs)
        )
        return model

    def _takes_layers(self) -> bool:
        component = self._component
        return component is not None and (
            component.kind == "layer" or (component.kind == "group" and not self._of_data)
        )

    def _operated(self, model: Any, names: Mapping[str, str]) -> Any:
        component = self._component
        if component is None:
            return model
        if self._takes_layers() and (component.kind == "layer" or set(component.members) <= set(names)):
            from obl_magic.worker.ablation import layers  # it imports Keras

            # an unknown name is left to the surgery to refuse
            model = layers.without_layers(model, [names.get(name, name) for name in component.members])
            self._met = True
            return model
        if component.kind in ("feature", "group"):
            return _fitted(model, self._before, component.members, self._labelled)
        return model

    def left(self) -> None:
        """The function has returned: a model that was built by its fit can be counted now."""
        if self._model is not None and self._proof.parameters is None:
            self._tell(Proof(_parameters(self._model), self._proof.layers, self._proof.inputs))

    def _tell(self, proof: Proof) -> None:
        if proof != self._proof:
            self._proof = proof
            self._saw(proof)


def _parameters(model: Any) -> int | None:
    return int(model.count_params()) if model.built else None


def _layers(model: Any) -> list[str]:
    from obl_magic.worker.ablation import layers  # it imports Keras

    return layers.layer_names(model)


def _fitted(model: Any, before: int | None, members: Sequence[str], labelled: bool) -> Any:
    """A model for data without some features; a label among the data's columns is none of the model's inputs."""
    from obl_magic.worker.ablation import layers  # it imports Keras

    if labelled and before is not None and layers.input_width(model) != before:
        before -= 1
    after = None if before is None else before - len(members)
    return layers.fitted_to(model, before, after, members)


@contextmanager
def ablated(
    component: Component | None,
    function: Callable[..., Any],
    arguments: Mapping[str, Any],
    saw: Callable[[Proof], None],
    namespace_models: Models = _NONE,
) -> Iterator[dict[str, Any]]:
    """Within it, the function's ``dataset_fn`` and ``model_fn`` return things without a component.

    Every call of the two is covered: as an argument, as a global name (also from a helper with the same globals, such
    as another function of the same notebook), as a name of the enclosing function. Not covered is what does not go
    through them: data and models that the function, or a helper in another module, gets in another way. The function
    is then not ablated, which is an error when it has returned.

    Args:
        component: what to take away; None: nothing, only say what is trained.
        function: the training function.
        arguments: by name, with which it will be called.
        saw: is called each time when more is known of what is trained.
        namespace_models: functions by name, for a component of kind ``model``.

    Yields:
        The arguments to call the function with.

    Raises:
        UsageProblem, NotOblivious: the component cannot be taken away; or the function never came across it.
    """
    between = _Between(component, saw, _replacement(component, function, namespace_models))
    wraps = {
        DATASET_FN: between.wrap(DATASET_FN, between.data),
        MODEL_FN: between.wrap(MODEL_FN, between.model),
    }
    with _replaced(function, arguments, wraps) as given:
        if component is not None and component.kind == "flag":
            given = _flipped(function, given, component.members[0])
        yield given
    between.left()
    if component is not None and not between.met:
        raise _never_met(function, component)


def _never_met(function: Callable[..., Any], component: Component) -> NotOblivious:
    need = DATASET_FN if component.kind == "feature" else MODEL_FN
    if component.kind == "group":
        need = f"{DATASET_FN} or {MODEL_FN}"
    return NotOblivious(
        f"{_named(function)} never called {need}, so {component.name} was not taken away: this was the base run",
        f"get it by calling {need}() in {_named(function)}",
    )


def _named(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _replacement(
    component: Component | None, function: Callable[..., Any], models: Models
) -> Callable[..., Any] | None:
    if component is None or component.kind != "model":
        return None
    name = component.members[0]
    for names in (models, *_namespaces(function)):
        if callable(names.get(name)):
            return names[name]
    raise features.unknown("models", name, sorted(models))


def _flipped(function: Callable[..., Any], arguments: dict[str, Any], name: str) -> dict[str, Any]:
    """The arguments with one flag the other way round."""
    given = arguments.get(name, _flags(function).get(name))
    if given is None:
        raise features.unknown("flags", name, list(_flags(function)))
    changed = {**arguments, name: not given}
    if isinstance(arguments.get("hparams"), dict):
        changed["hparams"] = {**arguments["hparams"], name: not given}
    return changed


def _flags(function: Callable[..., Any]) -> dict[str, bool]:
    parameters = inspect.signature(function).parameters
    return {name: one.default for name, one in parameters.items() if isinstance(one.default, bool)}


# --- before anything runs


def rehearse(
    function: Callable[..., Any], arguments: Mapping[str, Any], needs: Collection[str]
) -> dict[str, Any]:
    """Calls the function until it has called what is needed, and no further; its output is not shown.

    Args:
        function: the training function.
        arguments: by name.
        needs: of ``dataset_fn`` and ``model_fn``, those whose results are wanted.

    Returns:
        What they returned, by name; and under ``layers`` the model's layer names as a fresh process numbers them,
        with what they are called in it.

    Raises:
        UsageProblem: the function returned without having called one of them.
        BaseException: what the function raised before.
    """
    seen: dict[str, Any] = {}

    def noting(name: str) -> Wrap:
        def wrapped(original: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(original)
            def noted(*args: Any, **kwargs: Any) -> Any:
                before = dict(_counters() or {})
                value = original(*args, **kwargs)
                seen[name] = value
                if name == MODEL_FN and _is_keras_model(value):
                    seen[LAYERS] = _numbered_afresh(value, before)
                if set(needs) <= set(seen):
                    raise _Enough
                return value

            return noted

        return wrapped

    if needs:
        silence = io.StringIO()
        wraps = {name: noting(name) for name in (DATASET_FN, MODEL_FN)}
        with fresh_names(), _replaced(function, arguments, wraps) as given:
            try:
                with redirect_stdout(silence), redirect_stderr(silence):
                    function(**given)
            except _Enough:
                pass
    for name in sorted(set(needs) - set(seen)):
        raise UsageProblem(
            f"{_named(function)}, which never called {name}",
            f"a function that gets its {'data' if name == DATASET_FN else 'model'} from {name}()",
            f"def {_named(function)}({name}, …): … = {name}()",
        )
    return seen


def resolve(
    asked: Sequence[Asked],
    seen: Mapping[str, Any],
    function: Callable[..., Any],
    namespace_models: Models,
    skip: Callable[[str, OblError], None] | None = None,
) -> tuple[Component, ...]:
    """Makes components of what was asked, and tries each, so that what cannot be taken away is refused here.

    Args:
        asked: what the user wrote.
        seen: what :func:`rehearse` returned.
        function: the training function.
        namespace_models: functions by name that may stand in for ``model_fn``.
        skip: is told of a name that a pattern matched and that cannot be taken away, and why; without it, such
            a name is refused like one that was written out.

    Raises:
        UsageProblem, NotOblivious: a name that does not exist, what cannot be taken away, or what changes nothing.
    """
    resolved: dict[tuple[str, tuple[str, ...]], Component] = {}
    for item in asked:
        for component, by_pattern in _components(item, seen, function, namespace_models):
            if (component.kind, component.members) in resolved:
                continue
            try:
                _try(component, seen)
            except OblError as error:
                if skip is None or not by_pattern:
                    raise
                skip(component.name, error)
                continue
            resolved[component.kind, component.members] = component
    return tuple(resolved.values())


def _components(
    item: Asked, seen: Mapping[str, Any], function: Callable[..., Any], models: Models
) -> Iterator[tuple[Component, bool]]:
    """The components one item stands for, and whether a pattern brought them."""
    if item.kind == "feature":
        there = [str(name) for name in features.names(_seen(seen, DATASET_FN, function))]
        yield from _each_match(item, there)
    elif item.kind == "layer":
        _seen(seen, MODEL_FN, function)
        yield from _each_match(item, list(seen.get(LAYERS, ())))
    elif item.kind == "group":
        yield Component(item.text, "group", _group(item, seen)), False
    elif item.kind == "model":
        yield Component(item.text, "model", (_model(item.members[0], seen, function, models),)), False
    elif item.kind == "flag":
        flags = _flags(function)
        if item.members[0] not in flags:
            raise features.unknown("flags", item.members[0], list(flags))
        yield Component(item.text, "flag", item.members), False
    else:
        raise features.unknown("kind", item.kind, ["feature", "layer", "group", "model", "flag"])


def _seen(seen: Mapping[str, Any], name: str, function: Callable[..., Any]) -> Any:
    if name not in seen:
        raise UsageProblem(
            f"{_named(function)}, which never called {name}", f"a call of {name}()", f"call {name}()"
        )
    return seen[name]


def _each_match(item: Asked, there: list[str]) -> Iterator[tuple[Component, bool]]:
    for member in item.members:
        if member in there or not _is_pattern(member):
            yield Component(member, item.kind, (_position(member, there),)), False
            continue
        matches = [name for name in there if fnmatchcase(name, member)]
        if not matches:
            raise features.unknown(f"{item.kind}s", member, there)
        for name in matches:
            yield Component(name, item.kind, (name,)), True


def _is_pattern(text: str) -> bool:
    return any(sign in text for sign in "*?[")


def _position(member: str, there: list[str]) -> str:
    """A feature's name for its position; other names as they are."""
    if member in there or not re.fullmatch(r"-?\d+", member):
        return member
    number = int(member)
    return there[number] if -len(there) <= number < len(there) else member


def _group(item: Asked, seen: Mapping[str, Any]) -> tuple[str, ...]:
    """A group's members, its patterns resolved: layers if all are layers, else features."""
    layers = list(seen.get(LAYERS, ()))
    columns = [str(name) for name in features.names(seen[DATASET_FN])] if DATASET_FN in seen else []
    of_layers, of_columns = _all_of(item.members, layers), _all_of(item.members, columns)
    if of_layers and of_columns and set(of_layers) & set(columns):
        raise UsageProblem(
            f"groups={item.text}, which are layers and features at once",
            "a group of layers or a group of features",
            "give the layers names of their own",
        )
    if of_layers or of_columns:
        return of_layers or of_columns
    known = [*layers, *columns]
    for name in item.members:
        if not _all_of((name,), known):
            raise features.unknown("groups", name, known)
    raise UsageProblem(
        f"groups={item.text}, some of which are layers and some features",
        "a group of layers or a group of features",
        "make two groups of it",
    )


def _all_of(members: Sequence[str], there: list[str]) -> tuple[str, ...]:
    """What the members stand for, in order; nothing if one of them stands for nothing."""
    found: dict[str, None] = {}
    for member in members:
        exact = _position(member, there)
        matches = [exact] if exact in there else [name for name in there if fnmatchcase(name, member)]
        if not matches:
            return ()
        found.update(dict.fromkeys(matches))
    return tuple(found)


def _model(name: str, seen: Mapping[str, Any], function: Callable[..., Any], models: Models) -> str:
    _seen(seen, MODEL_FN, function)
    if not callable(models.get(name)):
        raise features.unknown("models", name, sorted(key for key, one in models.items() if callable(one)))
    if name == MODEL_FN or models[name] is models.get(MODEL_FN):
        raise _nothing_changed(Component(name, "model", (name,)))
    return name


def _nothing_changed(component: Component) -> UsageProblem:
    return UsageProblem(
        f"{component.kind}s={component.name}, which changes nothing",
        "a component without which something else is trained",
        "leave it out",
    )


def _try(component: Component, seen: Mapping[str, Any]) -> None:
    """Takes a component away from what was seen; raises if that cannot be done, or changes nothing."""
    if component.kind in ("model", "flag"):
        return
    layers: Mapping[str, str] = seen.get(LAYERS, {})
    model, data = seen.get(MODEL_FN), seen.get(DATASET_FN)
    if component.kind == "layer" or (component.kind == "group" and set(component.members) <= set(layers)):
        changed = _try_layers(component, model, data, layers)
    else:
        changed = _try_features(component, model, data)
    if not changed:
        raise _nothing_changed(component)


def _try_layers(component: Component, model: Any, data: Any, numbered: Mapping[str, str]) -> bool:
    if not _is_keras_model(model):
        raise NotOblivious(
            f"model_fn returned a {type(model).__name__}, which has no Keras layers to take away",
            "return the Keras model itself from model_fn, or use models=NAME or flags=NAME",
        )
    from obl_magic.worker.ablation import layers  # it imports Keras

    sample = None if data is None else features.shape(data)
    with fresh_names():
        less = layers.without_layers(model, [numbered.get(name, name) for name in component.members], sample)
    return (_layers(less), _parameters(less)) != (_layers(model), _parameters(model))


def _try_features(component: Component, model: Any, data: Any) -> bool:
    less = features.without(data, component.members)
    if _is_keras_model(model):
        with fresh_names():
            _fitted(model, features.width(data), component.members, features.labelled_within(data))
    return features.names(less) != features.names(data)
