"""Which runs an ablation study makes: the base run, then one without each component, each as often as repeats say."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from obl_magic.errors import UsageProblem
from obl_magic.values import Component, Outcome, Trial


class Ablation:
    """Leave one component out; the idea of LOCO in Maggy (Meister et al., 2020).

    Args:
        components: what is left out, one at a time.
        repeats: how often each run is made, with other seeds.
        seed: of the first of the repeats; the others count on from it, the same for every component, so that a
            component is compared with base runs that drew the same random numbers.
    """

    def __init__(self, components: Sequence[Component], repeats: int, seed: int) -> None:
        self.planned = repeats * (1 + len(components))
        self._repeats, self._failed = repeats, 0
        self._left = self._each(components, repeats, seed)
        self._lock = threading.Lock()

    def ask(self) -> Trial | None:
        """The next run, the base runs first; None when there are no more."""
        with self._lock:
            return next(self._left, None)

    def judge(self, trial: Trial, step: int, value: float) -> bool:
        """Never ends a run early: all are to be compared."""
        return False

    def tell(self, trial: Trial, outcome: Outcome) -> None:
        """Notes a base run.

        Raises:
            UsageProblem: none of them has succeeded, so that there is nothing to compare with.
        """
        if trial.component is not None:
            return
        with self._lock:
            self._failed += outcome.status != "succeeded"
            if self._failed == self._repeats:
                raise UsageProblem(
                    f"an ablation whose base run fails: {outcome.error}",
                    "a function that trains as it is",
                    "%%oblivious --function NAME, and mend it first",
                )

    @staticmethod
    def _each(components: Sequence[Component], repeats: int, seed: int) -> Iterator[Trial]:
        cases = [(component, repeat) for component in (None, *components) for repeat in range(repeats)]
        for number, (component, repeat) in enumerate(cases):
            yield Trial(number, {}, seed + repeat, component, repeat)
