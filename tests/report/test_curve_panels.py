"""Curves within a page: where their points lie, and what tells them apart."""

import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from lightning_distill.report.curve_panels import (
    BOTTOM,
    curve_panels,
    HEIGHT,
    LEFT,
    MOST_POINTS,
    RIGHT,
    TOP,
    WIDTH,
)
from lightning_distill.report.curves import read_metrics
from lightning_distill.report.page_style import STYLE

DATA = {
    "distilled": {
        "train/soft_target": [(0.0, 8.0), (10.0, 4.0), (20.0, 2.0)],
        "train/loss": [(0.0, 5.0), (10.0, 3.0)],
        "val/accuracy": [(10.0, 0.5), (20.0, 0.75), (30.0, 0.75)],
    },
    "student alone": {
        "train/loss": [(0.0, 2.0), (10.0, 1.0)],
        "val/accuracy": [(10.0, 0.4), (20.0, 0.3)],
    },
}
WEIGHTS = {"distilled": {"soft_target": 0.5}, "student alone": {}}


class Panels(HTMLParser):
    """The lines and dots of each panel, and what is in the legend."""

    def __init__(self, parts):
        super().__init__()
        self.panels, self.legend, self.title, self.where = {}, [], "", []
        self.feed("\n".join(parts))
        self.close()
        assert self.where == []

    def handle_starttag(self, tag, attributes):
        self.where.append(tag)
        found = dict(attributes)
        if tag == "polyline":
            points = [tuple(map(float, p.split(","))) for p in found["points"].split()]
            self.panels[self.title].append((found["class"], points))
        if tag == "circle" and "figure" in self.where:
            self.panels[self.title].append((found["class"], float(found["r"])))
        if tag == "text" and "figure" in self.where:
            self.panels[self.title].append(("text", found))

    def handle_endtag(self, tag):
        assert self.where.pop() == tag

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        self.where.pop()

    def handle_data(self, data):
        if self.where and self.where[-1] == "figcaption":
            self.title = data
            self.panels[data] = []
        if self.where and self.where[-1] == "span":
            self.legend.append(data)

    def lines(self, title, kind):
        return [points for k, points in self.panels[title] if k == kind]


def values(points, low, high):
    """What heights stand for, between the lowest and the highest point of a panel."""
    room = 0.06 * (high - low)
    low, high = low - room, high + room
    return [low + (high - low) * (HEIGHT - BOTTOM - y) / (HEIGHT - TOP - BOTTOM) for _, y in points]


def test_points_lie_where_their_figures_are():
    found = Panels(curve_panels(DATA, {}, monitored=("val/accuracy", "max")))
    (line,) = found.lines("train/soft_target", "line c0")
    assert values(line, 2, 8) == pytest.approx([8, 4, 2], abs=0.03)
    assert [x for x, _ in line] == [LEFT, (LEFT + WIDTH - RIGHT) / 2, WIDTH - RIGHT]
    (line,) = found.lines("val/accuracy", "line c1")
    assert values(line, 0.3, 0.75) == pytest.approx([0.4, 0.3], abs=0.003)


def test_a_term_times_its_weight_is_a_dashed_line_and_the_legend_says_so():
    found = Panels(curve_panels(DATA, WEIGHTS))
    (plain,) = found.lines("train/soft_target", "line c0")
    (weighted,) = found.lines("train/soft_target", "line c0 weighted")
    assert values(plain, 1, 8) == pytest.approx([8, 4, 2], abs=0.05)
    assert values(weighted, 1, 8) == pytest.approx([4, 2, 1], abs=0.05)
    assert found.legend == ["distilled", "student alone", "the same, times the weight of the term"]
    assert ".weighted { stroke-dasharray" in STYLE
    of_one = {"distilled": {"soft_target": 1.0}}
    assert Panels(curve_panels(DATA, of_one)).legend == ["distilled", "student alone"]


def test_what_is_monitored_comes_first_with_the_first_of_the_best():
    parts = list(curve_panels(DATA, {}, (), ("val/accuracy", "max"), teacher=0.9))
    found = Panels(parts)
    assert next(iter(found.panels)) == "val/accuracy"
    # A loss sums other terms in each training.
    assert {"train/loss, distilled", "train/loss, student alone"} <= found.panels.keys()
    best = re.findall(r'r="4.5"/>\n<text [^>]*>([\d.]+)<', "\n".join(parts))
    assert best == ["0.7500", "0.4000"]
    assert found.legend[-2:] == ["teacher, on the test rows", "best, which is kept"]
    assert sum('class="teacher"' in part for part in parts) == 1


def test_stages_begin_at_dotted_lines():
    parts = list(curve_panels(DATA, {}, begins=(10,)))
    assert Panels(parts).legend[-1] == "a stage begins"
    assert sum("grid stage" in part for part in parts) == len(Panels(parts).panels)


@pytest.mark.parametrize("value", [0.25, 0.0, -3.0])
def test_a_single_point_is_a_dot_with_its_figure(value):
    parts = list(curve_panels({"run": {"val/loss": [(40.0, value)]}}, {}))
    found = Panels(parts)
    assert ("dot0", 2.0) in found.panels["val/loss"]
    assert re.findall(r">(-?[\d.]+)</text>", "\n".join(parts)) == [f"{value:g}", "40"]


def test_values_that_fall_far_are_on_a_logarithmic_scale():
    data = {"run": {"train/x": [(0.0, 100.0), (1.0, 10.0), (2.0, 1.0)]}}
    (line,) = Panels(curve_panels(data, {})).lines("train/x", "line c0")
    heights = [y for _, y in line]
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1], abs=0.2)


def test_a_long_curve_keeps_its_ends_and_no_infinite_value_breaks_it():
    points = [(float(i), float(i)) for i in range(10_000)]
    points[5000] = (5000.0, float("nan"))
    points[0] = (0.0, float("inf"))
    (line,) = Panels(curve_panels({"run": {"train/x": points}}, {})).lines("train/x", "line c0")
    assert MOST_POINTS - 2 <= len(line) <= MOST_POINTS
    assert line[-1][0] == WIDTH - RIGHT and np.isfinite(line).all()
    assert "no finite value" in "".join(curve_panels({"r": {"val/x": [(0.0, np.nan)]}}, {}))


def test_nothing_is_drawn_of_nothing(tmp_path: Path):
    assert list(curve_panels({}, {})) == []
    (tmp_path / "metrics.csv").write_text("epoch,step,test/accuracy\n0,9,0.5\n")
    assert list(curve_panels({"run": read_metrics(tmp_path / "metrics.csv")}, {})) == []


def test_names_of_terms_are_no_html():
    text = "".join(curve_panels({"<b>": {"val/<i>": [(0.0, 1.0)]}}, {}))
    assert "<b>" not in text and "<i>" not in text and "&lt;i&gt;" in text
