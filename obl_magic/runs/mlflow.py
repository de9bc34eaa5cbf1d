"""Logs a run to MLflow, with MLflow's own client: parameters, curves, the function's source."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from obl_magic.errors import SetupProblem
from obl_magic.events.fold import MetricRow, of_rank
from obl_magic.rundir.record import RunRecord

AT_ONCE = 1000
"""Numbers that MLflow takes in one call."""
MOST_CHARS = 500
STATUS = {"running": "RUNNING", "succeeded": "FINISHED", "interrupted": "KILLED"}


def log_to_mlflow(
    record: RunRecord, status: str, rows: Sequence[MetricRow], source: Path, experiment: str, uri: str | None
) -> str:
    """Makes an MLflow run of a run; its id.

    Args:
        record: what is known of the run.
        status: how it ended.
        rows: its numbers.
        source: file of the function's source.
        experiment: name of MLflow's experiment; made where there is none.
        uri: MLflow's tracking URI, or None for its own default.

    Raises:
        SetupProblem: MLflow is missing.
    """
    try:
        from mlflow.entities import Metric, Param, RunTag
        from mlflow.tracking import MlflowClient
    except ImportError:
        raise SetupProblem(
            "to_mlflow needs MLflow's client, which is missing", "python -m pip install mlflow"
        ) from None
    client = MlflowClient(tracking_uri=uri)
    known = client.get_experiment_by_name(experiment)
    place = known.experiment_id if known else client.create_experiment(experiment)
    made = client.create_run(place, start_time=int(1000 * record.started_s), run_name=record.id).info.run_id
    params = [Param(_name(name), text[:MOST_CHARS]) for name, text in record.arguments.items()]
    tags = [RunTag(f"obl_magic.{name}", str(value)) for name, value in _facts(record).items()]
    client.log_batch(made, params=params[:100], tags=tags)
    for some in _some(rows):
        client.log_batch(made, metrics=[
            Metric(_tag(row), row.value, int(1000 * row.time_s), row.step or row.epoch or 0) for row in some
        ])  # fmt: skip
    if source.is_file():
        client.log_artifact(made, str(source))
    ended_s = rows[-1].time_s if rows else record.started_s
    client.set_terminated(made, STATUS.get(status, "FAILED"), end_time=int(1000 * ended_s))
    return str(made)


def _some(rows: Sequence[MetricRow]) -> Any:
    return (rows[at : at + AT_ONCE] for at in range(0, len(rows), AT_ONCE))


def _facts(record: RunRecord) -> Mapping[str, Any]:
    return {
        "run": record.id, "function": record.function, "digest": record.digest, "seed": record.seed,
        "workers": record.workers or "here", "engine": record.engine, "study": record.study or "",
    }  # fmt: skip


def _tag(row: MetricRow) -> str:
    return _name(of_rank(row.name, row.rank))


def _name(name: str) -> str:
    """A name that MLflow takes."""
    return re.sub(r"[^\w\-. /]", "_", name)
