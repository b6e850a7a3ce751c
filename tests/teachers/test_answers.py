"""Names of a teacher's answers, and which of them are per token."""

import pytest
import torch

from lightning_distill.cache import Full
from lightning_distill.models.source import Source
from lightning_distill.teachers.answers import (
    answer_name,
    describe,
    singles,
    without_last_token,
)
from lightning_distill.teachers.recall import padded

OUTPUTS = {"hidden_states": 4}


def encoding(name):
    return Full()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("logits", "logits"),
        ("hidden_states[2]", "hidden_states[2]"),
        ("hidden_states[-1]", "hidden_states[3]"),
        ("hidden_states[-4]", "hidden_states[0]"),
        ("layer:bert.pooler", "layer:bert.pooler"),
        ("layer:bert.pooler[-1]", "layer:bert.pooler[-1]"),
    ],
)
def test_an_answer_has_the_name_of_its_source_counted_from_the_start(text, name):
    assert answer_name(Source.parse(f"teacher.{text}"), OUTPUTS) == name


@pytest.mark.parametrize("item", [4, 7, -5])
def test_an_index_that_is_not_there_is_no_other_layer(item):
    source = Source.parse(f"teacher.hidden_states[{item}]")
    with pytest.raises(ValueError, match="is out of range: there are 4, numbered 0 to 3"):
        answer_name(source, OUTPUTS)


@pytest.mark.parametrize("item", ["*", "1:", ":2", "-2:", "-9:", "-3:-1", ":99", "3:1"])
def test_a_range_stands_for_the_tensors_that_it_is_given_of_a_live_teacher(item):
    source = Source.parse(f"teacher.hidden_states[{item}]")
    live = list("abcd")[slice(*source.item)]
    found = [answer_name(s, OUTPUTS) for s in singles(source, OUTPUTS, [])]
    assert found == [f"hidden_states[{'abcd'.index(letter)}]" for letter in live]


def values(tokens, rows=2):
    return {
        "logits": torch.zeros(rows, 3),
        "hidden": torch.zeros(rows, tokens, 5),
        "maps": torch.zeros(rows, 2, tokens, tokens),
        "halved": torch.zeros(rows, tokens // 2, 5),
        "prefixed": torch.zeros(rows, tokens + 1, 5),
        "starts": torch.zeros(rows, tokens),
        "fixed": torch.zeros(rows, 4, 5),
    }


def described(name, tokens=6, mask=True):
    whole, cut = {name: values(tokens)[name]}, {name: values(tokens - 1)[name]}
    (answer,) = describe(whole, cut, tokens if mask else None, encoding)
    return answer.per_token, answer.shape


def test_what_depends_on_the_number_of_tokens_is_kept_per_token():
    assert described("logits") == (False, (3,))
    assert described("hidden") == (True, (5,))
    assert described("starts") == (True, ())
    # As wide as there are tokens, by chance.
    assert described("fixed", tokens=4) == (False, (4, 5))
    # A teacher that is given no mask keeps all of them.
    assert described("hidden", mask=False) == (False, (6, 5))


@pytest.mark.parametrize("name", ["maps", "halved", "prefixed"])
def test_what_depends_on_it_otherwise_is_refused(name):
    with pytest.raises(ValueError, match=f"teacher.{name} has shape .* in other ways than"):
        described(name)


def test_a_batch_without_its_last_token():
    batch = {"input_ids": torch.ones(2, 3), "attention_mask": torch.ones(2, 3), "labels": [1, 2]}
    cut = without_last_token(batch)
    assert {k: v.shape[1] for k, v in cut.items() if k != "labels"} == dict.fromkeys(
        ("input_ids", "attention_mask"), 2
    )
    assert without_last_token({"teacher": batch})["teacher"]["input_ids"].shape == (2, 2)
    assert without_last_token({k: v[:, :1] for k, v in batch.items() if k != "labels"}) is None
    assert without_last_token((batch["input_ids"], None)) is None


def test_padding_is_zeros_behind_the_tokens():
    flat = torch.arange(1.0, 13).reshape(6, 2)
    found = padded(flat, [2, 0, 3, 1], 4)
    assert found.shape == (4, 4, 2)
    assert torch.equal(found[0, :2], flat[:2]) and torch.equal(found[2, :3], flat[2:5])
    assert torch.equal(found[3, 0], flat[5])
    assert found.count_nonzero() == 12
