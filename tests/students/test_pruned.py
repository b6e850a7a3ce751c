"""Cuts in every direction, against models of which it is known what a cut must leave."""

import copy
from dataclasses import replace

import pytest
import torch
from students.families import batch_for, FAMILIES
from torch import nn

from lightning_distill.models.inputs import call_model, model_inputs
from lightning_distill.models.row_head import fresh_row_head, give_row_head, row_head_of
from lightning_distill.students.importance import at_random, no_scores
from lightning_distill.students.narrow import most_important, narrow
from lightning_distill.students.plain_families import BY_KIND
from lightning_distill.students.pruned import prune, smaller_shape
from lightning_distill.students.units import Anatomy

PLAIN = [family for family in FAMILIES if family.kind in BY_KIND]
T5 = next(family for family in PLAIN if family.kind == "t5")
# Its feed-forward parts have a gate.
GATED = {"config": {**T5.config, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}}
PLAIN += [replace(T5, name="mT5", model="MT5ForConditionalGeneration", kind="mt5", **GATED)]
# What is built like another one.
ALIKE = ("DistilBERT", "XLM-R", "DeiT", "RoBERTa", "Qwen2, classifying", "mT5")


def some(families, slow=ALIKE):
    marks = [[pytest.mark.slow] if family.name in slow else [] for family in families]
    return [pytest.param(f, marks=m, id=f.name) for f, m in zip(families, marks, strict=True)]


each_family = pytest.mark.parametrize("family", some(PLAIN))
GROUPED = some([f for f in PLAIN if BY_KIND[f.kind].head_size], (*ALIKE, "Qwen2", "Qwen3"))
# With heads of keys and values that are counted apart, how many these are; 4 is one for each.
IN_GROUPS = [
    pytest.param(*case.values, groups, marks=case.marks, id=f"{case.id}-{groups}")
    for case in GROUPED
    for groups in ((1, 2, 4) if BY_KIND[case.values[0].kind].key_values else (4,))
]


def built(family, **changes):
    return replace(family, config={**family.config, **changes}).build()


def anatomy_of(family, **changes):
    return Anatomy(built(family, **changes))


def answer(family, model):
    with torch.no_grad():
        inputs = model_inputs(batch_for(family), model)
        return call_model(model.eval(), inputs, {}).logits


def test_the_table_has_the_families_that_are_promised():
    names = {"bert", "roberta", "modernbert", "gpt2", "llama", "qwen2", "qwen3", "t5", "vit"}
    assert names <= {family.kind for family in PLAIN}


@each_family
def test_cutting_nothing_leaves_every_answer_as_it_is(family):
    anatomy = anatomy_of(family)
    student = prune(anatomy, anatomy.shape, at_random(anatomy, 0))
    assert torch.equal(answer(family, student), answer(family, anatomy.model))


