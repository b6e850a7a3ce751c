"""Layers that are computed again in the backward pass are read and trained like any other."""

import copy
from contextlib import nullcontext

import pytest
import torch
from causal import batch, fused, model, module_of
from tiny import bert
from torch import nn
from torch.testing import assert_close
from transformers.modeling_layers import GradientCheckpointingLayer

from lightning_distill import Objective, Term
from lightning_distill.balance import GradNorm, PCGrad
from lightning_distill.criteria import AttentionKL, CosineHidden, Hint
from lightning_distill.models.capture import capture
from lightning_distill.models.gradient_checkpointing import (
    checkpoint_gradients,
    checkpointing_in_eval,
)
from lightning_distill.models.source import Source
from lightning_distill.students import lora
from lightning_distill.training.optimization import trainable_by_name

LAYERS = {"gpt2": "transformer.h", "llama": "model.layers", "gemma2": "model.layers"}


def terms(name):
    def both(path):
        return {role: f"{role}.{path}" for role in ("student", "teacher")}

    return (
        fused(label_weight=0.5),
        Term(Hint(), both(f"layer:{LAYERS[name]}.*") | {"mask": "batch.attention_mask"}),
        Term(CosineHidden(), both("hidden_states[-1]")),
        Term(AttentionKL(), both("attentions[*]") | {"mask": "batch.attention_mask"}),
        # Within a layer that is computed again.
        Term(Hint(), both("layer_input:" + (f"{LAYERS[name]}.1.mlp"))),
    )


def counted(student):
    """How often what lies within a layer ran."""
    runs = []
    for layer in student.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            layer.mlp.register_forward_pre_hook(lambda *_: runs.append(1))
    return runs


@pytest.mark.parametrize("adapters", [False, True], ids=["whole", "adapters"])
@pytest.mark.parametrize("name", LAYERS)
def test_every_kind_of_term_has_the_same_gradient(name, adapters):
    plain, teacher = model(name, layers=2), model(name, layers=2, seed=1)
    for part in plain.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    found, runs = [], []
    for checkpointed in (False, True):
        student = copy.deepcopy(plain)
        student = lora(student, rank=2) if adapters else student
        if checkpointed:
            checkpoint_gradients(student)
        module = module_of(student, teacher, *terms(name))
        module.prepare(batch())
        student.train()
        runs.append(counted(student))
        values, *_ = module.read_sources(batch(), heads="skipped")
        before = {s: copy.copy(v) for s, v in values.items() if isinstance(v, torch.Tensor)}
        loss = module.objective(values)["loss"]
        loss.backward()
        assert all(values[s] is v or torch.equal(values[s], v) for s, v in before.items())
        found.append((loss.detach(), {n: p.grad for n, p in student.named_parameters()}))
    assert_close(found[1][0], found[0][0])
    for key, gradient in found[0][1].items():
        assert (gradient is None) == (found[1][1][key] is None)
        if gradient is not None:
            assert_close(found[1][1][key], gradient, rtol=1e-4, atol=1e-7)
    assert any(g is not None and g.any() for g in found[0][1].values())
    assert [len(r) for r in runs] == [2, 4], "the second time is the backward pass"


def test_what_was_read_is_left_alone_by_the_second_run():
    student = model("llama", layers=2)
    checkpoint_gradients(student.train())
    sources = [Source.parse("student.layer:model.layers.*")]
    with capture(student, sources) as captured:
        loss = student(batch()["input_ids"]).logits.square().mean()
    kept = dict(captured)
    assert not any(layer._forward_hooks for layer in student.model.layers)
    loss.backward()
    assert list(captured) == list(kept) and all(captured[k] is v for k, v in kept.items())


@pytest.mark.parametrize("name", LAYERS)
def test_in_eval_mode_layers_are_computed_again_where_that_is_asked(name):
    """As the batch is that is tried before the first step."""
    gradients, runs = [], []
    for asked in (False, True):
        student = model(name, layers=2)
        checkpoint_gradients(student.eval())
        runs.append(counted(student))
        with checkpointing_in_eval(student) if asked else nullcontext():
            student(batch()["input_ids"], use_cache=False).logits.square().mean().backward()
        gradients.append({n: p.grad for n, p in student.named_parameters()})
        assert not any("forward" in vars(part) for part in student.modules())
    assert [len(r) for r in runs] == [2, 4]
    assert_close(gradients[1], gradients[0], rtol=0, atol=0)


def test_what_is_not_to_be_computed_again_is_left_alone():
    student = model("llama", layers=2)
    with checkpointing_in_eval(student):
        assert not any("forward" in vars(part) for part in student.modules())


@pytest.mark.parametrize("balance", [PCGrad, GradNorm])
def test_gradients_of_single_terms_are_the_same(balance):
    plain, teacher = model("llama", layers=2), model("llama", layers=2, seed=1)
    found = []
    for checkpointed in (False, True):
        student = copy.deepcopy(plain)
        if checkpointed:
            checkpoint_gradients(student)
        module = module_of(student, teacher, *terms("llama")[:2])
        module.objective = Objective(dict(module.objective.terms.items()), balance())
        module.prepare(batch())
        student.train()
        values, *_ = module.read_sources(batch(), heads="skipped")
        losses = module.objective(values)
        module.objective.minimised(losses, trainable_by_name(module.student)).backward()
        found.append({n: p.grad for n, p in student.named_parameters()})
    assert_close(found[1], found[0], rtol=1e-4, atol=1e-7)


def test_a_model_that_cannot_is_refused():
    with pytest.raises(
        ValueError, match=r"models of transformers that support it, and Linear does"
    ):
        checkpoint_gradients(nn.Linear(2, 2))
    checkpoint_gradients(bert(1, 8))
