"""Makes docs/performance.md and its plots of what ``run.py`` has written.

What was not measured this time stays on the page, with the day on which it was.

Usage: report.py [FILE], by default build/benchmarks.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import ratios
import scaling
from run import BENCHMARKS, OUT

mpl.use("Agg")
from matplotlib import pyplot as plt

DOCS = Path(__file__).parents[1] / "docs"
PLOTS = {
    "throughput": ("samples/s", {"obl_magic, horovod": "{n} ranks: CNN, batch 256"}),
    "launch": (
        "seconds to the first line",
        {how: f"{{n}} ranks: first line, {how}" for how in (scaling.FORKED, scaling.AFRESH)},
    ),
    "memory": (
        "MB, all ranks",
        {how: f"{{n}} ranks: memory, {how}" for how in (scaling.FORKED, scaling.AFRESH)},
    ),
}
"""File -> (unit, curves as the lines of the table that they are made of)."""
HEAD = "| | number | range | unit | goal | |\n|---|---:|---:|---|---|---|"
COLOURS = ("#2a6f97", "#bb5a3c")


def main(source: Path) -> None:
    """Writes the page and three pictures."""
    told = json.loads(source.read_text())
    machine = told["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    text = [
        "# What it costs",
        "",
        f"`make bench` on {machine['cores']} processors ({machine['platform']}, Python {machine['python']}).",
        f"Packages: {versions}.",
        "Sides took turns; a number is a median, the range is over all repetitions. Ratios pair neighbours in time.",
        "Some goals are missed; they say so. What each row means stands in `benchmarks/README.md`, what was tried and",
        "what came of it in `benchmarks/NOTES.md`.",
        "",
        *(f"![{name} against ranks](performance-{name}.svg)" for name in PLOTS),
    ]
    page = DOCS / "performance.md"
    sections = _sections(page.read_text()) if page.exists() else {}
    for name, lines in told["benchmarks"].items():
        rows = "\n".join(map(_row, lines))
        sections[name] = f"Measured on {machine['day']}.\n\n{HEAD}\n{rows}"
    for name in BENCHMARKS:
        text += ["", f"## {name}", "", sections.get(name, "Not measured yet.")]
    page.write_text("\n".join(text) + "\n")
    if "scaling" not in told["benchmarks"]:
        return
    numbers = {line["what"]: line for line in told["benchmarks"]["scaling"]}
    for name, (unit, curves) in PLOTS.items():
        _plot(DOCS / f"performance-{name}.svg", unit, curves, numbers)


def _sections(page: str) -> dict[str, str]:
    """What stands under each heading of the page."""
    _, *found = page.split("\n## ")
    return {name: text.strip() for name, _, text in (each.partition("\n") for each in found)}


def _row(line: dict[str, Any]) -> str:
    low, high = (ratios.short(bound(line["values"])) for bound in (min, max))
    verdict = {None: "", True: "met", False: "**missed**"}[line["met"]]
    cells = (
        line["what"],
        ratios.short(line["number"]),
        f"{low} – {high}",
        line["unit"],
        line["goal"] or "",
        verdict,
    )
    return f"| {' | '.join(cells)} |"


def _plot(to: Path, unit: str, curves: dict[str, str], numbers: dict[str, dict[str, Any]]) -> None:
    mpl.rcParams["svg.hashsalt"] = to.name  # so that the same numbers give the same file
    figure, axes = plt.subplots(figsize=(5, 3), layout="constrained")
    for (label, what), colour in zip(curves.items(), COLOURS, strict=False):
        found = [(n, numbers[name]) for n in scaling.RANKS if (name := what.format(n=n)) in numbers]
        at, middle = [n for n, _ in found], [line["number"] for _, line in found]
        axes.plot(at, middle, "o-", color=colour, label=label)
        axes.fill_between(
            at,
            *([bound(line["values"]) for _, line in found] for bound in (min, max)),
            alpha=0.2,
            color=colour,
        )
    axes.set(xlabel="ranks", ylabel=unit, xticks=scaling.RANKS, ylim=(0, None))
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(to, metadata={"Date": None})
    plt.close(figure)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else OUT)
