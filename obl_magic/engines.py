"""The registry of engines, the ranks' collectives: where each is, and what it wants set. Imports none of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Engine:
    """One engine.

    Attributes:
        module: has ``connect() -> Collectives``.
        settings: environment variables of its ranks, beside the user's own (docs/decisions/0003-tuning.md).
        asked_for: users may name it.
    """

    module: str
    settings: Mapping[str, str] = field(default_factory=dict)
    asked_for: bool = True


ENGINES = {
    "horovod": Engine(
        "obl_magic.worker.engines.horovod",
        {
            "HOROVOD_CYCLE_TIME": "0.1",
            "HOROVOD_CPU_OPERATIONS": "MPI",
            "HOROVOD_CONTROLLER": "mpi",
            "HOROVOD_STALL_CHECK_DISABLE": "1",
        },
    ),
    "mpi": Engine("obl_magic.worker.engines.mpi"),
    "alone": Engine("obl_magic.worker.engines.single", asked_for=False),
}
"""``auto`` takes the first that works here."""

CHOICES = ("auto", *(name for name, engine in ENGINES.items() if engine.asked_for))
"""What users may name."""

CHOICES_IN_WORDS = f"{', '.join(CHOICES[:-1])} or {CHOICES[-1]}"
