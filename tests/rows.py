"""Metric events as rows, for tests of whatever reads rows."""

from __future__ import annotations

from obl_magic.events.event import Metric
from obl_magic.events.fold import MetricRow


def metric_rows(event: Metric) -> list[MetricRow]:
    """The rows of one metric event, in the order of its names."""
    return [
        MetricRow(event.time_s, event.rank, event.epoch, event.step, name, value)
        for name, value in event.values.items()
    ]
