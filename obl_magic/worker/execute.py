"""Runs one job in this process: its arguments, its context, its result or its failure. Knows no MPI, no launcher."""

from __future__ import annotations

import contextlib
import gc
import hashlib
import inspect
import random
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from obl_magic import payload
from obl_magic.errors import NotOblivious, SetupProblem
from obl_magic.events.event import Failed, Result, Trained
from obl_magic.payload import files, keras_models, main_module, weights_file
from obl_magic.rundir import RunDir
from obl_magic.values import RESERVED, CellSource, Job
from obl_magic.worker import shelf, tracebacks
from obl_magic.worker.ablation.apply import Proof, ablated
from obl_magic.worker.changed_objects import ChangedObjects, sentence
from obl_magic.worker.engines.collectives import Connections
from obl_magic.worker.frameworks.keras.verifying import Verified
from obl_magic.worker.frameworks.keras.weights import without_keras
from obl_magic.worker.library_settings import in_force, seeded_as_in_the_notebook
from obl_magic.worker.on_import import on_import, when_imported
from obl_magic.worker.report import Pruned, Reporter, reporting
from obl_magic.worker.shown import shown

_T = TypeVar("_T")
TELLING_S = 5.0
"""What an exception has to say what it is."""
SHORT = 200
"""Characters of a returned text that are kept beside the value itself."""


@dataclass(frozen=True, slots=True)
class Finished:
    """What a job left: its value, or its error with the place in the user's code."""

    value: Any = None
    error: BaseException | None = None


def digest_of(source: str) -> str:
    """sha256 of a function's source, hexadecimal."""
    return hashlib.sha256(source.encode()).hexdigest()


def call(
    function: Callable[..., Any],
    arguments: dict[str, Any],
    job: Job,
    reporter: Reporter,
    connections: Connections | None = None,
    models: Mapping[str, Callable[..., Any]] = MappingProxyType({}),
) -> Any:
    """Calls the function as one rank of ``job``'s world, with Keras made oblivious as soon as it is imported.

    Args:
        function: the function.
        arguments: by name.
        job: how it is called.
        reporter: of this rank.
        connections: the engines of this process, if they outlive the job.
        models: functions by name that an ablation may call in place of ``model_fn``.
    """
    __tracebackhide__ = True
    connections = connections or Connections()
    with ExitStack() as contexts:
        contexts.enter_context(reporting(reporter))
        if job.ablates:
            saw = _proof(reporter)
            arguments = contexts.enter_context(ablated(job.component, function, arguments, saw, models))
        adapter: list[Any] = []

        def connect() -> None:
            from obl_magic.worker.frameworks.keras import adapter as keras_adapter  # it imports Keras
            from obl_magic.worker.frameworks.keras import randomness  # it imports Keras

            world = connections.get(job.engine)
            contexts.callback(connections.done)
            folder = None if job.settings.stop_after or not job.run_dir else RunDir.at(job.run_dir)
            adapter.append(
                contexts.enter_context(keras_adapter.oblivious(world, reporter, job.settings, folder))
            )
            randomness.seed_all(job.seed)

        contexts.enter_context(when_imported("keras", connect))
        contexts.callback(seeded_as_in_the_notebook(job.generators))
        reporter.begun = True
        value = function(**arguments)
        if adapter:
            adapter[0].finish()
        else:
            without_keras(job.settings, reporter)
        if job.settings.stop_after is not None and adapter:
            raise adapter[0].verified()
        if job.engine != "alone" and not (adapter and adapter[0].distributed):
            reporter.note(
                "nothing-distributed",
                "nothing in the function was made distributed (no fit, no optimizer step): "
                "each rank ran the whole function independently",
            )
        _say_how_to_report(job, reporter)
        return value


def _say_how_to_report(job: Job, reporter: Reporter) -> None:
    """A loop by hand that reports nothing leaves the panel empty."""
    if (
        reporter.rank == 0
        and reporter.model is None
        and not reporter.reported
        and "GradientTape" in job.source
    ):
        reporter.note(
            "no-numbers",
            "the loop reports no numbers; do: obl_magic.report(loss=loss, epoch=epoch) shows them here, "
            "and keeps them in run.metrics",
        )


def _proof(reporter: Reporter) -> Callable[[Proof], None]:
    """Says what is really trained; rank 0 speaks for all."""

    def saw(proof: Proof) -> None:
        if reporter.rank == 0:
            reporter.emit(Trained(0, time.time(), proof.parameters, list(proof.layers), proof.inputs))

    return saw


