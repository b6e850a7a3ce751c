import json
import logging

import pytest
import torch
from tiny import bert
from torch.testing import assert_close
from transformers import (
    BertForMaskedLM,
    BertModel,
    RobertaConfig,
    RobertaForSequenceClassification as Roberta,
)

from lightning_distill.models import fingerprint
from lightning_distill.students import pretrained

NAMES = {0: "a", 1: "b", 2: "c"}


@pytest.fixture
def stored(tmp_path):
    model = bert(2, 32, seed=3, id2label=NAMES, label2id={n: i for i, n in NAMES.items()})
    model.save_pretrained(tmp_path / "model")
    return model


@pytest.fixture
def folder(stored, tmp_path):
    return str(tmp_path / "model")


def body(model):
    return {n: t for n, t in model.state_dict().items() if n.startswith("bert.")}


def assert_same_body(student, stored):
    expected = body(stored)
    assert body(student).keys() == expected.keys()
    assert all(torch.equal(tensor, expected[n]) for n, tensor in body(student).items())


def test_it_comes_ready_to_train_with_all_its_weights(folder, stored):
    student = pretrained(folder, num_labels=3)
    assert all(module.training for module in student.modules())
    assert all(p.requires_grad for p in student.parameters())
    assert_same_body(student, stored)
    assert torch.equal(student.classifier.weight, stored.classifier.weight)
    assert student.config.id2label == NAMES


def test_a_bfloat16_file_is_trained_in_float32(tmp_path):
    bert(1, 32).bfloat16().save_pretrained(tmp_path)
    assert {p.dtype for p in pretrained(str(tmp_path)).parameters()} == {torch.float32}
    fresh = pretrained(str(tmp_path), num_labels=7)
    assert {p.dtype for p in fresh.parameters()} == {torch.float32}


def test_another_number_of_labels_makes_a_fresh_head_and_says_so(folder, stored, caplog):
    with caplog.at_level(logging.INFO, logger="lightning_distill"):
        student = pretrained(folder, num_labels=5, label_names=list("vwxyz"))
    assert student.classifier.weight.shape == (5, 32)
    assert student.config.id2label == dict(enumerate("vwxyz"))
    assert_same_body(student, stored)
    assert student.training
    assert caplog.messages == [
        f"student: new weights, not in {folder}: classifier.bias, classifier.weight"
    ]


@pytest.mark.parametrize("names", [["c", "a", "b"], ["x", "y", "z"]])
def test_a_head_trained_for_other_labels_is_not_kept_under_their_names(folder, stored, names):
    student = pretrained(folder, num_labels=3, label_names=names)
    assert not torch.equal(student.classifier.weight, stored.classifier.weight)
    assert student.config.id2label == dict(enumerate(names))
    assert_same_body(student, stored)


def test_a_head_trained_for_these_labels_is_kept(folder, stored, caplog):
    with caplog.at_level(logging.INFO, logger="lightning_distill"):
        student = pretrained(folder, label_names=["A", "B", "C"])
    assert torch.equal(student.classifier.weight, stored.classifier.weight)
    assert student.config.id2label == {0: "A", 1: "B", 2: "C"}
    assert caplog.messages == []


def test_names_replace_generic_ones_without_a_new_head(tmp_path):
    model = bert(1, 32)
    model.save_pretrained(tmp_path)
    student = pretrained(str(tmp_path), num_labels=3, label_names=["x", "y", "z"])
    assert torch.equal(student.classifier.weight, model.classifier.weight)
    assert student.config.label2id == {"x": 0, "y": 1, "z": 2}


def test_only_the_part_of_a_head_that_counts_labels_is_new(tmp_path):
    config = RobertaConfig(
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        vocab_size=60,
        num_labels=3,
    )
    model = Roberta(config)
    model.save_pretrained(tmp_path)
    student = pretrained(str(tmp_path), num_labels=4)
    assert torch.equal(student.classifier.dense.weight, model.classifier.dense.weight)
    assert student.classifier.out_proj.weight.shape == (4, 32)


