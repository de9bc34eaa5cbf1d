"""Metric rows become curves, and curves become pictures."""

from __future__ import annotations

import math
from xml.etree import ElementTree

import pytest

from obl_magic.display.charts.curves import Curve, charts, curves, sparkline, thinned
from obl_magic.display.charts.svg import chart_svg
from obl_magic.events.fold import MetricRow


def rows(
    name: str, *values: float, rank: int = 0, epoch: int | None = 1, step: int | None = 1
) -> list[MetricRow]:
    """One row for each value, epochs and steps counting up from where they are told."""
    return [
        MetricRow(
            float(at),
            rank,
            None if epoch is None else epoch + at,
            None if step is None else step + at,
            name,
            value,
        )
        for at, value in enumerate(values)
    ]


def test_validation_stands_next_to_training() -> None:
    """Whatever order the names came in."""
    mixed = (
        rows("loss", 2, 1) + rows("accuracy", 0.1, 0.2) + rows("val_accuracy", 0, 1) + rows("val_loss", 3, 2)
    )
    assert [curve.name for curve in curves(mixed)] == ["loss", "val_loss", "accuracy", "val_accuracy"]
    assert [chart.title for chart in charts(curves(mixed))] == ["loss", "accuracy"]
    assert [label for label, _ in charts(curves(mixed))[0].curves] == ["train", "val"]


@pytest.mark.parametrize(
    ("name", "best"),
    [("val_loss", "epoch 2"), ("accuracy", "epoch 3"), ("learning_rate", ""), ("AUC", "epoch 3")],
)
def test_the_best_epoch_follows_the_metrics_direction(name: str, best: str) -> None:
    """A metric without a direction has no best."""
    (curve,) = curves(rows(name, 0.5, 0.25, 0.75, math.nan))
    assert curve.best_at == best


def test_a_single_value_has_no_best() -> None:
    """Best of one says nothing."""
    assert curves(rows("loss", 0.5))[0].best is None


def test_the_lowest_rank_that_reports_a_metric_is_drawn() -> None:
    """Ranks that report the same by hand do not zigzag."""
    (curve,) = curves(rows("loss", 9, 9, rank=2) + rows("loss", 2, 1, rank=1))
    assert curve.ys == (2.0, 1.0)


def test_what_is_reported_by_hand_is_drawn_over_steps() -> None:
    """Steps that are missing or do not rise are counted instead."""
    assert curves(rows("loss", 3, 2, epoch=None, step=10))[0].xs == (10, 11)
    assert curves(rows("loss", 3, 2, epoch=None, step=None))[0].xs == (1, 2)


def test_a_second_fit_continues_the_first() -> None:
    """Epochs that begin at 1 again do not overwrite the epochs before."""
    (curve,) = curves(rows("loss", 5, 4, 3) + rows("loss", 2, 1))
    assert (curve.xs, curve.ys) == ((1, 2, 3, 4, 5), (5.0, 4.0, 3.0, 2.0, 1.0))


def test_an_epoch_that_a_retry_repeats_is_drawn_once() -> None:
    """The repeated epoch replaces the broken one."""
    (curve,) = curves(rows("loss", 5, 4, 3) + rows("loss", 3.5, 2, epoch=3))
    assert (curve.xs, curve.ys) == ((1, 2, 3, 4), (5.0, 4.0, 3.5, 2.0))


def test_many_fits_of_one_epoch_are_drawn_over_steps() -> None:
    """A loop around fit(epochs=1) is one curve, not one point."""
    again = [MetricRow(0.0, 0, 1, 7, "loss", value) for value in (3.0, 2.0, 1.0)]
    (curve,) = curves(again)
    assert (curve.unit, curve.xs) == ("step", (1, 2, 3))


def test_a_value_that_is_no_number_is_nan() -> None:
    """A hand-written report cannot break the still."""
    (curve,) = curves([MetricRow(0.0, 0, 1, 1, "x", "seven"), MetricRow(0.0, 0, 2, 2, "x", 10**400)])  # type: ignore[arg-type]
    assert all(map(math.isnan, curve.ys))


def test_a_sparkline_has_gaps_where_values_are_missing() -> None:
    """NaN is a blank, not a low value."""
    assert sparkline(curves(rows("loss", 1, math.nan, 0))[0]) == "█ ▁"
    assert sparkline(curves(rows("loss", 1, 1))[0]) == "▄▄"
    assert sparkline(curves(rows("loss", math.nan))[0]) == ""


def test_thinning_keeps_the_ends() -> None:
    """The first and the last value are always drawn."""
    kept = thinned(1001, 10)
    assert (kept[0], kept[-1], len(kept)) == (0, 1000, 10)


@pytest.mark.parametrize(
    "values",
    [
        (1.0, 2.0),
        (0.5, 0.5),
        (0.0, 0.0),
        (math.nan, 1.0, math.inf, 2.0),
        (1e308, -1e308, 1.0, 2.0),
        (5e-324, 0.0),
        (1.0, 1.0 + 1e-15),
        (1e-12, 3e-12),
        (1e99, -1e99),
    ],
)
def test_any_course_of_values_is_a_well_formed_picture(values: tuple[float, ...]) -> None:
    """Flat, broken, huge and tiny courses draw inside the picture."""
    (chart,) = charts(curves(rows("loss", *values)))
    picture = ElementTree.fromstring(chart_svg(chart))
    heights = [float(dot.attrib["cy"]) for dot in picture.iter() if "cy" in dot.attrib]
    assert all(0 <= height <= 168 for height in heights)


def test_names_at_the_ends_do_not_overlap() -> None:
    """Curves that end at the same value are labelled one above the other."""
    (chart,) = charts(curves(rows("loss", 2, 1) + rows("val_loss", 3, 1)))
    texts = [
        text
        for text in ElementTree.fromstring(chart_svg(chart)).iter()
        if (text.text or "").endswith("1.000")
    ]
    heights = sorted(float(text.attrib["y"]) for text in texts)
    assert heights[1] - heights[0] >= 13.9


def test_a_picture_needs_nothing_from_outside() -> None:
    """No script, no style sheet, no reference."""
    curve = Curve("<b>&'\"", "epoch", (1, 2), (1.0, 2.0), None)
    (chart,) = charts([curve])
    tags = {element.tag.split("}")[1] for element in ElementTree.fromstring(chart_svg(chart)).iter()}
    assert tags == {"svg", "text", "line", "polyline", "circle"}