def arguments_for(
    provided: dict[str, Any], job: Job, function: Callable[..., Any], reporter: Reporter
) -> dict[str, Any]:
    """The keyword arguments of the call: given ones, provided ones, and the reserved names where asked for."""
    parameters = inspect.signature(function).parameters
    defaults = {
        name: p.default for name, p in parameters.items() if p.default is not p.empty and name not in RESERVED
    }
    arguments = {**provided, **job.args}
    if "reporter" in parameters:
        arguments.setdefault("reporter", reporter)
    if "hparams" in parameters:
        arguments.setdefault("hparams", {**defaults, **job.args})
    return arguments


def call_here(
    function: Callable[..., Any],
    provided: dict[str, Any],
    job: Job,
    reporter: Reporter,
    models: Mapping[str, Callable[..., Any]] = MappingProxyType({}),
) -> Any:
    """Calls the function itself in this process, with its arguments filled in as on a rank."""
    __tracebackhide__ = True
    with ExitStack() as stack:
        stack.enter_context(in_force())
        stack.callback(_seed(job.seed))
        return call(function, arguments_for(provided, job, function, reporter), job, reporter, models=models)


def run(job: Job, reporter: Reporter, connections: Connections | None = None) -> Finished:
    """Unpickles and runs the job; never raises."""
    tracebacks.remember(job.sources)
    on_import("keras", keras_models.record_arguments)
    try:
        if digest_of(job.source) != job.digest:
            raise NotOblivious(
                "the function changed on its way to the rank", "report this as a bug of obl_magic"
            )
        with ExitStack() as stack:
            settings_again = stack.enter_context(in_force(job.library_settings))
            stack.callback(_seed(job.seed))
            with main_module.filled():
                function, provided, *models = payload.loads(job.payload, job.buffers)
            with contextlib.suppress(Exception):  # a value of the user's may refuse to be looked into
                main_module.complete(function, {**provided, **job.args})
            stack.callback(sys.stdout.flush)
            arguments = arguments_for(provided, job, function, reporter)
            settings_again()  # the function's libraries are imported now
            brought = ChangedObjects(function, {**provided, **job.args}) if reporter.rank == 0 else None
            with shown(reporter):
                value = call(function, arguments, job, reporter, connections, *models)
            if brought is not None and (names := brought.names(value)):
                reporter.note("changed-on-ranks", sentence(names))
            return Finished(value=value)
    except Pruned:
        return Finished()
    except Verified as found:
        return Finished(value=(found.steps, found.weights, found.noise))
    except KeyboardInterrupt as error:
        return _stopped(reporter) if reporter.stop_asked else Finished(error=error)
    except BaseException as error:
        return Finished(error=error)


def _stopped(reporter: Reporter) -> Finished:
    """What is kept of a function that was stopped inside a fit: on rank 0 the model as it is, if it can be sent."""
    if reporter.rank != 0:
        return Finished()
    try:
        payload.dumps(reporter.model, large=[])
    except Exception:
        return Finished()
    return Finished(value=reporter.model)


def tell(finished: Finished, job: Job, reporter: Reporter) -> bool:
    """Writes the result or the failure to the run folder and says so; whether the job succeeded."""
    folder = RunDir.at(job.run_dir)
    error = finished.error
    if error is None:
        try:
            size_bytes = _kept(finished.value, job, folder, path := folder.value(reporter.rank), reporter)
        except SetupProblem as problem:
            error = problem
        except BaseException as raised:
            error = _unsendable(finished.value, raised, folder)
        else:
            reporter.emit(
                Result(
                    reporter.rank, time.time(), path.name, size_bytes, reporter.first_step_s, short(finished.value),
                    told(finished.value), list(shelf.in_use()),
                )
            )  # fmt: skip
            return True
    reporter.emit(failed(error, job.sources, folder, reporter.rank))
    return False


def _kept(value: Any, job: Job, folder: RunDir, path: Path, reporter: Reporter) -> int:
    """Writes a value down, and the weights of a model beside it; its size in bytes.

    Rank 0 looks whether its value comes back: that of the run is lost if it does not.
    """
    models = _models_in(value) if reporter.rank == 0 else []
    if models and not folder.is_trial and not folder.weights.exists() and not job.settings.stop_after:
        with contextlib.suppress(Exception):  # not built yet: there are none
            weights_file.save(weights_file.of_model(models[0], label=folder.id), folder, folder.weights)
    size_bytes = files.save(value, folder, path)
    if reporter.rank == 0 and not models:  # a model was already made again as it was written
        files.load(path)
    return size_bytes


def _models_in(value: Any) -> list[Any]:
    """Keras models that were returned, by themselves or in a dict or a sequence."""
    kind = getattr(sys.modules.get("keras"), "Model", None)
    if kind is None:
        return []
    found = list(value.values()) if isinstance(value, dict) else value
    among = found if isinstance(found, (list, tuple)) else [found]
    return [model for model in among if isinstance(model, kind)]


