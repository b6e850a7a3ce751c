"""What a ranking makes of terms, folders and metrics."""

import json

import pytest
import torch
from torchmetrics import SpearmanCorrCoef

from lightning_distill import criteria, Objective, Term
from lightning_distill.metrics import NDCG
from lightning_distill.models.source import Source
from lightning_distill.tasks import (
    Embedding,
    owner_of,
    Ranking,
    task_named,
    task_of_architecture,
)

BOTH = {"student": "student.logits", "teacher": "teacher.logits"}
LABELS = {"student": "student.logits", "labels": "batch.labels"}


def test_the_name_finds_it_and_a_model_does_not():
    assert task_named("ranking") == Ranking() != Ranking("mse")
    assert task_of_architecture("BertForSequenceClassification", "regression").name == "regression"
    assert Ranking().auto_class() == "AutoModelForSequenceClassification"
    assert repr(Ranking("mse")) == "Ranking(label_kind='mse')"
    with pytest.raises(ValueError, match="must be one of cross_entropy, binary_cross"):
        Ranking("hinge")


def test_terms_compare_the_candidates_of_each_query():
    kl = criteria.SoftTarget(2.0)
    features = {"student": "student.pooled:mean", "teacher": "teacher.pooled:mean"}
    terms = {
        "soft_target": Term(kl, BOTH),
        "hard_label": Term(criteria.HardLabel("mse"), LABELS, weight=0.5),
        "features": Term(criteria.Hint(), features),
    }
    objective = Objective(Ranking().terms(terms))
    assert objective.terms["features"] is terms["features"]
    place = torch.tensor([1, 2, 3, 1, 2])
    generator = torch.Generator().manual_seed(0)
    student, teacher = torch.randn(2, 5, 1, generator=generator, dtype=torch.float64)
    labels = torch.tensor([1.0, 0, 0, 0, 1])
    read = {"student.logits": student, "teacher.logits": teacher}
    read |= {"batch.place": place, "batch.labels": labels}
    values = {Source.parse(name): value for name, value in read.items()}
    expected = 0.0
    for rows in (slice(0, 3), slice(3, 5)):
        p, q = ((x[rows, 0] / 2).softmax(0) for x in (teacher, student))
        expected += float(4 * (p * (p / q).log()).sum()) / 2
    assert float(objective.terms["soft_target"](values)) == pytest.approx(expected, rel=1e-9)
    wanted = (student[:, 0] - labels).square().mean()
    assert float(objective.terms["hard_label"](values)) == pytest.approx(float(wanted), rel=1e-9)
    assert objective.terms["hard_label"].weight == 0.5
    own = Ranking("mse").label_term(torch.nn.Identity())
    assert float(own(values)) == pytest.approx(float(wanted), rel=1e-9)


def test_terms_of_classes_are_refused():
    with pytest.raises(ValueError, match=r"'nkd' \(NKD\) reads student, teacher, labels, and a"):
        Ranking().terms({"nkd": Term(criteria.NKD(), {**BOTH, "labels": "batch.labels"})})
    with pytest.raises(ValueError, match="smooths labels over classes"):
        Ranking().terms({"a": Term(criteria.HardLabel(label_smoothing=0.1), LABELS)})


def test_metrics_of_numbers_and_of_ordered_candidates_fit():
    assert Ranking().takes_metric(owner_of(SpearmanCorrCoef), {})
    assert Ranking().takes_metric(owner_of(NDCG), {})
    scores = torch.randn(4, 1)
    assert torch.equal(Ranking().predictions({"logits": scores}), scores[:, 0])


def test_the_folder_says_that_scores_are_taken_as_they_are(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    Ranking().finish_folder(tmp_path, None, 128)
    config = json.loads((tmp_path / "config.json").read_text())
    named = "torch.nn.modules.linear.Identity"
    assert config == {"model_type": "bert", "sentence_transformers": {"activation_fn": named}}


def test_a_teacher_of_pairs_gives_an_embedding_its_scores():
    logits = Source.parse("teacher.logits")
    assert Embedding().predicted_from("teacher", [logits]) == logits
    scores, place = torch.randn(3, 1), torch.tensor([0, 1, 2])
    found = Embedding().measured(Embedding().predictions({"vectors": scores}), {"place": place})
    assert found[0].isnan() and torch.equal(found[1:], scores[1:, 0])
