"""What is measured of vectors and of ordered candidates, by other libraries and by definition."""

import math

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from processes import in_two_processes
from scipy.stats import spearmanr
from torchmetrics import SpearmanCorrCoef

from lightning_distill import Agreement
from lightning_distill.metrics import (
    check_vectors,
    MRR,
    NDCG,
    RecallAtK,
    Samples,
    SimilarityAgreement,
)
from lightning_distill.tasks import Embedding

SIZES = [3, 4, 2, 3, 5]


def batch(seed: int, sizes=SIZES, first: int = 0):
    """Texts of rows of unequal sizes, with vectors of both models; equal texts among them."""
    generator = torch.Generator().manual_seed(seed)
    texts = sum(sizes)
    student = torch.randn(texts, 4, generator=generator)
    teacher = torch.randn(texts, 7, generator=generator)
    student[2], teacher[2] = student[1], teacher[1]
    place = torch.cat([torch.arange(size) for size in sizes])
    labels = torch.randint(0, 3, (texts,), generator=generator).float()
    labels[2] = labels[1]
    row = torch.repeat_interleave(torch.arange(len(sizes)) + first, torch.tensor(sizes))
    return {"labels": labels.masked_fill(place == 0, math.nan), "place": place, "row": row}, (
        student,
        teacher,
    )


def measured(metrics, batches):
    for entries, (student, teacher) in batches:
        rows = entries["row"] >= 0
        for samples in Samples.of(entries, student, teacher, rows, metrics.values(), Embedding()):
            for metric in metrics.values():
                samples.feed(metric)
    return {name: float(metric.compute()) for name, metric in metrics.items()}


def cosine(a, b) -> float:
    a, b = a.double(), b.double()
    return float(a @ b / (a.norm() * b.norm()))


def of_rows(batches):
    """The cosines and labels of the candidates of each row of student and teacher."""
    found = []
    for entries, both in batches:
        for number in entries["row"].unique().tolist():
            at = (entries["row"] == number).nonzero().flatten().tolist()
            scores = [[cosine(x[at[0]], x[i]) for i in at[1:]] for x in both]
            found.append((*scores, [float(entries["labels"][i]) for i in at[1:]]))
    return found


def naive(batches):
    rows = of_rows(batches)
    gains, recalls, places = [], [], []
    for scores, _, labels in rows:
        order = np.argsort(scores)[::-1]
        best = sorted(labels, reverse=True)
        if not any(best):
            continue
        of = [sum(x / math.log2(i + 2) for i, x in enumerate(o[:2]))
              for o in ([labels[j] for j in order], best)]  # fmt: skip
        gains.append(of[0] / of[1])
        relevant = [x > 0 for x in labels]
        first = next(place for place, j in enumerate(order, 1) if relevant[j])
        places.append(1 / first if first < 3 else 0.0)
        recalls.append(sum(relevant[j] for j in order[:2]) / sum(relevant))
    flat = [[x for row in rows for x in row[i]] for i in range(3)]
    vectors = [torch.cat([both[i] for _, both in batches]) for i in range(2)]
    pairs = [(i, j) for i in range(len(vectors[0])) for j in range(i)]
    cosines = [[round(cosine(x[i], x[j]), 6) for i, j in pairs] for x in vectors]
    agree = [abs(a - b) <= 0.5 for a, b in zip(flat[0], flat[1], strict=True)]
    return {
        "spearman": spearmanr(flat[0], flat[2]).statistic,
        "ndcg": np.mean(gains),
        "recall": np.mean(recalls),
        "mrr": np.mean(places),
        "agreement": np.mean(agree),
        "similarity_agreement": spearmanr(*cosines).statistic,
    }


def made():
    return {
        "spearman": SpearmanCorrCoef(),
        "ndcg": NDCG(top_k=2),
        "recall": RecallAtK(top_k=2),
        "mrr": MRR(top_k=2),
        "agreement": Agreement(),
        "similarity_agreement": SimilarityAgreement(),
    }


def test_every_metric_is_that_of_its_definition():
    batches = [batch(0), batch(1, [2, 6], first=5)]
    found, expected = measured(made(), batches), naive(batches)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=2e-6), name


def test_repeats_do_not_count():
    batches = [batch(0), batch(1, [2, 6], first=5)]
    entries, both = batch(2, [3, 2])
    repeats = {**entries, "row": torch.full_like(entries["row"], -1)}
    expected = measured(made(), batches)
    assert measured(made(), [*batches, (repeats, both)]) == expected


def test_the_lowest_rows_are_taken_of_many_whatever_their_order():
    entries, both = batch(0)
    order = torch.randperm(len(entries["row"]), generator=torch.Generator().manual_seed(3))
    few, some = (SimilarityAgreement(most=10) for _ in range(2))
    few.update(*both, entries["row"])
    some.update(*(x[order] for x in both), entries["row"][order])
    alone = SimilarityAgreement()
    alone.update(*(x[:9] for x in both), entries["row"][:9])
    exact = SimilarityAgreement(most=9)
    exact.update(*both, entries["row"])
    assert float(exact.compute()) == pytest.approx(float(alone.compute()))
    nine = SimilarityAgreement(most=9)
    nine.update(*(x[order] for x in both), entries["row"][order])
    assert float(nine.compute()) == pytest.approx(float(alone.compute()))


def test_equal_vectors_agree_and_too_few_are_nan():
    vectors = torch.randn(6, 3)
    metric = SimilarityAgreement()
    metric.update(vectors, 5 * vectors, torch.arange(6))
    assert float(metric.compute()) == pytest.approx(1)
    few = SimilarityAgreement()
    few.update(vectors[:2], vectors[:2], torch.arange(2))
    assert few.compute().isnan()
    with pytest.raises(ValueError, match="`most` must be a whole number of at least 3, got 2"):
        SimilarityAgreement(2)


def test_vectors_are_not_compared_with_scores():
    with pytest.raises(ValueError, match="similarity_agreement compare vectors of student and"):
        check_vectors(torch.randn(3, 1), made())
    check_vectors(torch.randn(3, 2), made())
    check_vectors(torch.randn(3, 1), {"mrr": MRR()})


PARTS = [[batch(0)], [batch(1, [2, 6], first=5), batch(2, [3], first=7)]]


def _worker(rank, store, results):
    torch.distributed.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)
    results[rank] = measured(made(), PARTS[rank])
    torch.distributed.destroy_process_group()


def test_two_processes_compute_what_one_does(tmp_path):
    with mp.Manager() as manager:
        results = manager.dict()
        in_two_processes(_worker, (str(tmp_path / "store"), results))
        found = dict(results)
    expected = measured(made(), [*PARTS[0], *PARTS[1]])
    for rank in (0, 1):
        assert found[rank] == pytest.approx(expected, abs=1e-6)
