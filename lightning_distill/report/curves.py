"""The curves of a run: every loss term and every metric, against the step."""

import csv
from collections.abc import Mapping
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Series = dict[str, list[tuple[float, float]]]


def read_metrics(path: Path) -> Series:
    """The columns of a `metrics.csv` as lists of (step, value); cells without a value left out."""
    series: Series = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            for name, value in row.items():
                if name not in ("step", "epoch") and value:
                    series.setdefault(name, []).append((float(row["step"]), float(value)))
    return series


def draw_curves(runs: Mapping[str, Path], to: Path) -> None:
    """Draw one panel per quantity, with one line per run, into a PNG file.

    Args:
        runs: from a name for the legend to that run's `metrics.csv`.
        to: the PNG to write.
    """
    data = {name: read_metrics(path) for name, path in runs.items() if path.is_file()}
    names: list[str] = []
    for series in data.values():
        names += [n for n in series if n.startswith(("train/", "val/")) and n not in names]
    if not names:
        return
    names.sort(key=lambda n: (n.startswith("val/"), n))
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.0 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    for i, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, i + 1)
        for j, (run, series) in enumerate(data.items()):
            if name in series:
                steps, values = zip(*series[name], strict=True)
                marker = "o" if name.startswith("val/") else None
                axes.plot(
                    steps, values, label=run, color=f"C{j}", marker=marker, markersize=3, lw=1.3
                )
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)
        if len(data) > 1:
            axes.legend(fontsize=8, frameon=False)
    figure.savefig(to, dpi=120)
