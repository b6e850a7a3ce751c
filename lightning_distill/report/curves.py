"""The curves of a run: every loss term and every metric, against the step."""

import csv
from collections.abc import Mapping, Sequence
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


def read_stages(stages: Sequence[tuple[int, Path]]) -> Series:
    """The columns of the `metrics.csv` of several stages on one axis of steps.

    Args:
        stages: of each the number of steps before it, and its file, which may be missing.
    """
    series: Series = {}
    for before, path in stages:
        for name, points in (read_metrics(path) if path.is_file() else {}).items():
            series.setdefault(name, []).extend((before + step, value) for step, value in points)
    return series


def draw_curves(runs: Mapping[str, Sequence[tuple[int, Path]]], to: Path) -> None:
    """Draw one panel per quantity, with one line per run, into a PNG file.

    Where a run has several stages, a dotted line stands where each begins.

    Args:
        runs: from a name for the legend to the stages of that run, as for `read_stages`.
        to: the PNG to write.
    """
    data = {name: series for name, own in runs.items() if (series := read_stages(own))}
    begins = sorted({before for own in runs.values() for before, _ in own if before})
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
        for step in begins:
            axes.axvline(step, color="0.6", lw=0.8, ls=":")
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.25)
        if len(data) > 1:
            axes.legend(fontsize=8, frameon=False)
    figure.savefig(to, dpi=120)
