"""Hidden states and attention maps of causal models beside the fused term."""

import copy
from functools import partial

import pytest
import torch
from causal import batch, fused, model, module_of, step
from tiny import loader, trainer
from torch import nn
from torch.testing import assert_close

from lightning_distill import distill, DistillationModule, Objective, Term
from lightning_distill.criteria import (
    AttentionKL,
    AttentionMSE,
    CosineHidden,
    FusedLinearDivergence,
    Hint,
    MiniLMRelation,
)
from lightning_distill.models.capture import read
from lightning_distill.models.quantization import quantized
from lightning_distill.models.source import Source
from lightning_distill.tasks import LanguageModelling, Task
from lightning_distill.training.distill import _objective
from lightning_distill.training.trial import ROLES

FAMILIES = {
    "gpt2": ("transformer.h", "attn.c_proj"),
    "llama": ("model.layers", "self_attn.v_proj"),
    "qwen2, tied": ("model.layers", "self_attn.v_proj"),
    "gemma2": ("model.layers", "self_attn.v_proj"),
}


def both(path, mask=True):
    masks = {"mask": "batch.attention_mask"} if mask else {}
    return {role: f"{role}.{path}" for role in ("student", "teacher")} | masks


def terms(name, **options):
    layers, values = FAMILIES[name]
    return {
        "fused": fused(label_weight=0.5, **options),
        "hint": Term(Hint(), both(f"layer:{layers}.*")),
        "cosine": Term(CosineHidden(), both("hidden_states[1:]")),
        "attention_kl": Term(AttentionKL(), both("attentions[*]")),
        "attention_mse": Term(AttentionMSE(), both("attentions[-1]")),
        "relations": Term(MiniLMRelation(2), both(f"layer:{layers}.1.{values}")),
    }


def losses(module):
    """Of all terms, without dropout."""
    module.eval()
    with torch.no_grad():
        values, *_ = module.read_sources(batch(), heads="skipped")
        return {name: float(v) for name, v in module.objective(values).items()}


@pytest.mark.parametrize("name", FAMILIES)
def test_all_of_them_fall_together_and_no_logits_are_made(name, tmp_path):
    student, teacher = model(name, layers=2), model(name, 53, layers=2, seed=1)
    for layers in (student, teacher):
        # Far enough from uniform that attention and predictions say something.
        with torch.no_grad():
            for parameter in layers.parameters():
                parameter.mul_(3 if parameter.dim() > 1 else 1)
    adam = partial(torch.optim.Adam, lr=3e-3)
    module = DistillationModule(student, teacher, Objective(terms(name)), optimizer=adam)
    module.prepare(batch())
    values, of_student, of_teacher = module.read_sources(batch(), heads="skipped")
    assert of_student.logits.numel() == of_teacher.logits.numel() == 0
    # Nothing but what is asked for, and that of the layers that are named.
    asked = {str(s) for role in ROLES for s in module.objective.sources(role)}
    assert {str(s) for s in values} == asked
    assert f"student.layer:{FAMILIES[name][0]}.1" in asked
    maps = of_student.attentions[-1]
    assert (maps.triu(1) == 0).all() and (maps.tril() > 0).any()
    before = losses(module)
    module.train()
    trainer(tmp_path).fit(module, loader([batch()] * 12))
    after = losses(module)
    assert all(0 < value < float("inf") for value in after.values())
    for term in ("loss", "fused", "hint", "cosine"):
        assert after[term] < before[term], term


@pytest.mark.parametrize("name", FAMILIES)
def test_values_and_gradients_of_each_are_finite_and_those_beside_plain_logits(name):
    student, teacher = model(name, layers=2), model(name, layers=2, seed=1)
    found = []
    for way in (True, False):
        module = module_of(copy.deepcopy(student), teacher, *terms(name, fused=way).values())
        loss, gradients, *_ = step(module, batch())
        found.append((loss, gradients))
        assert loss.isfinite() and all(g.isfinite().all() for g in gradients.values())
    assert_close(found[0], found[1], rtol=1e-3, atol=1e-6)


def packed(rows=3):
    """Two documents in each row, and no padding."""
    ids = torch.randint(1, 48, (rows, 9), generator=torch.Generator().manual_seed(2))
    positions = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 4]).expand(rows, -1)
    return {"input_ids": ids, "position_ids": positions, "labels": ids}


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_in_packed_rows_all_tokens_count_whatever_mask_is_named(name):
    student, teacher = model(name, layers=2), model(name, layers=2, seed=1)
    chosen = [t for n, t in terms(name).items() if n != "fused"]
    module = module_of(student, teacher, *chosen)
    module.prepare(packed())
    values, answers, _ = module.read_sources(packed(), heads="skipped")
    ones = torch.ones(3, 9, dtype=torch.long)
    with_ones = {s: ones if str(s) == "batch.attention_mask" else v for s, v in values.items()}
    assert values[Source.parse("batch.attention_mask")] is None
    assert_close(module.objective(values), module.objective(with_ones))
    # The second document does not look at the first.
    assert not answers.attentions[-1][..., 4:, :4].any()
    with pytest.raises(ValueError, match=r"batch.attention_mask is not there: the batch has no"):
        read(Source.parse("batch.attention_mask"), {"input_ids": ones}, {})


