"""A head for labels of whole rows beside that for words: what it says, and where it is kept."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.testing import assert_close
from transformers import AutoModelForTokenClassification, BertConfig, BertForTokenClassification

from lightning_distill.models.capture import capture, read
from lightning_distill.models.fingerprint import fingerprint
from lightning_distill.models.row_head import (
    fresh_row_head,
    give_row_head,
    row_head_of,
    RowHead,
    with_row_head,
)
from lightning_distill.models.source import Source
from lightning_distill.run.save import save_model_of_transformers
from lightning_distill.students import from_teacher, pretrained as pretrained_student
from lightning_distill.teachers import pretrained, Teacher

NAMES = ["book", "play", "rate"]
SOURCE = Source.parse("student.pooled:cls,row_head")


def tagger(layers: int = 1, seed: int = 0, **changes) -> BertForTokenClassification:
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16, "vocab_size": 60}
    config = BertConfig(num_hidden_layers=layers, num_labels=4, **sizes, **changes)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return BertForTokenClassification(config).eval()


def with_head(seed: int = 1, **options) -> BertForTokenClassification:
    model = tagger(**options)
    give_row_head(model, fresh_row_head(model, NAMES, seed))
    return model.eval()


def rows() -> dict:
    ids = torch.tensor([[5, 6, 7, 8], [0, 0, 9, 10], [11, 12, 0, 0]])
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}


def said(model: nn.Module, source: Source = SOURCE, **inputs):
    given = inputs or rows()
    with capture(model, [source]) as captured:
        outputs = model(**given)
    return read(source, outputs, captured), outputs


def test_it_maps_the_first_token_that_counts_and_leaves_the_model_as_it_was():
    model = with_head()
    before = tagger()(**rows()).logits
    found, outputs = said(model)
    exact = copy.deepcopy(model).double()
    hidden = exact.bert(**rows()).last_hidden_state
    # Padding may stand before a row.
    first = torch.stack([hidden[0, 0], hidden[1, 2], hidden[2, 0]])
    head = row_head_of(exact)
    expected = first @ head.linear.weight.T + head.linear.bias
    assert_close(found.double(), expected, rtol=0.0, atol=1e-6)
    assert_close(outputs.logits, before)
    assert not model._forward_pre_hooks and not model.bert._forward_hooks
    found.sum().backward()
    assert model.bert.encoder.layer[0].output.dense.weight.grad.abs().sum() > 0


def test_a_body_alone_and_a_head_of_another_pooling_can_be_asked_too():
    body = with_head().bert
    give_row_head(body, RowHead(8, NAMES, pooling="mean", dropout=0.0))
    source = Source.parse("teacher.pooled:mean,row_head")
    found, outputs = said(body, source)
    mean = outputs.last_hidden_state[0].mean(0)
    assert_close(found[0], row_head_of(body).linear(mean))
    assert str(source) == "teacher.pooled:mean,row_head" and not source.is_many
    with pytest.raises(ValueError, match="not pool as the head was trained.*pooled:mean,row_head"):
        said(body)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("student.pooled:row_head", "how tokens are pooled"),
        ("student.pooled:cls,normalised,row_head", ",row_head for what a head"),
    ],
)
def test_sources_that_cannot_be(text, words):
    with pytest.raises(ValueError, match=words):
        Source.parse(text)


def test_a_model_without_one_says_how_it_is_trained():
    with pytest.raises(ValueError, match=r"the student has none.*job=finetune .*data.row_label="):
        said(tagger())


def test_a_fresh_one_is_drawn_by_its_seed_alone_and_draws_nothing_else():
    torch.manual_seed(3)
    model, state = tagger(hidden_dropout_prob=0.2), torch.random.get_rng_state()
    one = fresh_row_head(model, NAMES, 7)
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(5)
    two, other = fresh_row_head(model, NAMES, 7), fresh_row_head(model, NAMES, 8)
    assert torch.equal(one.linear.weight, two.linear.weight)
    assert not torch.equal(one.linear.weight, other.linear.weight)
    assert one.dropout.p == 0.2 and one.names == NAMES
    with pytest.raises(ValueError, match="says its hidden_size, and a Linear says none"):
        fresh_row_head(nn.Linear(2, 2), NAMES, 0)


def test_a_folder_keeps_it_and_transformers_alone_loads_the_model(tmp_path):
    model = with_head()
    save_model_of_transformers(model, tmp_path)
    _, info = AutoModelForTokenClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert not any("row_head" in name for name in load_file(tmp_path / "model.safetensors"))
    settings = json.loads((tmp_path / "row_head" / "config.json").read_text())
    assert settings["label_names"] == NAMES and settings["pooling"] == "cls"
    teacher = pretrained(str(tmp_path), "AutoModelForTokenClassification")
    assert fingerprint(teacher) == fingerprint(model)
    assert Teacher.of(teacher).row_label_names == NAMES
    assert Teacher.of(teacher).about()["row_labels"] == NAMES
    assert_close(said(teacher)[0], said(model)[0])
    # Tags of other names get a fresh head, and rows keep theirs.
    student = pretrained_student(
        str(tmp_path), label_names=["A", "B", "C", "D"], task="token_classification"
    )
    assert_close(row_head_of(student).state_dict(), row_head_of(model).state_dict())
    assert (
        row_head_of(student).training
        and row_head_of(with_row_head(tagger(), tmp_path.parent)) is None
    )
    (tmp_path / "row_head" / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="row_head holds no model.safetensors"):
        pretrained(str(tmp_path), "AutoModelForTokenClassification")


def test_a_student_cut_from_a_teacher_has_a_copy_of_it_whatever_the_order_of_its_tags():
    teacher = with_head(layers=2)
    teacher.config.id2label = dict(enumerate("abcd"))
    student = from_teacher(teacher, layers=1, label_names=["b", "a", "c", "d"])
    own = row_head_of(student)
    assert_close(own.state_dict(), row_head_of(teacher).state_dict())
    assert own.linear.weight.data_ptr() != row_head_of(teacher).linear.weight.data_ptr()
    assert_close(student.classifier.weight[0], teacher.classifier.weight[1])
