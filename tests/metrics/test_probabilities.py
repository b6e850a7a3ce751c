"""Metrics of torchmetrics that are about probabilities are given these, whatever a batch holds."""

import pytest
import torch
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    BinaryAccuracy,
    BinaryAUROC,
    MulticlassAUROC,
    MulticlassCalibrationError,
    MultilabelAccuracy,
    MultilabelAUROC,
    MultilabelExactMatch,
    MultilabelF1Score,
    MultilabelRankingAveragePrecision,
)

from lightning_distill.metrics import Samples
from lightning_distill.tasks import Classification, MultiLabel

ROWS = 40


def logits(*shape: int) -> torch.Tensor:
    """Small ones, as a student has at the beginning: in many rows all lie between 0 and 1."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)) * 0.5 + 0.4


def auroc(scores: torch.Tensor, true: torch.Tensor) -> float:
    """How often a row with the label has a larger score than one without."""
    larger = scores[true].double()[:, None] - scores[~true].double()
    return ((larger > 0).double() + (larger == 0) / 2).mean().item()


def measured(metric, task, predicted, labels, rows: int) -> float:
    for i in range(0, len(predicted), rows):
        batch = {"labels": labels[i : i + rows]}
        for samples in Samples.of(batch, predicted[i : i + rows], metrics=[metric], task=task):
            samples.feed(metric)
    return float(metric.compute())


@pytest.mark.parametrize("rows", [1, 2, 7, ROWS])
def test_multi_label_metrics_do_not_depend_on_the_batch(rows):
    predicted = logits(ROWS, 3)
    labels = (logits(ROWS, 4)[:, 1:] > 0.4).float()
    inside = (predicted >= 0) & (predicted <= 1)
    assert 0 < inside.all(1).sum() < ROWS
    found, true = predicted.double() > 0, labels > 0
    hits, wrong = (found & true).sum(0), (found != true).sum(0)
    expected = {
        MultilabelF1Score(3, average="macro"): (2 * hits / (2 * hits + wrong)).mean(),
        MultilabelAccuracy(3, average="micro"): (found == true).double().mean(),
        MultilabelExactMatch(3): (found == true).all(1).double().mean(),
        MultilabelAUROC(3): sum(auroc(predicted[:, i], true[:, i]) for i in range(3)) / 3,
    }
    for metric, value in expected.items():
        got = measured(metric, MultiLabel(), predicted, labels, rows)
        assert got == pytest.approx(float(value), abs=1e-6), metric


@pytest.mark.parametrize("rows", [1, 2, 7, ROWS])
def test_metrics_of_classes_do_not_depend_on_the_batch(rows):
    predicted, labels = logits(ROWS, 2), (logits(ROWS) > 0.4).long()
    p = predicted.double().softmax(-1)
    assert ((predicted >= 0) & (predicted <= 1)).all(1).any()
    confidence, found = p.max(-1)
    gaps = []
    for i in range(10):
        within = (confidence > i / 10) & (confidence <= (i + 1) / 10)
        if within.any():
            right = (found == labels)[within].double().mean()
            gaps.append(within.double().mean() * (confidence[within].mean() - right).abs())
    expected = {
        MulticlassCalibrationError(2, n_bins=10): sum(gaps),
        MulticlassAUROC(2): auroc(p[:, 1], labels > 0),
        BinaryAUROC(): auroc(p[:, 1], labels > 0),
        BinaryAccuracy(): (found == labels).double().mean(),
    }
    for metric, value in expected.items():
        got = measured(metric, Classification(), predicted, labels, rows)
        assert got == pytest.approx(float(value), abs=1e-6), metric


@pytest.mark.parametrize("rows", [1, ROWS])
def test_a_single_logit_is_that_of_the_second_class(rows):
    predicted, labels = logits(ROWS), (logits(ROWS, 2)[:, 1] > 0.4).long()
    got = measured(BinaryAccuracy(), Classification(), predicted, labels, rows)
    assert got == pytest.approx(((predicted > 0).long() == labels).double().mean().item())


def test_every_metric_of_labels_of_torchmetrics_is_known():
    predicted = torch.tensor([[0.2, 0.9, 0.1]])
    metrics = MetricCollection([MultilabelRankingAveragePrecision(3), MultilabelF1Score(3)])
    (samples,) = Samples.of({"labels": torch.ones(1, 3)}, predicted, task=MultiLabel())
    for metric in metrics.values():
        _, (given, _), _ = samples._given(metric)
        assert torch.equal(given, predicted.sigmoid())


def test_a_metric_of_two_classes_of_three_is_refused():
    with pytest.raises(ValueError, match=r"BinaryAUROC measures two classes.*\(4, 3\).*Multiclass"):
        labels = torch.zeros(4, dtype=torch.long)
        measured(BinaryAUROC(), Classification(), torch.zeros(4, 3), labels, 4)
