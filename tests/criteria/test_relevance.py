"""The label loss of rankers, against its definition in float64."""

import math

import pytest
import torch

from lightning_distill.criteria._relevance import Relevance

SIZES = [3, 1, 2, 4, 2]
# The second query has one candidate, the third lacks a label, the last has nothing relevant.
LABELS = [1.0, 0.0, 0.5, 1.0, 1.0, math.nan, 0.0, 0.25, 0.0, 0.0, 0.0, 0.0]


def given():
    scores = torch.randn(12, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    place = torch.cat([torch.arange(size) + 1 for size in SIZES])
    return scores.requires_grad_(True), torch.tensor(LABELS), place


def naive(scores, kind) -> float:
    scores, found, start = scores.flatten().tolist(), [], 0
    pairs = [(s, y) for s, y in zip(scores, LABELS, strict=True) if not math.isnan(y)]
    if kind == "mse":
        return sum((s - y) ** 2 for s, y in pairs) / len(pairs)
    if kind == "binary_cross_entropy":
        of_pair = [(y * math.log1p(math.exp(-s)) + (1 - y) * math.log1p(math.exp(s)))
                   for s, y in pairs]  # fmt: skip
        return sum(of_pair) / len(pairs)
    for size in SIZES:
        own, labels = scores[start : start + size], LABELS[start : start + size]
        start += size
        if size > 1 and not any(map(math.isnan, labels)) and sum(labels) > 0:
            norm = math.log(sum(math.exp(s) for s in own))
            both = zip(own, labels, strict=True)
            found.append(-sum(y / sum(labels) * (s - norm) for s, y in both))
    return sum(found) / len(found)


@pytest.mark.parametrize(
    ("kind", "counts"), [("cross_entropy", 2), ("binary_cross_entropy", 11), ("mse", 11)]
)
def test_agrees_with_the_definition(kind, counts):
    scores, labels, place = given()
    criterion = Relevance(kind)
    found = criterion(scores, labels, place)
    assert float(found.detach()) == pytest.approx(naive(scores, kind), rel=1e-9)
    assert int(criterion.counted(labels=labels, place=place).sum()) == counts
    found.backward()
    assert scores.grad.isfinite().all() and scores.grad.any()


@pytest.mark.parametrize("kind", ["cross_entropy", "binary_cross_entropy", "mse"])
def test_nothing_counts_without_labels(kind):
    scores, labels, place = given()
    found = Relevance(kind)(scores, labels * math.nan, place)
    found.backward()
    assert float(found.detach()) == 0.0 and not scores.grad.any()


def test_labels_that_cannot_be_learnt_are_refused():
    scores, labels, place = given()
    with pytest.raises(ValueError, match="must lie between 0 and 1, got 0 to 2.*largest_score"):
        Relevance("binary_cross_entropy")(scores, 2 * labels, place)
    with pytest.raises(ValueError, match="must not be negative, got -1 to"):
        Relevance()(scores, -labels, place)
    with pytest.raises(ValueError, match="`kind` must be one of cross_entropy"):
        Relevance("hinge")
