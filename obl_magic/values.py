"""Frozen values that cross rooms. Does nothing: no I/O, no framework, no defaults that think."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DEFAULT_SEED = 0
"""Base seed of a run that names none: runs repeat themselves unless told otherwise."""

RESERVED = ("reporter", "hparams")
"""Parameters that are filled where the function runs rather than from the notebook."""

HIDDEN = "***"
"""What stands for a credential in whatever is written down or shown."""

LR_SCALES: dict[str, Callable[[int], float]] = {"none": lambda size: 1.0, "linear": float, "sqrt": math.sqrt}
"""By what a learning rate is multiplied where the global batch is ``size`` times the code's."""


@dataclass(frozen=True, slots=True)
class CapturedName:
    """One thing the training function drags along.

    Attributes:
        path: how the function reaches it, e.g. ``train -> helper -> table``.
        type_name: type of the value, as ``module.Qualname`` without builtins.
        size_bytes: what it weighs when sent, in bytes (an estimate for arrays: their buffer).
        secret: its name or its look suggests a credential.
    """

    path: str
    type_name: str
    size_bytes: int
    secret: bool = False


@dataclass(frozen=True, slots=True)
class CellSource:
    """The text of one notebook cell (or file) whose code travels, for tracebacks on a rank.

    Attributes:
        filename: the code objects' ``co_filename``.
        label: what a user calls it: ``In [7]`` or the file's own name.
        text: the source, whose line numbers are those of the code.
    """

    filename: str
    label: str
    text: str


@dataclass(frozen=True, slots=True)
class CarriedSettings:
    """What earlier cells have set of one library.

    Attributes:
        library: its name in the table of libraries.
        values: its settings by name, pickled: to be loaded when the library is there.
        told: those that are not as the library comes, in words, for the record.
    """

    library: str
    values: bytes = field(repr=False)
    told: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CarriedGenerators:
    """Where the random generators stand that earlier cells have seeded.

    Attributes:
        states: by library, pickled; none where no cell has seeded anything.
        told: the calls that did it, in words.
    """

    states: bytes = field(default=b"", repr=False)
    told: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Captured:
    """The training function with all it needs, as a value.

    Attributes:
        name: the function's name.
        source: its source text, exactly as written.
        digest: sha256 of ``source``, hexadecimal.
        payload: the pickled function and the values for its parameters without default.
        buffers: of its large arrays, which lie beside the payload and are not copied.
        library_settings: what earlier cells have set.
        generators: what they have seeded.
        names: what it drags along, largest first.
        sources: cell texts for tracebacks.
        provided: parameters filled by name from the notebook.
        provided_values: with what.
    """

    name: str
    source: str
    digest: str
    payload: bytes = field(repr=False)
    names: tuple[CapturedName, ...] = ()
    sources: tuple[CellSource, ...] = ()
    provided: tuple[str, ...] = ()
    provided_values: dict[str, Any] = field(default_factory=dict, repr=False)
    buffers: tuple[Any, ...] = field(default=(), repr=False)
    library_settings: tuple[CarriedSettings, ...] = ()
    generators: CarriedGenerators = CarriedGenerators()