@pytest.mark.parametrize("cls", [BertModel, BertForMaskedLM])
def test_a_model_without_this_head_is_given_one(tmp_path, cls, caplog):
    base = cls(bert(1, 32).config)
    base.save_pretrained(tmp_path)
    with caplog.at_level(logging.INFO, logger="lightning_distill"):
        student = pretrained(str(tmp_path), num_labels=3)
    assert "classifier.bias, classifier.weight" in caplog.text
    expected = {f"bert.{n.removeprefix('bert.')}": t for n, t in base.state_dict().items()}
    found = body(student)
    assert all(torch.equal(t, expected[n]) for n, t in found.items() if ".pooler." not in n)
    assert torch.isfinite(student(input_ids=torch.ones(1, 4, dtype=torch.long)).logits).all()


def test_a_fresh_head_has_usual_numbers(folder):
    weight = pretrained(folder, num_labels=50).classifier.weight
    assert 0.015 < weight.std() < 0.025
    assert abs(weight.mean()) < 0.003


@pytest.mark.parametrize(
    ("task", "labels", "problem"),
    [
        ("classification", 3, "single_label_classification"),
        ("multi_label", 3, "multi_label_classification"),
        ("regression", 1, "regression"),
    ],
)
def test_the_task_is_written_into_the_configuration(folder, task, labels, problem):
    config = pretrained(folder, task=task).config
    assert (config.problem_type, config.num_labels) == (problem, labels)


@pytest.mark.parametrize("labels", [3, 5])
def test_attention_maps_come_with_eager_attention(folder, labels):
    student = pretrained(folder, num_labels=labels, attn_implementation="eager")
    out = student(input_ids=torch.ones(1, 5, dtype=torch.long), output_attentions=True)
    assert len(out.attentions) == 2


def test_it_may_learn_without_dropout(folder):
    for given, expected in ((False, {0.0}), (None, {0.1})):
        model = pretrained(str(folder), dropout=given)
        assert {m.p for m in model.modules() if isinstance(m, torch.nn.Dropout)} == expected


@pytest.mark.parametrize("labels", [3, 5])
def test_what_it_saves_is_loaded_again_with_the_same_answers(folder, tmp_path, labels):
    student = pretrained(folder, num_labels=labels).eval()
    student.save_pretrained(tmp_path / "again")
    again = pretrained(str(tmp_path / "again")).eval()
    ids = torch.tensor([[5, 6, 7]])
    assert fingerprint(again) == fingerprint(student)
    assert_close(again(input_ids=ids).logits, student(input_ids=ids).logits)


def test_weights_missing_below_the_head_are_refused(tmp_path):
    bert(1, 32).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 2}))
    words = r"lacks bert\.encoder\.layer\.1\..*, \.\.\.: .* do not belong to a BertForSequence"
    with pytest.raises(ValueError, match=words):
        pretrained(str(tmp_path))


def test_weights_missing_from_a_model_without_a_head_are_refused(tmp_path):
    BertModel(bert(1, 32).config).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_hidden_layers": 2}))
    with pytest.raises(ValueError, match=r"lacks encoder\.layer\.1\."):
        pretrained(str(tmp_path), auto_class="AutoModel")


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"path": "./nowhere"}, FileNotFoundError, "There is no folder ./nowhere"),
        ({"auto_class": "AutoModelFor"}, ValueError, "`auto_class` must be"),
        ({"task": "sorting"}, ValueError, "`task` must be one of classification"),
        ({"task": "regression", "num_labels": 3}, ValueError, "num_labels=1, got 3"),
        ({"num_labels": 3, "label_names": ["a"]}, ValueError, "3 labels, but 1 names"),
    ],
)
def test_a_wrong_argument_says_what_is_right(folder, changes, error, words):
    with pytest.raises(error, match=words):
        pretrained(**{"path": folder} | changes)
