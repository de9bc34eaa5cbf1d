"""What a run takes from an earlier one: hyperparameters, initial weights; and the record of it. Starts nothing.

Beginning the final training with the best trial's weights is the idea of Sheikholeslami et al., ICONIP 2024; what it
brings here is measured by ``make bench`` and may be nothing.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from obl_magic.errors import Damaged, UsageProblem
from obl_magic.options import Source
from obl_magic.payload import weights_file
from obl_magic.rundir import RunDir, existing_studies
from obl_magic.rundir.record import RunRecord
from obl_magic.runs.run import Run
from obl_magic.study.find import is_search, open_results
from obl_magic.study.results import TrialView
from obl_magic.study.search_result import Study
from obl_magic.values import Inherited

BEST = "best"


def inherited(
    params: Source | None, init_from: Source | None, namespace: Mapping[str, Any] | None
) -> Inherited:
    """What an earlier search or run gives to the one that begins now.

    Args:
        params: where hyperparameters come from.
        init_from: where initial weights come from.
        namespace: the notebook's names, which are looked at before ids.

    Raises:
        UsageProblem: there is no such thing, or it has none of what is wanted.
    """
    lineage: dict[str, dict[str, Any]] = {}
    args: dict[str, Any] = {}
    weights: Path | None = None
    if params is not None:
        found = _found("params", params, namespace)
        args = _params_of(found)
        lineage["params"] = _named(found)
    if init_from is not None:
        found = _found("init-from", init_from, namespace)
        weights = _weights_of(found)
        lineage["weights"] = _named(found)
    return Inherited(args, weights, lineage)


def _found(option: str, source: Source, namespace: Mapping[str, Any] | None) -> Any:
    """The Run, the trial or the dict that is meant."""
    if isinstance(source, str):
        source = _by_name(option, source, namespace or {})
    if isinstance(source, Study):
        return source.best
    if isinstance(source, (Run, TrialView, dict)):
        return source
    raise UsageProblem(
        f"{option}: a {type(source).__qualname__}",
        "a search, one of its trials, or a run",
        f"--{option} best",
    )


def _by_name(option: str, name: str, namespace: Mapping[str, Any]) -> Any:
    if name == BEST and not isinstance(namespace.get(name), (Study, Run, TrialView, dict)):
        searches = [folder for folder in existing_studies() if is_search(folder)]
        if not searches:
            raise UsageProblem(
                f"--{option} best, where there was no search yet",
                "a search before it",
                "%%oblivious --search ...",
            )
        return Study.open(searches[-1])
    if name in namespace:
        return namespace[name]
    try:
        return open_results(name)
    except Damaged:
        raise
    except UsageProblem as not_a_study:
        try:
            return Run.open(name)
        except Damaged:
            raise
        except UsageProblem:
            raise UsageProblem(
                f"--{option} {name}",
                "best, a variable with a search or a run, or the id of one",
                f"--{option} best",
            ) from not_a_study


def _params_of(found: Run | TrialView | dict[str, Any]) -> dict[str, Any]:
    if isinstance(found, dict):
        return dict(found)
    if isinstance(found, TrialView):
        found = found.run
    return arguments_of(found.record)


def arguments_of(record: RunRecord, but: Collection[str] = ()) -> dict[str, Any]:
    """The arguments that a run or a study was called with, from its record.

    Args:
        record: of it.
        but: arguments that are not wanted.

    Raises:
        UsageProblem: one of them is no literal, so that only its text is known.
    """
    args = {}
    for name, text in record.arguments.items():
        if name in but:
            continue
        try:
            args[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            raise UsageProblem(
                f"params of {record.id}, whose argument {name} is {text[:40]}",
                "arguments that are Python literals",
                f"--arg {name}=...",
            ) from None
    return args


def _weights_of(found: Run | TrialView | dict[str, Any]) -> Path:
    run = found.run if isinstance(found, TrialView) else found
    if isinstance(run, dict):
        raise UsageProblem("init-from: a dict", "a search, one of its trials, or a run", "--init-from best")
    run.refuse_foreign("the weights")
    folder = RunDir.at(run.dir)
    if not folder.weights.is_file() and not _keep_weights(run, folder):
        kept = (
            "a trial whose weights were kept"
            if isinstance(found, TrialView)
            else "a run that returned its model"
        )
        raise UsageProblem(
            f"init-from {run.id}, which kept no weights",
            f"{kept} (a search keeps those of its best trials: --keep-weights)",
            "--init-from best",
        )
    return folder.weights


def _keep_weights(run: Run, folder: RunDir) -> bool:
    """Writes the weights of the model that a run returned; whether it did return one."""
    model = run.value
    if not hasattr(model, "weights") or not hasattr(model, "get_weights"):
        return False
    weights_file.save(weights_file.of_model(model, label=run.id), folder, folder.weights)
    return True


def _named(found: Run | TrialView | dict[str, Any]) -> dict[str, Any]:
    if isinstance(found, dict):
        return {"study": None, "trial": None, "run": None}
    if isinstance(found, TrialView):
        found = found.run
    return {"study": found.record.study, "trial": found.record.trial, "run": found.id}
