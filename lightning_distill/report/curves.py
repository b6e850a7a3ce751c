"""The curves of a run: every loss term and every metric, against the step."""

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

Series = dict[str, list[tuple[float, float]]]
# In this many panels abreast, and so many inches.
COLUMNS, WIDTH = 3, 12.6
# A term that falls to a part as small as this shows nothing of its end on an even scale.
LONG_WAY = 50
# Sums of terms: of students that learn from others, they are no one quantity.
LOSS = "loss"


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


def draw_curves(
    runs: Mapping[str, Sequence[tuple[int, Path]]],
    to: Path,
    monitored: tuple[str, str] | None = None,
    teacher: float | None = None,
) -> None:
    """Draw one panel per quantity, with one line per run, into a PNG file.

    What is monitored comes first, over the whole width, with a mark at the best of each run. Where
    a run has several stages, a dotted line stands where each begins. A loss has a panel for each
    run, for it sums other terms in each.

    Args:
        runs: from a name for the legend to the stages of that run, as for `read_stages`.
        to: the PNG to write.
        monitored: the name of what the best weights are chosen by, such as `val/accuracy`, and
            `max` or `min`.
        teacher: the same of the teacher, on the test rows.
    """
    data = {name: series for name, own in runs.items() if (series := read_stages(own))}
    begins = sorted({before for own in runs.values() for before, _ in own if before})
    first = monitored[0] if monitored is not None else None
    panels = [panel for panel in panels_of(data) if panel[0] != first]
    wide = any(first in series for series in data.values())
    if not panels and not wide:
        return
    rows = -(-len(panels) // COLUMNS)
    heights = [3.4] * wide + [2.6] * rows
    # Fixed margins, in inches: a layout that is found takes as long as all that is drawn.
    figure = Figure(figsize=(WIDTH, sum(heights)))
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        len(heights),
        COLUMNS,
        height_ratios=heights,
        left=0.7 / WIDTH,
        right=1 - 0.15 / WIDTH,
        bottom=0.45 / sum(heights),
        top=1 - 0.3 / sum(heights),
        wspace=0.2,
        hspace=0.35,
    )
    colors = {run: f"C{i}" for i, run in enumerate(data)}
    if wide and monitored is not None:
        axes = figure.add_subplot(grid[0, :])
        _draw(axes, monitored[0], data, [*data], colors, begins)
        for run, series in data.items():
            _mark_best(axes, series.get(monitored[0], []), monitored[1], colors[run])
        if teacher is not None:
            axes.axhline(teacher, color="0.4", lw=1, ls="--", label="teacher, on the test rows")
        axes.margins(y=0.12)
        axes.legend(fontsize=9, frameon=False)
    has_legend = wide
    for i, (name, own) in enumerate(panels):
        axes = figure.add_subplot(grid[i // COLUMNS + wide, i % COLUMNS])
        _draw(axes, name, data, own, colors, begins)
        if not has_legend and 1 < len(data) == len(own):
            axes.legend(fontsize=8, frameon=False)
            has_legend = True
    figure.savefig(to, dpi=120)


def falls_far(values: Sequence[float]) -> bool:
    """Whether values can be seen on a logarithmic scale only."""
    return bool(values) and min(values) > 0 and max(values) > LONG_WAY * min(values)


def panels_of(data: Mapping[str, Series]) -> Iterator[tuple[str, list[str]]]:
    """What is drawn, and of which runs: training before validation.

    Args:
        data: by the name of each run its curves, as [`read_stages`][] has them.
    """
    names: list[str] = []
    for series in data.values():
        names += [n for n in series if n.startswith(("train/", "val/")) and n not in names]
    for name in sorted(names, key=lambda n: (n.startswith("val/"), n)):
        own = [run for run, series in data.items() if name in series]
        if name.partition("/")[2] == LOSS:
            yield from ((name, [run]) for run in own)
        else:
            yield name, own


def _draw(
    axes: Any,
    name: str,
    data: Mapping[str, Series],
    own: Sequence[str],
    colors: Mapping[str, str],
    begins: Sequence[int],
) -> None:
    every: list[float] = []
    for run in own:
        if name in data[run]:
            steps, values = zip(*data[run][name], strict=True)
            marker = "o" if name.startswith("val/") else None
            axes.plot(
                steps, values, label=run, color=colors[run], marker=marker, markersize=3, lw=1.3
            )
            every += values
    for step in begins:
        axes.axvline(step, color="0.6", lw=0.8, ls=":")
    if falls_far(every):
        axes.set_yscale("log")
    # One legend is enough: a title says whose a panel is.
    whose = f", {' and '.join(own)}" if len(own) < len(data) else ""
    axes.set_title(f"{name}{whose}", fontsize=10)
    axes.set_xlabel("step", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
    if axes.get_yscale() == "linear":
        axes.yaxis.set_major_locator(MaxNLocator(5))
        # A number that all have in common would be written across the title.
        axes.ticklabel_format(axis="y", useOffset=False)
    # What does not change is drawn so, for its last digits would not fit beside a panel.
    low, high = axes.get_ylim()
    least = 1e-3 * max(abs(low), abs(high))
    if high - low < least:
        axes.set_ylim(low - least, high + least)
    axes.grid(alpha=0.25)


def best_of(points: Sequence[tuple[float, float]], mode: str) -> tuple[float, float]:
    """The best of points by `max` or `min`: the first of equals, as checkpoints are kept."""
    choose = max if mode == "max" else min
    return choose(points, key=lambda point: point[1])


def _mark_best(axes: Any, points: Sequence[tuple[float, float]], mode: str, color: str) -> None:
    if not points:
        return
    step, value = best_of(points, mode)
    axes.plot([step], [value], marker="*", ms=13, color=color, mec="white", label="_best")
    axes.annotate(f"{value:.3f}", (step, value), xytext=(6, 6), textcoords="offset points",
                  fontsize=8, color=color)  # fmt: skip
