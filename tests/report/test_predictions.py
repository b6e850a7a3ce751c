"""Predictions on test rows, and an interval over seeds and rows."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from scipy.stats import binomtest, bootstrap
from torchmetrics.functional.classification import (
    multiclass_calibration_error,
    multiclass_f1_score,
    multiclass_matthews_corrcoef,
)

from lightning_distill.report import (
    interval_over_rows,
    intervals_of,
    PREDICTIONS,
    Predictions,
    Run,
    settings_of,
)
from lightning_distill.report.class_tables import class_tables, differing, predictions_of


def write(folder, label, predicted, of="student", first=0, confidence=0.5, names=()):
    folder.mkdir(parents=True, exist_ok=True)
    values = {
        "row": np.arange(first, first + len(label)),
        "label": np.array(label),
        "predicted": np.array(predicted),
        "confidence": np.full(len(label), 1, np.float32) * np.float32(confidence),
    }
    flat = {f"{of}.{name}": value for name, value in values.items()}
    if (folder / PREDICTIONS).is_file():
        flat |= load_file(folder / PREDICTIONS)
    save_file(flat, folder / PREDICTIONS, {"classes": json.dumps(names)})


def test_it_reads_what_a_run_has_kept(tmp_path):
    assert Predictions.load(tmp_path) is None
    write(tmp_path, [0, 1, 2, 1], [0, 2, 2, 1])
    found = Predictions.load(tmp_path)
    assert found.right.tolist() == [1, 0, 1, 1]
    assert found.is_mean_of_right(0.75) and not found.is_mean_of_right(0.76)
    assert Predictions.load(tmp_path, "teacher") is None
    write(tmp_path / "other", [0, 1, 2, 1], [1, 1, 1, 1])
    assert found.is_of_same_rows(Predictions.load(tmp_path / "other"))
    write(tmp_path / "moved", [0, 1, 2, 1], [0, 2, 2, 1], first=1)
    assert not found.is_of_same_rows(Predictions.load(tmp_path / "moved"))


def test_over_the_rows_of_one_seed_it_is_the_bootstrap_that_scipy_makes():
    gains = np.random.default_rng(1).normal(0.1, 1, size=(1, 300))
    peer = bootstrap((gains[0],), np.mean, n_resamples=4000, method="percentile", rng=2)
    low, high = interval_over_rows(gains, draws=4000)
    assert low == pytest.approx(peer.confidence_interval.low, abs=0.015)
    assert high == pytest.approx(peer.confidence_interval.high, abs=0.015)


def test_over_seeds_that_differ_on_all_rows_alike_it_is_that_of_the_seeds():
    means = np.array([0.1, 0.3, 0.2, 0.5, 0.4])
    peer = bootstrap((means,), np.mean, n_resamples=4000, method="percentile", rng=2)
    for gains in (np.tile(means[:, None], 40), [np.full(n, m) for n, m in enumerate(means, 7)]):
        low, high = interval_over_rows(gains, draws=4000)
        assert low == pytest.approx(peer.confidence_interval.low, abs=0.02)
        assert high == pytest.approx(peer.confidence_interval.high, abs=0.02)


def test_rows_that_all_seeds_share_vary_together():
    """Where each seed has the same gains on the same rows, more seeds say no more of other rows."""
    gains = np.random.default_rng(1).normal(0, 1, size=200)
    shared = interval_over_rows(np.tile(gains, (8, 1)))
    single = interval_over_rows(gains[None])
    assert np.diff(shared) == pytest.approx(np.diff(single), rel=0.1)
    apart = interval_over_rows([gains] * 8)
    assert np.diff(apart) == pytest.approx(np.diff(single) / np.sqrt(8), rel=0.15)


@pytest.mark.parametrize(("effect", "least", "most"), [(0.0, 0.88, 0.99), (0.3, 0.88, 0.99)])
def test_it_holds_the_truth_as_often_as_it_says(effect, least, most):
    draw, held = np.random.default_rng(3), 0
    for trial in range(200):
        of_rows, of_seeds = draw.normal(0, 1, 120), draw.normal(0, 0.1, (12, 1))
        gains = effect + of_rows + of_seeds + draw.normal(0, 1, (12, 120))
        low, high = interval_over_rows(gains, draws=200, seed=trial)
        held += low <= effect <= high
    assert least <= held / 200 <= most


def run(folder, seed, right_alone, right_distilled, metric=None):
    """A run on four rows, of which each model has so many right."""
    predictions = {}
    for name, right in (("alone", right_alone), ("distilled", right_distilled)):
        path = folder / str(seed) / name
        write(path, [1, 1, 1, 1], [1] * right + [0] * (4 - right))
        predictions[name] = Predictions.load(path)
    return Run(str(folder), seed, {}, "accuracy", True, right_alone / 4, right_distilled / 4,
               None, "4", predictions=predictions)  # fmt: skip


def test_a_setting_has_an_interval_where_its_rows_are_known(tmp_path):
    (setting,) = settings_of([run(tmp_path, 0, 1, 3), run(tmp_path, 1, 2, 4)])
    assert [one.row_gains.mean() for one in setting.runs] == [0.5, 0.5]
    low, high = setting.row_interval()
    assert 0 <= low < 0.5 < high <= 1
    (setting,) = settings_of([run(tmp_path, 0, 1, 3)])
    assert setting.row_interval() is None


def test_its_interval_and_calibration_are_those_of_scipy_and_torchmetrics(tmp_path):
    draw = np.random.default_rng(0)
    logits = torch.tensor(draw.normal(0, 2, (300, 3)), dtype=torch.float32)
    labels = torch.tensor(draw.integers(3, size=300))
    confidence, predicted = logits.softmax(-1).max(-1)
    write(tmp_path, labels.numpy(), predicted.numpy(), confidence=confidence.numpy())
    found = Predictions.load(tmp_path)
    peer = binomtest(int(found.right.sum()), 300).proportion_ci(method="wilson")
    assert found.interval() == pytest.approx((peer.low, peer.high), abs=1e-6)
    error = multiclass_calibration_error(logits.softmax(-1), labels, 3, n_bins=15)
    assert found.calibration_error == pytest.approx(float(error), abs=1e-6)


@pytest.mark.parametrize(
    "metric",
    [
        lambda p, y: multiclass_f1_score(p, y, 4, average="macro"),
        lambda p, y: multiclass_matthews_corrcoef(p, y, 4),
    ],
)
def test_f1_and_matthews_have_the_interval_of_a_bootstrap_by_scipy(tmp_path, metric):
    draw = np.random.default_rng(0)
    # Of four classes one is neither a label nor predicted.
    labels = draw.integers(3, size=200)
    predicted = np.where(draw.random(200) < 0.6, labels, draw.integers(3, size=200))
    write(tmp_path, labels, predicted)
    found = Predictions.load(tmp_path)

    def of_rows(rows):
        return float(metric(torch.tensor(predicted[rows]), torch.tensor(labels[rows])))

    value = of_rows(np.arange(200))
    peer = bootstrap(
        (np.arange(200),), of_rows, n_resamples=1000, method="percentile", rng=2, vectorized=False
    ).confidence_interval
    assert found.interval_of(value) == pytest.approx((peer.low, peer.high), abs=0.02)
    assert found.interval_of(value + 0.01) is None
    assert found.interval_of(float(found.right.mean())) == found.interval()


def test_a_model_that_always_says_the_same_has_no_interval_of_matthews(tmp_path):
    write(tmp_path, [0, 1, 2, 1] * 5, [1] * 20)
    assert Predictions.load(tmp_path).interval_of(0.0) is None


def test_agreement_has_the_interval_of_a_share(tmp_path):
    write(tmp_path, [0] * 20, [0] * 15 + [1] * 5)
    write(tmp_path, [0] * 20, [0] * 18 + [1] * 2, "teacher")
    student, teacher = Predictions.load(tmp_path), Predictions.load(tmp_path, "teacher")
    peer = binomtest(17, 20).proportion_ci(method="wilson")
    expected = pytest.approx((peer.low, peer.high), abs=1e-6)
    assert student.agreement_interval(teacher, 17 / 20) == expected
    # Another agreement, such as that of the most likely classes.
    assert student.agreement_interval(teacher, 0.9) is None


def test_intervals_are_told_of_all_metrics_that_follow_from_classes(tmp_path):
    write(tmp_path, [0] * 10 + [1] * 10, [0] * 15 + [1] * 5)
    write(tmp_path, [0] * 10 + [1] * 10, [0] * 13 + [1] * 7, "teacher")
    student, teacher = Predictions.load(tmp_path), Predictions.load(tmp_path, "teacher")
    values = {"accuracy": 15 / 20, "agreement": 18 / 20, "loss": 0.123}
    found = intervals_of(values, student, teacher)
    assert found == {
        "accuracy": student.interval(),
        "agreement": student.agreement_interval(teacher, 18 / 20),
    }
    assert list(intervals_of(values, student)) == ["accuracy"]
    assert intervals_of(values, None, teacher) == {}


def test_tables_say_which_classes_changed_and_where_the_models_differ(tmp_path):
    label, names = [0, 0, 1, 1, 2, 2], ["bad", "good", "odd"]
    write(tmp_path, label, [0, 0, 1, 1, 2, 0], "teacher", confidence=0.9, names=names)
    sure = [0.9, 0.9, 0.9, 0.4, 0.9, 0.8]
    write(tmp_path, label, [0, 0, 1, 0, 2, 2], names=names, confidence=sure, first=0)
    write(tmp_path / "baseline", label, [0, 0, 0, 0, 2, 2], names=names)
    models = predictions_of(tmp_path)
    assert list(models) == ["teacher", "baseline", "student"]
    titles = {"teacher": "the teacher", "baseline": "alone", "student": "distilled"}
    found = list(class_tables(models, titles))
    assert [of for _, of, *_ in found] == [
        ["teacher", "baseline", "student"],
        ["teacher"],
        ["student"],
        ["teacher", "student"],
    ]
    tables = {title: (heads, lines) for title, _, _, heads, lines in found}
    heads, lines = tables["By class"]
    assert heads == ["class", *titles.values(), "change", "rows"]
    assert lines[0] == ["good", "1.000", "0.000", "0.500", "+0.500", "2"]
    assert tables["What is taken for what: distilled"][1] == [["good", "bad", "1"]]
    assert tables["What is taken for what: the teacher"][1] == [["odd", "bad", "1"]]
    # Both are sure of row 5, and the student is not sure of row 3.
    assert [line[0] for line in tables["Where teacher and student differ most"][1]] == ["5", "3"]
    assert list(class_tables({}, {})) == []
    assert [n.tolist() for n in differing(models)] == [[5, 3], [5, 3]]
