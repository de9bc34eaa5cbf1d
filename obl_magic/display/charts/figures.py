"""The charts as matplotlib figures, to be changed, combined and saved. Shows nothing by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from obl_magic.display.charts.bars import ranked_importances
from obl_magic.display.charts.curves import charts, curves
from obl_magic.display.charts.palette import GOOD, NEUTRAL, TRAIN, VALIDATION
from obl_magic.display.charts.scatter import best_so_far, sorted_out
from obl_magic.display.study.view import StudyState, best_trial, component_lines
from obl_magic.errors import SetupProblem
from obl_magic.events.fold import MetricRow
from obl_magic.rundir.record import StudyRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH_IN, HEIGHT_IN = 4.2, 3.0


def run_figure(title: str, rows: Sequence[MetricRow]) -> Figure:
    """A chart for each metric, training and validation together, the best point ringed.

    Args:
        title: of the figure.
        rows: the run's metrics.

    Raises:
        SetupProblem: matplotlib is missing.
    """
    drawn = charts(curves(rows))
    figure, axes = _figure(max(1, len(drawn)), title)
    for chart, ax in zip(drawn, axes, strict=False):
        for label, curve in chart.curves:
            colour = VALIDATION if label == "val" else TRAIN
            ax.plot(curve.xs, curve.ys, color=colour, label=label or None)
            if curve.best is not None:
                place = [curve.xs[curve.best]], [curve.ys[curve.best]]
                ax.plot(*place, "o", color=colour, fillstyle="none", markersize=9)
        ax.set_title(chart.title)
        ax.set_xlabel(chart.curves[0][1].unit)
        if len(chart.curves) > 1:
            ax.legend()
    return figure


def search_figure(header: StudyRecord, state: StudyState) -> Figure:
    """The trials by number with the best so far, and what each parameter mattered where that is known.

    Args:
        header: the search.
        state: its trials.

    Raises:
        SetupProblem: matplotlib is missing.
    """
    weighed = ranked_importances(state)
    figure, axes = _figure(2 if weighed else 1, f"{header.function}: {header.quantity}")
    succeeded, pruned, _ = sorted_out(state.rows)
    for label, dots, mark, colour in (("succeeded", succeeded, "o", TRAIN), ("pruned", pruned, "D", NEUTRAL)):
        if dots:
            axes[0].plot(*zip(*dots, strict=True), mark, color=colour, markersize=4, label=label)
    if bests := best_so_far(header, succeeded):
        bests.append((succeeded[-1][0], bests[-1][1]))
        axes[0].step(*zip(*bests, strict=True), where="post", color=VALIDATION, label="best so far")
    axes[0].set_xlabel("trial")
    axes[0].set_ylabel(header.quantity)
    if best := best_trial(header, state):
        axes[0].set_title(f"best: trial {best.number}")
    if axes[0].has_data():
        axes[0].legend()
    if weighed:
        names, shares = zip(*weighed[::-1], strict=True)
        axes[1].barh(names, shares, color=TRAIN)
        axes[1].set_title("importance of parameters")
    return figure


def ablation_figure(header: StudyRecord, state: StudyState) -> Figure:
    """What the quantity changes by without each component, with the interval that decides.

    Args:
        header: the ablation.
        state: its components.

    Raises:
        SetupProblem: matplotlib is missing.
    """
    lines = [line for line in component_lines(header, state.components) if line.change is not None][::-1]
    figure, (ax,) = _figure(1, f"{header.function}: change of {header.quantity} without each")
    if lines:
        bars = ax.barh(
            [line.name for line in lines],
            [line.change or 0.0 for line in lines],
            xerr=[line.spread or 0.0 for line in lines],
            color=[VALIDATION if line.harm else GOOD for line in lines],
            ecolor=NEUTRAL,
        )
        for bar, line in zip(bars, lines, strict=True):
            bar.set_alpha(0.35 if line.noise else 1.0)
    ax.axvline(0.0, color=NEUTRAL, linewidth=1)
    return figure


def _figure(charts: int, title: str) -> tuple[Figure, list[Any]]:
    """A figure of its own, known to no one else: it is shown by who has it."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise SetupProblem(
            "plots are drawn by matplotlib, which is missing", "python -m pip install matplotlib"
        ) from None
    figure = Figure(figsize=(WIDTH_IN * min(charts, 3), HEIGHT_IN * -(-charts // 3)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    across = min(charts, 3)
    return figure, [figure.add_subplot(-(-charts // across), across, at + 1) for at in range(charts)]