@each_family
def test_neurons_that_give_nothing_can_be_cut(family):
    anatomy = anatomy_of(family)
    teacher, scores = anatomy.model, at_random(anatomy, 0)
    half = replace(anatomy.shape, intermediate=anatomy.shape.intermediate // 2)
    kept = most_important(anatomy, half, scores).neurons
    before = answer(family, teacher)
    with torch.no_grad():
        for of, numbers in kept.items():
            weight = teacher.get_submodule(of).weight
            dim = 0 if BY_KIND[family.kind].transposed else 1
            gone = [i for i in range(anatomy.shape.intermediate) if i not in numbers]
            weight.index_fill_(dim, torch.tensor(gone), 0.0)
    found = answer(family, prune(anatomy, half, scores))
    torch.testing.assert_close(found, answer(family, teacher), atol=5e-6, rtol=1e-5)
    assert not torch.allclose(found, before, atol=1e-3)


@pytest.mark.parametrize(("family", "groups"), IN_GROUPS)
def test_heads_that_give_nothing_can_be_cut(family, groups):
    grouped = BY_KIND[family.kind].key_values
    heads = {"num_heads": 4} if family.kind in ("t5", "mt5") else {"num_attention_heads": 4}
    heads |= {"num_key_value_heads": groups} if grouped else {}
    size = {} if family.kind in ("t5", "mt5") else {"head_dim": 8}
    anatomy = anatomy_of(family, **heads, **size)
    teacher, scores = anatomy.model, at_random(anatomy, 3)
    half = anatomy.shape.with_heads(2)
    kept = most_important(anatomy, half, scores).heads
    before = answer(family, teacher)
    with torch.no_grad():
        for of, numbers in kept.items():
            for head in {0, 1, 2, 3} - {*numbers.tolist()}:
                teacher.get_submodule(of).weight[:, head * 8 : (head + 1) * 8] = 0
    found = answer(family, prune(anatomy, half, scores))
    torch.testing.assert_close(found, answer(family, teacher), atol=5e-6, rtol=1e-5)
    assert not torch.allclose(found, before, atol=1e-3)


def test_a_head_for_labels_of_rows_is_cut_with_the_hidden_states():
    family = next(family for family in PLAIN if family.name == "BERT")
    teacher = built(family)
    give_row_head(teacher, fresh_row_head(teacher, ["a", "b", "c"], seed=1))
    anatomy = Anatomy(teacher)
    assert anatomy.count(anatomy.shape) == sum(p.numel() for p in teacher.parameters())
    scores, whole = at_random(anatomy, 0), anatomy.shape
    shape = replace(whole.with_heads(whole.heads // 2), width=whole.width // 2)
    kept = most_important(anatomy, shape, scores).channels
    student = prune(anatomy, shape, scores)
    mine, its = row_head_of(student), row_head_of(teacher)
    assert mine.names == its.names and mine.dropout.p == its.dropout.p
    assert torch.equal(mine.linear.weight, its.linear.weight[:, kept])
    assert torch.equal(mine.linear.bias, its.linear.bias)
    assert anatomy.count(shape) == sum(p.numel() for p in student.parameters())


@each_family
def test_channels_that_repeat_others_and_are_read_by_nothing_can_be_cut(family):
    """A norm over twice the same channels is the norm over them once."""
    whole = anatomy_of(family)
    small = replace(whole.shape, width=whole.shape.width // 2)
    if whole.family.tied:
        small = replace(small, heads=1, key_values=1)
    kept = most_important(whole, small, no_scores(whole))
    expected = narrow(whole, small, kept).eval()
    teacher, doubled = whole.model, expected.state_dict()
    linear = {n for n, m in teacher.named_modules() if type(m).__name__ in ("Linear", "Conv1D")}
    flipped = {n for n, m in teacher.named_modules() if type(m).__name__ == "Conv1D"}
    state = teacher.state_dict()
    tied = "lm_head.weight" in state and teacher.config.tie_word_embeddings
    with torch.no_grad():
        for name, value in state.items():
            if tied and name == "lm_head.weight":
                # The embeddings, which are there.
                continue
            part = doubled[name]
            module, _, kind = name.rpartition(".")
            reads = -1
            if module in linear and kind == "weight":
                reads = 0 if module in flipped else 1
            for dim in range(value.dim()):
                if part.shape[dim] == value.shape[dim]:
                    continue
                # Fused queries, keys and values are doubled each.
                thirds = 3 if dim != reads and ("Wqkv" in name or "c_attn" in name) else 1
                blocks = part.unflatten(dim, (thirds, -1))
                other = torch.zeros_like(blocks) if dim == reads else blocks
                part = torch.cat([blocks, other], dim + 1).flatten(dim, dim + 1)
            value.copy_(part)
    # With tied embeddings the head reads both halves; T5 divides by the root of the width.
    scaled = getattr(teacher.config, "scale_decoder_outputs", False)
    times = (2**0.5 if scaled else 2.0) if tied else 1.0
    found = answer(family, prune(Anatomy(teacher), small, no_scores(whole)))
    torch.testing.assert_close(found * times, answer(family, teacher), atol=1e-5, rtol=1e-4)
    assert found.std() > 0.01


@each_family
def test_a_cut_model_is_loaded_again_by_transformers_alone(family, tmp_path):
    anatomy = anatomy_of(family)
    asked = {"layers": 2, "intermediate": 16} | ({"width": 8} if anatomy.family.tied else
        {"width": 8, "heads": 1})  # fmt: skip
    shape = smaller_shape(anatomy, **asked)
    student = prune(anatomy, shape, at_random(anatomy, 1), keep="importance")
    assert sum(p.numel() for p in student.parameters()) == anatomy.count(shape)
    student.save_pretrained(tmp_path)
    again = type(anatomy.model).from_pretrained(tmp_path)
    assert torch.equal(answer(family, again), answer(family, student))
    before = copy.deepcopy(anatomy.model.state_dict())
    nn.init.zeros_(next(student.parameters()))
    assert all(torch.equal(v, before[n]) for n, v in anatomy.model.state_dict().items())