def fused_and_plain(student, teacher):
    return [
        step(module_of(copy.deepcopy(student), teacher, fused(fused=way)), batch())
        for way in (True, False)
    ]


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2"])
def test_a_teacher_in_bfloat16_is_compared_in_its_own_type(name):
    student, teacher = model(name), model(name, 53, layers=2, seed=1)
    exact, _ = fused_and_plain(student, teacher)
    rough = fused_and_plain(student, copy.deepcopy(teacher).bfloat16())
    assert_close(rough[0][:2], rough[1][:2], rtol=1e-3, atol=1e-6)
    assert rough[0][0] != exact[0]
    assert_close(rough[0][0], exact[0], rtol=0.05, atol=1e-3)
    assert {g.dtype for g in rough[0][1].values()} == {torch.float32}


@pytest.mark.parametrize("name", ["llama", "qwen2, tied"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_teacher_in_eight_bits_keeps_its_head_whole(name, dtype):
    pytest.importorskip("torchao", reason="pip install 'lightning-distill[quantization]'")
    student, teacher = model(name), model(name, 53, layers=2, seed=1)
    small = quantized(copy.deepcopy(teacher).to(dtype), "int8")
    assert type(small.lm_head.weight) is nn.Parameter
    assert type(small.model.layers[0].mlp.up_proj.weight) is not nn.Parameter
    assert (small.lm_head.weight is small.model.embed_tokens.weight) == ("tied" in name)
    exact, _ = fused_and_plain(student, teacher)
    rough = fused_and_plain(student, small)
    assert_close(rough[0][:2], rough[1][:2], rtol=1e-3, atol=1e-6)
    assert rough[0][0] != exact[0]
    assert_close(rough[0][0], exact[0], rtol=0.05, atol=1e-3)


def test_a_head_in_eight_bits_is_refused():
    torchao = pytest.importorskip("torchao.quantization")
    teacher = model("llama")
    torchao.quantize_(teacher, torchao.Int8DynamicActivationInt8WeightConfig())
    with pytest.raises(
        ValueError, match=r"'lm_head' of LlamaForCausalLM is quantised \(Int8Tensor"
    ):
        module_of(model("llama"), teacher, fused()).prepare(batch())


def shifted():
    """Labels that are the tokens that follow."""
    given = batch()
    given["labels"] = torch.cat([given["labels"][:, 1:], torch.full((3, 1), -100)], dim=1)
    return given


@pytest.mark.parametrize(("name", "path"), [("gpt2", "lm_head"), ("gemma2", "lm_head")])
def test_by_default_two_causal_models_are_compared_without_their_logits(name, path, tmp_path):
    student, teacher = model(name, 50), model(name, 53, layers=2, seed=1)
    default = _objective(None, student, teacher, LanguageModelling())
    (term,) = default.terms.values()
    assert isinstance(term.criterion, FusedLinearDivergence) and term.criterion.fused
    assert str(term.inputs["student_head"]) == f"student.head:{path}"
    loss, gradients, *shapes = step(DistillationModule(student, teacher, default), shifted())
    assert [tuple(s) for s in shapes] == [(3, 7, 0), (3, 7, 0)]
    plain = _objective(None, student, teacher, LanguageModelling())
    plain.terms["fused_linear_divergence"].criterion.fused = False
    found = step(DistillationModule(copy.deepcopy(student), teacher, plain), shifted())
    assert_close((loss, gradients), found[:2], rtol=1e-3, atol=1e-6)
    # Cross-entropy and KL at temperature 1, by their definitions.
    given = shifted()
    labels = given.pop("labels")
    counted = labels != -100
    s, t = student(**given).logits[counted].log_softmax(-1), teacher(**given).logits[counted]
    t = t[..., :50].log_softmax(-1)
    expected = nn.functional.nll_loss(s, labels[counted])
    expected = expected + nn.functional.kl_div(s, t, log_target=True, reduction="batchmean")
    assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    before = copy.deepcopy(student.state_dict())
    distill(student, teacher, loader([shifted()]), trainer=trainer(tmp_path))
    assert any(not torch.equal(v, before[n]) for n, v in student.state_dict().items())


def test_other_models_are_compared_by_their_logits_by_default():
    student = model("llama")
    student.lm_head = nn.Sequential(student.lm_head)
    for models in ((student, model("llama")), (model("llama"), None), (nn.Linear(2, 2),) * 2):
        assert list(_objective(None, *models, Task()).terms) == ["hard_label", "soft_target"]
