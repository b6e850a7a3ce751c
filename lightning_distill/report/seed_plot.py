"""A picture of runs over seeds: what each seed gained, and what the quality costs."""

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from .seed_runs import COSTS, Setting


def draw_seeds(settings: Sequence[Setting], metric: str, higher_is_better: bool, to: Path) -> None:
    """Draw each seed alone and distilled, and the metric against size and latency, into a PNG.

    A line joins the models that no other beats in both.

    Args:
        settings: each with its runs.
        metric: the name of what is compared.
        higher_is_better: of it.
        to: the PNG to write.
    """
    width = 2.0 + 1.8 * len(settings)
    known = [cost for cost in COSTS if all(s.cost("student", cost) is not None for s in settings)]
    figure = Figure(
        figsize=(width + (3.6 * len(known) + 1.6 if known else 0), 3.4), layout="constrained"
    )
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(1, 1 + len(known), width_ratios=[width, *(3.6 for _ in known)])
    _draw_seeds(figure.add_subplot(grid[0]), settings, metric)
    for i, cost in enumerate(known, 1):
        axes = figure.add_subplot(grid[i])
        _draw_costs(axes, settings, higher_is_better, cost)
        if i == len(known):
            axes.legend(fontsize=7, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(to, dpi=120)


def _draw_seeds(axes: Any, settings: Sequence[Setting], metric: str) -> None:
    names = []
    for i, setting in enumerate(settings):
        for j, run in enumerate(setting.runs):
            label = "each seed" if i == j == 0 else None
            axes.plot([2.5 * i, 2.5 * i + 1], [run.alone, run.distilled], "o-", color="C0",
                      alpha=0.6, ms=4, label=label)  # fmt: skip
            if run.control is not None:
                axes.plot([2.5 * i + 0.5], [run.control], "x", color="C2",
                          label="taught other rows" if i == j == 0 else None)  # fmt: skip
        teacher = _mean_of_teacher(setting)
        if teacher is not None:
            axes.hlines(teacher, 2.5 * i - 0.2, 2.5 * i + 1.2, color="C1", ls=":",
                        label="teacher" if i == 0 else "")  # fmt: skip
        names += [(2.5 * i, "alone"), (2.5 * i + 1, f"distilled\n{setting.name}")]
    axes.set_xticks([x for x, _ in names], [name for _, name in names])
    axes.tick_params(labelsize=8)
    axes.set_ylabel(metric)
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, frameon=False)


def _draw_costs(axes: Any, settings: Sequence[Setting], higher_is_better: bool, cost: str) -> None:
    """A colour for each setting, and a shape for each kind of model."""
    points: list[tuple[float, float]] = []
    for i, setting in enumerate(settings):
        own = setting.cost("student", cost)
        assert own is not None
        for name, shape in (("alone", "o"), ("distilled", "*")):
            points.append((own, statistics.fmean(getattr(run, name) for run in setting.runs)))
            axes.plot(*points[-1], shape, ms=11 if shape == "*" else 6, color=f"C{i}",
                      label=f"{name} {setting.name}".strip())  # fmt: skip
    taught = set()
    for setting in settings:
        price, value = setting.cost("teacher", cost), _mean_of_teacher(setting)
        if price is not None and value is not None:
            taught.add((price, value))
    for number, point in enumerate(sorted(taught)):
        points.append(point)
        axes.plot(*point, "D", color="0.3", label=None if number else "teacher")
    front = pareto_front([(p, v if higher_is_better else -v) for p, v in points])
    axes.plot(*zip(*(points[i] for i in front), strict=True), color="0.7", lw=1, zorder=0)
    if min(price for price, _ in points) > 0:
        axes.set_xscale("log")
    axes.set_xlabel(COSTS[cost], fontsize=8)
    axes.tick_params(labelsize=7, which="both")
    axes.grid(alpha=0.25)


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which (cost, quality) no other beats: none is as cheap and better, or as good and cheaper.

    Returns:
        Their places, the cheapest first.
    """
    found: list[int] = []
    for i in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if not found or points[i][1] > points[found[-1]][1]:
            found.append(i)
    return found


def _mean_of_teacher(setting: Setting) -> float | None:
    values = [run.teacher for run in setting.runs if run.teacher is not None]
    return statistics.fmean(values) if values else None