@dataclass(frozen=True, slots=True)
class Settings:
    """How the ranks make Keras oblivious.

    Attributes:
        batch: ``global`` (the code's batch is the whole world's) or ``per-worker``.
        lr_scale: ``none``, ``linear`` or ``sqrt``; for per-worker batches.
        warmup_epochs: epochs over which the scaled learning rate is reached.
        sync_batchnorm: batch normalisation over the global batch.
        prove: model calls that are shared over the ranks are computed whole, too, now and then, and compared.
        keep_each_epoch: write every epoch of a fit down, so that another world can go on from it.
        keep_every_s: seconds after which a fit is written down inside an epoch, too, or None.
        goes_on: begin where an earlier world has left the function.
        stop_after: steps after which the function is stopped and its state recorded (a verification), or None.
        keep_weights: keep the model's weights of the best epoch.
        keep_weights_of: the metric that says which one that is.
        keep_largest: its largest value is the best, else its smallest.
        balance: ranks' shares of a batch follow their pace: soon (True), where they differ much for long (None), never.
        init_from: path of a file of weights that the first fit begins from, or "".
    """

    batch: str = "global"
    lr_scale: str = "none"
    warmup_epochs: int = 0
    sync_batchnorm: bool = True
    prove: bool = True
    keep_each_epoch: bool = False
    keep_every_s: float | None = None
    goes_on: bool = False
    stop_after: int | None = None
    keep_weights: bool = False
    keep_weights_of: str = ""
    keep_largest: bool = True
    balance: bool | None = None
    init_from: str = ""


@dataclass(frozen=True, slots=True)
class Inherited:
    """What a run takes over from an earlier one.

    Attributes:
        args: arguments by name.
        weights: file of initial weights, or None.
        lineage: where they came from, for ``run.json``: ``params`` and ``weights``, each with study, trial,
            run.
    """

    args: dict[str, Any] = field(default_factory=dict)
    weights: Path | None = None
    lineage: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Component:
    """What one run of an ablation study does without.

    Attributes:
        name: what the table calls it, e.g. ``age``, ``conv2`` or ``block1_*``.
        kind: ``feature``, ``layer``, ``group`` (of layers, or of features), ``model`` or ``flag``.
        members: the names it stands for, patterns resolved; of a ``model``, the other function's name.
    """

    name: str
    kind: str
    members: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Trial:
    """One call of the function that a plan asks for.

    Attributes:
        number: from 0, in the order asked.
        args: arguments by name, beside those that all trials share.
        seed: base seed of this call.
        component: what an ablation takes away, or None.
        repeat: which of several calls that differ in their seeds only, from 0.
    """

    number: int
    args: dict[str, Any]
    seed: int
    component: Component | None = None
    repeat: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a trial went.

    Attributes:
        status: ``succeeded``, ``failed`` or ``pruned``.
        value: of the wanted quantity, or None.
        error: one line, or "".
    """

    status: str
    value: float | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Job:
    """One call of the function in one world.

    Attributes:
        name: the function's name.
        digest: sha256 the ranks must find when they hash the source they got.
        source: the function's source.
        payload: the pickled function with its provided values.
        buffers: of its large arrays, beside it.
        args: arguments by name.
        sources: cell texts for tracebacks.
        seed: base seed.
        settings: how the ranks make Keras oblivious.
        engine: ``horovod`` or ``mpi``; already decided.
        run_dir: the run's folder, or "" where nothing is kept.
        stall_s: seconds that its ranks may stand still, or None.
        beat_s: seconds between two heartbeats.
        path: where the kernel finds modules (``sys.path``); ranks look first where they would not look by
            themselves.
        namesakes: modules of the standard library that are imported in the kernel, and that a file there is
            named like.
        ablates: the call belongs to an ablation study.
        component: what it does without, or None.
        quantity: name of the number by which the kernel decides whether a trial goes on, or "".
        library_settings: what earlier cells have set.
        generators: where they have left random generators, instead of the base seed.
    """

    name: str
    digest: str
    source: str
    payload: bytes = field(repr=False)
    args: dict[str, Any]
    sources: tuple[CellSource, ...]
    seed: int
    settings: Settings
    engine: str
    run_dir: str
    beat_s: float = 1.0
    stall_s: float | None = None
    path: tuple[str, ...] = ()
    namesakes: tuple[str, ...] = ()
    buffers: tuple[Any, ...] = field(default=(), repr=False)
    ablates: bool = False
    component: Component | None = None
    quantity: str = ""
    library_settings: tuple[CarriedSettings, ...] = ()
    generators: CarriedGenerators = CarriedGenerators()