def short(value: Any) -> dict[str, Any]:
    """What fits into a row of a table: a dict's entries by their keys, or a bare number as ``value``."""
    entries = value if isinstance(value, dict) else {"value": value}
    found = {_key(key): _cell(entry) for key, entry in entries.items()}
    return found if isinstance(value, dict) or isinstance(found["value"], (bool, int, float)) else {}


def told(value: Any) -> str:
    """What a value is, in a few words: ``Sequential, 1,234 parameters``, or ``{'loss': 0.1}``."""
    if value is None:
        return ""
    kind = type(value).__name__
    with contextlib.suppress(Exception):  # whatever a class of the user's does
        if hasattr(value, "count_params") and getattr(value, "built", False):
            return f"{kind}, {value.count_params():,} parameters"
        if type(value) in (bool, int, float, str, dict, list, tuple) and len(text := repr(value)) <= SHORT:
            return text
        if (shape := getattr(value, "shape", None)) is not None:
            return f"{kind} of shape {tuple(shape)}"
        if isinstance(value, (dict, list, tuple, set)):
            return f"{kind} of {len(value):,}"
    return kind


def _key(key: Any) -> str:
    try:
        return str(key)
    except BaseException:  # of the user's own
        return f"<{type(key).__qualname__}>"


def _cell(value: Any) -> Any:
    """A number, however it is wrapped, as Python's own; a text as it is; of anything else its kind."""
    if value is None or type(value) in (bool, float):
        return value
    if isinstance(value, int):
        return _whole(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return str(value[:SHORT])
    with contextlib.suppress(
        BaseException
    ):  # arrays, tensors, frameworks' variables, each with its own errors
        plain = value.numpy() if hasattr(value, "numpy") else value
        if getattr(plain, "shape", None) == ():
            item = plain.item()
            return item if isinstance(item, (bool, int, float, str)) else f"<{type(value).__qualname__}>"
    return f"<{type(value).__qualname__}>"


def _whole(value: int) -> int | str:
    """A whole number, where a table can hold it and compare it with others."""
    try:
        float(value)
    except OverflowError:
        return f"<a whole number of {value.bit_length()} bits, larger than any float>"
    return int(value)


def tidy() -> None:
    """Clears what a job has left in the frameworks, before the next one."""
    if "keras" in sys.modules:
        from obl_magic.worker.frameworks.keras.clearing import clear  # it imports Keras

        clear()
    gc.collect()


def failed(error: BaseException, sources: Iterable[CellSource], folder: RunDir | None, rank: int) -> Failed:
    """What is told of an exception, whatever it does when it is asked.

    Args:
        error: what was raised.
        sources: whose lines are the user's.
        folder: where the exception itself is kept, if anywhere.
        rank: that raised it.
    """
    nothing = Failed(rank, time.time(), type(error).__name__, f"{type(error).__name__}\n", "", "")
    return within(TELLING_S, lambda: _told(error, sources, folder, rank)) or nothing


def _told(error: BaseException, sources: Iterable[CellSource], folder: RunDir | None, rank: int) -> Failed:
    text, where = tracebacks.describe(error, sources)
    file = ""
    if folder is not None:
        with contextlib.suppress(BaseException):
            data = payload.dumps(error)
            payload.loads(data)
            folder.write_bytes(folder.error(rank), data)
            file = folder.error(rank).name
    return Failed(rank, time.time(), tracebacks.one_line(error), text, where, file)


def within(seconds: float, do: Callable[[], _T]) -> _T | None:
    """What code of the user's gives that may not end, or that raises; None then."""
    found: list[_T] = []

    def run() -> None:
        with contextlib.suppress(BaseException):
            found.append(do())

    thread = threading.Thread(target=run, name="obl-within", daemon=True)
    try:
        thread.start()
    except RuntimeError:  # memory or threads have run out, which may be just what is told
        run()
    else:
        thread.join(seconds)
    return found[0] if found else None


def _unsendable(value: Any, error: BaseException, folder: RunDir) -> TypeError:
    said = within(TELLING_S, lambda: tracebacks.one_line(error)) or type(error).__name__
    kept = f"; its weights stand in {folder.weights}" if folder.weights.exists() and _models_in(value) else ""
    refused = TypeError(
        f"the function returned a {type(value).__qualname__}, which cannot be sent back: {said}{kept}; "
        "do: return numbers, arrays, a dict of them, or a Keras model (for a subclassed model: model.get_weights())"
    )
    return refused.with_traceback(tracebacks.in_users_code(error.__traceback__))


def _seed(seed: int) -> Callable[[], None]:
    """Seeds Python's generator now, and NumPy's as soon as it is there; what to call when the job is over."""
    random.seed(seed)
    return on_import("numpy", lambda: sys.modules["numpy"].random.seed(seed % 2**32))
