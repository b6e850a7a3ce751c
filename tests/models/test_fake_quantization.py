"""Rounded weights and inputs, beside the definition in float64; and the same as real integers."""

import copy

import pytest
import torch
from tiny import bert, gpt2, text_batches
from torch import nn
from torch.testing import assert_close
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

pytest.importorskip("torchao", reason="pip install 'lightning-distill[quantization]'")

from lightning_distill.models.encoder import have_one_encoder
from lightning_distill.models.fake_quantization import (
    fake_layers,
    fake_quantized,
    in_integers,
    in_plain_layers,
    quantization_in_training,
    without_rounding,
)
from lightning_distill.models.head import head_of
from lightning_distill.quantization_schemes import Quantization, SCHEMES, TRAINED

EVERY = [(scheme, train) for scheme in SCHEMES for train in TRAINED]


def how(scheme, train="weights"):
    return Quantization(SCHEMES[scheme], train)


def inputs():
    (batch,) = text_batches(1)
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


@torch.no_grad()
def logits(model):
    return model(**inputs()).logits


def rounded(weight, bits, group):
    """Weights as whole numbers times a scale, of which the largest fits in half of 2^bits - 1."""
    group = weight.shape[1] if group is None or weight.shape[1] % group else group
    blocks = weight.double().unflatten(1, (-1, group))
    scale = blocks.abs().amax(-1, keepdim=True) / ((2**bits - 1) / 2)
    whole = (blocks / scale).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return (whole * scale).flatten(1), scale[..., 0]


def rounded_tokens(x):
    """Each token in 256 steps from its smallest number, or 0, to its largest, or 0."""
    x = x.double()
    low, high = x.amin(-1, keepdim=True).clamp(max=0), x.amax(-1, keepdim=True).clamp(min=0)
    scale = (high - low) / 255
    zero = (-128 - (low / scale).round()).clamp(-128, 127)
    return (((x / scale).round() + zero).clamp(-128, 127) - zero) * scale


@pytest.mark.parametrize("width", [64, 48], ids=["in_groups", "one_scale_per_output"])
@pytest.mark.parametrize(("scheme", "train"), EVERY)
def test_a_layer_computes_with_rounded_numbers(scheme, train, width):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(width, 24))
    own = SCHEMES[scheme]
    with torch.no_grad():
        # The smallest number in the place of the largest would lie half between two whole ones.
        size = own.group if own.group and width % own.group == 0 else width
        blocks = model[0].weight.unflatten(1, (-1, size))
        blocks *= torch.where(blocks.amax(-1) > -blocks.amin(-1), 1, -1)[..., None]
    weight, bias = (p.detach().clone() for p in model[0].parameters())
    x = torch.randn(3, 5, width)
    expected = rounded(weight, own.bits, own.group)[0]
    seen = rounded_tokens(x) if own.activations else x.double()
    found = fake_quantized(model, how(scheme, train))(x)
    assert_close(found.double(), seen @ expected.T + bias.double(), atol=1e-5, rtol=1e-5)
    assert (expected - weight).abs().max() > 1e-4


def test_a_gradient_passes_the_rounding_but_not_what_is_cut_off():
    torch.manual_seed(0)
    model = fake_quantized(nn.Sequential(nn.Linear(32, 8)), how("int4_weights"))
    x, out = torch.randn(6, 32), torch.randn(6, 8)
    (model(x) * out).sum().backward()
    weight = model[0].weight
    scale = rounded(weight.detach(), 4, 32)[1]
    inside = (weight.double() / scale).round() <= 7
    assert 0 < (~inside).sum() < 8
    assert_close(weight.grad, (out.T @ x) * inside)


def test_the_gradient_of_a_scale_is_that_of_the_paper():
    """Esser et al., 2020, equation 3: of v / s, and of the end of the range where it is cut off."""
    torch.manual_seed(0)
    model = fake_quantized(nn.Sequential(nn.Linear(64, 8)), how("int4_weights", "scales"))
    scale = model[0].weight_fake_quantizer.scale
    with torch.no_grad():
        # So that both ends cut off.
        scale *= 0.6
    x, out = torch.randn(6, 64), torch.randn(6, 8)
    (model(x) * out).sum().backward()
    v = model[0].weight.detach().double().unflatten(1, (2, 32)) / scale.detach()[..., None].double()
    slope = torch.where(v.round() < -8, -8, torch.where(v.round() > 7, 7, v.round() - v))
    expected = (slope * (out.T @ x).double().unflatten(1, (2, 32))).sum(-1)
    assert (v.round() > 7).any() and (v.round() < -8).any()
    assert_close(scale.grad.double(), expected, atol=1e-4, rtol=1e-4)
    assert [n for n, p in model.named_parameters() if p.requires_grad] == [
        "0.weight_fake_quantizer.scale"
    ]


