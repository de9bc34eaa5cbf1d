"""Looking at a fit while it runs: exact logs of single steps, progress, the weights' checksum, a verification.

All ranks look at the same steps: rank 0 decides how far the next look is away, so that looking stays a small share of
the time (docs/decisions/0005-exact-logs-when-somebody-looks.md).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf
from keras.src.utils import python_utils

from obl_magic.events.event import Metric, Progress
from obl_magic.events.fold import SINGLE_STEP
from obl_magic.values import Settings
from obl_magic.worker.engines.collectives import Collectives
from obl_magic.worker.frameworks.keras.balance import Balance
from obl_magic.worker.frameworks.keras.checkpoints import Kept
from obl_magic.worker.frameworks.keras.checksum import Checksum
from obl_magic.worker.frameworks.keras.noise import Gradients
from obl_magic.worker.frameworks.keras.same_data import SameData
from obl_magic.worker.frameworks.keras.verifying import Verified
from obl_magic.worker.report import Reporter

PROGRESS_EVERY_S = 0.2
_CHEAP_SHARE = 0.005
SOON_S = 1.0
"""Looks are not further apart, so that a run which is asked to stop soon does."""
FIRST_GAP = 5
"""Steps after which the second look comes, by which time the length of a step is known."""


@dataclass(slots=True)
class Fit:
    """One ``fit`` under way.

    Attributes:
        epoch: the current one, from 0.
        step: the current one of the epoch, from 0.
        stepped: optimizer steps so far.
        logs: last exact logs.
        data: Keras' epoch iterator, or None.
        keeps: it is to be kept after this step.
        enters: what was kept of an epoch in which it goes on, until it is there.
        next_look: step at which the logs are made exact for display next.
        shown_s: when progress was last shown.
        began_s: since when speed is measured, by ``perf_counter``.
        began_step: since which step.
        looked_s: when the last look ended, by ``perf_counter``; 0 before the first.
        looked_step: at which step that was.
    """

    epochs: int
    steps: int | None
    batch: int | None
    epoch: int = 0
    step: int = 0
    stepped: int = 0
    logs: dict[str, float] = field(default_factory=dict)
    data: Any = None
    keeps: bool = False
    enters: Kept | None = None
    next_look: int = 1
    shown_s: float = 0.0
    began_s: float = field(default_factory=time.perf_counter)
    began_step: int = 0
    looked_s: float = 0.0
    looked_step: int = 0


class Monitor:
    """Looks at fits.

    Args:
        world: the collectives.
        reporter: where numbers and progress go.
        settings: of the run.
        exact_logs: (model, logs) -> logs computed from all ranks.
        checksum: compares the ranks' weights.
        same: compares what they have read.
        gradients: of a verification.
        is_due: whether a fit is to be kept, by its model, its step and the steps of its epoch.
        balance: compares the ranks' paces.
    """

    def __init__(
        self,
        world: Collectives,
        reporter: Reporter,
        settings: Settings,
        exact_logs: Callable[[Any, Any], Any],
        checksum: Checksum,
        same: SameData,
        gradients: Gradients,
        is_due: Callable[[Any, int, int | None], bool],
        balance: Balance,
    ) -> None:
        self._world, self._reporter, self._settings, self._same = world, reporter, settings, same
        self._exact_logs, self._checksum, self._gradients = exact_logs, checksum, gradients
        self._is_due, self._balance = is_due, balance
        self._verified: list[dict[str, float]] = []

    def look(self, model: Any, fit: Fit, logs: Any, always: bool) -> Any:
        """Exact logs where a user's callback reads them (``always``), and now and then for display.

        Raises:
            KeyboardInterrupt: the user asked the run to stop; on every rank, after the same step.
        """
        if self._settings.stop_after is not None:
            self._verify(model, fit, logs)
        due = fit.stepped >= fit.next_look
        if not (due or always):
            return logs
        began = time.perf_counter()
        logs = self._exact_logs(model, logs)
        fit.logs = numbers(logs)
        if due:
            if self._reporter.rank == 0:
                named = {f"{SINGLE_STEP}{name}": value for name, value in fit.logs.items()}
                self._reporter.emit(Metric(0, time.time(), named, fit.stepped, fit.epoch + 1))
            if self._world.size > 1:
                self._same.compare()
                self._checksum.look(model.trainable_variables, fit.stepped)
            # a loop that uses Keras' list of callbacks has no data of its own, and is not kept
            may_be_kept = self._reporter.rank == 0 and fit.data is not None
            due = may_be_kept and self._is_due(model, fit.step, fit.steps)
            fit.next_look = fit.stepped + self._steps_until_next(model, fit, due, time.perf_counter() - began)
            if fit.next_look < fit.stepped:
                self._reporter.stop_asked = True
                raise KeyboardInterrupt
        return logs

    def _verify(self, model: Any, fit: Fit, logs: Any) -> None:
        """Records a step's exact logs; after the last one to be verified, ends the function with what it found."""
        self._verified.append(numbers(self._exact_logs(model, logs)))
        if len(self._verified) >= (self._settings.stop_after or 0):
            raise self.verified(model.trainable_variables)

    def verified(self, variables: Sequence[Any]) -> Verified:
        """The steps verified so far, and the weights as they are now."""
        named = {f"{i}: {v.path}": v for i, v in enumerate(variables)}
        weights = {name: variable.numpy() for name, variable in named.items()}
        return Verified(self._verified, weights, self._gradients.noise(named))

    def _steps_until_next(self, model: Any, fit: Fit, keeps: bool, cost_s: float) -> int:
        """What rank 0 decides: steps until all ranks look again, or less than 0 if they are to stop.

        Args:
            model: that is fitted.
            fit: is told whether it is kept now, which rank 0 decides, too.
            keeps: what rank 0 thinks of that.
            cost_s: seconds that this look has taken.
        """
        now = time.perf_counter()
        if not fit.looked_s:  # what came before was building and tracing
            wish = FIRST_GAP
        else:  # at the pace of the last stretch, since ranks that get slow are still to stop soon
            step_s = (now - fit.looked_s) / max(1, fit.stepped - fit.looked_step)
            gap_s = min(max(PROGRESS_EVERY_S, cost_s / _CHEAP_SHARE), SOON_S)
            wish = max(1, int(gap_s / max(step_s, 1e-6)))
            self._checksum.adapt(step_s)
        fit.looked_s, fit.looked_step = now, fit.stepped
        if self._reporter.stop_asked:
            wish = -1
        if self._world.size > 1:
            mine = tf.constant([[wish, int(keeps), *self._balance.measured()]], tf.int64)
            everyone = self._world.allgather(mine).numpy().tolist()
            wish, keeps = everyone[0][0], bool(everyone[0][1])
            self._balance.compare(
                [(busy, spent) for _, _, busy, spent in everyone], model, fit.data, fit.stepped
            )
        fit.keeps = keeps
        return wish

    def show(self, fit: Fit) -> None:
        """Says where the fit is, if that was not said just now."""
        now = time.perf_counter()
        if self._reporter.rank != 0 or now - fit.shown_s < PROGRESS_EVERY_S:
            return
        self.tell(fit)

    def tell(self, fit: Fit) -> None:
        """Says where the fit is."""
        now = time.perf_counter()
        steps, seconds = fit.stepped - fit.began_step, now - fit.began_s
        speed = fit.batch * steps / seconds if fit.batch and seconds > 0 and steps > 0 else None
        fit.shown_s = now
        if fit.began_step == 0:
            fit.began_step, fit.began_s = fit.stepped, now
        self._reporter.emit(
            Progress(
                0,
                time.time(),
                fit.epoch + 1,
                fit.epochs,
                fit.step,
                fit.steps,
                speed,
                dict(fit.logs),
                fit.stepped,
            )
        )


def numbers(logs: Any) -> dict[str, float]:
    """The numbers among logs, as Python floats."""
    plain = python_utils.pythonify_logs(logs)
    return {name: float(value) for name, value in plain.items() if isinstance(value, (int, float))}
