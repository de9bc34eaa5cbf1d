"""What a user holds of a search: its trials, the best of them, Optuna's own study. Starts nothing."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from obl_magic.display.charts.figures import search_figure
from obl_magic.errors import UsageProblem
from obl_magic.study.record import ranked
from obl_magic.study.results import Results, TrialView

if TYPE_CHECKING:
    import optuna
    import pandas as pd
    from matplotlib.figure import Figure


class Study(Results):
    """A hyperparameter search: its trials, the best of them, and Optuna's own study."""

    kind = "search"

    @property
    def trials(self) -> pd.DataFrame:
        """One row a trial that has ended.

        ``number, status, value, duration_s, error``, one column per parameter, one per key of what the function
        returned (``returned_<key>`` where a parameter is called so).
        """
        import pandas as pd

        first = ["number", "status", "value", "duration_s", "error"]
        rows, names, keys = [], dict[str, None](), dict[str, None]()
        for record in self.ended_trials:
            keys.update(dict.fromkeys(record.returned))
            names.update(dict.fromkeys(record.params))
        for record in self.ended_trials:
            row = {name: getattr(record, name) for name in first}
            row |= {name: record.params.get(name) for name in names}
            row |= {
                f"returned_{key}" if key in names or key in first else key: record.returned.get(key)
                for key in keys
                if key != "value"
            }
            rows.append(row)
        columns = list(dict.fromkeys([*first, *names, *(c for r in rows for c in r)]))
        frame = pd.DataFrame(rows, columns=columns)
        types = {"number": "int64", "value": "float64", "duration_s": "float64"}
        types |= {name: "object" for name in names if any(row[name] is None for row in rows)}
        frame = frame.astype(types)
        for name in names:  # pandas would make NaN of a None that is an option
            if types.get(name) == "object":
                frame[name] = pd.Series([row[name] for row in rows], dtype="object", index=frame.index)
        return frame

    @property
    def best(self) -> TrialView:
        """The best trial.

        Raises:
            UsageProblem: no trial has succeeded.
        """
        return self._ranked()[0]

    @property
    def worst(self) -> TrialView:
        """The worst of the trials that succeeded.

        Raises:
            UsageProblem: no trial has succeeded.
        """
        return self._ranked()[-1]

    @property
    def optuna(self) -> optuna.Study:
        """Optuna's study, over the journal in the study's folder: for its dashboard, plots and importances."""
        from obl_magic.study.plan.search import open_study  # it imports Optuna

        return open_study(self.folder.journal, self.id)

    @property
    def importances(self) -> dict[str, float]:
        """How much of the quantity's variance each parameter explains, largest first; empty where that is unknown."""
        from obl_magic.study.plan.search import importances_of  # it imports Optuna

        return importances_of(self.optuna)

    def plot(self) -> Figure:
        """Its trials, the best so far and what parameters mattered, as a matplotlib figure.

        Raises:
            SetupProblem: matplotlib is missing.
        """
        return search_figure(self.record, self.shown())

    @staticmethod
    def prepare_still() -> None:
        """Imports what :attr:`importances` needs."""
        importlib.import_module("optuna.importance")

    def _ranked(self) -> list[TrialView]:
        found = ranked(self.ended_trials, self.direction)
        if not found:
            failed = next((record for record in self.ended_trials if record.error), None)
            said = f"; the first that failed: {failed.error}" if failed else ""
            raise UsageProblem(
                f"the best trial of {self.id}, of which none has succeeded{said}",
                "a search in which a trial succeeded",
                "study.trials",
            )
        return [TrialView(record, self.folder) for record in found]

    def _weighed(self) -> dict[str, float]:
        return {} if self.status == "running" or len(self.ended_trials) < 2 else self.importances
