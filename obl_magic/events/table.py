"""A run's metrics, column by column: a million rows take some fifty megabytes rather than hundreds. Draws nothing."""

from __future__ import annotations

import threading
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import compress
from typing import overload

from obl_magic.events.event import Metric
from obl_magic.events.fold import MetricRow

NONE = -(2**63)
"""Stands for a step or an epoch that was not given."""

Course = tuple[list[int | None], list[int | None], list[float]]
"""Epochs, steps and values of one metric, in order; None where there was none."""


class MetricTable(Sequence[MetricRow]):
    """Rows of metrics in the order of their arrival; one thread adds while others read.

    Attributes:
        time_s: Unix times in seconds.
        ranks: who reported.
        epochs: or :data:`NONE`.
        steps: or :data:`NONE`.
        codes: positions in ``names``.
        values: the numbers.
        names: of all metrics, in order of appearance.
    """

    def __init__(self) -> None:
        self.time_s = array("d")
        self.ranks = array("i")
        self.epochs = array("q")
        self.steps = array("q")
        self.codes = array("i")
        self.values = array("d")
        self.names: list[str] = []
        self._codes: dict[str, int] = {}
        self._lock = threading.Lock()
        self._looked_at = 0
        self._lowest: dict[int, int] = {}
        self._places: dict[int, array[int]] = {}

    def add(self, event: Metric) -> None:
        """Adds the rows of one event, in the order of its names."""
        for name, value in event.values.items():
            code = self._codes.get(name)
            if code is None:
                code = self._codes[name] = len(self.names)
                self.names.append(name)
            self.time_s.append(event.time_s)
            self.ranks.append(event.rank)
            self.epochs.append(NONE if event.epoch is None else event.epoch)
            self.steps.append(NONE if event.step is None else event.step)
            self.codes.append(code)
            self.values.append(value)  # last: a row is there when its value is

    def kept(self, keep: Callable[[str], bool]) -> MetricTable:
        """A table of the rows whose names satisfy ``keep``, as they are now."""
        count, wanted = len(self), [keep(name) for name in self.names]
        table = MetricTable()
        table.names, table._codes = list(self.names), dict(self._codes)
        chosen = None if all(wanted) else [wanted[code] for code in self.codes[:count]]
        for column in ("time_s", "ranks", "epochs", "steps", "codes", "values"):
            whole = getattr(self, column)[:count]
            setattr(
                table, column, whole if chosen is None else array(whole.typecode, compress(whole, chosen))
            )
        return table

    def courses(self, most: int | None = None) -> dict[str, Course]:
        """What the lowest of the ranks that report it said of each metric, by name in order of appearance.

        Rows are looked at once, however often this is asked.

        Args:
            most: values of a metric, evenly spread, the last included; by default all.
        """
        with self._lock:
            for place in range(self._looked_at, count := len(self)):
                code, rank = self.codes[place], self.ranks[place]
                if rank < self._lowest.get(code, rank + 1):
                    self._places.pop(code, None)
                    self._lowest[code], self._places[code] = rank, array("q")
                if rank == self._lowest[code]:
                    self._places[code].append(place)
            self._looked_at = count
            places = {code: _spread(its, most) for code, its in self._places.items()}
        return {
            self.names[code]: (
                _given(self.epochs, its),
                _given(self.steps, its),
                [self.values[at] for at in its],
            )
            for code, its in places.items()
        }

    def __len__(self) -> int:
        return len(self.values)

    @overload
    def __getitem__(self, at: int) -> MetricRow: ...
    @overload
    def __getitem__(self, at: slice) -> list[MetricRow]: ...
    def __getitem__(self, at: int | slice) -> MetricRow | list[MetricRow]:
        if isinstance(at, slice):
            return [self._row(each) for each in range(*at.indices(len(self)))]
        return self._row(range(len(self))[at])

    def __iter__(self) -> Iterator[MetricRow]:
        return map(self._row, range(len(self)))

    def _row(self, at: int) -> MetricRow:
        epoch, step = self.epochs[at], self.steps[at]
        return MetricRow(
            self.time_s[at], self.ranks[at], None if epoch == NONE else epoch, None if step == NONE else step,
            self.names[self.codes[at]], self.values[at],
        )  # fmt: skip


def _spread(places: array[int], most: int | None) -> array[int]:
    """So many of them at most, the last included."""
    if most is None or len(places) <= most:
        return places[:]
    stride = -(-len(places) // most)
    return places[(len(places) - 1) % stride :: stride]


def _given(column: array[int], places: array[int]) -> list[int | None]:
    return [None if (value := column[at]) == NONE else value for at in places]