@pytest.mark.parametrize(("scheme", "train"), EVERY)
def test_plain_layers_and_integers_answer_as_after_the_training(scheme, train):
    model = fake_quantized(bert(2, 32, seed=3), how(scheme, train)).eval()
    before = logits(model)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    for _ in range(3):
        model(**inputs()).logits.square().sum().backward()
        optimizer.step()
    trained = logits(model)
    assert (trained - before).abs().max() > 1e-4
    real, plain = in_integers(model), in_plain_layers(model)
    assert_close(logits(real), trained, atol=1e-6, rtol=1e-5)
    assert real.bert.encoder.layer[0].output.dense.weight.qdata.dtype == torch.int8
    if not SCHEMES[scheme].activations:
        assert torch.equal(logits(plain), trained)
    assert {type(m) for m in plain.modules() if isinstance(m, nn.Linear)} == {nn.Linear}
    assert quantization_in_training(plain) is None and len(fake_layers(model)) == 14
    # They are copies.
    assert torch.equal(logits(model), trained)


def test_without_rounding_it_is_the_model_that_it_was():
    model = bert(1, 32).eval()
    before = logits(model)
    fake_quantized(model, how("int4"))
    after = logits(model)
    with without_rounding(model):
        assert torch.equal(logits(model), before)
    assert torch.equal(logits(model), after) and not torch.equal(after, before)


def test_names_modes_and_random_numbers_stay():
    model = bert(1, 8)
    model.bert.encoder.eval().requires_grad_(False)
    names, modes = [*model.state_dict()], {n: m.training for n, m in model.named_modules()}
    trained = [n for n, p in model.named_parameters() if p.requires_grad]
    state = torch.random.get_rng_state()
    fake_quantized(model, how("int8"))
    in_integers(model), in_plain_layers(model)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert [*model.state_dict()] == names
    assert [n for n, p in model.named_parameters() if p.requires_grad] == trained
    assert {n: model.get_submodule(n).training for n in modes} == modes


def test_scales_are_in_checkpoints_and_move_with_the_model():
    first, second = (
        fake_quantized(bert(1, 8, seed=s).eval(), how("int4", "scales")) for s in (1, 2)
    )
    with torch.no_grad():
        for layer in fake_layers(first).values():
            layer.weight_fake_quantizer.scale *= 1.1
    second.load_state_dict(first.state_dict())
    assert torch.equal(logits(second), logits(first)) and len(fake_layers(first)) == 8
    again = copy.deepcopy(first)
    assert torch.equal(logits(again), logits(first))
    meta = again.to("meta")
    assert {t.device.type for m in fake_layers(meta).values() for t in m.buffers()} == {"meta"}


def test_the_head_of_a_language_model_is_not_rounded():
    config = LlamaConfig(
        vocab_size=40, hidden_size=8, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    model = fake_quantized(LlamaForCausalLM(config), how("int4"))
    assert len(fake_layers(model)) == 7 and "lm_head" not in fake_layers(model)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert head_of(model, "lm_head").weight is model.lm_head.weight


def test_a_head_that_rounds_is_refused_where_logits_are_not_made():
    """The fused losses read its weight, and would not round it."""
    model = nn.Module()
    model.body, model.head = gpt2(1, 8), nn.Linear(8, 5)
    fake_quantized(model, how("int8"))
    with pytest.raises(ValueError, match="'head' of Module is a FakeQuantizedLinear and not a pl"):
        head_of(model, "head")


def test_a_projection_that_is_never_called_is_left_alone():
    model = nn.TransformerEncoderLayer(8, 2, 16)
    assert [*fake_layers(fake_quantized(model, how("int8")))] == ["linear1", "linear2"]


def test_an_encoder_that_rounds_is_not_the_teacher_s():
    config = T5Config(
        vocab_size=20, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, dropout_rate=0.0
    )
    teacher = T5ForConditionalGeneration(config).eval()
    student = copy.deepcopy(teacher)
    assert have_one_encoder(student, teacher)
    assert not have_one_encoder(fake_quantized(student, how("int4")), teacher)


def test_a_model_of_full_precision_has_no_integers():
    with pytest.raises(ValueError, match="was not trained with rounded weights"):
        in_integers(bert(1, 8))
