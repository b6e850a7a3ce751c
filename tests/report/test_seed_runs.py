"""Runs over seeds: which learning rate counts, and what a control says."""

import json
from dataclasses import replace

import pytest
from matplotlib.image import imread
from scipy.stats import ttest_rel

from lightning_distill.report import best_rates, Run, SeedComparison, settings_of
from lightning_distill.report.seed_plot import pareto_front

ALONE, TAUGHT = [0.50, 0.52, 0.49, 0.53, 0.51], [0.60, 0.61, 0.62, 0.60, 0.63]


def runs(alone, taught, control=None, higher=True, validation=None):
    each = zip(alone, taught, control or [None] * len(alone), strict=True)
    return [
        Run(f"run{i}", i, {"a": 1}, "accuracy", higher, a, d, 0.9, "100", c, validation or {})
        for i, (a, d, c) in enumerate(each)
    ]


def means(alone, distilled, control):
    return {"alone": alone, "distilled": distilled, "control": control}


def sentence(alone, taught, control):
    (found,) = SeedComparison(settings_of(runs(alone, taught, control))).sentences()
    return found


def test_help_that_another_rows_answers_give_too_is_no_help_of_the_teacher():
    control = [0.60, 0.62, 0.61, 0.61, 0.62]
    assert sentence(ALONE, TAUGHT, ALONE).startswith("The teacher helps. It is what the teacher")
    p = ttest_rel(TAUGHT, control).pvalue
    found = sentence(ALONE, TAUGHT, control)
    assert "But it is not shown to be better than one that was taught the answers to" in found
    assert f"(+0.0000, p {p:.2g})" in found
    # Of what is not shown there is nothing to explain.
    assert "other rows" not in sentence(ALONE, ALONE, control)


def test_a_control_is_compared_seed_by_seed():
    control = [0.55, 0.53, 0.57, 0.52, 0.58]
    (line,) = SeedComparison(settings_of(runs(ALONE, TAUGHT, control))).lines()
    assert line["control"] == control and line["above_control"]
    assert line["p_of_control"] == pytest.approx(ttest_rel(TAUGHT, control).pvalue)
    assert line["gain_on_control"] == pytest.approx(0.062)
    (line,) = SeedComparison(settings_of(runs(ALONE, TAUGHT, control, higher=False))).lines()
    assert line["gain_on_control"] == pytest.approx(-0.062) and not line["above_control"]
    (line,) = SeedComparison(settings_of(runs(ALONE, TAUGHT))).lines()
    assert line["control"] is None and "p_of_control" not in line


def test_each_kind_of_student_has_the_rate_that_suits_it():
    by_rate = {
        0.1: runs([1, 2], [3, 4], [5, 6], validation=means(0.7, 0.6, 0.1)),
        0.2: runs([11, 12], [13, 14], [15, 16], validation=means(0.6, 0.8, 0.3)),
    }
    first, second = best_rates(by_rate)
    assert (first.alone, first.distilled, first.control) == (1, 13, 15)
    assert (second.alone, second.distilled, second.control) == (2, 14, 16)
    assert first.rates == {"alone": 0.1, "distilled": 0.2, "control": 0.2}
    (said,) = SeedComparison(settings_of(best_rates(by_rate))).sentences()
    assert said.endswith("validation rows: alone 0.1, distilled 0.2, control 0.2.")


def test_rates_are_not_chosen_on_the_test_rows():
    with pytest.raises(ValueError, match="nothing was measured there.*job.learning_rates out"):
        best_rates({0.1: runs([1], [2]), 0.2: runs([1], [2])})


def test_the_front_is_what_no_other_beats():
    points = [(1, 0.5), (2, 0.4), (2, 0.7), (3, 0.7), (4, 0.9), (1, 0.3)]
    beaten = {
        i
        for i, (cost, quality) in enumerate(points)
        for other, better in points
        if other <= cost and better >= quality and (other, better) != (cost, quality)
    }
    assert sorted(pareto_front(points)) == sorted(set(range(len(points))) - beaten)


def test_costs_are_means_of_the_runs_and_drawn(tmp_path):
    both = [
        replace(run, costs={"student": {"parameters": 10, "latency_ms": float(i + 1)}})
        for i, run in enumerate(runs(ALONE, TAUGHT, ALONE))
    ]
    (setting,) = settings_of(both)
    assert setting.cost("student", "latency_ms") == 3 and setting.cost("teacher", "x") is None
    found = SeedComparison((setting,))
    found.save(tmp_path)
    (line,) = json.loads((tmp_path / "compare.json").read_text())["settings"]
    assert line["costs"]["student"] == {"parameters": 10, "latency_ms": 3}
    with_costs = imread(tmp_path / "compare.png").shape
    SeedComparison(settings_of(runs(ALONE, TAUGHT))).save(tmp_path)
    assert with_costs[1] > imread(tmp_path / "compare.png").shape[1] + 500
