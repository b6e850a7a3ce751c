"""What an embedding asks of models and says to metrics."""

import math

import pytest
import torch
from torchmetrics import SpearmanCorrCoef
from torchmetrics.classification import MulticlassAccuracy
from transformers import BertConfig, BertModel

from lightning_distill.metrics import NDCG
from lightning_distill.models.source import Source
from lightning_distill.tasks import (
    Classification,
    Embedding,
    owner_of,
    Regression,
    task_named,
    task_of_architecture,
)

PLACE = torch.tensor([0, 1, 0, 1, 2])


def test_the_name_and_the_class_of_a_model_find_it():
    assert task_named("embedding") == Embedding() != Embedding("cls")
    assert task_of_architecture("BertModel") == Embedding()
    assert task_of_architecture("GPT2LMHeadModel").name == "language_modelling"
    assert task_of_architecture("BertForSequenceClassification") == Classification()
    assert Embedding().auto_class("BertModel") == Embedding().auto_class() == "AutoModel"
    with pytest.raises(ValueError, match="how tokens are pooled: mean, cls, max, last"):
        Embedding("sum")


def test_what_no_vector_comes_from_is_frozen():
    config = BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, vocab_size=20)
    model = BertModel(config)
    Embedding().settle(model)
    frozen = [name for name, weight in model.named_parameters() if not weight.requires_grad]
    assert frozen == ["pooler.dense.weight", "pooler.dense.bias"]


def test_predictions_are_read_where_a_term_reads_the_teacher():
    task = Embedding("max")
    cls, hidden = (Source.parse(f"teacher.{x}") for x in ("pooled:cls", "hidden_states[1]"))
    assert task.predicted_from("teacher", [hidden, cls]) == cls
    assert str(task.predicted_from("teacher", [hidden])) == "teacher.pooled:max,normalised"
    own = Source.parse("student.pooled:cls")
    assert str(task.predicted_from("student", [own])) == "student.pooled:max,normalised"
    vectors = torch.randn(2, 3)
    assert task.predictions({"vectors": vectors}) is vectors
    with pytest.raises(ValueError, match="override `predictions`"):
        task.predictions({"logits": vectors})


def test_candidates_are_measured_against_the_first_of_their_row():
    vectors = torch.tensor([[1.0, 0], [0, 1], [1, 1], [2, 2], [1, 0]])
    found = Embedding().measured(vectors, {"place": PLACE})
    assert found[[0, 2]].isnan().all()
    assert found[[1, 3, 4]].tolist() == pytest.approx([0, 1, math.sqrt(0.5)])
    assert Embedding().measured(vectors, {}).isnan().all()
    other = found + torch.tensor([0, 0.6, 0, 0.1, 0])
    assert Embedding().agree(found, other, 0.5).tolist() == [False, True, True]


def test_metrics_of_numbers_and_of_ordered_candidates_fit():
    assert isinstance(owner_of(SpearmanCorrCoef), Regression)
    assert Embedding().takes_metric(owner_of(SpearmanCorrCoef), {})
    assert Embedding().takes_metric(owner_of(NDCG), {})
    assert not Embedding().takes_metric(owner_of(MulticlassAccuracy), {"num_classes": 3})
    assert not Regression().takes_metric(Embedding(), {})


def test_scores_are_the_labels_that_are_learnt():
    term = Embedding("cls", normalised=False).label_term(torch.nn.Identity())
    assert {name: str(source) for name, source in term.inputs.items()} == {
        "student": "student.pooled:cls",
        "labels": "batch.labels",
        "place": "batch.place",
    }
    labels = Embedding().read_labels([1, None, "0.5"], (), "train")
    assert Embedding().labelled(labels).tolist() == [True, False, True]
    with pytest.raises(ValueError, match="'much' in row 0 of the train data is no number"):
        Embedding().read_labels(["much"], (), "train")
