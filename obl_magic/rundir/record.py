"""What is known of a run or a study before its first event: once, as a value, and as the JSON in its folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Self

from obl_magic.errors import Damaged

FORMAT = 2
"""Of a run's and a study's files; it stands in their records. A number is taken when older readers would misread."""


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What is known of a run before its first event. Never the value of an environment variable.

    Attributes:
        id: the run's id.
        function: the training function's name.
        digest: sha256 of its source.
        workers: number of ranks, or None for a call inside the kernel.
        engine: collectives in use.
        engine_reason: why this engine, or "".
        batch: ``global`` or ``per-worker``.
        cores: logical cores of this host.
        started_s: Unix time in seconds at which the run began.
        lines: short remarks, shown once.
        folder: the run's folder as the user would type it, or "".
        draws: curves are to be expected: the function trains.
        seed: base seed.
        hosts: where its ranks are, in words; "" where all are on this host.
        arguments: what the function was called with, by name, as text.
        provided: parameters that were filled by name from the notebook.
        options: how it was asked for; see :mod:`obl_magic.options`.
        settings: how the ranks made Keras oblivious.
        settings_carried: what earlier cells had set of libraries, in words.
        generators_carried: which random generators they had seeded, in words.
        captured: what the function dragged along: path, type_name, size_bytes, secret.
        capture_s: seconds that its capture took.
        environment: versions and the machine.
        kernel: the process that conducts it.
        lineage: where parameters and weights came from: ``params`` and ``weights``, each with study, trial,
            run.
        study: id of the study whose trial it is, or None.
        trial: number of the trial, or None.
        params: what the study's plan gave it.
        repeat: which of several runs that differ in their seeds only, from 0.
        component: what an ablation took away, or "".
    """

    NEEDED: ClassVar[tuple[str, ...]] = ("function", "digest", "workers", "engine", "id")

    id: str
    function: str
    digest: str
    workers: int | None
    engine: str
    engine_reason: str = ""
    batch: str = "global"
    cores: int = 0
    started_s: float = 0.0
    lines: tuple[str, ...] = ()
    folder: str = ""
    draws: bool = False
    seed: int = 0
    hosts: str = ""
    arguments: dict[str, str] = field(default_factory=dict)
    provided: tuple[str, ...] = ()
    options: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    settings_carried: dict[str, dict[str, str]] = field(default_factory=dict)
    generators_carried: dict[str, str] = field(default_factory=dict)
    captured: tuple[dict[str, Any], ...] = ()
    capture_s: float | None = None
    environment: dict[str, Any] = field(default_factory=dict)
    kernel: dict[str, Any] | None = None
    lineage: dict[str, dict[str, Any]] = field(default_factory=dict)
    study: str | None = None
    trial: int | None = None
    params: dict[str, Any] = field(default_factory=dict)
    repeat: int = 0
    component: str = ""

    @property
    def in_json(self) -> dict[str, Any]:
        """As it stands in the folder."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def read(cls, path: Path) -> Self:
        """What a JSON file of a run or a study holds.

        Args:
            path: the file.

        Raises:
            Damaged: it is, or another program or a newer version wrote it; with its path and what it lacks.
        """
        told = cls._told(read_json(path))
        known: dict[str, Any] = {}
        for each in fields(cls):
            if each.name in told:
                value = told[each.name]
                known[each.name] = tuple(value) if isinstance(value, list) else value
        missing = next((name for name in cls.NEEDED if name not in known), "")
        if missing:
            raise damaged(path, f"without {missing}")
        return cls(**known)

    @classmethod
    def _told(cls, told: dict[str, Any]) -> dict[str, Any]:
        """A record as it is written today, of one that may be older."""
        if told.get("format", 1) >= FORMAT or not isinstance(header := told.get("header"), Mapping):
            return told
        options = dict(told.get("options") or {})
        return {**told, **header, "settings": options.pop("settings", {}), "options": options}


@dataclass(frozen=True, slots=True)
class StudyRecord(RunRecord):
    """What is known of a search or an ablation; what its trials have in common is as of a run.

    Attributes:
        kind: ``search`` or ``ablation``.
        quantity: name of the number that is compared.
        direction: ``maximize`` or ``minimize``.
        status: ``running``, or how it ended.
        wanted: number of trials, or None where that is not known.
        workers: ranks in use at a time, or None for trials inside the kernel.
        workers_per_trial: ranks of one trial.
        worlds: trials at a time.
        sampler: which way trials are chosen, or "".
        pruner: who ends them early, or "".
        space: the pieces of the spec, as the user would write them.
        repeats: of each run of an ablation.
        asked: what a search that goes on takes from here.
        out: the name it is known by beside its id.
        began_s: Unix time in seconds of its first session; ``started_s`` counts what earlier sessions took.
        ended_s: Unix time in seconds, or None.
    """

    NEEDED: ClassVar[tuple[str, ...]] = (*RunRecord.NEEDED, "kind", "status")

    kind: str = ""
    quantity: str = ""
    direction: str = ""
    status: str = "running"
    wanted: int | None = None
    workers_per_trial: int = 1
    worlds: int = 1
    sampler: str = ""
    pruner: str = ""
    space: tuple[str, ...] = ()
    repeats: int = 1
    asked: dict[str, Any] = field(default_factory=dict)
    out: str = ""
    began_s: float = 0.0
    ended_s: float | None = None


def read_json(path: Path) -> dict[str, Any]:
    """What a JSON file of ours holds.

    Args:
        path: the file.

    Raises:
        Damaged: it is, or a newer version wrote it.
    """
    try:
        found = json.loads(path.read_text())
        why = "no record" if not isinstance(found, dict) else ""
    except OSError as error:
        found, why = {}, error.strerror or str(error)
    except ValueError:
        found, why = {}, "no JSON" if path.stat().st_size else "empty"
    if why:
        raise damaged(path, why)
    if (found.get("format", FORMAT) or 0) > FORMAT:
        raise Damaged(
            f"{path} of format {found['format']}, which a newer obl_magic has written",
            f"format {FORMAT} or older",
            "pip install --upgrade obl_magic, or read it where it was written",
        )
    return dict(found)


def damaged(path: Path, why: str) -> Damaged:
    """That a record cannot be read, as a sentence."""
    return Damaged(
        f"{path}, which is damaged ({why})",
        "the record that a run writes when it begins",
        f"rm -r {path.parent}, if nothing in it is wanted any more",
    )
