"""The curves of a run as drawings within a page, which fit any width and are dark where it is."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator

from .curves import best_of, falls_far, LOSS, panels_of, Series

# Of a panel, in units that a browser scales; letters are of 11.
WIDTH, HEIGHT = 340, 190
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 24
# Points of a line; more no screen shows.
MOST_POINTS = 300
# Points of a line that are dots too: of more these would hide it.
MOST_DOTS = 30
STYLE = """
.panels { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 18rem), 1fr)); }
.panels figure { margin: 0; } .panels figcaption, .legend { font-size: .9rem; }
.panels svg { width: 100%; height: auto; display: block; font: 11px system-ui, sans-serif; }
.panels text { fill: currentColor; }
.grid { stroke: color-mix(in srgb, CanvasText 18%, Canvas); stroke-width: 1; }
.line { fill: none; stroke-width: 1.8; stroke-linejoin: round; }
.weighted { stroke-dasharray: 5 3; stroke-width: 1.4; } .stage { stroke-dasharray: 2 3; }
.teacher { stroke: currentColor; stroke-dasharray: 8 3 2 3; stroke-width: 1.4; }
.c0 { stroke: var(--c0); } .c1 { stroke: var(--c1); } .c2 { stroke: var(--c2); }
.dot0 { fill: var(--c0); } .dot1 { fill: var(--c1); } .dot2 { fill: var(--c2); }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.2rem; margin: .5rem 0 1rem; }
.legend svg { width: 2rem; height: .7rem; vertical-align: middle; margin-right: .4rem; }
"""


def curve_panels(
    data: Mapping[str, Series],
    weights: Mapping[str, Mapping[str, float]],
    begins: Sequence[float] = (),
    monitored: tuple[str, str] | None = None,
    teacher: float | None = None,
) -> Iterator[str]:
    """One legend, and a panel for each quantity with a line for each training.

    Terms are drawn as they are before their weights. What a term with another weight than 1 adds to
    the loss is a dashed line of the same colour.

    Args:
        data: by the name of each training its curves.
        weights: by the same names the weights of terms.
        begins: steps at which stages begin.
        monitored: the name of what the best weights are chosen by, and `max` or `min`.
        teacher: the same of the teacher.
    """
    first = monitored[0] if monitored is not None else ""
    found = [panel for panel in panels_of(data) if panel[0] != first]
    watching = [run for run in data if first in data[run]]
    if watching:
        found.insert(0, (first, watching))
    if not found:
        return
    colors = {run: i % 3 for i, run in enumerate(data)}
    weighted = any(_weight(weights, run, name) is not None for name, runs in found for run in runs)
    shown = teacher if watching else None
    yield from _legend(colors, weighted, shown is not None, bool(begins), bool(watching))
    yield '<div class="panels">'
    for name, runs in found:
        own = {run: data[run][name] for run in runs}
        one = _Panel(own, {run: _weight(weights, run, name) for run in runs}, colors)
        is_first = bool(watching) and name == first
        one.teacher = shown if is_first else None
        one.best = monitored[1] if is_first and monitored is not None else ""
        title = f"{name}, {runs[0]}" if name.partition("/")[2] == LOSS and len(data) > 1 else name
        yield f"<figure><figcaption>{escape(title)}</figcaption>"
        yield from one.svg(title, begins)
        yield "</figure>"
    yield "</div>"


def _weight(weights: Mapping[str, Mapping[str, float]], run: str, name: str) -> float | None:
    """The weight of a term, where a line with it is another line."""
    weight = weights.get(run, {}).get(name.partition("/")[2])
    return None if weight == 1 else weight


def _legend(
    colors: Mapping[str, int], weighted: bool, teacher: bool, stages: bool, best: bool
) -> Iterator[str]:
    def entry(mark: str, text: str) -> str:
        return f'<span><svg viewBox="0 0 32 10">{mark}</svg>{escape(text)}</span>'

    def line(kind: str) -> str:
        return f'<line class="line {kind}" x1="0" y1="5" x2="32" y2="5"/>'

    yield '<div class="legend">'
    yield from (entry(line(f"c{i}"), run) for run, i in colors.items())
    if weighted:
        yield entry(line("c0 weighted"), "the same, times the weight of the term")
    if teacher:
        yield entry(line("teacher"), "teacher, on the test rows")
    if best:
        yield entry('<circle class="dot0" cx="16" cy="5" r="5"/>', "best, which is kept")
    if stages:
        yield entry(line("stage grid"), "a stage begins")
    yield "</div>"


class _Panel:
    teacher: float | None = None
    best: str = ""

    def __init__(
        self,
        own: Mapping[str, Sequence[tuple[float, float]]],
        weights: Mapping[str, float | None],
        colors: Mapping[str, int],
    ):
        self.own, self.weights, self.colors = own, weights, colors

    def svg(self, title: str, begins: Sequence[float]) -> Iterator[str]:
        steps = [step for points in self.own.values() for step, _ in points]
        values = [v for run, points in self.own.items() for _, v in points]
        values += [
            v * weight
            for run, points in self.own.items()
            if (weight := self.weights[run]) is not None
            for _, v in points
        ]
        values += [] if self.teacher is None else [self.teacher]
        values = [value for value in values if np.isfinite(value)]
        if not values:
            yield "<p>no finite value</p>"
            return
        self.log = falls_far(values)
        self.across = min(steps), max(steps)
        if len(set(steps)) == 1:
            self.across = min(steps) - 1, min(steps) + 1
        low, high = min(values), max(values)
        ticks = (LogLocator(numticks=5) if self.log else MaxNLocator(4)).tick_values(low, high)
        room = 0.06 * (high - low) or abs(high) or 1.0
        self.up = (low / 1.2, high * 1.2) if self.log else (low - room, high + room)
        inside = [float(t) for t in ticks if self.up[0] <= t <= self.up[1]]
        if low == high:
            inside = [low]
        yield f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">'
        for tick in inside:
            y = self._y(tick)
            yield f'<line class="grid" x1="{LEFT}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}"/>'
            yield f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{tick:.4g}</text>'
        along = MaxNLocator(4, integer=True).tick_values(*self.across)
        for step in along if len(set(steps)) > 1 else steps[:1]:
            if self.across[0] <= step <= self.across[1]:
                where = f'x="{self._x(step)}" y="{HEIGHT - 8}"'
                yield f'<text {where} text-anchor="middle">{step:g}</text>'
        for step in begins:
            x = self._x(step)
            yield f'<line class="grid stage" x1="{x}" y1="{TOP}" x2="{x}" y2="{HEIGHT - BOTTOM}"/>'
        if self.teacher is not None:
            y = self._y(self.teacher)
            yield f'<line class="teacher" x1="{LEFT}" y1="{y}" x2="{WIDTH - RIGHT}" y2="{y}"/>'
        for run, points in self.own.items():
            yield from self._lines(run, points)
        yield "</svg>"

    def _lines(self, run: str, points: Sequence[tuple[float, float]]) -> Iterator[str]:
        color, weight = self.colors[run], self.weights[run]
        if len(points) > MOST_POINTS:
            kept = np.unique(np.linspace(0, len(points) - 1, MOST_POINTS).astype(int))
            shown = [points[i] for i in kept]
        else:
            shown = list(points)
        shown = [(step, value) for step, value in shown if np.isfinite(value)]
        yield self._line(f"c{color}", shown)
        if weight is not None:
            yield self._line(f"c{color} weighted", [(s, v * weight) for s, v in shown])
        if len(shown) <= MOST_DOTS:
            for step, value in shown:
                where = f'cx="{self._x(step)}" cy="{self._y(value)}"'
                yield f'<circle class="dot{color}" {where} r="2"/>'
        finite = [(step, value) for step, value in points if np.isfinite(value)]
        if self.best and finite:
            step, value = best_of(finite, self.best)
            x, y = self._x(step), self._y(value)
            # To the left where there is no room to the right.
            side = "end" if x > WIDTH - 70 else "start"
            yield f'<circle class="dot{color}" cx="{x}" cy="{y}" r="4.5"/>'
            yield f'<text x="{x}" y="{y + 16:.1f}" text-anchor="{side}">{value:.4f}</text>'

    def _line(self, kind: str, points: Sequence[tuple[float, float]]) -> str:
        joined = " ".join(f"{self._x(s)},{self._y(v)}" for s, v in points)
        return f'<polyline class="line {kind}" points="{joined}"/>'

    def _x(self, step: float) -> float:
        low, high = self.across
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (step - low) / (high - low), 1)

    def _y(self, value: float) -> float:
        low, high = self.up
        if self.log:
            value, low, high = (float(np.log(max(v, 1e-300))) for v in (value, low, high))
        return round(HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / (high - low), 1)
